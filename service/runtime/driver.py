"""What NVIDIA's driver says of itself and its cards, asked before ONNX Runtime is: its own message names one cause of
many.  https://docs.nvidia.com/cuda/cuda-driver-api
"""

import ctypes
from dataclasses import dataclass

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
# The oldest that a release of CUDA runs on, and the first driver that has it.
CAPABILITY = {12: (5, 0), 13: (7, 5)}
DRIVER = {12: "525", 13: "580"}


@dataclass(frozen=True, slots=True)
class Driver:
    """``cuda``: the release that it can run, as (13, 0); ``cards``: the compute capability of each."""

    cuda: tuple[int, int]
    cards: list[tuple[int, int]]


class DriverError(Exception):
    """In words that say what to do."""


def read() -> Driver:
    """DriverError where there is none, or it does not start."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DriverError(
            f"there is no NVIDIA driver here ({error}). Install it on the host, and start the container with the GPU "
            "(--gpus all)"
        ) from error
    code = library.cuInit(0)
    if code:
        raise DriverError(
            f"NVIDIA's driver does not start: {_name(library, code)}. See that nvidia-smi lists the GPU, here and on "
            "the host"
        )
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    return Driver(divmod(version.value // 10, 100), [_capability(library, index) for index in range(count.value)])


def why_not(driver: Driver, index: int, release: str) -> str:
    """Why card ``index`` cannot run what is built for ``release`` of CUDA ("13.0", empty where nobody knows)."""
    if not driver.cards:
        return "the driver lists no GPU. See that nvidia-smi does, and that the container was started with it"
    if index >= len(driver.cards):
        there = ", ".join(f"cuda:{number}" for number in range(len(driver.cards)))
        return f"there is no card {index}; there is {there}"
    major = int(release.partition(".")[0] or 0)
    if major not in DRIVER:
        return ""
    if driver.cuda[0] < major:
        had = ".".join(map(str, driver.cuda))
        return (
            f"this onnxruntime is built for CUDA {major}, the driver runs CUDA up to {had}. Install driver "
            f"{DRIVER[major]} or newer"
        )
    if driver.cards[index] < CAPABILITY[major]:
        had, least = (".".join(map(str, one)) for one in (driver.cards[index], CAPABILITY[major]))
        return f"the card has compute capability {had}, CUDA {major} needs {least} or more"
    return ""


def runtime_error(release: str) -> str:
    """What CUDA's own runtime says of the cards; empty where it has nothing to say, or is not loaded."""
    try:
        library = ctypes.CDLL(f"libcudart.so.{release.partition('.')[0]}")
    except OSError:
        return ""
    count = ctypes.c_int()
    code = library.cudaGetDeviceCount(ctypes.byref(count))
    if not code:
        return ""
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return f"{(library.cudaGetErrorString(code) or b'').decode()} (error {code})"


def _capability(library: ctypes.CDLL, index: int) -> tuple[int, int]:
    values = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
        values.append(value.value)
    return values[0], values[1]


def _name(library: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    known = library.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value
    return f"{known.decode()} (error {code})" if known else f"error {code}"
