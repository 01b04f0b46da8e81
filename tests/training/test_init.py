"""``train --init`` takes what ``convert`` takes, and a checkpoint with another head or none."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AlbertForSequenceClassification

from service.cli import main
from service.conversion.checkpoint import read_checkpoint
from service.conversion.initial import prepare
from service.errors import CheckpointError
from tests.checkpoints import save_checkpoint
from tests.odd_checkpoints.changes import BIN, MODEL, base, config, file, named, pickled, sharded, then, without
from tests.odd_checkpoints.outcomes import Build
from tests.odd_checkpoints.vocabularies import fast_from_spiece, spiece, word_list
from tests.training.test_run import write_distinct

TAKEN: dict[str, Build] = {
    "spiece.model alone": spiece(),
    "spiece.model and tokenizer.json": then(spiece(), fast_from_spiece),
    "vocab.txt alone": then(base(), word_list),
    "pytorch_model.bin": then(base(), pickled),
    "shards": then(base(), sharded(MODEL)),
    "shards of a pickle": then(base(), sharded(BIN)),
    "names with module.": then(base(), named(lambda name: f"module.{name}")),
    "names without albert.": then(base(), named(lambda name: name.removeprefix("albert."))),
    "no head": base("AlbertModel"),
    "masked words": base("AlbertForMaskedLM"),
    "both tasks of pretraining": base("AlbertForPreTraining"),
    "a reader": base("AlbertForQuestionAnswering"),
    "return_dict": then(base(), config(return_dict=False)),
}


def start(init: Path, rows: Path, out: Path) -> int:
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(rows), "--out", str(out)]
    return main([*command, "--epochs", "0.1", "--learning-rate", "1e-12", "--warmup", "0"])


@pytest.mark.parametrize("name", TAKEN)
def test_training_begins_with_its_weights_and_its_tokenizer(tmp_path: Path, name: str) -> None:
    init, out = tmp_path / "init", tmp_path / "out"
    TAKEN[name](init)
    assert start(init, write_distinct(tmp_path / "rows.tsv", 20), out) == 0

    began, trained = prepare(str(init), tmp_path / "prepared"), read_checkpoint(str(out))
    model = AlbertForSequenceClassification.from_pretrained(began, num_labels=2, ignore_mismatched_sizes=True)
    body = {key.removeprefix("albert."): value for key, value in model.half().state_dict().items()}
    kept = [key for key in trained.weights if key.startswith(("embeddings.", "encoder."))]
    assert len(kept) > 10
    assert all(torch.equal(trained.weights[key], body[key]) for key in kept)
    assert (began / "tokenizer.json").read_text() == (out / "tokenizer.json").read_text()


def test_a_teacher_may_lie_in_shards(tmp_path: Path) -> None:
    rows = write_distinct(tmp_path / "rows.tsv", 20)
    labels: dict[str, Any] = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    init, teacher = save_checkpoint(tmp_path / "a"), save_checkpoint(tmp_path / "b", **labels)
    sharded(MODEL)(teacher)
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(rows), "--epochs", "0.1"]

    assert main([*command, "--teacher", str(teacher), "--out", str(tmp_path / "out")]) == 0


def test_share_layer_and_pretrain_take_a_spiece_model_too(tmp_path: Path) -> None:
    spiece()(tmp_path / "source")
    texts = tmp_path / "texts.txt"
    paragraphs = "The ferry leaves at half past six. We should be on the quay by six.\n" * 3
    texts.write_text(f"{paragraphs}\n" * 60)

    assert main(["share-layer", str(tmp_path / "source"), "--group", "0", "--out", str(tmp_path / "shared")]) == 0
    command = ["pretrain", str(texts), "--init", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    assert main([*command, "--steps", "2", "--length", "48", "--batch-tokens", "256"]) == 0
    assert (tmp_path / "out" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("config.json"), "no config.json"),
        (without("tokenizer.json"), r"tokenizer\.json"),
        (without(MODEL), MODEL),
        (config(vocab_size=1000), "vocab_size"),
        (file("tokenizer.json", "version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    ],
)
def test_what_contradicts_itself_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Build, told: str
) -> None:
    then(base(), change)(tmp_path / "init")

    assert start(tmp_path / "init", write_distinct(tmp_path / "rows.tsv", 20), tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match=told) as refused:
        prepare(str(tmp_path / "init"), tmp_path / "prepared")
    assert refused.value.message in capsys.readouterr().err


def test_a_length_beyond_the_inits_positions_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base()(tmp_path / "init")
    (tmp_path / "texts.txt").write_text("The ferry leaves at half past six.\n\n" * 60)
    command = [
        "pretrain",
        str(tmp_path / "texts.txt"),
        "--init",
        str(tmp_path / "init"),
        "--out",
        str(tmp_path / "out"),
    ]

    assert main([*command, "--length", "65"]) == 1
    assert "--length 65: wanted 35 to 64 tokens" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_prepared_form_is_the_same_every_time(tmp_path: Path) -> None:
    """What a run resumes from is known by these files."""
    init = save_checkpoint(tmp_path / "init")
    first, second = (prepare(str(init), tmp_path / name) for name in "ab")

    for name in (MODEL, "config.json", "tokenizer.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    shutil.rmtree(first)
