"""Which device is taken, and what is said where the wanted one does not work."""

from typing import Any

import onnxruntime as ort
import pytest

from service.errors import DeviceError, UsageError
from service.runtime.providers import choose

CUDA = "CUDAExecutionProvider"
without_cuda = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this onnxruntime has CUDA")


class FakeSession:
    """A session that runs on the providers it is told to, or on the CPU where ``works`` is false."""

    works = True

    def __init__(self, model: bytes, options: Any, providers: list[Any]) -> None:
        self.providers = [provider[0] if isinstance(provider, tuple) else provider for provider in providers]

    def get_providers(self) -> list[str]:
        return self.providers if self.works else ["CPUExecutionProvider"]


class FallenBack(FakeSession):
    works = False


class Broken(FakeSession):
    def __init__(self, model: bytes, options: Any, providers: list[Any]) -> None:
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ONNX Runtime one that has CUDA, with sessions of the kind given."""

    def make(kind: type[FakeSession]) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(ort, "InferenceSession", kind)

    return make


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


@pytest.mark.parametrize(("kind", "said"), [(FallenBack, "nvidia-smi"), (Broken, "no CUDA-capable device")])
def test_cuda_that_is_installed_and_fails_is_never_swapped_in_silence(
    pretend: Any, kind: type[FakeSession], said: str
) -> None:
    pretend(kind)

    with pytest.raises(DeviceError, match=said):
        choose("cuda")
    device = choose("auto")
    assert device.kind == "cpu"
    assert said in device.reason


@pytest.mark.parametrize(("wanted", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:5", 5)])
def test_cuda_that_works_is_taken_with_its_index(pretend: Any, wanted: str, index: int) -> None:
    pretend(FakeSession)
    device = choose(wanted, memory_limit=1 << 30)

    assert (device.kind, device.index, str(device)) == ("cuda", index, f"cuda:{index}")
    (name, options), fallback = device.providers
    assert (name, fallback) == (CUDA, "CPUExecutionProvider")
    assert (options["device_id"], options["gpu_mem_limit"]) == (index, 1 << 30)


def test_without_a_limit_the_memory_of_cuda_is_its_own_affair(pretend: Any) -> None:
    pretend(FakeSession)

    assert "gpu_mem_limit" not in choose("cuda").providers[0][1]


@pytest.mark.parametrize(
    "wanted",
    ["", "gpu", "CUDA", "cuda0", "cuda:x", "cuda:-1", "cuda:1:2", "cuda:²", "cuda:", "cpu:0", "cpu:", "auto:1", " cpu"],
)
def test_a_device_that_is_none_is_refused_with_what_there_is(wanted: str) -> None:
    with pytest.raises(UsageError, match="wanted auto, cpu, cuda or cuda:N"):
        choose(wanted)
