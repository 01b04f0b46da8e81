"""A model from nothing: a vocabulary trimmed to the texts, random weights, and labels that it learns."""

import json
from pathlib import Path

import pytest
from transformers import BertTokenizer

from service.cli import main
from service.repository.store import read_manifest
from service.tasks.text import Tokenizer

GOOD, BAD = "很好吃味道不错送得快服务也好", "太难吃了又冷又慢再也不点了差"
SHAPE = ["--embedding-size", "16", "--hidden-size", "32", "--num-hidden-layers", "2", "--num-attention-heads", "2"]


def chinese_pieces(path: Path) -> Path:
    """BERT's kind of list: special tokens in another order, unused places, letters alone and inside words."""
    letters = [*sorted({*GOOD, *BAD, *"龙凤"}), *"abcdefghijklmnopqrstuvwxyz0123456789", "，", "。"]
    pieces = [
        "[PAD]",
        "[unused1]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def reviews(path: Path, count: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            for label, letters in (("good", GOOD), ("bad", BAD)):
                start = number % 7
                text = f"{letters[start : start + 5]}，{letters[start + 1 : start + 7]}。{number}"
                file.write(json.dumps({"label": label, "text": text}, ensure_ascii=False) + "\n")
    return path


def test_a_chinese_classifier_from_nothing_to_a_published_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces, rows = chinese_pieces(tmp_path / "vocab.txt"), reviews(tmp_path / "rows.jsonl", 60)
    data, new, out = tmp_path / "data", tmp_path / "new", tmp_path / "out"
    assert main(["split", str(rows), "--hold-out", "0.2", "--out", str(data)]) == 0
    assert "train.jsonl: 96 rows" in capsys.readouterr().out
    start = ["new-model", "--word-pieces", str(pieces), "--texts", str(data / "train.jsonl"), "--out", str(new)]
    assert main([*start, "--vocab-size", "500", *SHAPE, "--intermediate-size", "64"]) == 0
    train = ["train", "--task", "text-classification", "--init", str(new), "--train", str(data / "train.jsonl")]
    train += ["--dev", str(data / "dev.jsonl"), "--out", str(out), "--epochs", "10", "--learning-rate", "3e-3"]
    publish = ["--publish", "zh", "--model-repo", str(tmp_path / "repo"), "--evaluate", str(data / "test.jsonl")]
    assert main([*train, "--batch-tokens", "256", "--max-length", "32", *publish]) == 0

    manifest = read_manifest(tmp_path / "repo" / "zh" / "1")
    assert manifest.quality["test.jsonl"]["accuracy"] == 1.0
    assert manifest.architecture["num_hidden_groups"] == 1


def test_pieces_that_the_texts_use_come_first_and_ids_are_berts(tmp_path: Path) -> None:
    pieces, rows = chinese_pieces(tmp_path / "vocab.txt"), reviews(tmp_path / "rows.jsonl", 60)
    start = ["new-model", "--word-pieces", str(pieces), "--texts", str(rows), "--out", str(tmp_path / "new")]
    assert main([*start, "--vocab-size", "500", *SHAPE]) == 0
    kept = json.loads((tmp_path / "new" / "tokenizer.json").read_text())["model"]["vocab"]

    assert [*kept][:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert max(kept[letter] for letter in GOOD) < kept["龙"]  # what no text holds comes last, and is cut first
    assert not any("unused" in piece for piece in kept)
    (tmp_path / "kept.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    theirs, ours = BertTokenizer(vocab=str(tmp_path / "kept.txt")), Tokenizer.from_file(tmp_path / "new/tokenizer.json")
    for text in ("很好吃，abc 12!", "龙 太难吃了", "A快b慢"):
        assert ours.ids(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"]


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    pieces, rows = chinese_pieces(tmp_path / "vocab.txt"), reviews(tmp_path / "rows.jsonl", 20)
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        start = ["new-model", "--word-pieces", str(pieces), "--texts", str(rows), "--out", str(tmp_path / name)]
        assert main([*start, "--seed", seed, *SHAPE]) == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")

    assert a == b != c


def test_a_file_that_is_no_list_of_word_pieces_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = reviews(tmp_path / "rows.jsonl", 20)
    start = ["new-model", "--word-pieces", str(rows), "--texts", str(rows), "--out", str(tmp_path / "new")]

    assert main(start) == 1
    assert "rows.jsonl: no list of word pieces" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_split_parts_have_no_text_twice(tmp_path: Path) -> None:
    rows = reviews(tmp_path / "rows.jsonl", 60)
    rows.write_text(rows.read_text() * 2)  # every row twice
    assert main(["split", str(rows), "--out", str(tmp_path / "data")]) == 0
    parts = [(tmp_path / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("train", "dev", "test")]

    assert [len(part) for part in parts] == [96, 12, 12]
    assert len({row for part in parts for row in part}) == 120
