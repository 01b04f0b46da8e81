"""One converted model in ONNX Runtime: its three graphs, run over packs of rows."""

import re
from collections.abc import Mapping, Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ..errors import DeviceError, DeviceLost, InferenceFailed, OutOfMemory, RepositoryError, ServiceError
from ..heads import Head
from ..types import Floats, Ints, Sequence
from .packing import Pack
from .processor import current
from .providers import Device
from .reduction import SLICE, best_words, mean_and_first

# As the CPU's allocator, the CUDA arena with and without a limit, cuBLAS and cuDNN word it.
OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate memory|is smaller than requested bytes|bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION_FAILED|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
# After one of these every call of the process fails: the CUDA context is gone.
LOST = re.compile(
    r"CUDA failure \d+|CUDA error|cudaError[A-Z]|illegal memory access|unspecified launch failure|device-side assert"
    r"|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
    r"|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|MAPPING_ERROR)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """The hidden state of a pack between layers, (tokens, hidden), and how many layers it has been through.

    ``value`` stays where the device keeps it: an array on the CPU, an OrtValue on CUDA (``cuda.py``).  ``narrowed``:
    of the last layer there is what the head reads of some rows, in their order, and nothing else.
    """

    value: Any
    depth: int = 0
    narrowed: bool = False


class Model:
    """Runs one model on the CPU.  Not for two threads at once: the device's worker is its only caller.

    ``graphs`` holds the graphs by part (embed, layers, head) and ``weights`` the files that they name, by name: as
    bytes, so that what happens to the files later touches nothing that runs.  ``layers`` is the full depth.
    """

    def __init__(
        self, graphs: Mapping[str, bytes], weights: Mapping[str, bytes], device: Device, *, layers: int, head: Head
    ) -> None:
        self.device = device
        self.depth = layers
        self._head = head
        self._sessions = {part: open_session(part, graph, weights, device) for part, graph in graphs.items()}
        # Heads that read all tokens have no such input, nor versions of before: all of the last layer is computed.
        self._narrows = "layers" in graphs and "kept" in (one.name for one in self._sessions["layers"].get_inputs())

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        """Logits of each row, through all layers, as ``Head`` says."""
        pack = self.pack(rows)
        return self.head(self.advance(self.embed(pack), pack, self.depth, range(len(rows))), pack)

    def pack(self, rows: Seq[Sequence]) -> Pack:
        """``rows`` as this model's device likes them."""
        return Pack.of(rows)

    def embed(self, pack: Pack) -> Hidden:
        return Hidden(self._call("embed", {"ids": pack.ids, "positions": pack.positions, "types": pack.types}))

    def advance(self, hidden: Hidden, pack: Pack, layers: int, last_of: Seq[int] | None = None) -> Hidden:
        """Through the next ``layers`` layers.

        ``last_of``: rows of which nothing is wanted of the last layer but what the head reads.  They must be those that
        the head is asked for then; of the other rows nothing is left.
        """
        end = hidden.depth + layers
        if last_of is None or not self._narrows or end < self.depth:
            return Hidden(self._run_layers(hidden, pack, layers, pack.every_token), end)
        if layers > 1:
            hidden = self.advance(hidden, pack, layers - 1)
        return Hidden(self._run_layers(hidden, pack, 1, self._places(pack, last_of)), end, narrowed=True)

    def _run_layers(self, hidden: Hidden, pack: Pack, layers: int, kept: Ints) -> Any:
        span = {"first": np.array(hidden.depth, dtype=np.int64), "count": np.array(layers, dtype=np.int64)}
        plan = {"slots": pack.gather_index, "tokens_at": pack.scatter_index, "lengths": pack.lengths}
        plan |= {"kept": kept} if self._narrows else {}
        return self._call("layers", {"hidden": hidden.value} | span | plan)

    def head(self, hidden: Hidden, pack: Pack, rows: Seq[int] | None = None) -> list[Floats]:
        """Logits of ``rows``, or of all, as ``Head`` says.  Any depth may be asked."""
        if self._head.reads_few:
            asked = range(pack.real) if rows is None else rows
            places = self._places(pack, asked)
            if hidden.narrowed:
                places = np.arange(len(places), dtype=np.int32)
            if self._head is Head.POOLED:
                return list(self._call("head", {"hidden": hidden.value, "starts": places}))
            return np.split(self._words(hidden, places), np.cumsum(list(map(len, pack.masks(asked))))[:-1])
        if self._head is Head.STATES:
            states = pack.split(self._call("head", {"hidden": hidden.value}))
            return [mean_and_first(states[index]) for index in (range(pack.real) if rows is None else rows)]
        logits = pack.split(self._call("head", {"hidden": hidden.value}))
        return logits if rows is None else [logits[index] for index in rows]

    def _places(self, pack: Pack, rows: Seq[int]) -> Ints:
        """Where the head reads ``rows``, one after the other, if it reads a few tokens."""
        return np.concatenate(pack.masks(rows)) if self._head is Head.MASKS else pack.starts[list(rows)]

    def _words(self, hidden: Hidden, places: Ints) -> Floats:
        parts = [places[start : start + SLICE] for start in range(0, len(places), SLICE)]
        found = [self._call("head", {"hidden": hidden.value, "places": part}) for part in parts]
        return np.concatenate([best_words(logits) for logits in found])

    def states(self, hidden: Hidden, pack: Pack) -> list[Any]:
        """Each row's part of the hidden state, (tokens of the row, hidden), in the host's memory."""
        return pack.split(host(hidden.value))

    def keep(self, hidden: Hidden, pack: Pack, rows: Seq[int]) -> list[Any]:
        """The states of ``rows``, in their order, that outlive the pack; for ``resume``."""
        states = pack.split(hidden.value)
        return [states[row].copy() for row in rows]

    def resume(self, pack: Pack, new: Seq[Sequence], kept: Seq[Any], depth: int) -> Hidden:
        """The hidden state of ``pack``, whose rows are ``new`` ones, embedded now, and then those that were ``kept``.

        Their depths may differ; ``depth`` is that of the layers that the next ``advance`` runs first.
        """
        entering = self.pack(new) if new else None
        begun = self.states(self.embed(entering), entering) if entering else []
        return Hidden(pack.join([*begun, *kept]), depth)

    def give_back(self) -> None:
        """What the device holds for this model and nobody uses.  The CPU's arena is given back with the host's."""

    def _call(self, part: str, feeds: dict[str, Any]) -> Any:
        """The output of one graph; of the head, in the host's memory."""
        try:
            return self._sessions[part].run(None, feeds)[0]
        except Exception as error:  # ONNX Runtime's own kinds share no base but this
            raise translated(part, str(error)) from error


def translated(part: str, text: str) -> ServiceError:
    """ONNX Runtime's ``text`` of an error, as one of ours: the device has no memory, is lost, or neither."""
    if OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"{part}: {text}")
    if LOST.search(text):
        return DeviceLost(f"{part}: {text}")
    return InferenceFailed(f"{part}: {text}")


def host(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())


def session_options(device: Device, *, threads: int) -> ort.SessionOptions:
    """``threads`` of the CPU, 1 for none but the caller's.

    Where they wait for work by spinning, one sentence is up to a seventh faster on cores of their own, and a step half
    as fast where a neighbour or a quota has a part of them: each operator then waits for a thread that does not run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(device.spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or the pools of two models meet
    options.log_severity_level = 3
    return options


def open_session(part: str, graph: bytes, weights: Mapping[str, bytes], device: Device) -> ort.InferenceSession:
    # What surrounds the layers is too small to be shared out, and so is what CUDA leaves to the CPU.
    alone = device.kind == "cuda" or part in ("embed", "head")
    options = session_options(device, threads=1 if alone else device.threads or current().cores)
    # ONNX Runtime copies what it needs of them: nothing is mapped that another process could cut short (SIGBUS).
    options.add_external_initializers_from_files_in_memory(
        list(weights), list(weights.values()), [len(content) for content in weights.values()]
    )
    if device.kind == "cuda":
        # The arena of the process, which its limit is for.  Plans of memory, one a size, would hold more.
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False
    try:
        session = ort.InferenceSession(graph, options, providers=device.providers, enable_fallback=0)
    except Exception as error:
        if OUT_OF_MEMORY.search(str(error)) or LOST.search(str(error)):
            raise translated(part, str(error)) from error
        raise RepositoryError(f"the graph {part!r} cannot be loaded: {error}. Convert the model again.") from error
    if device.kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(f"{part}: ONNX Runtime fell back to the CPU. Its own log, just above, names what it misses.")
    return session
