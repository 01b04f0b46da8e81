"""The models that ship: true ALBERTs, small, calibrated, and their pages say what their manifests say."""

import re
from pathlib import Path

import pytest

from service.repository.manifest import Manifest
from service.repository.store import check_files, read_manifest, versions
from tests.conftest import ROOT

REPOSITORY = ROOT / "model_repo"
FOLDERS = {name: REPOSITORY / name / str(numbers[-1]) for name, numbers in versions(REPOSITORY).items()}
MEGABYTE = 1_000_000
README = (ROOT / "README.md").read_text(encoding="utf-8")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return FOLDERS[request.param]


def test_each_ships_in_one_version_and_all_within_64_megabytes() -> None:
    assert set(FOLDERS) == {"qa", "sentence-order", "sentiment", "sentiment-zh", "spam", "topic"}
    assert all(len(numbers) == 1 for numbers in versions(REPOSITORY).values())
    assert sum(size(folder) for folder in FOLDERS.values()) <= 64 * MEGABYTE


def test_a_model_is_whole_small_and_one_shared_layer(folder: Path) -> None:
    manifest = read_manifest(folder)
    check_files(folder, manifest)

    assert size(folder) <= 16 * MEGABYTE
    assert manifest.architecture["num_hidden_groups"] == manifest.architecture["inner_group_num"] == 1
    assert manifest.architecture["num_hidden_layers"] > 1
    assert manifest.calibration
    assert manifest.provenance["licence"]
    for name in manifest.provenance["training"]["files"]:
        assert "/" not in re.sub(r":\d+/\d+$", "", name)  # parts of files are told, folders are not


def figures(manifest: Manifest) -> set[str]:
    """The main figures, as pages round them."""
    found = set()
    for report in manifest.quality.values():
        for name in ("accuracy", "macro_f1", "calibration_error"):
            if name in report:
                found.add(f"{report[name]:.3f}")
        found |= {f"{report[name]:.1f}" for name in ("f1", "exact_match") if isinstance(report.get(name), float)}
    return found


def test_its_page_gives_the_figures_of_its_manifest_with_their_commands(folder: Path) -> None:
    page = (folder.parent / "README.md").read_text(encoding="utf-8")

    assert figures(read_manifest(folder)) <= set(re.findall(r"\d+\.\d+", page))
    assert f"albert-serve evaluate model_repo/{folder.parent.name}/{folder.name}" in page
    assert folder.parent.name in README
    for part in ("What it is for", "Trained on", "Weaknesses", "How it was made"):
        assert part in page
