"""A version of the repository to an engine: checked, in memory from then on, in the precision that is asked for."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import DeviceError, RepositoryError
from service.repository.manifest import Exits, Graphs
from service.repository.store import read_manifest, write_manifest
from service.runtime.processor import current
from service.runtime.providers import Device, choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, attention_padding, choose_precision, load
from service.types import Floats, Sequence
from tests.fakes import row

OPTIONS = LoadOptions(choose("cpu"), budget=64, layers_per_check=1)
ROWS = [row(9), row(30, 8), row(2, 6)]


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A classifier of this test's own."""
    return Path(shutil.copytree(repository / "sentiment" / "1", tmp_path / "sentiment" / "1"))


def same(found: list[Floats], wanted: list[Floats]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_version_loads_warm_and_answers(repository: Path) -> None:
    engine = load(repository / "sentiment" / "1", LoadOptions(choose("cpu"), budget=77))
    (logits,) = engine.run([Sequence(np.array([2, 7, 3], np.int32), np.zeros(3, np.int32), 3)])

    assert engine.budget == engine.full_budget == 77
    assert logits.shape == (2,)
    assert sum(engine.cost.coefficients) > 0


def test_what_is_not_given_is_measured(folder: Path) -> None:
    engine = load(folder, LoadOptions(choose("cpu")))

    assert engine.budget == engine.full_budget >= 128
    assert 0 <= engine.stepping.layers_per_check < engine.manifest.layers


def test_every_look_at_the_device_goes_through_the_given_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []
    calls: list[int] = []
    profile_run = Engine.profile_run

    def on_device(work: Callable[[], Any]) -> Any:
        inside.append(True)
        try:
            return work()
        finally:
            inside.clear()

    def watched(self: Engine, rows: list[Sequence], depth: int, check_interval: int) -> None:
        calls.append(len(inside))
        profile_run(self, rows, depth, check_interval)

    monkeypatch.setattr(Engine, "profile_run", watched)
    load(folder, LoadOptions(choose("cpu")), on_device)
    assert {*calls} == {1}


@pytest.mark.parametrize("file", ["weights.bin", "layers.cpu.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "changed", "empty"])
def test_a_version_with_a_missing_or_changed_file_is_refused_by_name(folder: Path, file: str, damage: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage != "missing":
        (folder / file).write_bytes(content[:-1] + b"!" if damage == "changed" else b"")

    with pytest.raises(RepositoryError, match=file):
        load(folder, OPTIONS)


@pytest.mark.parametrize("content", ["empty", "overwritten", "gone"])
def test_what_becomes_of_the_files_after_loading_changes_no_answer(folder: Path, content: str) -> None:
    engine = load(folder, OPTIONS)
    before = engine.run(ROWS)
    for path in folder.iterdir():
        if content == "gone":
            path.unlink()
            continue
        size = path.stat().st_size
        with path.open("r+b") as file:  # in place: the same file, not another of its name
            file.truncate(0)
            if content == "overwritten":
                file.write(b"\xff" * size)

    assert same(engine.run(ROWS), before)
    engine.probe()


def test_a_model_that_is_made_anew_answers_the_same(folder: Path) -> None:
    engine = load(folder, OPTIONS)
    before, model = engine.run(ROWS), engine.model
    engine.rebuild()

    assert engine.model is not model
    assert same(engine.run(ROWS), before)
    engine.probe()


def test_a_model_is_not_made_anew_from_files_that_were_damaged(folder: Path) -> None:
    engine = load(folder, OPTIONS)
    before = engine.run(ROWS)
    (folder / "weights.bin").write_bytes(b"")
    with pytest.raises(RepositoryError, match=r"weights\.bin"):
        engine.rebuild()

    assert same(engine.run(ROWS), before)


def test_without_early_exit_all_layers_run_whatever_the_manifest_says(folder: Path) -> None:
    exits = Exits(kind="confidence", threshold=0.5, first=1, window=1, mean_depth=1.5, lost=0.0, data="made up")
    write_manifest(folder, read_manifest(folder).model_copy(update={"exits": exits}))

    assert load(folder, OPTIONS).stepping.exits is not None
    assert load(folder, replace(OPTIONS, early_exit=False)).stepping.exits is None


def test_a_check_after_all_layers_is_no_check(folder: Path) -> None:
    assert load(folder, OPTIONS).stepping.layers_per_check == 1
    assert load(folder, replace(OPTIONS, layers_per_check=99)).stepping.layers_per_check == 0


def test_a_version_without_graphs_for_the_device_says_so(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"graphs": {"cpu": manifest.graphs["cpu"]}}))

    with pytest.raises(DeviceError, match="no graphs for cuda"):
        load(folder, LoadOptions(Device("cuda"), budget=64))


def test_graphs_for_cuda_of_before_are_told_from_none(folder: Path) -> None:
    manifest = read_manifest(folder)
    older = Graphs(precision="float16", embed="embed.cpu.onnx", layers="layers.cpu.onnx", head="head.cpu.onnx")
    write_manifest(folder, manifest.model_copy(update={"graphs": manifest.graphs | {"cuda": older}}))

    with pytest.raises(DeviceError, match=r"graphs for cuda of an older form.*conversion\.renew sentiment/1"):
        load(folder, LoadOptions(Device("cuda"), budget=64))


@pytest.mark.parametrize(
    ("weight_bits", "floats", "wanted", "vnni", "precision"),
    [
        (7, "f", "auto", True, "int8"),
        (7, "f", "auto", False, "int8"),
        (8, "f", "auto", True, "int8"),
        (8, "f", "auto", False, "float32"),  # products of eight bits overflow there
        (8, "f", "int8", False, "float32"),
        (7, "f", "float32", True, "float32"),
        (7, None, "float32", True, "int8"),  # there are none in float32
        (8, None, "auto", False, "int8"),
    ],
)
def test_the_precision_is_the_one_that_is_asked_for_where_it_is_right_here(
    monkeypatch: pytest.MonkeyPatch, weight_bits: Any, floats: str | None, wanted: Any, vnni: bool, precision: str
) -> None:
    graphs = Graphs(precision="int8", weight_bits=weight_bits, embed="e", layers="l", head="h", float32_layers=floats)
    here = replace(current(), vnni=vnni)
    monkeypatch.setattr("service.serving.loading.current", lambda: here)

    assert choose_precision(graphs, wanted) == precision


def test_the_padding_that_attention_may_have_grows_with_the_width_of_the_model(repository: Path) -> None:
    manifest = read_manifest(repository / "qa" / "1")
    wider = manifest.model_copy(update={"architecture": {"hidden_size": 96, "intermediate_size": 192}})

    assert attention_padding(wider) == 2 * attention_padding(manifest)
    assert attention_padding(manifest.model_copy(update={"architecture": {}})) == float("inf")
    assert load(repository / "qa" / "1", OPTIONS).padding == attention_padding(manifest)
