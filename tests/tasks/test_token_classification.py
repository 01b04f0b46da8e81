"""Labels of words to spans: by their prefixes, whatever the scheme; in time that grows with the text alone."""

import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given, strategies as st

from service.tasks.token_classification import WORD, TokenClassification

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def joined(text: str, labels: list[str], known: list[str] | None = None) -> list[tuple[str, str]]:
    task = TokenClassification(None, known or BIO, 64, 16)  # type: ignore[arg-type]
    words: list[Any] = []
    start = 0
    for word, label in zip(text.split(), labels, strict=True):
        start = text.index(word, start)
        words.append((start, start + len(word), label, 0.5))
        start += len(word)
    return [(span.label, span.text) for span in task.joined(text, words)]


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        (["B-PER", "I-PER", "O"], [("PER", "Ann Lee")]),
        (["I-PER", "I-PER", "O"], [("PER", "Ann Lee")]),  # leniently: an I that continues nothing begins
        (["B-PER", "B-PER", "O"], [("PER", "Ann"), ("PER", "Lee")]),
        (["B-PER", "I-LOC", "O"], [("PER", "Ann"), ("LOC", "Lee")]),
        (["B-PER", "O", "I-PER"], [("PER", "Ann"), ("PER", "slept")]),
        (["O", "O", "O"], []),
        (["B-PER", "E-PER", "I-PER"], [("PER", "Ann Lee"), ("PER", "slept")]),  # E ends it
        (["S-PER", "I-PER", "O"], [("PER", "Ann"), ("PER", "Lee")]),  # S is whole
        (["U-PER", "L-PER", "O"], [("PER", "Ann"), ("PER", "Lee")]),
    ],
)
def test_spans_by_prefix(labels: list[str], spans: list[tuple[str, str]]) -> None:
    assert joined("Ann Lee slept", labels) == spans


def test_labels_without_prefixes_join_where_there_is_one_for_none() -> None:
    assert joined("Ann Lee slept", ["PER", "PER", "O"], ["O", "PER"]) == [("PER", "Ann Lee")]
    assert joined("Ann Lee slept", ["NOUN", "NOUN", "VERB"], ["NOUN", "VERB"]) == [
        ("NOUN", "Ann"), ("NOUN", "Lee"), ("VERB", "slept"),
    ]  # fmt: skip


def test_a_label_with_a_dash_of_its_own_has_no_prefix() -> None:
    assert joined("Ann Lee slept", ["self-name", "O", "O"], ["O", "self-name"]) == [("self-name", "Ann")]


def test_a_dash_in_the_names_of_labels_is_no_prefix() -> None:
    assert joined("a b c", ["B-cell", "T-cell", "O"], ["O", "B-cell", "T-cell"]) == [("B-cell", "a"), ("T-cell", "b")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The U.S. paid $1,000.50.", ["The", "U.S.", "paid", "$", "1,000.50", "."]),
        ("AT&T is well-known.", ["AT&T", "is", "well-known", "."]),
        ("It ended.Then", ["It", "ended", ".", "Then"]),
        ("東京は", ["東", "京", "は"]),
        ("Apple Inc. opened in St. Louis.", ["Apple", "Inc.", "opened", "in", "St.", "Louis", "."]),
        ("Co.uk or Disco.", ["Co", ".", "uk", "or", "Disco", "."]),
        ("E\u0301mile Zoe\u0308's cafe\u0301.", ["E\u0301mile", "Zoe\u0308's", "cafe\u0301", "."]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा", "।"]),
        ("ข้อมูล كِتَابٌ می\u200cخواهم", ["ข้อมูล", "كِتَابٌ", "می\u200cخواهم"]),
        ("か\u3099 ❤\ufe0f \u0301x", ["か\u3099", "❤\ufe0f", "\u0301", "x"]),
    ],
)
def test_words_are_those_that_people_tag(text: str, words: list[str]) -> None:
    assert [match[0] for match in WORD.finditer(text)] == words


@given(st.text(alphabet="aéE\u0301 1.'-हि\u094dन\u200cか\u3099&", max_size=30))
def test_words_hold_all_that_is_no_white_space_and_a_mark_stays_with_its_letter(text: str) -> None:
    found = [match.span() for match in WORD.finditer(text)]
    held = {place for start, end in found for place in range(start, end)}

    assert held == {place for place, letter in enumerate(text) if not letter.isspace()}
    for start, _ in found[1:]:
        assert not (unicodedata.combining(text[start]) and text[start - 1].isalnum())


def test_the_words_of_a_long_text_take_time_that_grows_with_it() -> None:
    began = time.perf_counter()
    for text in ("a" * 400_000, "a\u0301" * 200_000, "a-" * 200_000 + "!", "\u0301" * 400_000):
        assert sum(len(match[0]) for match in WORD.finditer(text)) == len(text)
    assert time.perf_counter() - began < 5


def test_the_score_of_a_span_is_the_mean_of_its_words() -> None:
    task = TokenClassification(None, BIO, 64, 16)  # type: ignore[arg-type]
    (span,) = task.joined("a b c", [(0, 1, "B-PER", 0.9), (2, 3, "I-PER", 0.6), (4, 5, "I-PER", 0.3)])
    assert span.score == pytest.approx(0.6)


def test_one_span_over_all_of_a_long_text_takes_no_longer_than_many() -> None:
    count = 200_000
    task = TokenClassification(None, BIO, 64, 16)  # type: ignore[arg-type]
    began = time.perf_counter()
    (span,) = task.joined("a " * count, ((2 * n, 2 * n + 1, "I-PER", 0.5) for n in range(count)))
    assert time.perf_counter() - began < 5
    assert span.end == 2 * count - 1
