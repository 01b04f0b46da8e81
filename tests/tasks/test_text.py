"""Text to tokens: offsets in the caller's own code points, frames as the tokenizer's own, cutting of pairs."""

import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings, strategies as st
from tokenizers import processors

from service.conversion.texts import SENTENCES
from service.conversion.vocabulary import TokenizerFiles, tokenizer_json
from service.errors import InvalidRequest
from service.tasks.text import AT_ONCE, Tokenizer, cut_pair
from tests.checkpoints import word_pieces

# No character here stands for two after normalisation ("ﬁ", "½"): such a one gives its place to several tokens.
PLAIN = [
    *(text for text in SENTENCES if "½" not in text and "²" not in text),
    "昨天  下午\u3000三点",
    "🎉🎉 ok 👍🏽",
    "e\u0301tude, nai\u0308ve, ÉTUDE, NAÏVE",
    "IT WAS NOT GOOD",
    " \t\n it \u00a0 was\r\n\r\nnot   good  ",
    "ΑΒΓ 한 ﷺ",  # nothing of this is in the vocabulary
]


@dataclass(frozen=True)
class Pieces:
    """A tokenizer of ours and the one of the library that it reads."""

    ours: Tokenizer
    original: tokenizers.Tokenizer


def word_piece_file(folder: Path) -> Path:
    word_pieces().save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def sentence_piece_file(folder: Path) -> Path:
    """``tokenizer.json`` from a small ``spiece.model`` made the way ALBERT's is."""
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 20), model_writer=file, model_type="unigram", vocab_size=200,
            hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]"],
            user_defined_symbols=["[MASK]"], minloglevel=2,
        )  # fmt: skip
    definition = tokenizer_json(TokenizerFiles.read(folder))
    (folder / "tokenizer.json").write_text(definition, encoding="utf-8")
    return folder / "tokenizer.json"


KINDS = {"word pieces": word_piece_file, "SentencePiece": sentence_piece_file}


@pytest.fixture(scope="module", params=KINDS)
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    file = KINDS[request.param](tmp_path_factory.mktemp("vocabulary"))
    return Pieces(Tokenizer.from_file(file), tokenizers.Tokenizer.from_file(str(file)))


def plain(text: str) -> str:
    """Lower case without accents, as both kinds of tokenizer make it."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn").lower()


def seen(text: str) -> Iterator[int]:
    """The places of the characters that a token must come from: neither white space nor marks nor controls."""
    return (i for i, c in enumerate(text) if not c.isspace() and unicodedata.category(c)[0] not in "MC")


@pytest.mark.parametrize("text", PLAIN)
def test_the_offsets_of_a_token_are_where_it_stands_in_the_text_as_given(pieces: Pieces, text: str) -> None:
    tokens = pieces.ours.encode(text)

    known = 0
    for token, (start, end) in zip(tokens.ids.tolist(), tokens.offsets.tolist(), strict=True):
        piece = str(pieces.original.id_to_token(token)).removeprefix("##").removeprefix("▁")
        if piece and piece.lower() not in ("[unk]", "<unk>"):
            known += 1
            assert plain(text[start:end]) == plain(piece)
    assert known > 0 or "ﷺ" in text
    assert tokens.ids.dtype == tokens.offsets.dtype == np.int32


@pytest.mark.parametrize("text", [*PLAIN, *SENTENCES])
def test_every_visible_character_belongs_to_a_token_and_tokens_stand_in_order(pieces: Pieces, text: str) -> None:
    offsets = pieces.ours.encode(text).offsets.tolist()

    covered = {place for start, end in offsets for place in range(start, end)}
    assert set(seen(text)) <= covered <= set(range(len(text)))
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(offsets))


@pytest.mark.parametrize(
    ("text", "slices"),
    [
        ("IT WAS Not good", ["IT", "WAS", "Not", "good"]),
        ("\n  it \t\t was\u3000ok  ", ["it", "was", "ok"]),
        ("昨天,下午", ["昨", "天", ",", "下", "午"]),
        ("🎉 ok 🎉", ["🎉", "ok", "🎉"]),
        ("NAÏVE nai\u0308ve ok", ["NAÏVE", "nai\u0308ve", "ok"]),
    ],
)
def test_word_pieces_are_slices_of_the_text(tmp_path: Path, text: str, slices: list[str]) -> None:
    tokens = Tokenizer.from_file(word_piece_file(tmp_path)).encode(text)

    assert [text[start:end] for start, end in tokens.offsets] == slices


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=60))
def test_any_text_gets_offsets_within_it(pieces: Pieces, text: str) -> None:
    tokens = pieces.ours.encode(text)

    assert tokens.offsets.shape == (len(tokens), 2)
    for start, end in tokens.offsets.tolist():
        assert 0 <= start < end <= len(text)
    assert pieces.ours.ids(text).tolist() == tokens.ids.tolist()


def test_a_long_text_has_the_tokens_that_the_library_gives_it(tmp_path: Path) -> None:
    """They are taken over in parts: once around the end of a part, and once through several."""
    path = word_piece_file(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(path))
    for count in (AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5):
        text = "was it " * (count // 2) + "it" * (count % 2)
        whole = library.encode(text, add_special_tokens=False)
        tokens = Tokenizer.from_file(path).encode(text)
        assert len(whole.ids) == count
        assert tokens.ids.tolist() == whole.ids
        assert tokens.offsets.tolist() == [list(pair) for pair in whole.offsets]


def test_a_part_keeps_the_offsets_of_its_tokens(pieces: Pieces) -> None:
    tokens = pieces.ours.encode(SENTENCES[0])
    part = tokens.part(3, 7)

    assert len(part) == 4
    assert part.ids.tolist() == tokens.ids.tolist()[3:7]
    assert part.offsets.tolist() == tokens.offsets.tolist()[3:7]


def test_a_framed_text_is_the_tokenizers_own_encoding(pieces: Pieces) -> None:
    for text in SENTENCES:
        own = pieces.original.encode(text)
        framed = pieces.ours.frame(pieces.ours.encode(text).ids)

        assert framed.ids.tolist() == own.ids
        assert framed.types.tolist() == own.type_ids == [0] * len(own.ids)
        assert framed.second == len(framed) == len(own.ids)


def test_a_framed_pair_is_the_tokenizers_own_encoding(pieces: Pieces) -> None:
    for first, second in pairwise(SENTENCES):
        own = pieces.original.encode(first, second)
        framed = pieces.ours.frame(pieces.ours.encode(first).ids, pieces.ours.encode(second).ids)

        assert framed.ids.tolist() == own.ids
        assert framed.types.tolist() == own.type_ids
        assert framed.second == own.type_ids.index(1)
        assert framed.ids.dtype == framed.types.dtype == np.int32


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_and_padding_that_were_saved_are_ignored(tmp_path: Path, kind: str) -> None:
    file = KINDS[kind](tmp_path)
    whole = Tokenizer.from_file(file).encode(SENTENCES[0]).ids.tolist()
    short = Tokenizer.from_file(file).encode("ok").ids.tolist()
    saved = tokenizers.Tokenizer.from_file(str(file))
    saved.enable_truncation(max_length=4)
    saved.enable_padding(length=50)
    saved.save(str(file))

    assert len(whole) > 4
    assert len(tokenizers.Tokenizer.from_file(str(file)).encode(SENTENCES[0]).ids) == 50
    assert Tokenizer.from_file(file).encode(SENTENCES[0]).ids.tolist() == whole
    assert Tokenizer.from_file(file).encode("ok").ids.tolist() == short


@pytest.mark.parametrize("text", ["\ud800", "fine \udc00 so far", "🎉\udf89"])
def test_half_a_character_is_refused(pieces: Pieces, text: str) -> None:
    for encode in (pieces.ours.encode, pieces.ours.ids):
        with pytest.raises(InvalidRequest, match="lone surrogate"):
            encode(text)


def test_a_text_after_a_refused_one_is_encoded(pieces: Pieces) -> None:
    with pytest.raises(InvalidRequest):
        pieces.ours.encode("\ud800")

    assert len(pieces.ours.encode("ok"))


TYPED = ["[SEP]", "[CLS]", "<pad>", "[PAD]", "[MASK]", "<unk>", "[UNK]"]
INTO = ["{}", "{0}{0}", " {} ", "it was {} not good", "good{}good", "{0} {0}\n{0}", "▁{}", " {}"]


def control_ids(pieces: Pieces) -> dict[int, str]:
    names = {"[PAD]", "<pad>", "[CLS]", "[SEP]", "[MASK]"}
    return {number: name for name in names if (number := pieces.original.token_to_id(name)) is not None}


@pytest.mark.parametrize("around", INTO)
@pytest.mark.parametrize("name", TYPED)
def test_the_name_of_a_control_token_in_a_text_is_ordinary_text(pieces: Pieces, name: str, around: str) -> None:
    controls = control_ids(pieces)
    assert len(controls) >= 4
    text = around.format(name)
    tokens = pieces.ours.encode(text)
    framed = pieces.ours.frame(pieces.ours.ids(text), pieces.ours.ids(name)).ids.tolist()

    assert [controls.get(number) for number in framed if number in controls] == ["[CLS]", "[SEP]", "[SEP]"]
    assert framed[0] in controls
    assert tokens.ids.tolist() == pieces.ours.ids(text).tolist()
    # No token is the whole name, be it the one for what is unknown.
    assert name not in [text[start:end].strip() for start, end in tokens.offsets]


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.sampled_from([*TYPED, " ", "ok", "[", "]", "<", ">", "▁", "\u00a0", "\u3000"]), max_size=8))
def test_no_text_has_a_control_token(pieces: Pieces, parts: list[str]) -> None:
    assert not set(pieces.ours.ids("".join(parts)).tolist()) & control_ids(pieces).keys()


@pytest.mark.parametrize("missing", ["cls_token", "sep_token"])
def test_a_vocabulary_without_the_framing_tokens_is_refused(tmp_path: Path, missing: str) -> None:
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]"} | {missing: "<s>"}

    with pytest.raises(ValueError, match="<s>"):
        Tokenizer.from_file(word_piece_file(tmp_path), **names)


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_may_encode_at_once(tmp_path: Path, kind: str) -> None:
    file, threads = KINDS[kind](tmp_path), 8
    alone = Tokenizer.from_file(file)
    expected = [alone.encode(text).ids.tolist() for text in SENTENCES]
    shared = Tokenizer.from_file(file)
    together = threading.Barrier(threads)

    def encode_all(_: int) -> list[list[int]]:
        together.wait(10)
        return [shared.encode(text).ids.tolist() for text in SENTENCES]

    with ThreadPoolExecutor(threads) as pool:
        for results in pool.map(encode_all, range(threads)):
            assert results == expected


lengths = st.integers(0, 40)


@settings(deadline=None, max_examples=100)
@given(first=lengths, second=lengths, room=lengths)
def test_a_cut_pair_fills_its_room_and_no_more(first: int, second: int, room: int) -> None:
    a, b = cut_pair(np.arange(first, dtype=np.int32), np.arange(second, dtype=np.int32), room)

    assert len(a) + len(b) == min(room, first + second)
    assert a.tolist() == list(range(len(a)))  # cut at the end only
    assert b.tolist() == list(range(len(b)))


@settings(deadline=None, max_examples=100)
@given(first=lengths, second=lengths, room=lengths)
def test_the_longer_of_a_pair_loses_first(first: int, second: int, room: int) -> None:
    a, b = cut_pair(np.arange(first, dtype=np.int32), np.arange(second, dtype=np.int32), room)

    # Whichever was cut is not, but for one token of an odd room, shorter than what the other kept.
    if len(a) < first:
        assert len(a) >= len(b) - 1
    if len(b) < second:
        assert len(b) >= len(a) - 1


@settings(deadline=None, max_examples=100)
@given(first=lengths, second=lengths, room=lengths)
def test_a_pair_is_cut_as_the_tokenizers_library_cuts_it(first: int, second: int, room: int) -> None:
    library = word_pieces()
    library.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    library.enable_truncation(max_length=max(1, room), strategy="longest_first")
    theirs = library.encode("ok " * first, "ok " * second).type_ids
    a, b = cut_pair(np.arange(first, dtype=np.int32), np.arange(second, dtype=np.int32), max(1, room))

    assert (len(a), len(b)) == (theirs.count(0), theirs.count(1))


@settings(deadline=None, max_examples=50)
@given(first=lengths, second=lengths, spare=st.integers(0, 5))
def test_a_pair_that_fits_is_not_cut(first: int, second: int, spare: int) -> None:
    a, b = cut_pair(np.arange(first, dtype=np.int32), np.arange(second, dtype=np.int32), first + second + spare)

    assert (len(a), len(b)) == (first, second)
