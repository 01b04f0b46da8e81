"""Texts to rows and logits to labels: activations, cutting, windows, pairs, pooling."""

import math
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from service.errors import InvalidRequest, TextTooLong
from service.tasks.classification import Activation, Classification, Classified, EncodedText
from service.tasks.text import Tokenizer
from service.types import Floats
from tests.checkpoints import word_pieces
from tests.fakes import row

TOKENIZER = Tokenizer.from_bytes(word_pieces().to_str().encode(), "word pieces")
LABELS = ("bad", "odd", "good")
quarters = st.integers(-40_000, 40_000).map(lambda n: n / 4)  # far enough apart that their scores differ


def make_task(**changes: Any) -> Classification:
    facts: dict[str, Any] = {
        "tokenizer": TOKENIZER, "labels": LABELS, "problem_type": "single_label_classification",
        "max_length": 64, "window": 20,
    }  # fmt: skip
    return Classification(**facts | changes)


def text_of(tokens: int) -> str:
    """A text of so many tokens, each one word that tells its place modulo five."""
    words = ("ok", "it", "was", "not", "good")
    return " ".join(words[place % 5] for place in range(tokens))


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text).ids.tolist()
    return ids


def encoded(*lengths: int) -> EncodedText:
    """An input that became rows of these lengths."""
    return EncodedText([row(length) for length in lengths], sum(lengths), truncated=False)


def logits(*values: Seq[float]) -> list[Floats]:
    return [np.array(of_row, dtype=np.float32) for of_row in values]


def scores(result: Classified) -> dict[str, float]:
    return dict(result.labels)


def softmax(*values: float) -> list[float]:
    return [math.exp(value) / sum(map(math.exp, values)) for value in values]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("problem_type", "wanted"),
    [
        ("single_label_classification", softmax(0.5, -1.25, 2.0)),
        ("multi_label_classification", [sigmoid(0.5), sigmoid(-1.25), sigmoid(2.0)]),
        ("regression", [0.5, -1.25, 2.0]),
    ],
)
def test_the_problem_type_decides_what_a_score_is(problem_type: str, wanted: list[float]) -> None:
    result = make_task(problem_type=problem_type).decode(encoded(9), logits([0.5, -1.25, 2.0]))

    assert scores(result) == pytest.approx(dict(zip(LABELS, wanted, strict=True)), rel=1e-12)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_caller_may_ask_for_another_activation(problem_type: str) -> None:
    task = make_task(problem_type=problem_type)
    wanted: dict[Activation, list[float]] = {
        "softmax": softmax(1.0, 0.0, -1.0),
        "sigmoid": [sigmoid(1.0), sigmoid(0.0), sigmoid(-1.0)],
        "none": [1.0, 0.0, -1.0],
    }
    for kind, values in wanted.items():
        result = task.decode(encoded(9), logits([1.0, 0.0, -1.0]), activation=kind)
        assert scores(result) == pytest.approx(dict(zip(LABELS, values, strict=True)))


@pytest.mark.parametrize("sign", [1, -1])
def test_huge_logits_overflow_nowhere(sign: int) -> None:
    huge = logits([sign * 1e4, sign * -1e4, 0.0])
    best = "bad" if sign == 1 else "odd"
    softened = scores(make_task().decode(encoded(9), huge))
    squashed = scores(make_task().decode(encoded(9), huge, activation="sigmoid"))

    assert softened == {label: float(label == best) for label in LABELS}
    assert squashed == {"good": 0.5} | {label: float(label == best) for label in ("bad", "odd")}


def test_equal_huge_logits_share_the_score() -> None:
    result = make_task().decode(encoded(9), logits([1e4, 1e4, 1e4 - 1]))

    assert scores(result) == pytest.approx(dict(zip(LABELS, softmax(0.0, 0.0, -1.0), strict=True)))


@settings(deadline=None, max_examples=50)
@given(values=st.lists(quarters, min_size=3, max_size=3), temperature=st.floats(0.05, 20))
def test_softmax_scores_sum_to_one_and_keep_the_order(values: list[float], temperature: float) -> None:
    result = make_task(temperature=temperature).decode(encoded(9), logits(values))

    found = [score for _, score in result.labels]
    assert sum(found) == pytest.approx(1)
    assert found == sorted(found, reverse=True)
    assert values[LABELS.index(result.labels[0][0])] == max(values)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_temperature_divides_the_logits(problem_type: str) -> None:
    hot = make_task(problem_type=problem_type, temperature=4.0).decode(encoded(9), logits([4.0, -2.0, 8.0]))
    plain = make_task(problem_type=problem_type).decode(encoded(9), logits([1.0, -0.5, 2.0]))

    assert hot == plain


def test_top_k_gives_the_best_first() -> None:
    task = make_task()
    everything = task.decode(encoded(9), logits([1.0, 3.0, 2.0])).labels

    assert [label for label, _ in everything] == ["odd", "good", "bad"]
    for top_k in (1, 2, 3):
        assert task.decode(encoded(9), logits([1.0, 3.0, 2.0]), top_k=top_k).labels == everything[:top_k]
    assert task.decode(encoded(9), logits([1.0, 3.0, 2.0]), top_k=50).labels == everything


def test_equal_labels_keep_the_models_order() -> None:
    result = make_task().decode(encoded(9), logits([2.0, 2.0, 2.0]))

    assert [label for label, _ in result.labels] == list(LABELS)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "none"])
def test_windows_are_pooled_by_their_tokens(kind: Activation) -> None:
    first, second = [1.0, 2.0, 3.0], [5.0, 0.0, -1.0]
    if kind == "sigmoid":
        first_scores, second_scores = [sigmoid(x) for x in first], [sigmoid(x) for x in second]
    else:
        first_scores, second_scores = first, second
    mean = [(12 * a + 6 * b) / 18 for a, b in zip(first_scores, second_scores, strict=True)]
    wanted = softmax(*mean) if kind == "softmax" else mean
    result = make_task().decode(encoded(12, 6), logits(first, second), activation=kind)

    assert scores(result) == pytest.approx(dict(zip(LABELS, wanted, strict=True)))
    assert (result.tokens, result.windows) == (18, 2)


@pytest.mark.parametrize(("evidence", "factor"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_the_evidence_says_how_much_surer_a_longer_text_is(evidence: float, factor: float) -> None:
    """With evidence 1 four windows multiply their odds, as independent witnesses do."""
    task = make_task(evidence=evidence, temperature=2.0)
    four = task.decode(encoded(*[task.window] * 4), logits(*[[1.0, 2.0, 3.0]] * 4))
    alone = task.decode(encoded(task.window), logits([1.0, 2.0, 3.0]))

    assert scores(four) == pytest.approx(
        dict(zip(LABELS, softmax(factor / 2, 2 * factor / 2, 3 * factor / 2), strict=True))
    )
    assert scores(alone) == pytest.approx(dict(zip(LABELS, softmax(0.5, 1.0, 1.5), strict=True)))


def test_equal_windows_pool_to_what_each_of_them_says() -> None:
    once = make_task().decode(encoded(10), logits([1.0, 2.0, 3.0]))
    twice = make_task().decode(encoded(10, 7), logits([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))

    assert scores(twice) == pytest.approx(scores(once))


@pytest.mark.parametrize("long_text", ["truncate", "windows", "error"])
def test_a_text_that_just_fits_is_whole(long_text: Any) -> None:
    result = make_task().encode(text_of(62), long_text=long_text)

    (sequence,) = result.sequences
    assert sequence.ids.tolist() == [2, *ids_of(text_of(62)), 3]
    assert (result.tokens, result.truncated) == (64, False)


def test_a_text_one_token_too_long_is_cut_at_its_end_and_says_so() -> None:
    result = make_task().encode(text_of(63))

    (sequence,) = result.sequences
    assert sequence.ids.tolist() == [2, *ids_of(text_of(62)), 3]
    assert (result.tokens, result.truncated) == (64, True)
    assert make_task().decode(result, logits([1.0, 2.0, 3.0])).truncated


@pytest.mark.parametrize(("text", "pair"), [(63, None), (61, 1), (1, 61), (31, 31)])
def test_an_error_is_given_where_one_was_asked_for(text: int, pair: int | None) -> None:
    with pytest.raises(TextTooLong, match="65 tokens, the model sees 64"):
        make_task().encode(text_of(text), None if pair is None else text_of(pair), "error")


@settings(deadline=None, max_examples=60)
@given(tokens=st.integers(63, 400), window=st.integers(8, 64))
def test_windows_are_balanced_and_hold_every_token_once(tokens: int, window: int) -> None:
    result = make_task(window=window).encode(text_of(tokens), long_text="windows")

    sizes = [len(sequence) for sequence in result.sequences]
    assert max(sizes) <= window
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == math.ceil(tokens / (window - 2))  # no more of them than are needed
    assert all(s.ids[0] == 2 and s.ids[-1] == 3 and not s.types.any() for s in result.sequences)
    assert [i for s in result.sequences for i in s.ids[1:-1].tolist()] == ids_of(text_of(tokens))
    assert (result.tokens, result.truncated) == (sum(sizes), False)


@settings(deadline=None, max_examples=60)
@given(long=st.integers(62, 300), short=st.integers(1, 45), longer_first=st.booleans())
def test_of_a_pair_the_shorter_text_stays_whole_in_each_window(long: int, short: int, longer_first: bool) -> None:
    texts = (text_of(long), text_of(short)) if longer_first else (text_of(short), text_of(long))
    result = make_task().encode(*texts, "windows")

    parts: list[int] = []
    for sequence in result.sequences:
        assert len(sequence) <= 64
        first = sequence.ids[1 : sequence.second - 1].tolist()
        second = sequence.ids[sequence.second : -1].tolist()
        assert sequence.types.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert (second if longer_first else first) == ids_of(text_of(short))
        parts += first if longer_first else second
    assert parts == ids_of(text_of(long))
    assert not result.truncated


@settings(deadline=None, max_examples=60)
@given(first=st.integers(1, 200), second=st.integers(1, 200))
def test_a_pair_is_cut_to_the_models_length_and_says_so(first: int, second: int) -> None:
    result = make_task().encode(text_of(first), text_of(second))

    (sequence,) = result.sequences
    assert len(sequence) == result.tokens == min(64, first + second + 3)
    assert result.truncated == (first + second + 3 > 64)
    kept = sequence.second - 2, len(sequence) - sequence.second - 1
    assert sequence.ids[1 : sequence.second - 1].tolist() == ids_of(text_of(kept[0]))
    assert sequence.ids[sequence.second : -1].tolist() == ids_of(text_of(kept[1]))
    assert min(kept) >= min(first, second, 30)  # a short text beside a long one loses nothing


@pytest.mark.parametrize("short", [45, 46])
def test_a_pair_of_two_long_texts_has_no_windows(short: int) -> None:
    if short == 45:
        assert len(make_task().encode(text_of(short), text_of(100), "windows").sequences) == 7
        return
    with pytest.raises(TextTooLong, match="both texts of the pair are long"):
        make_task().encode(text_of(short), text_of(100), "windows")


@pytest.mark.parametrize(("text", "pair"), [("", None), (" \n\t", None), ("ok", ""), ("", "ok"), ("ok", "\u3000")])
def test_a_text_without_any_token_is_refused(text: str, pair: str | None) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        make_task().encode(text, pair)


def test_without_an_activation_the_logits_are_the_models_own() -> None:
    """Neither temperature nor length touches them."""
    task = make_task(temperature=2.0, evidence=0.5)
    logits = [np.array([3.0, -1.0, 0.0], dtype=np.float32)]

    found = task.decode(encoded(10), logits, activation="none")
    assert dict(found.labels) == {"bad": 3.0, "odd": -1.0, "good": 0.0}


def test_one_label_alone_is_a_yes_or_no() -> None:
    """As the pipeline of transformers: a softmax of one logit would be sure of everything."""
    task = make_task(labels=("spam",))

    assert task.decode(encoded(10), [np.zeros(1, dtype=np.float32)]).labels == [("spam", 0.5)]
