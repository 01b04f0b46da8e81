"""From a folder to a published version; a damaged model never gets there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.cli import main
from service.conversion import pipeline
from service.conversion.pipeline import Options, convert, verify_published
from service.conversion.weights import WeightFile
from service.errors import CheckpointError, ParityError, RepositoryError
from service.repository.store import check_files, read_manifest, versions
from tests.checkpoints import save_checkpoint
from tests.conftest import SENTIMENT


def test_a_published_version_is_whole(repository: Path) -> None:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    check_files(folder, manifest)

    assert manifest.labels == list(SENTIMENT["id2label"].values())
    assert manifest.parity["max_difference_in_batches"] <= manifest.parity["tolerance"]
    assert {path.name for path in folder.iterdir()} == set(manifest.sha256) | {"manifest.json"}
    assert str(folder.parent.parent) not in (folder / "manifest.json").read_text()
    assert (folder.stat().st_mode & 0o777) == 0o755


def test_a_second_conversion_is_a_second_version(tmp_path: Path) -> None:
    checkpoint = str(save_checkpoint(tmp_path / "checkpoint"))
    folders = [convert(checkpoint, tmp_path / "repo", Options("twice")) for _ in range(2)]

    assert [folder.name for folder in folders] == ["1", "2"]
    assert versions(tmp_path / "repo") == {"twice": [1, 2]}


def damage_a_weight(arrays: dict[str, Any]) -> None:
    arrays["layer.0.0.up.weight"] = arrays["layer.0.0.up.weight"] * np.float32(1.2)


def swap_query_and_key(arrays: dict[str, Any]) -> None:
    q, k, v = np.split(arrays["layer.0.0.qkv.weight"], 3, axis=1)
    arrays["layer.0.0.qkv.weight"] = np.concatenate([v, k, q], axis=1)


def flip_the_labels(arrays: dict[str, Any]) -> None:
    arrays["head.out.weight"] = arrays["head.out.weight"][:, ::-1].copy()


def lose_the_positions(arrays: dict[str, Any]) -> None:
    arrays["embed.position"] = np.roll(arrays["embed.position"], 1, axis=0)


def overflow(arrays: dict[str, Any]) -> None:
    arrays["embed.norm.bias"] = arrays["embed.norm.bias"] + np.float32(np.nan)


@pytest.mark.parametrize("damage", [damage_a_weight, swap_query_and_key, flip_the_labels, lose_the_positions, overflow])
def test_a_damaged_model_fails_the_gate_and_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    def damaged(folder: Path, arrays: dict[str, Any]) -> WeightFile:
        damage(arrays)
        return WeightFile(folder, arrays)

    monkeypatch.setattr(pipeline, "WeightFile", damaged)
    checkpoint = save_checkpoint(tmp_path / "checkpoint")

    with pytest.raises(ParityError, match="differ"):
        convert(str(checkpoint), tmp_path / "repo", Options("damaged"))
    assert list((tmp_path / "repo").iterdir()) == []


def test_a_published_version_can_be_verified_again(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    folder = convert(str(checkpoint), tmp_path / "repo", Options("again"))
    assert verify_published(folder, str(checkpoint))["different_answers"] == 0

    other = save_checkpoint(tmp_path / "other", seed=5)
    with pytest.raises(ParityError):
        verify_published(folder, str(other))


def test_a_bad_name_publishes_nothing(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")

    for name in ("../up", ".hidden", "a/b", ""):
        with pytest.raises(RepositoryError, match="no name for a model"):
            convert(str(checkpoint), tmp_path / "repo", Options(name))
    assert list((tmp_path / "repo").iterdir()) == []


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    del weights["albert.encoder.albert_layer_groups.0.albert_layers.0.attention.key.bias"]
    save_file(weights, checkpoint / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"attention\.key"):
        convert(str(checkpoint), tmp_path / "repo", Options("missing"))


def test_bfloat16_weights_are_stored_in_float32_unchanged(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: value.to(torch.bfloat16) for name, value in weights.items()}, checkpoint / "model.safetensors")
    folder = convert(str(checkpoint), tmp_path / "repo", Options("brain"))

    assert read_manifest(folder).parity["max_difference_alone"] < 1e-5


def test_the_command_converts_evaluates_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(save_checkpoint(tmp_path / "checkpoint", **SENTIMENT))
    dev = tmp_path / "dev.tsv"
    dev.write_text("label\ttext\npositive\tok\nnegative\tIt was not good.\n")
    repo = str(tmp_path / "repo")

    assert main(["convert", checkpoint, "--name", "small", "--model-repo", repo, "--evaluate", str(dev)]) == 0
    assert capsys.readouterr().out.strip() == f"{repo}/small/1"
    quality = read_manifest(tmp_path / "repo" / "small" / "1").quality
    assert quality["dev.tsv"]["texts"] == 2
    assert quality["dev.tsv"]["accuracy"] in (0, 0.5, 1)

    assert main(["verify", f"{repo}/small/1", checkpoint]) == 0
    assert json.loads(capsys.readouterr().out)["different_answers"] == 0
    assert main(["models", "--model-repo", repo]) == 0
    (tmp_path / "repo" / "small" / "1" / "weights.bin").write_bytes(b"")
    assert main(["models", "--model-repo", repo]) == 1
    assert "weights.bin is damaged" in capsys.readouterr().out


def test_the_command_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path), "--name", "x", "--model-repo", str(tmp_path / "repo")]) == 1

    error = capsys.readouterr().err
    assert "no config.json" in error
    assert "Traceback" not in error
