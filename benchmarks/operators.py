"""Where the time of a model goes, and on what: ONNX Runtime's own profiler, by operator, on one pack of texts.

python benchmarks/operators.py model_repo/sentiment/7 --lengths 16 [--device cuda]

On CUDA it fails where an operator of the model stayed on the CPU.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from models import row

from service.repository.manifest import Manifest
from service.repository.store import read_manifest
from service.runtime.cuda import GIVEN
from service.runtime.packing import Pack
from service.runtime.processor import current
from service.runtime.providers import Device, choose
from service.runtime.session import session_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16], help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = choose(options.device)
    manifest = read_manifest(options.version)
    rows = [row(length) for length in options.lengths]
    pack = Pack.of(rows)
    print(f"{sum(options.lengths)} tokens in {len(rows)} rows, {manifest.layers} layers, ms a pass:\n")
    hidden, strayed = None, set[str]()
    for part in ("embed", "layers", "head"):
        feeds = inputs(part, pack, manifest, hidden, options.version, device)
        graphs = manifest.graphs[device.kind]
        name = graphs.unrolled[manifest.layers] if part == "layers" and graphs.unrolled else getattr(graphs, part)
        hidden, spent = profile(options.version / name, feeds, options.rounds, device)
        report(part, spent)
        strayed |= {one.kind for one in spent if device.kind == "cuda" and one.provider == "CPU"}
    if strayed:
        raise SystemExit(f"left on the CPU: {', '.join(sorted(strayed))}")


@dataclass(slots=True)
class Spent:
    """Milliseconds and calls of one kind of operator in a pass."""

    kind: str
    provider: str
    milliseconds: float = 0.0
    calls: float = 0.0


def inputs(
    part: str, pack: Pack, manifest: Manifest, hidden: np.ndarray | None, version: Path, device: Device
) -> dict[str, np.ndarray]:
    if part == "embed":
        return {"ids": pack.ids, "positions": pack.positions, "types": pack.types}
    assert hidden is not None
    if part == "head":
        return {"hidden": hidden} | ({"starts": pack.starts} if manifest.task == "text-classification" else {})
    if device.kind == "cuda":
        given = ort.InferenceSession(str(version / str(manifest.graphs["cuda"].tensors)), providers=device.providers)
        names = [one.name for one in given.get_outputs()]
        weights = {name.removesuffix(GIVEN): value for name, value in zip(names, given.run(None, {}), strict=True)}
        return {"hidden": hidden, "token_offset": pack.token_offset, "cumulative": pack.cu_seqlens} | weights
    span = {"first": np.array(0, np.int64), "count": np.array(manifest.layers, np.int64)}
    plan = {"slots": pack.gather_index, "tokens_at": pack.scatter_index, "lengths": pack.lengths}
    return {"hidden": hidden, "kept": pack.every_token} | plan | span


def profile(path: Path, feeds: dict[str, np.ndarray], rounds: int, device: Device) -> tuple[np.ndarray, list[Spent]]:
    """The output, and what one pass spent on what: the mean of ``rounds`` after one that does not count."""
    options = session_options(device, threads=current().cores)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(path), options, providers=device.providers)
        feeds = {one.name: feeds[one.name] for one in session.get_inputs()}  # not all layers leave tokens behind
        for _ in range(rounds + 1):
            output = session.run(None, feeds)[0]
        events = json.loads(Path(session.end_profiling()).read_text())
    passes = sorted(event["ts"] for event in events if event["name"] == "model_run")
    whole = Spent("(the whole call)", "")
    spent: dict[tuple[str, str], Spent] = {}
    for event in (event for event in events if event["ts"] >= passes[1]):
        if event["name"] == "model_run":
            whole.milliseconds += event["dur"] / 1000 / rounds
        elif event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["args"]["provider"].removesuffix("ExecutionProvider")
            one = spent.setdefault(key, Spent(*key))
            one.milliseconds += event["dur"] / 1000 / rounds
            one.calls += 1 / rounds
    return output, [whole, *sorted(spent.values(), key=lambda one: -one.milliseconds)]


def report(part: str, spent: list[Spent]) -> None:
    print(f"| {part} | on | calls | ms |\n|---|---|---|---|")
    for one in spent:
        print(f"| {one.kind} | {one.provider} | {round(one.calls) or ''} | {one.milliseconds:.3f} |")
    print()


if __name__ == "__main__":
    main()
