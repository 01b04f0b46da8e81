"""The stand-in for CUDA, from Python: what a block of code asked of the card, and which card it meets.

Import it before onnxruntime, in a process of its own.  It loads the libraries in the folder that the environment names
in ``ALBERT_SERVE_STANDIN_CUDA`` (``build.sh``), as the CUDA provider asks for them, and puts that folder's
onnxruntime-gpu first on the path.

    with standin.traced() as trace:
        session.run(None, feeds)
    assert trace.waits == 1
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

VARIABLE = "ALBERT_SERVE_STANDIN_CUDA"
_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcuda.so.1")


@dataclass(slots=True)
class Trace:
    """Counts of a block, filled when it ends.  ``waits`` are calls that wait for the card by name (...Synchronize)."""

    launches: int = 0  # of kernels, products of cuBLAS among them
    h2d: int = 0
    d2h: int = 0
    d2d: int = 0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    d2d_bytes: int = 0
    waits: int = 0
    allocations: int = 0  # of device memory, by cudaMalloc


_NAMES = tuple(field.name for field in fields(Trace))


class _Counters(ctypes.Structure):
    """``struct standin_counters`` of runtime/standin.h, in the same order."""

    _fields_ = [(name, ctypes.c_int64) for name in _NAMES]


def _load(folder: Path) -> list[ctypes.CDLL]:
    if "onnxruntime" in sys.modules:
        raise ImportError("onnxruntime is imported already; import the stand-in before it")
    sys.path.insert(0, str(folder / "gpu"))
    # Global, so that the provider finds what it needs without a search of the system's folders.
    return [ctypes.CDLL(str(folder / "lib" / name), mode=ctypes.RTLD_GLOBAL) for name in _LIBRARIES]


if VARIABLE not in os.environ:
    raise ImportError(f"{VARIABLE} is not set; tests/cuda/build.sh makes the folder that it names")
_runtime, *_others = _load(Path(os.environ[VARIABLE]))
_runtime.standin_live.restype = _runtime.standin_peak.restype = ctypes.c_size_t
_runtime.standin_limit.argtypes = [ctypes.c_size_t]
_runtime.standin_uncomputed.restype = ctypes.c_int64
_runtime.standin_uncomputed_name.restype = ctypes.c_char_p


def _counted() -> list[int]:
    counters = _Counters()
    _runtime.standin_counters(ctypes.byref(counters))
    return [getattr(counters, name) for name in _NAMES]


@contextmanager
def traced() -> Iterator[Trace]:
    """Count what the block, in all threads, asks of the card.  Blocks may lie in one another."""
    trace, before = Trace(), _counted()
    try:
        yield trace
    finally:
        for name, start, end in zip(_NAMES, before, _counted(), strict=True):
            setattr(trace, name, end - start)


def live() -> int:
    """Bytes of device memory that are allocated now, on all cards together."""
    return int(_runtime.standin_live())


def peak() -> int:
    """The most bytes that were allocated at once, since the start or since ``reset_peak``."""
    return int(_runtime.standin_peak())


def reset_peak() -> None:
    """Let the peak begin again at what is allocated now."""
    _runtime.standin_reset_peak()


def limit(size: int) -> None:
    """Give the card ``size`` bytes, above which an allocation answers that memory is out; 0 for the default, 80 GiB."""
    _runtime.standin_limit(size)


def fail(code: int) -> None:
    """Let every call from now on return the CUDA error ``code``, as after an illegal access (700); 0 ends that."""
    _runtime.standin_fail(code)


def no_device(code: int) -> None:
    """Have no usable card, with the error ``code``: 100 for none, 35 for a driver that is too old; 0 brings it back."""
    _runtime.standin_no_device(code)


def cards(count: int) -> None:
    """Have ``count`` cards; what names another index gets error 101, invalid device ordinal."""
    _runtime.standin_cards(count)


def capability(version: int) -> None:
    """Play a card of that compute capability: 75, 80, 86 or 90."""
    if version not in (75, 80, 86, 90):
        raise ValueError(f"the stand-in knows no card of compute capability {version}: it has 75, 80, 86 and 90")
    _runtime.standin_capability(version)


def driver(version: int) -> None:
    """Report that CUDA version for the driver: 13000 is 13.0."""
    _runtime.standin_driver(version)


def computing(on: bool) -> None:
    """Compute what kernels are launched for, on the host; off at the start.  Counts of ``uncomputed`` begin anew."""
    _runtime.standin_computing(int(on))
    _runtime.standin_forget_uncomputed()


def uncomputed() -> int:
    """How many launches, since computing was switched on, were of kernels that the stand-in cannot compute."""
    return int(_runtime.standin_uncomputed())


def uncomputed_names() -> list[str]:
    """The mangled names of those kernels, each once; 64 at most."""
    names = iter(_runtime.standin_uncomputed_name(index) for index in range(64))
    return [name.decode() for name in names if name]


def reset() -> None:
    """One working card of 9.0 with 80 GiB and driver 13.0, and no computing: what a process begins with."""
    fail(0)
    no_device(0)
    cards(1)
    capability(90)
    driver(13000)
    limit(0)
    computing(False)
