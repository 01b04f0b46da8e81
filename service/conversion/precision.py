"""A lower precision, published only where real data shows that it keeps its score.

The gate compares with float32 on the same files, through the code that serves.  Where eight bits in all four matrices
of the layer lose too much, the output of the feed-forward part goes back to float, then that of attention, then all
but the feed-forward part's input: the ones that suffer first go first.  Weights of seven bits are tried before those of
eight: they serve every processor alike.  With rows to measure ranges on, the forms that use them are tried first.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..errors import CheckpointError, QualityError
from ..repository.manifest import Graphs, Manifest
from ..repository.store import read_files, sha256
from ..runtime.processor import current
from ..runtime.providers import Device, choose
from ..serving.engine import Engine
from ..serving.loading import assemble, choose_precision, make_attention, make_model, make_task
from ..types import Sequence
from .builder import CPU, LAYER_MATRICES, ROUNDED, Target, WeightBits
from .graph import Network, build
from .ranges import measured
from .unrolled import build_layers, build_tensors, counts
from .verify import TOLERANCE, difference
from .weights import FILE as WEIGHTS

BITS: tuple[WeightBits, ...] = (7, 8)
INT8 = tuple(
    Target("cpu", "int8", matrices, bits)
    for bits in BITS
    for matrices in (LAYER_MATRICES, LAYER_MATRICES - {"down"}, frozenset({"qkv", "up"}), frozenset({"up"}))
)


@dataclass(frozen=True, slots=True)
class Gate:
    """``scores`` gives an engine's scores in points by name; each may lose at most ``points``.

    ``rows``, if given: what the ranges of eight bits are measured on (``ranges.py``).
    """

    points: float
    scores: Callable[[Engine], Mapping[str, float]]
    rows: Callable[[Engine], Seq[Sequence]] | None = None

    def lost(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        return max(before[name] - after[name] for name in before)


def check_wish(precision: str, *, gated: bool) -> None:
    """CheckpointError where a lower precision is asked for and nothing is given to measure it on."""
    if precision in ("int8", "fp16") and not gated:
        raise CheckpointError(
            f"{precision} is published only where it keeps its score: give real data with --gate FILE"
        )


def staged_engine(folder: Path, manifest: Manifest, device: Device | None = None, *, exact: bool = False) -> Engine:
    """What lies in ``folder`` as an engine, by a manifest that need not be published yet; on the CPU if not said."""
    files, chosen = read_files(folder, manifest), device or choose("cpu")
    precision = "float32" if exact else choose_precision(manifest.graphs[chosen.kind])
    model = make_model(files, manifest, chosen, precision)
    engine = assemble(manifest, make_task(files, manifest), model, precision, budget=1024)
    engine.open_attention = lambda: make_attention(read_files(folder, manifest), manifest)
    return engine


def write_graphs(network: Network, folder: Path, target: Target) -> Graphs:
    """Embedding, layers in the form of the device, and head."""
    names = {part: f"{part}.{target.device}.onnx" for part in ("embed", "head")}
    for part, name in names.items():
        write_graph(build(part, network, target), folder / name)
    layers = _unrolled if target.device == "cuda" else _looped
    return Graphs.model_validate({"precision": target.precision} | names | layers(network, folder, target))


def _looped(network: Network, folder: Path, target: Target) -> dict[str, Any]:
    """Eight bits come with the same layers in float32 beside them."""
    layers, exact = folder / "layers.cpu.onnx", folder / "layers.cpu.float32.onnx"
    write_graph(build("layers", network, target), layers)
    if not target.int8:
        exact.unlink(missing_ok=True)
        return {"layers": layers.name}
    write_graph(build("layers", network, CPU), exact)
    return {"layers": layers.name, "float32_layers": exact.name, "weight_bits": target.weight_bits}


def _unrolled(network: Network, folder: Path, target: Target) -> dict[str, Any]:
    files = {count: f"layers.cuda.{count}.onnx" for count in counts(network.shape.num_hidden_layers)}
    for count, name in files.items():
        write_graph(build_layers(network, target, count), folder / name)
    write_graph(build_tensors(network, target), folder / "tensors.cuda.onnx")
    return {"tensors": "tensors.cuda.onnx", "unrolled": files}


def size_of(folder: Path) -> int:
    """Bytes of a version's graphs and weights."""
    return sum(path.stat().st_size for path in (*folder.glob("*.onnx"), folder / WEIGHTS))


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))


def lowered(folder: Path, manifest: Manifest, network: Network, wish: str, gate: Gate | None) -> Manifest:
    """The manifest with graphs in the precision of ``wish``; the files in ``folder`` are then those that it names.

    auto: on the CPU the fastest that passes, on CUDA float16 if it does.  int8, fp16: that one, or QualityError.  fp32:
    nothing lower anywhere.  With a gate or without, CUDA has float16 only where rounding every kernel's output to it
    keeps the logits within ``verify``'s tolerance: what overflows there would answer nonsense on a card.
    """
    if wish == "fp32":
        return put(folder, manifest, network, Target("cuda", "float32"))
    manifest = rounded(folder, manifest, network)
    if manifest.graphs["cuda"].precision == "float32" and wish == "fp16":
        raise QualityError(f"fp16 cannot be published: {manifest.precision['rounding']['why']}; publish fp32")
    if gate is None:
        return manifest
    trial = _Trial(folder, manifest, network, gate)
    manifest = trial.half(must=wish == "fp16")
    if wish != "fp16":
        manifest = trial.eight_bits(manifest, must=wish == "int8")
    return manifest.model_copy(update={"precision": trial.report | manifest.precision})


def rounded(folder: Path, manifest: Manifest, network: Network) -> Manifest:
    """With CUDA's graphs in float32 where float16 is too coarse or overflows, and what was seen."""
    exact = staged_engine(folder, manifest, exact=True)
    trial = put(folder, manifest, network, ROUNDED)
    worst, most = difference(exact, staged_engine(folder, trial)), TOLERANCE["float16"]
    manifest = put(folder, manifest, network, CPU)
    if worst <= most:
        return manifest.model_copy(
            update={"precision": {"rounding": {"difference": round(worst, 5), "tolerance": most}}}
        )
    off = f"are off by {worst:.2g} of the largest" if math.isfinite(worst) else "overflow"
    why = f"rounded to float16 as CUDA does, the logits {off}"
    report = {"cuda": "float32", "rounding": {"why": why, "tolerance": most}}
    return put(folder, manifest, network, Target("cuda", "float32")).model_copy(update={"precision": report})


class _Trial:
    """Tries lower precisions on the files in ``folder`` and reports what each scored and how fast it was."""

    def __init__(self, folder: Path, manifest: Manifest, network: Network, gate: Gate) -> None:
        self._folder, self._start, self._network, self._gate = folder, manifest, network, gate
        self._exact = staged_engine(folder, manifest)
        self._before = gate.scores(self._exact)
        entry = _entry(self._before, speed(self._exact))
        self.report: dict[str, Any] = {"gate_points": gate.points, "float32": entry, "tried": []}

    def half(self, *, must: bool) -> Manifest:
        """CUDA's graphs in float16 if its rounding keeps the score; seen on the CPU, which rounds as CUDA does."""
        if self._start.graphs["cuda"].precision == "float32":
            return self._start
        _, lost, _ = self._try(self._start, ROUNDED)
        manifest = put(self._folder, self._start, self._network, CPU)
        self.report["cuda"] = "float16"
        if lost <= self._gate.points:
            return manifest
        if must:
            raise QualityError(f"fp16 loses {lost:g} points, the gate allows {self._gate.points:g}: publish fp32")
        self.report["cuda"] = "float32"
        return put(self._folder, manifest, self._network, Target("cuda", "float32"))

    def eight_bits(self, manifest: Manifest, *, must: bool) -> Manifest:
        """The CPU's graphs in int8 if a form of it keeps the score and is faster than float32 (or is a must)."""
        self.report["cpu"] = "int8"
        # Weights of eight bits cannot be judged without VNNI: their products overflow here.
        for target in (one for one in self._forms() if one.weight_bits == 7 or current().vnni):
            tried, lost, seconds = self._try(manifest, target)
            # Both timed now: what else the machine does at another time decides nothing.
            if lost <= self._gate.points and (must or seconds < speed(self._exact)):
                return tried
        if must:
            least = min(entry["lost"] for entry in self.report["tried"] if entry["precision"] == "int8")
            raise QualityError(
                f"int8 loses at least {least:g} points, the gate allows {self._gate.points:g}: publish fp32, or allow "
                "more with --gate-points"
            )
        return self._floats(manifest)

    def _forms(self) -> Seq[Target]:
        """Those with measured ranges first, which are faster; all weights of seven bits before those of eight."""
        if self._gate.rows is None:
            return INT8
        ranges = measured(self._folder, self._network, self._exact, self._gate.rows(self._exact))
        every = [*(replace(target, ranges=ranges) for target in INT8), *INT8]
        return sorted(every, key=lambda target: target.weight_bits)

    def _floats(self, manifest: Manifest) -> Manifest:
        self.report["cpu"] = "float32"
        return put(self._folder, manifest, self._network, CPU)

    def _try(self, manifest: Manifest, target: Target) -> tuple[Manifest, float, float]:
        """The manifest with the graphs of ``target``, the points that they lose, and the seconds of a step."""
        tried = put(self._folder, manifest, self._network, target)
        engine = staged_engine(self._folder, tried)
        after, seconds = self._gate.scores(engine), speed(engine)
        lost = round(self._gate.lost(self._before, after), 3)
        entry: dict[str, Any] = {"precision": target.precision, "matrices": sorted(target.int8), "lost": lost}
        entry |= {"weight_bits": target.weight_bits} if target.int8 else {}
        entry |= {"ranges": "measured"} if target.ranges else {}
        self.report["tried"].append(entry | _entry(after, seconds))
        return tried, lost, seconds


def put(folder: Path, manifest: Manifest, network: Network, target: Target) -> Manifest:
    """Write the graphs of ``target`` in place of those of its device."""
    graphs = write_graphs(network, folder, target)
    devices = manifest.graphs | {target.device: graphs}
    gone = set(manifest.graphs[target.device].files()) if target.device in manifest.graphs else set()
    sums = {name: value for name, value in manifest.sha256.items() if name not in gone}
    sums |= {name: sha256(folder / name) for name in graphs.files()}
    return manifest.model_copy(update={"graphs": devices, "sha256": sums})


def _entry(scores: Mapping[str, float], seconds: float) -> dict[str, Any]:
    return {"scores": dict(scores), "ms_per_512_tokens": round(1000 * seconds, 2)}


def speed(engine: Engine, rounds: int = 5) -> float:
    """Seconds of one step of eight sequences of 64 tokens; the fastest of ``rounds``."""
    length = min(64, engine.manifest.max_length)
    row = Sequence(np.ones(length, dtype=np.int32), np.zeros(length, dtype=np.int32), length)
    engine.run([row] * 8)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        engine.run([row] * 8)
        times.append(time.perf_counter() - began)
    return min(times)
