"""A version gives the checkpoint back that it was made from."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from service.conversion.checkpoint import read_checkpoint
from service.conversion.export import export_version
from service.conversion.pipeline import Options, convert, verify_published
from service.errors import CheckpointError
from service.tasks.text import Tokenizer
from tests.checkpoints import save_checkpoint

SHAPES: list[dict[str, Any]] = [{}, {"num_hidden_groups": 3}, {"inner_group_num": 2}, {"embedding_size": 48}]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("architecture", ["AlbertForSequenceClassification", "AlbertForQuestionAnswering"])
def test_every_weight_comes_back_as_it_was(
    tmp_path: Path, architecture: str, shape: dict[str, Any], half: bool
) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture, half=half, **shape)
    version = convert(str(checkpoint), tmp_path / "repository", Options("m"))
    export_version(version, tmp_path / "again")
    before, after = read_checkpoint(str(checkpoint)), read_checkpoint(str(tmp_path / "again"))

    kept = set(after.weights)
    assert kept <= before.weights.keys()
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in kept)
    assert (after.shape, after.labels, after.problem_type, after.dtype) == (
        before.shape, before.labels, before.problem_type, before.dtype,
    )  # fmt: skip
    assert verify_published(version, str(tmp_path / "again"))["max_difference_alone"] < 1e-5


def test_the_order_of_sentences_comes_back_as_the_classifier_that_it_is(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "AlbertForPreTraining")
    version = convert(str(checkpoint), tmp_path / "repository", Options("m"))
    export_version(version, tmp_path / "again")
    again = convert(str(tmp_path / "again"), tmp_path / "repository", Options("m"))

    assert (version / "weights.bin").read_bytes() == (again / "weights.bin").read_bytes()


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    version = convert(str(save_checkpoint(tmp_path / "checkpoint")), tmp_path / "repository", Options("m"))

    with pytest.raises(CheckpointError, match="is not empty"):
        export_version(version, tmp_path / "checkpoint")


@pytest.mark.parametrize("kind", ["word pieces", "sentencepiece"])
def test_auto_tokenizer_reads_the_export_as_we_do(tmp_path: Path, trained: Path, kind: str) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", tokenizer=kind == "word pieces", vocab_size=1200)
    if kind == "sentencepiece":
        shutil.copy(trained, checkpoint / "spiece.model")
    version = convert(str(checkpoint), tmp_path / "repository", Options("m"))
    export_version(version, tmp_path / "again")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    ours = Tokenizer.from_file(version / "tokenizer.json")

    batch = theirs([("A café, (twice)!", "it was"), ("Ok", "good")], padding=True)
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
    rows = zip(batch["input_ids"][0], batch["attention_mask"][0], strict=True)
    wanted = ours.frame(ours.ids("A café, (twice)!"), ours.ids("it was"))
    assert [token for token, seen in rows if seen] == wanted.ids.tolist()
    assert batch["attention_mask"][1][-1] == 0
