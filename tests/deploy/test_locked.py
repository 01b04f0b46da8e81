"""What the images install: whole, pinned by hash, and what pyproject.toml asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "locked"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ALL = ("documents", "grpc", "tracing")
IMAGE = {"python_version": "3.12", "python_full_version": "3.12.1", "sys_platform": "linux"}


def locked(name: str) -> dict[str, str]:
    """Versions by name; every one has a hash."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", (FOLDER / name).read_text(encoding="utf-8").strip()):
        (first, *rest) = block.split("\n")
        pinned = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", first)
        assert pinned, first
        assert rest, f"{first} has no hash"
        assert all("--hash=sha256:" in line for line in rest), first
        found[canonicalize_name(pinned[1])] = pinned[2]
    return found


@pytest.mark.parametrize("extras", [(), ALL], ids=["alone", "all"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_lock_has_what_the_project_asks_for(device: str, extras: tuple[str, ...]) -> None:
    versions = locked(f"{device}-all.txt" if extras else f"{device}.txt")
    optional = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for extra in (device, *extras) for line in optional[extra])]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(IMAGE):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: run make lock"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_images_serve_without_what_converts_and_trains(device: str) -> None:
    assert not {"torch", "transformers", "onnx"} & locked(f"{device}-all.txt").keys()
    assert locked(f"{device}.txt").items() <= locked(f"{device}-all.txt").items()


def test_no_index_is_named() -> None:
    assert not [path for path in FOLDER.iterdir() if "://" in path.read_text(encoding="utf-8")]
