"""Which device runs the models: asked for by name, proven by running something on it, never swapped in silence."""

import functools
import logging
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import onnxruntime as ort

from ..errors import DeviceError, UsageError
from .processor import current

log = logging.getLogger(__name__)
RUNTIME_VERSION: str = ort.__version__

# An ONNX model of one Identity node: the smallest thing that a provider can be seen to run.
_PROBE = bytes.fromhex(
    "080a3a370a100a017812017922084964656e746974791201705a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808"
    "0112040a02080142040a001014"
)


@dataclass(frozen=True, slots=True)
class Device:
    """``kind`` and ``index`` name it; ``providers`` is what ONNX Runtime is told; ``reason`` is for the log."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    providers: list[Any] = field(default_factory=lambda: ["CPUExecutionProvider"])
    reason: str = ""

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"


def choose(wanted: str, *, threads: int = 0, memory_limit: int = 0) -> Device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``threads`` of the CPU, 0 for all cores; ``memory_limit`` in bytes for the CUDA arena, 0 for none.
    DeviceError where a named device does not work, saying what is missing; UsageError where there is none of the name.
    """
    kind, _, number = wanted.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", wanted):
        raise UsageError(f"device is {wanted!r}; wanted auto, cpu, cuda or cuda:N")
    _share_threads(threads or current().cores)
    if kind == "cpu":
        return Device("cpu", reason="asked for")
    device = _cuda(int(number or 0), memory_limit)
    reason = _why_no_cuda(device)
    if not reason:
        return device
    if kind == "cuda":
        raise DeviceError(f"{wanted} was asked for and does not work: {reason}")
    return Device("cpu", reason=f"no CUDA: {reason}")


def _cuda(index: int, memory_limit: int) -> Device:
    # Growing by what is asked keeps the arena near what is used; doubling it leaves half of a card unused.
    options: dict[str, Any] = {"device_id": index, "arena_extend_strategy": "kSameAsRequested"}
    if memory_limit:
        options["gpu_mem_limit"] = memory_limit
    return Device("cuda", index, [("CUDAExecutionProvider", options), "CPUExecutionProvider"], "it works")


def _why_no_cuda(device: Device) -> str:
    """Why CUDA does not work here, in words that say what to do; empty where it does."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this onnxruntime has no CUDA. Install the extra 'gpu' (onnxruntime-gpu) in place of 'cpu'."
    ort.preload_dlls()  # finds the CUDA libraries that came as wheels; without it only the system's are looked for
    try:
        session = ort.InferenceSession(_PROBE, _quiet(), providers=device.providers)
    except Exception as error:
        return f"{error}. See that nvidia-smi lists the GPU, and that the container was started with it."
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return "CUDA, cuDNN or the driver cannot be loaded. Check nvidia-smi; the libraries come with the extra 'gpu'."
    return ""


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_per_session_threads = False
    return options


@functools.cache
def _share_threads(threads: int) -> None:
    """One pool for all sessions of the process; it can be set only once, before the first session."""
    try:
        ort.set_global_thread_pool_sizes(threads, 1)
    except Exception as error:  # a second, different wish: the pool in use stays
        log.warning("the pool of threads stays as it was first set: %s", error)
