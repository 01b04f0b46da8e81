"""The sentences of a text, and which of them carry it."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.tasks.sentences import choose, sentences


def split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Lee met J. Smith. They spoke.", ["Dr. Lee met J. Smith.", "They spoke."]),
        ("Acme Inc.\n\nThe next one.", ["Acme Inc.", "The next one."]),
        ('"No." Then he left.', ['"No."', "Then he left."]),
        ("See No. 5 there. Good.", ["See No. 5 there.", "Good."]),
        ("He said e.g. this and went on. Fine.", ["He said e.g. this and went on.", "Fine."]),
        ("It is 3.5 metres. and so on", ["It is 3.5 metres. and so on"]),  # a small letter goes on
        ("東京は大きい。京都も！はい", ["東京は大きい。", "京都も！", "はい"]),
        ("वह आया। वह गया॥ अंत", ["वह आया।", "वह गया॥", "अंत"]),
        ("هل أنت هنا؟ نعم۔ حسنا", ["هل أنت هنا؟", "نعم۔", "حسنا"]),
        ("  \n\n  ", []),
    ],
)
def test_where_sentences_end(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@given(st.text(alphabet='aB .!?。\n"”)', max_size=60))
def test_sentences_hold_all_of_a_text_but_the_space_between(text: str) -> None:
    spans = sentences(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert "".join("".join(split(text)).split()) == "".join(text.split())
    assert all(text[one.start : one.end].strip() == text[one.start : one.end] != "" for one in spans)


@pytest.mark.parametrize(
    "text", ["A. " * 130_000, ". " * 200_000, "\n" * 400_000, '."' * 200_000, "." + " " * 400_000 + "a"]
)
def test_the_time_grows_with_the_text(text: str) -> None:
    began = time.perf_counter()
    sentences(text)
    assert time.perf_counter() - began < 5


def vectors(*angles: float) -> "np.typing.NDArray[np.float32]":
    return np.array([[np.cos(one), np.sin(one)] for one in angles], dtype=np.float32)


def test_the_most_central_come_first_and_in_the_order_of_the_text() -> None:
    found = choose(vectors(1.5, 0.1, 0.0, -0.1), [10] * 4, count=2, redundancy=0)
    assert [one.index for one in found] == [1, 2]


def test_what_is_said_already_is_not_said_again() -> None:
    alike = vectors(0.0, 0.0, 0.9)
    assert [one.index for one in choose(alike, [10] * 3, count=2, redundancy=0)] == [0, 1]
    assert [one.index for one in choose(alike, [10] * 3, count=2, redundancy=0.7)] == [0, 2]


def test_a_share_bounds_the_characters_but_for_the_first() -> None:
    found = choose(vectors(0.0, 0.1, 0.2), [100, 10, 10], share=0.1)
    assert len(found) >= 1
    assert len(choose(vectors(0.0, 0.1, 0.2), [10, 10, 10], share=1.0)) == 3
