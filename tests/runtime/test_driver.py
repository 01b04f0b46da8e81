"""What NVIDIA's driver says is passed on in words that say what to do."""

import ctypes
from typing import Any

import pytest

from service.runtime import driver
from service.runtime.driver import Driver, DriverError, read, why_not

GOOD = Driver((13, 0), [(9, 0)])


class Library:
    """A driver that answers as told; ``version`` as NVIDIA writes it, 12040 for 12.4."""

    def __init__(self, version: int = 13000, cards: tuple[tuple[int, int], ...] = ((9, 0),), code: int = 0) -> None:
        self.version, self.cards, self.code = version, cards, code

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the library's names
        return self.code

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, index: int) -> int:  # noqa: N802
        value._obj.value = self.cards[index][attribute - driver.MAJOR]
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        if code == 100:
            text._obj.value = b"no CUDA-capable device is detected"
            return 0
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(made: Library) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: made)

    return put


def test_it_tells_its_release_and_its_cards(library: Any) -> None:
    library(Library(12040, ((8, 6), (7, 5))))

    assert read() == Driver((12, 4), [(8, 6), (7, 5)])


@pytest.mark.parametrize(("code", "said"), [(100, "no CUDA-capable device is detected"), (999, "error 999")])
def test_one_that_does_not_start_says_why(library: Any, code: int, said: str) -> None:
    library(Library(code=code))

    with pytest.raises(DriverError, match=rf"does not start: {said}.*nvidia-smi"):
        read()


def test_a_host_without_one_is_told_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnobody-has-this.so.1")

    with pytest.raises(DriverError, match=r"no NVIDIA driver here.*--gpus all"):
        read()


@pytest.mark.parametrize(
    ("found", "index", "release", "said"),
    [
        (GOOD, 0, "13.0", ""),
        (GOOD, 0, "", ""),
        (GOOD, 3, "13.0", "there is no card 3; there is cuda:0"),
        (Driver((13, 0), [(9, 0), (8, 0)]), 2, "13.0", "there is no card 2; there is cuda:0, cuda:1"),
        (Driver((13, 0), []), 0, "13.0", "lists no GPU"),
        (
            Driver((12, 4), [(9, 0)]),
            0,
            "13.0",
            "built for CUDA 13, the driver runs CUDA up to 12.4. Install",
        ),
        (Driver((12, 4), [(9, 0)]), 0, "12.8", ""),
        (Driver((13, 0), [(7, 0)]), 0, "13.0", "has compute capability 7.0, CUDA 13 needs 7.5 or more"),
    ],
)
def test_the_cause_is_one_of_its_own(found: Driver, index: int, release: str, said: str) -> None:
    why = why_not(found, index, release)

    assert (said in why) if said else why == ""
