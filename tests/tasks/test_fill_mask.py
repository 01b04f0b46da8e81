"""Masked words: where they stand, which pieces are around them, and the text with a word in."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer as Engine, models, normalizers, pre_tokenizers

from service.errors import InvalidRequest
from service.runtime.reduction import best_words
from service.tasks.fill_mask import FillMask
from service.tasks.text import Tokenizer

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "\u2581",
    "\u2581the",
    "\u2581walk",
    "ing",
    ".",
    "s",
    "\u2581good",
]


@pytest.fixture
def task(tmp_path: Path) -> FillMask:
    engine = Engine(models.Unigram([(piece, -1.0) for piece in PIECES], unk_id=1))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    engine.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in PIECES[:5]])
    engine.save(str(tmp_path / "tokenizer.json"))
    content = (tmp_path / "tokenizer.json").read_bytes()
    return FillMask(Tokenizer.from_bytes(content, "tokenizer.json", mask_token="[MASK]"), 32)


def pieces(task: FillMask, text: str) -> list[str]:
    return [task.tokenizer.piece(int(one)).strip() for one in task.encode(text).sequences[0].ids]


def best(task: FillMask, text: str, piece: str) -> str:
    encoded = task.encode(text)
    logits = np.zeros((len(encoded.places), len(PIECES)), dtype=np.float32)
    logits[:, PIECES.index(piece)] = 9
    return task.decode(encoded, [best_words(logits)], top_k=1)[0][0].text


def test_no_piece_stands_between_a_mask_and_what_follows_it_directly(task: FillMask) -> None:
    assert pieces(task, "the [MASK].") == ["[CLS]", "\u2581the", "[MASK]", ".", "[SEP]"]
    assert pieces(task, "the [MASK] .") == ["[CLS]", "\u2581the", "[MASK]", "\u2581", ".", "[SEP]"]
    assert pieces(task, "[MASK]") == ["[CLS]", "[MASK]", "[SEP]"]


def test_a_mask_is_found_by_its_place_in_the_text(task: FillMask) -> None:
    text = "the [MASK] the[MASK]."
    encoded = task.encode(text)
    assert [text[start:end] for start, end in encoded.places] == ["[MASK]", "[MASK]"]
    (row,) = encoded.sequences
    assert row.masks is not None
    assert row.ids[row.masks].tolist() == [4, 4]
    with pytest.raises(InvalidRequest, match="has no"):
        task.encode("[CLS] the")


@pytest.mark.parametrize(
    ("text", "piece", "filled"),
    [
        ("the [MASK] .", "\u2581good", "the good ."),
        ("walk [MASK].", "ing", "walking."),
        ("the [MASK]", ".", "the ."),
        ("[MASK] the [MASK]", "\u2581good", "good the [MASK]"),
    ],
)
def test_a_word_takes_the_masks_place_and_one_that_goes_on_joins(
    task: FillMask, text: str, piece: str, filled: str
) -> None:
    assert best(task, text, piece) == filled


def test_elsewhere_a_mask_is_ordinary_text(tmp_path: Path, task: FillMask) -> None:
    plain = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert 4 not in plain.ids("the [MASK]")
