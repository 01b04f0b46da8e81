"""What the processor can do is read in one place, and can be assumed."""

import os
from pathlib import Path

import pytest

from service.errors import UsageError
from service.runtime import processor
from service.runtime.processor import Processor, assumed, current, detect, usable_cores

FLAGS = {
    "flags\t\t: fpu avx2 avx512_vnni avx512_bf16": (True, True),
    "flags\t\t: fpu avx2 avx_vnni": (True, False),
    "flags\t\t: fpu avx avx2 fma": (False, False),
    "Features\t: fp asimd asimddp": (True, False),
    "": (False, False),
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("text", "wanted"), FLAGS.items())
def test_features_are_read_from_the_kernels_list(tmp_path: Path, text: str, wanted: tuple[bool, bool]) -> None:
    found = detect(machine(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{text}\nbugs\t\t:\n"}))

    assert (found.vnni, found.bfloat16) == wanted


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


UNIFIED = {"proc/self/cgroup": "0::/pod/box\n"}
FIRST = {"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"}
V1 = "sys/fs/cgroup/cpu,cpuacct/"


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (UNIFIED | {"sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, 8),
        (UNIFIED | {"sys/fs/cgroup/pod/box/cpu.max": "100000 100000\n"}, 1),
        (UNIFIED | {"sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n"}, 2),
        (UNIFIED | {"sys/fs/cgroup/pod/cpu.max": "300000 100000\n"}, 3),
        (UNIFIED | {"sys/fs/cgroup/pod/box/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (FIRST | {V1 + "cpu.cfs_quota_us": "-1\n", V1 + "cpu.cfs_period_us": "100000\n"}, 8),
        (FIRST | {V1 + "docker/abc/cpu.cfs_quota_us": "400000\n", V1 + "docker/abc/cpu.cfs_period_us": "100000\n"}, 4),
        (UNIFIED | {"sys/fs/cgroup/pod/box/cpu.max": "9900000 100000\n"}, 8),
    ],
)
def test_the_quota_of_the_cgroup_counts(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(machine(tmp_path, files)) == cores


def test_a_system_without_affinity_has_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)

    assert usable_cores(tmp_path) == 6


def test_features_can_be_assumed_and_given_back() -> None:
    before = current()
    with assumed("none"):
        assert current() == Processor(before.cores, vnni=False, bfloat16=False)
        with assumed("vnni,bfloat16"):
            assert current() == Processor(before.cores, vnni=True, bfloat16=True)
        assert not current().vnni
    assert current() is before
    with assumed("auto"):
        assert current() == detect()


@pytest.mark.parametrize("wrong", ["avx", "", "vnni;bfloat16", "None"])
def test_a_feature_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="wanted auto, none"):
        processor.assume(wrong)
