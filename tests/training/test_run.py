"""From files to a checkpoint to a published model, by the commands that made the shipped ones."""

import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from service.cli import main
from service.repository.store import read_manifest
from service.training.datasets import Question
from service.training.run import hold_out
from tests.checkpoints import save_checkpoint, word_pieces

ROWS = [("positive", "ok"), ("positive", "Great service"), ("negative", "It was not good."), ("negative", "bored")]


def write_rows(path: Path, copies: int) -> Path:
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in ROWS * copies))
    return path


def write_questions(path: Path) -> Path:
    text = "Nobody knew why the river had changed its course overnight."
    qas = [{"id": "1", "question": "what changed", "answers": [{"text": "the river", "answer_start": 16}]}]
    data = [{"title": f"t{i}", "paragraphs": [{"context": text, "qas": qas}]} for i in range(60)]
    path.write_text(json.dumps({"data": data}))
    return path


def test_train_then_convert_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    (init / "tokenizer_config.json").write_text("{}")
    train, dev = write_rows(tmp_path / "train.tsv", 30), write_rows(tmp_path / "dev.tsv", 2)
    out = str(tmp_path / "out")
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(train), "--dev", str(dev)]
    flags = ["--out", out, "--epochs", "12", "--learning-rate", "2e-3", "--batch-tokens", "128", "--max-length", "32"]

    assert main([*command, *flags]) == 0
    assert "best score" in capsys.readouterr().out
    convert = ["convert", out, "--name", "made", "--model-repo", str(tmp_path / "repo"), "--evaluate", str(dev)]
    assert main(convert) == 0
    manifest = read_manifest(tmp_path / "repo" / "made" / "1")
    assert manifest.labels == ["negative", "positive"]
    assert manifest.provenance["stored_precision"] == "float16"
    assert manifest.provenance["training"]["recipe"]["epochs"] == 12
    assert manifest.quality["dev.tsv"]["accuracy"] > 0.9


def test_train_then_convert_a_reader(tmp_path: Path) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    (init / "tokenizer_config.json").write_text("{}")
    train = write_questions(tmp_path / "train.json")
    out = str(tmp_path / "out")
    command = ["train", "--task", "question-answering", "--init", str(init), "--train", str(train), "--out", out]

    assert main([*command, "--epochs", "8", "--learning-rate", "3e-3", "--max-length", "40"]) == 0
    convert = ["convert", out, "--name", "made", "--model-repo", str(tmp_path / "repo"), "--evaluate", str(train)]
    assert main(convert) == 0
    quality = read_manifest(tmp_path / "repo" / "made" / "1").quality["train.json"]
    assert quality["questions"] == 60
    assert quality["f1"] >= quality["exact_match"] > 50


def test_a_bert_becomes_an_albert_that_answers_as_the_bert_did(tmp_path: Path) -> None:
    import numpy as np
    import torch
    from transformers import AlbertModel

    pieces = word_pieces()
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    bert = BertModel(BertConfig(vocab_size=pieces.get_vocab_size(), **shape)).eval()
    bert.save_pretrained(tmp_path / "bert")
    pieces.save(str(tmp_path / "bert" / "tokenizer.json"))
    texts = tmp_path / "texts.txt"
    texts.write_text("Nobody knew why the river had changed.\n" * 3)
    out = str(tmp_path / "albert")
    size = pieces.get_vocab_size() - 60
    shrink = ["shrink-bert", str(tmp_path / "bert"), "--texts", str(texts), "--vocabulary", str(size), "--out", out]

    assert main(shrink) == 0
    albert = AlbertModel.from_pretrained(out).eval()
    from service.tasks.text import Tokenizer

    old, new = (Tokenizer.from_file(tmp_path / name / "tokenizer.json") for name in ("bert", "albert"))
    text = "Nobody knew why the river had changed."
    with torch.inference_mode():
        wanted, found = (
            model(
                torch.from_numpy(tokenizer.frame(tokenizer.encode(text).ids).ids.astype(np.int64))[None]
            ).last_hidden_state.numpy()
            for model, tokenizer in ((bert, old), (albert, new))
        )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert albert.config.vocab_size == size
    rare = "wrote would"  # words that the texts do not hold are spelled out
    assert len(new.encode(rare)) > len(old.encode(rare)) == 2


def test_articles_are_never_on_both_sides() -> None:
    questions = [Question(str(i), "q", "c", (), f"title {i % 7}") for i in range(70)]
    learnt, held = hold_out(questions, every=3)

    assert {q.title for q in learnt}.isdisjoint(q.title for q in held)
    assert len(learnt) + len(held) == 70
    assert held


def test_bad_files_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    bad = tmp_path / "bad.tsv"
    bad.write_text("label\ttext\npositive\tok\nnegative\t\n")
    command = ["train", "--task", "text-classification", "--init", str(init), "--out", str(tmp_path / "out")]

    assert main([*command, "--train", str(bad), "--dev", str(bad)]) == 1
    assert f"{bad}, line 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
