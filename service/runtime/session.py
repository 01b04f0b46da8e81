"""One converted model in ONNX Runtime: its three graphs, run over packs of rows."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.errors import DeviceError, InferenceFailed, OutOfMemory, RepositoryError
from service.runtime.packing import Pack
from service.runtime.providers import Device
from service.types import Floats, Sequence


@dataclass(frozen=True, slots=True)
class Hidden:
    """The hidden state of a pack between layers, (tokens, hidden), and how many layers it has been through.

    ``value`` stays where the device keeps it: an array on the CPU, an OrtValue on CUDA.
    """

    value: Any
    depth: int = 0


class Model:
    """Runs one model on one device.  Not for two threads at once: the device's worker is its only caller.

    ``files`` are the paths of the graphs by part (embed, layers, head); ``layers`` is the full depth.
    """

    def __init__(self, files: dict[str, Path], device: Device, *, layers: int, pooled: bool) -> None:
        self.device = device
        self.depth = layers
        self._pooled = pooled
        self._stays = device.kind == "cuda"  # what comes out, there
        self._sessions = {part: _session(path, device) for part, path in files.items()}

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        """Logits of each row, through all layers: (labels,) for a classifier, (tokens of the row, 2) for spans."""
        pack = self.pack(rows)
        return self.finish(self.advance(self.begin(pack), pack, self.depth), pack)

    def pack(self, rows: Seq[Sequence]) -> Pack:
        """``rows`` as this model's device likes them."""
        return Pack.of(rows, rounded=self.device.kind == "cuda")

    def begin(self, pack: Pack) -> Hidden:
        return Hidden(self._call("embed", {"ids": pack.ids, "positions": pack.positions, "types": pack.types}))

    def advance(self, hidden: Hidden, pack: Pack, layers: int) -> Hidden:
        """Through the next ``layers`` layers."""
        span = {"first": np.array(hidden.depth, dtype=np.int64), "count": np.array(layers, dtype=np.int64)}
        plan = (
            {"token_offset": pack.token_offset, "cumulative": pack.cumulative}
            if self.device.kind == "cuda"
            else {"slots": pack.slots, "tokens_at": pack.tokens_at, "lengths": pack.lengths}
        )
        return Hidden(self._call("layers", {"hidden": hidden.value} | span | plan), hidden.depth + layers)

    def finish(self, hidden: Hidden, pack: Pack, rows: Seq[int] | None = None) -> list[Floats]:
        """Logits of ``rows``, or of all.  Any depth may be asked."""
        if self._pooled:
            starts = pack.starts[: pack.real] if rows is None else pack.starts[list(rows)]
            return list(_host(self._call("head", {"hidden": hidden.value, "starts": starts})))
        logits = pack.split(_host(self._call("head", {"hidden": hidden.value})))
        return logits if rows is None else [logits[index] for index in rows]

    def states(self, hidden: Hidden, pack: Pack) -> list[Any]:
        """Each row's part of the hidden state, (tokens of the row, hidden), in the host's memory."""
        return pack.split(_host(hidden.value))

    def _call(self, part: str, feeds: dict[str, Any]) -> Any:
        session = self._sessions[part]
        try:
            return _bound(session, feeds, self.device) if self._stays else session.run(None, feeds)[0]
        except Exception as error:  # ONNX Runtime's own kinds share no base but this
            text = str(error)
            if "out of memory" in text.lower() or "Failed to allocate memory" in text:
                raise OutOfMemory(f"{part}: {text}") from error
            raise InferenceFailed(f"{part}: {text}") from error


def _host(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())


def _bound(session: ort.InferenceSession, feeds: dict[str, Any], device: Device) -> Any:
    """Inputs from wherever they are, the output left on the device: hidden states never cross the bus.

    Buffers come from the device's arena, which packs of rounded sizes ask for the same pieces again and again.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        else:
            binding.bind_ortvalue_input(name, value)
    binding.bind_output(session.get_outputs()[0].name, device.kind, device.index)
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0]


def _session(path: Path, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # All models share one pool of threads: pools of their own would spin against each other for the same cores.
    options.use_per_session_threads = False
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=device.providers)
    except Exception as error:
        raise RepositoryError(f"{path} cannot be loaded: {error}. Convert the model again.") from error
    if device.kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(f"{path}: ONNX Runtime fell back to the CPU. Its own log, just above, names what it misses.")
    return session
