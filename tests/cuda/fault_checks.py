"""What the stand-in counts, and each way in which its card can fail."""

import ctypes
from collections.abc import Callable

from onnx import helper

from tests.cuda import standin
from tests.cuda.checking import numbers, report, run, session

TANH = helper.make_node("Tanh", ["x"], ["out"])
X = {"x": numbers("float16", 64, 64)}


def message(work: Callable[[], object]) -> str:
    """What ``work`` raises, or an empty text."""
    try:
        work()
    except Exception as error:  # the provider raises what it pleases
        return str(error)
    finally:
        standin.reset()
    return ""


def expect(name: str, text: str, work: Callable[[], object]) -> None:
    said = message(work)
    report(name, text in said, "" if text in said else repr(said))


def check_trace() -> None:
    made = session(TANH, X, {})
    made.run(None, X)
    size = X["x"].nbytes
    with standin.traced() as trace:
        made.run(None, X)
    counts = (trace.launches, trace.h2d, trace.h2d_bytes, trace.d2h, trace.d2h_bytes, trace.d2d, trace.allocations)
    report("a trace", counts == (1, 1, size, 1, size, 0, 0) and trace.waits > 0, str(trace))
    before, in_use = standin.peak(), standin.live()
    standin.reset_peak()
    with standin.traced() as trace:
        held = session(TANH, X, {})
        held.run(None, X)
    grown = standin.live() > in_use and standin.peak() >= standin.live() and trace.allocations > 0
    del held
    report("memory, live and peak", grown and standin.live() == in_use, f"{before} {in_use} {standin.peak()}")
    standin.computing(True)
    run(helper.make_node("Softsign", ["x"], ["out"]), X)
    report("a kernel that is not computed", standin.uncomputed() == 1, "".join(standin.uncomputed_names()))
    standin.reset()


def check_faults() -> None:
    def over_limit() -> None:
        made = session(helper.make_node("Concat", ["x", "x"], ["out"], axis=0), X, {})
        standin.limit(standin.live() + (1 << 20))
        large = {"x": numbers("float16", 4096, 4096)}
        made.run(None, large)

    def failing() -> None:
        made = session(TANH, X, {})
        made.run(None, X)
        standin.fail(700)
        made.run(None, X)

    def failing_start() -> None:
        standin.fail(999)
        session(TANH, X, {})

    def no_device(code: int) -> Callable[[], object]:
        def work() -> None:
            standin.no_device(code)
            session(TANH, X, {})

        return work

    def second_card() -> None:
        standin.cards(2)
        session(TANH, X, {}, device_id=1)
        report("the second of two cards", True)
        session(TANH, X, {}, device_id=2)

    expect("out of memory", "Failed to allocate memory", over_limit)
    expect("a card that fails", "an illegal memory access", failing)
    again = message(lambda: run(TANH, X))
    report("and works again", not again, again)
    expect("a card that fails at the start", "unknown error", failing_start)
    expect("no device", "no CUDA-capable device", no_device(100))
    expect("a driver that is too old", "driver version is insufficient", no_device(35))
    expect("a card that is not there", "Invalid device ID: 2", second_card)


def check_errors() -> None:
    """The error of a card that fails stays as long as the failure; another is told once."""
    runtime = ctypes.CDLL("libcudart.so.13")
    standin.fail(700)
    lasting = [runtime.cudaGetLastError(), runtime.cudaGetLastError(), runtime.cudaDeviceSynchronize()]
    standin.reset()
    once = [runtime.cudaGetLastError(), runtime.cudaSetDevice(1)]
    once += [runtime.cudaGetLastError(), runtime.cudaGetLastError()]
    report("the last error", lasting == [700] * 3 and once == [0, 101, 101, 0], f"{lasting} {once}")


def check_driver() -> None:
    library = ctypes.CDLL("libcuda.so.1")
    standin.driver(12080)
    standin.capability(86)
    standin.cards(3)
    values = [ctypes.c_int() for _ in range(4)]
    library.cuDriverGetVersion(ctypes.byref(values[0]))
    library.cuDeviceGetCount(ctypes.byref(values[1]))
    library.cuDeviceGetAttribute(ctypes.byref(values[2]), 75, 2)
    library.cuDeviceGetAttribute(ctypes.byref(values[3]), 76, 2)
    found = [value.value for value in values]
    report("the driver", found == [12080, 3, 8, 6] and library.cuInit(0) == 0, str(found))
    chosen = ctypes.CDLL("libcudart.so.13").cudaSetDevice(3)
    report("cudaSetDevice of a card that is not there", chosen == 101, str(chosen))
    absent = library.cuDeviceGetAttribute(ctypes.byref(values[3]), 75, 3)
    standin.no_device(100)
    report("the driver without a card", absent == 101 and library.cuInit(0) == 100)
    standin.reset()


def check_all() -> None:
    standin.reset()
    check_trace()
    check_faults()
    check_errors()
    check_driver()
