"""Words of a text, the text without them, and where a span lies then."""

import itertools
import re

import pytest
from hypothesis import given, strategies as st

from service.tasks.occlusion import Part, neighbours, shifted, touches, without, words

TEXTS = st.text(alphabet="ab1 é,.'-!？\u3000\n很好🎉", max_size=40)


def shown(text: str, most: int = 100) -> list[str]:
    return [text[part.start : part.end] for part in words({"text": text}, most)]


def test_a_word_is_a_run_of_letters_a_character_of_chinese_or_a_run_of_signs() -> None:
    assert shown("It wasn't good, 很好 well-made!! 🎉 x²") == [
        "It", "wasn't", "good", ",", "很", "好", "well-made", "!!", "🎉", "x²"
    ]  # fmt: skip
    assert shown("Pe\u0301rez नमस्ते") == ["Pe\u0301rez", "नमस्ते"]


@given(TEXTS, st.integers(1, 12))
def test_words_cover_all_but_white_space_in_order_and_no_more_than_asked_for(text: str, most: int) -> None:
    parts = words({"text": text}, most)

    assert len(parts) <= most
    kept = list(text)
    for part in parts:
        assert text[part.start : part.end].strip()
        kept[part.start : part.end] = " " * (part.end - part.start)
    assert not "".join(kept).strip()
    assert all(a.end <= b.start for a, b in itertools.pairwise(parts))


def test_each_of_several_texts_keeps_a_word_of_its_own() -> None:
    parts = words({"question": "Who?", "context": "a " * 50}, 1)

    assert [part.field for part in parts] == ["question", "context"]


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("It was not good", "not", "It was good"),
        ("not good", "not", " good"),
        ("so good", "good", "so"),
        ("good, really", "good", ", really"),
        ("not", "not", ""),
        ("很好吃", "好", "很吃"),
    ],
)
def test_a_text_without_a_word_keeps_one_space_between_its_neighbours(text: str, word: str, left: str) -> None:
    place = re.search(re.escape(word), text)
    assert place

    assert without({"text": text, "text_pair": "x"}, [Part("text", *place.span())]) == {"text": left, "text_pair": "x"}


@given(TEXTS)
def test_a_span_is_found_again_in_the_text_without_other_words(text: str) -> None:
    texts = {"question": "Who?", "context": text}
    parts = words(texts, 50)
    for span in parts:
        for cut in ([part] for part in parts if part != span):
            left = without(texts, cut)
            place = shifted(span, cut, texts)
            assert left[span.field][place.start : place.end] == texts[span.field][span.start : span.end]


def test_neighbours_are_of_one_text() -> None:
    parts = words({"question": "Who came", "context": "a b"}, 50)

    assert neighbours(parts) == [(0, 1), (2, 3)]
    assert touches(Part("text", 0, 3), Part("text", 2, 5))
    assert not touches(Part("text", 0, 3), Part("text", 3, 5))
    assert not touches(Part("text", 0, 3), Part("text_pair", 0, 3))
