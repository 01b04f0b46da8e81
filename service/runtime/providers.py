"""Which device runs the models: asked for by name, proven by running something on it, never swapped in silence."""

import ctypes
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from ..errors import DeviceError, UsageError
from . import driver, probe
from .small import small_graph

RUNTIME_VERSION: str = ort.__version__
NOT_ON_CUDA = "ep:'CPUExecutionProvider'"  # the probe has an operator that the CPU has no kernel for


@dataclass(frozen=True, slots=True)
class Device:
    """``kind`` and ``index`` name it; ``providers`` is what ONNX Runtime is told; ``reason`` is for the log.

    ``threads`` of the CPU run a model's layers, 0 for all cores; ``spin``: they wait for work without sleeping.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0
    providers: list[Any] = field(default_factory=lambda: ["CPUExecutionProvider"])
    reason: str = ""
    threads: int = 0
    spin: bool = False

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"


def choose(wanted: str, *, threads: int = 0, spin: bool = False, memory_limit: int = 0) -> Device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``threads`` and ``spin`` as in ``Device``; ``memory_limit`` in bytes of all CUDA sessions of the process, 0: none.
    DeviceError where a named device does not work, saying what is missing; UsageError where there is none of the name.
    """
    kind, _, number = wanted.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", wanted):
        raise UsageError(f"device is {wanted!r}; wanted auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return Device("cpu", reason="asked for", threads=threads, spin=spin)
    device = _cuda(int(number or 0))
    reason = _why_no_cuda(device)
    if not reason:
        _share_memory(device.index, memory_limit)
        return device
    if kind == "cuda":
        raise DeviceError(f"{wanted} was asked for and does not work: {reason}")
    return Device("cpu", reason=f"no CUDA: {reason}", threads=threads, spin=spin)


def _cuda(index: int) -> Device:
    options = {"device_id": index, "arena_extend_strategy": "kSameAsRequested"}
    return Device("cuda", index, [("CUDAExecutionProvider", options), "CPUExecutionProvider"], "it works")


def _why_no_cuda(device: Device) -> str:
    """Why CUDA does not work here, in words that say what to do; empty where it does."""
    ort.preload_dlls()  # finds the CUDA libraries that came as wheels; without it only the system's are looked for
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this onnxruntime has no CUDA. Install the extra 'gpu' (onnxruntime-gpu) in place of 'cpu'."
    release = getattr(ort, "cuda_version", "")
    try:
        if cause := driver.why_not(driver.read(), device.index, release):
            return f"{cause}."
    except driver.DriverError as error:
        return f"{error}."
    try:
        # Without the CPU beside it nothing is swapped in silence.
        session = ort.InferenceSession(
            small_graph("probe"), _quiet(), providers=device.providers[:1], enable_fallback=0
        )
        difference = probe.difference(session)
    except Exception as error:
        if NOT_ON_CUDA in str(error):  # the provider did not come up, and its cause went into ONNX Runtime's log
            cause = driver.runtime_error(release) or _missing()
            return f"{cause}. The libraries come with the extra 'gpu'; see that nvidia-smi lists the GPU."
        return f"{error}. See that nvidia-smi lists the GPU, and that the container was started with it."
    if not difference <= probe.TOLERANCE:  # written so that a NaN fails
        return (
            f"the card computes something else: a product and attention in float16 are off by {difference:.2g}. Look "
            "for a driver, a card or a library that does not fit the others (nvidia-smi -q, dmesg)."
        )
    return ""


def _missing() -> str:
    """What the system says where the provider's own library is loaded."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return "ONNX Runtime's own log, just above, says more"


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


@functools.cache
def _share_memory(index: int, limit: int) -> None:
    """One arena for all sessions of the process on card ``index``; ``limit`` in bytes, 0 for what the card has."""
    about = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, index, ort.OrtMemType.DEFAULT)
    # Growing by what is asked keeps the arena near what is used; doubling it leaves half of a card unused.
    extend_as_requested = 1
    arena = ort.OrtArenaCfg({"max_mem": limit, "arena_extend_strategy": extend_as_requested,
                             "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1})  # fmt: skip
    ort.create_and_register_allocator_v2("CUDAExecutionProvider", about, {"device_id": str(index)}, arena)
