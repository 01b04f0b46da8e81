"""Ranges of what the matrices read, measured as PyTorch sees them; and eight bits that go by them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AlbertModel

from service.cli import main
from service.conversion.builder import LAYER_MATRICES, Target
from service.conversion.checkpoint import read_checkpoint
from service.conversion.pipeline import Options, convert, write_shared
from service.conversion.precision import INT8, Gate
from service.conversion.ranges import HEADROOM, LEAST, Ranges, measured
from service.conversion.renew import renew
from service.repository.store import read_manifest
from service.serving.engine import Engine
from tests.checkpoints import save_checkpoint
from tests.conversion.test_graph import SHAPES, converted
from tests.fakes import row

ROWS = [row(length, length) for length in (5, 12, 40)]
READ = {"qkv": "attention.query", "out": "attention.dense", "up": "ffn", "down": "ffn_output"}


def found(checkpoint: Path, folder: Path) -> Ranges:
    engine = converted(checkpoint, folder)
    return measured(folder, write_shared(read_checkpoint(str(checkpoint)), folder), engine, ROWS)


def ranged(checkpoint: Path, folder: Path, ranges: Ranges) -> Engine:
    return converted(checkpoint, folder, Target("cpu", "int8", LAYER_MATRICES, ranges=ranges))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ranges_are_the_largest_magnitudes_that_each_matrix_reads(tmp_path: Path, shape: dict[str, Any]) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", **shape)
    model = AlbertModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    largest: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def seen(_: Any, given: tuple[torch.Tensor]) -> None:
            most = given[0].abs().flatten(0, -2).amax(0)
            largest[name] = torch.maximum(largest[name], most) if name in largest else most

        return seen

    for group, layers in enumerate(model.encoder.albert_layer_groups):
        for inner, layer in enumerate(layers.albert_layers):
            for matrix, theirs in READ.items():
                layer.get_submodule(theirs).register_forward_pre_hook(watch(f"layer.{group}.{inner}.{matrix}"))
    for one in ROWS:
        with torch.inference_mode():
            model(torch.tensor(one.ids)[None].long(), token_type_ids=torch.tensor(one.types)[None].long())

    ranges = found(checkpoint, tmp_path / "files")
    assert ranges.keys() == largest.keys()
    for name, wanted in largest.items():
        least = LEAST * float(np.median(wanted.numpy()))
        np.testing.assert_allclose(ranges[name], HEADROOM * np.maximum(wanted.numpy(), least), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.glob("files/ranges*"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_eight_bits_in_their_ranges_are_near_float32(tmp_path: Path, shape: dict[str, Any]) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", **shape)
    bits = ranged(checkpoint, tmp_path / "bits", found(checkpoint, tmp_path / "files"))

    for wanted, logits in zip(converted(checkpoint, tmp_path / "floats").run(ROWS), bits.run(ROWS), strict=True):
        assert np.abs(logits - wanted).max() < 0.25 * max(1.0, np.abs(wanted).max())
        assert (logits != wanted).any()


def test_a_row_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    bits = ranged(checkpoint, tmp_path / "bits", found(checkpoint, tmp_path / "files"))

    for alone, logits in zip((bits.run([one])[0] for one in ROWS), bits.run(ROWS), strict=True):
        np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_what_goes_beyond_its_range_is_cut_off_and_does_not_turn_round(tmp_path: Path) -> None:
    """With a hundredth of each range all codes are at their ends: signs stay, and nothing is more than a little."""
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_layers=1)
    ranges = found(checkpoint, tmp_path / "files")
    small = {name: value / np.float32(100 if name.endswith("qkv") else 1) for name, value in ranges.items()}
    floats = converted(checkpoint, tmp_path / "floats").run(ROWS)

    for wanted, logits in zip(floats, ranged(checkpoint, tmp_path / "bits", small).run(ROWS), strict=True):
        assert np.isfinite(logits).all()
        assert np.abs(logits - wanted).max() < 2 * max(1.0, np.abs(wanted).max())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    save_checkpoint(tmp_path / "init", **names)
    words = {"positive": "good", "negative": "bad"}
    lines = [f"{label}\tit was {word} {number}\n" for number in range(10) for label, word in words.items()]
    (tmp_path / "rows.tsv").write_text("label\ttext\n" + "".join(lines))
    return ["convert", "init", "--name", "made", "--model-repo", "repo", "--precision", "int8"]


def test_a_version_in_its_ranges_is_published_and_renewed(command: list[str]) -> None:
    assert main([*command, "--gate", "rows.tsv", "--gate-points", "100", "--ranges", "rows.tsv"]) == 0
    manifest = read_manifest(Path("repo/made/1"))
    (tried,) = [entry for entry in manifest.precision["tried"] if entry["precision"] == "int8"]
    assert tried["ranges"] == "measured"
    assert manifest.graphs["cpu"].precision == "int8"

    renewed = renew(Path("repo/made/1").resolve())  # compares the answers of both
    assert read_manifest(renewed).graphs["cpu"].precision == "int8"
    graph = (renewed / "layers.cpu.onnx").read_bytes()
    assert b"layer.0.0.qkv.step" in graph


def test_where_no_range_holds_the_score_each_row_is_looked_at(tmp_path: Path) -> None:
    ranged_forms = len([target for target in INT8 if target.weight_bits == 7])
    scores = itertools.chain([100.0, 100.0], [0.0] * ranged_forms, itertools.repeat(100.0))  # float32, float16 first
    gate = Gate(0.5, lambda engine: {"score": next(scores)}, lambda engine: ROWS)
    version = convert(
        str(save_checkpoint(tmp_path / "c")), tmp_path / "repo", Options("made", precision="int8", gate=gate)
    )

    tried = [entry for entry in read_manifest(version).precision["tried"] if entry["precision"] == "int8"]
    assert ["ranges" in entry for entry in tried] == [True] * ranged_forms + [False]
    assert b".qkv.step" not in (version / "layers.cpu.onnx").read_bytes()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ranges", "rows.tsv"], "--gate FILE"),
        (["--ranges", "absent.tsv", "--gate", "rows.tsv"], "absent.tsv"),
        (["--ranges", "rows.tsv:3/2", "--gate", "rows.tsv"], "rows.tsv:3/2"),
    ],
)
def test_what_ranges_take_is_told_before_the_work(
    command: list[str], flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *flags]) == 1
    assert told in capsys.readouterr().err
    assert not Path("repo/made").exists()
