"""Which device is taken, and what is said where the wanted one does not work."""

import re
from typing import Any

import onnxruntime as ort
import pytest

from service.errors import DeviceError, UsageError
from service.runtime import driver, probe, providers
from service.runtime.providers import choose

CUDA = "CUDAExecutionProvider"
without_cuda = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this onnxruntime has CUDA")


class FakeSession:
    """A session that runs on the providers it is told to."""

    off = 0.0  # what the probe finds

    def __init__(self, model: bytes, options: Any, providers: list[Any], **others: Any) -> None:
        self.providers = [provider[0] if isinstance(provider, tuple) else provider for provider in providers]

    def get_providers(self) -> list[str]:
        return self.providers


class FallenBack(FakeSession):
    """The provider did not come up: ONNX Runtime then looks for a kernel on the CPU."""

    def __init__(self, model: bytes, options: Any, providers: list[Any], **others: Any) -> None:
        raise RuntimeError("Failed to find kernel for PackedMultiHeadAttention(1) (node:'' ep:'CPUExecutionProvider')")


class Wrong(FakeSession):
    off = 0.4


class NoNumber(FakeSession):
    off = float("nan")


class Broken(FakeSession):
    def __init__(self, model: bytes, options: Any, providers: list[Any], **others: Any) -> None:
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ONNX Runtime one that has CUDA, with sessions of the kind given."""

    def make(kind: type[FakeSession]) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(ort, "InferenceSession", kind)
        monkeypatch.setattr(driver, "read", lambda: driver.Driver((13, 0), [(9, 0)] * 6))
        monkeypatch.setattr(probe, "difference", lambda session: session.off)
        monkeypatch.setattr(providers, "_share_memory", lambda index, limit: shared.append((index, limit)))

    shared.clear()
    return make


shared: list[tuple[int, int]] = []


def test_the_cpu_is_taken_where_it_was_asked_for() -> None:
    device = choose("cpu")

    assert (device.kind, str(device), device.providers) == ("cpu", "cpu", ["CPUExecutionProvider"])
    assert device.reason == "asked for"


@without_cuda
def test_auto_takes_the_cpu_and_says_why() -> None:
    device = choose("auto")

    assert device.kind == "cpu"
    assert device.reason.startswith("no CUDA: ")
    assert "onnxruntime-gpu" in device.reason


@without_cuda
@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_that_does_not_work_is_an_error_that_says_what_is_missing(wanted: str) -> None:
    with pytest.raises(DeviceError, match=f"^{wanted} was asked for and does not work: .*onnxruntime-gpu"):
        choose(wanted)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (FallenBack, r"libonnxruntime_providers_cuda\.so"),
        (Broken, "no CUDA-capable device"),
        (Wrong, "computes something else: .* off by 0.4"),
        (NoNumber, "computes something else: .* off by nan"),
    ],
)
def test_cuda_that_is_installed_and_fails_is_never_swapped_in_silence(
    pretend: Any, kind: type[FakeSession], said: str
) -> None:
    pretend(kind)

    with pytest.raises(DeviceError, match=said):
        choose("cuda")
    device = choose("auto")
    assert device.kind == "cpu"
    assert re.search(said, device.reason)
    assert not shared


def test_a_card_that_is_not_there_is_said_to_be_so(pretend: Any) -> None:
    pretend(FakeSession)

    with pytest.raises(DeviceError, match="there is no card 7; there is cuda:0, cuda:1"):
        choose("cuda:7")


def test_a_driver_that_does_not_start_is_told_in_its_own_words(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(FakeSession)

    def fails() -> driver.Driver:
        raise driver.DriverError("NVIDIA's driver does not start: system not yet initialized (error 802)")

    monkeypatch.setattr(driver, "read", fails)
    with pytest.raises(DeviceError, match="system not yet initialized"):
        choose("cuda")


@pytest.mark.parametrize(("wanted", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:5", 5)])
def test_cuda_that_works_is_taken_with_its_index(pretend: Any, wanted: str, index: int) -> None:
    pretend(FakeSession)
    device = choose(wanted, memory_limit=1 << 30)

    assert (device.kind, device.index, str(device)) == ("cuda", index, f"cuda:{index}")
    (name, options), fallback = device.providers
    assert (name, fallback) == (CUDA, "CPUExecutionProvider")
    assert options["device_id"] == index
    # A limit of each session would be none of the process: the arena that all share has it.
    assert "gpu_mem_limit" not in options
    assert shared == [(index, 1 << 30)]


@pytest.mark.parametrize(
    "wanted",
    ["", "gpu", "CUDA", "cuda0", "cuda:x", "cuda:-1", "cuda:1:2", "cuda:²", "cuda:", "cpu:0", "cpu:", "auto:1", " cpu"],
)
def test_a_device_that_is_none_is_refused_with_what_there_is(wanted: str) -> None:
    with pytest.raises(UsageError, match="wanted auto, cpu, cuda or cuda:N"):
        choose(wanted)
