"""What this machine's processor can do, decided in one place: cores that may be used, and fast number formats.

``current()`` is what everyone asks.  ``assume`` puts other features in its place: a setting does that for a service,
tests do it to run both ways on every machine.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

FEATURES = ("vnni", "bfloat16")
# As the kernel names them, on x86 and on ARM: any of a group is enough.
_FLAGS = {
    "vnni": {"avx512_vnni", "avx_vnni", "avx512vnni", "asimddp", "i8mm"},
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
}


@dataclass(frozen=True, slots=True)
class Processor:
    """``cores`` may be used by this process.  ``vnni``: products of eight bits are added in 32, and do not overflow.

    ``bfloat16``: the processor multiplies it.
    """

    cores: int
    vnni: bool
    bfloat16: bool

    def __str__(self) -> str:
        found = [name for name in FEATURES if getattr(self, name)]
        return f"{self.cores} cores, {', '.join(found) or 'neither VNNI nor bfloat16'}"


_assumed: Processor | None = None
_found: Processor | None = None


def current() -> Processor:
    """This machine's processor, or the one that is assumed in its place."""
    global _found
    if _assumed is not None:
        return _assumed
    _found = _found or detect()
    return _found


def assume(features: str) -> None:
    """Take ``features`` for true from now on: "auto", "none", or names such as "vnni,bfloat16"."""
    global _assumed
    if features == "auto":
        _assumed = None
        return
    names = set() if features == "none" else set(features.split(","))
    if not names <= set(FEATURES):
        raise UsageError(f"cpu_features is {features!r}; wanted auto, none, or some of {', '.join(FEATURES)}")
    _assumed = Processor(detect().cores, vnni="vnni" in names, bfloat16="bfloat16" in names)


@contextlib.contextmanager
def assumed(features: str) -> Iterator[None]:
    """The same for the length of a block."""
    global _assumed
    before = _assumed
    assume(features)
    try:
        yield
    finally:
        _assumed = before


def detect(root: Path = Path("/")) -> Processor:
    """Read what the system tells; ``root`` is where its files begin.  A system that tells nothing has no feature."""
    flags = _flags(root)
    return Processor(usable_cores(root), **{name: bool(flags & _FLAGS[name]) for name in FEATURES})


def usable_cores(root: Path = Path("/")) -> int:
    """The processors that this process may really use: its affinity, and the quota of its cgroup, rounded up."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    quota = min(_quotas(root), default=math.inf)
    return max(1, min(cores, math.ceil(quota) if quota < math.inf else cores))


def _flags(root: Path) -> set[str]:
    found = re.findall(r"^(?:flags|Features)\s*:(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return set(found[0].split()) if found else set()


def _quotas(root: Path) -> Iterator[float]:
    """In processors, of this process' cgroup and of all those above it: any of them may hold it back."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        unified, names = not controllers, controllers.split(",")
        if not unified and "cpu" not in names:
            continue
        home = root / "sys/fs/cgroup" / ("" if unified else controllers)
        folders = [home, *(home / part for part in _prefixes(path))]
        for folder in folders:
            quota = _unified_quota(folder) if unified else _first_quota(folder)
            if quota:
                yield quota


def _prefixes(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")
    return ("/".join(parts[: n + 1]) for n in range(len(parts)) if parts[0])


def _unified_quota(folder: Path) -> float | None:
    """Version 2: ``cpu.max`` holds a quota and a period in microseconds, or "max"."""
    match = re.fullmatch(r"(\d+) (\d+)\s*", _text(folder / "cpu.max"))
    return int(match[1]) / int(match[2]) if match else None


def _first_quota(folder: Path) -> float | None:
    """Version 1: two files; a quota of -1 is none."""
    quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
