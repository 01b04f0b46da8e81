"""Questions and documents to windows and spans, against a search that is as plain as can be."""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from service.errors import InvalidRequest, TextTooLong
from service.tasks.confidence import Confidence
from service.tasks.question_answering import EncodedQuestion, QuestionAnswering, Window
from service.tasks.text import Tokenizer, Tokens
from service.types import Floats, Ints
from tests.checkpoints import word_pieces
from tests.tasks.test_text import KINDS

SEP = 3
WORD_PIECES = Tokenizer.from_bytes(word_pieces().to_str().encode(), "word pieces")
PARTS = (
    "ok", " ", "  ", "\n\t", "The river", "CLOCK", "昨天", "下午,", "🎉", "👍🏽",
    "e\u0301", "É", "ß", "İ", "½", "ﬁ", ".",
    "\u00a0", "\u3000", "\u200d", "x²", "``", "a\u0300\u0301",
)  # fmt: skip
documents_of_parts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=40).map(lambda parts: "".join(parts) + " ok")
some_documents = st.lists(documents_of_parts, min_size=1, max_size=3)
seeds = st.integers(0, 2**32 - 1)
Span = tuple[int, int, int]  # document, first token, last token


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(KINDS[request.param](tmp_path_factory.mktemp("vocabulary")))


def make_task(tokenizer: Tokenizer = WORD_PIECES, **changes: Any) -> QuestionAnswering:
    facts: dict[str, Any] = {"tokenizer": tokenizer, "max_length": 64, "window": 24, "overlap": 6}
    return QuestionAnswering(**facts | changes)


def random_logits(encoded: EncodedQuestion, seed: int, scale: float = 3.0) -> list[Floats]:
    random = np.random.default_rng(seed)
    return [(scale * random.standard_normal((len(s), 2))).astype(np.float32) for s in encoded.sequences]


@dataclass
class Searched:
    """What the plain search found: the best logit of each span, and the logit of "no answer"."""

    spans: dict[Span, float]
    null: float

    def score(self, logit: float, temperature: float = 1.0) -> float:
        largest = max(self.spans.values())
        terms = [math.exp((value - largest) / temperature) for value in self.spans.values()]
        return math.exp((logit - largest) / temperature) / math.fsum(terms)

    def best_apart(self, top_k: int) -> list[Span]:
        chosen: list[Span] = []
        for span in sorted(self.spans, key=self.spans.__getitem__, reverse=True):
            document, first, last = span
            if all(document != d or last < f or first > end for d, f, end in chosen):
                chosen.append(span)
        return chosen[:top_k]


def search(encoded: EncodedQuestion, logits: Seq[Floats], longest: int) -> Searched:
    """Every span of every window, one after another, as the module's docstring defines their logits.

    In single precision, as logits are: two spans must not change places by a rounding.
    """
    spans: dict[Span, float] = {}
    nulls = []
    for window, values in zip(encoded.windows, logits, strict=True):
        begins = window.sequence.ids.tolist().index(SEP) + 1
        start, end = values[:, 0], values[:, 1]
        nulls.append(float(start[0] + end[0]))
        for first in range(window.length):
            for last in range(first, min(window.length, first + longest)):
                offsets = encoded.documents[window.document].offsets[window.start + first : window.start + last + 1]
                if all(not encoded.texts[window.document][a:b].strip() for a, b in offsets.tolist()):
                    continue
                span = (window.document, window.start + first, window.start + last)
                spans[span] = max(spans.get(span, -math.inf), float(start[begins + first] + end[begins + last]))
    return Searched(spans, min(nulls))


def words(count: int) -> str:
    """A text of so many tokens."""
    return " ".join(("ok", "it", "was", "not", "good")[place % 5] for place in range(count))


@settings(deadline=None, max_examples=50)
@given(
    documents=some_documents, seed=seeds, scale=st.sampled_from([0.1, 3.0, 50.0]), longest=st.integers(1, 9),
    top_k=st.integers(1, 6), temperature=st.sampled_from([1.0, 0.5, 3.0]),
)  # fmt: skip
def test_decoding_finds_what_a_plain_search_finds(
    tokenizer: Tokenizer, documents: list[str], seed: int, scale: float, longest: int, top_k: int, temperature: float
) -> None:
    task = make_task(tokenizer, confidence=Confidence(temperature))
    encoded = task.encode("ok?", documents)
    logits = random_logits(encoded, seed, scale)
    searched = search(encoded, logits, longest)
    (best,) = task.decode(encoded, logits, max_answer_tokens=longest).answers
    result = task.decode(encoded, logits, top_k=top_k, max_answer_tokens=longest)

    document, first, last = searched.best_apart(1)[0]
    offsets = encoded.documents[document].offsets
    assert best.document == document
    assert best.text == documents[document][offsets[first, 0] : offsets[last, 1]].strip()
    assert best.score == pytest.approx(searched.score(searched.spans[document, first, last], temperature), rel=1e-5)
    assert result.answers[0] == best
    lead = searched.null - max(searched.spans.values())
    assert result.no_answer_score == pytest.approx(Confidence().no_answer(lead), rel=1e-5)
    assert (result.tokens, result.windows) == (encoded.tokens, len(encoded.windows))


@settings(deadline=None, max_examples=50)
@given(documents=some_documents, seed=seeds, longest=st.integers(1, 9), top_k=st.integers(1, 12))
def test_the_best_answers_are_the_best_spans_that_do_not_overlap(
    documents: list[str], seed: int, longest: int, top_k: int
) -> None:
    task = make_task()
    encoded = task.encode("ok?", documents)
    logits = random_logits(encoded, seed)
    searched = search(encoded, logits, longest)
    answers = task.decode(encoded, logits, top_k=top_k, max_answer_tokens=longest).answers

    wanted = searched.best_apart(top_k)
    assert [answer.score for answer in answers] == pytest.approx([searched.score(searched.spans[s]) for s in wanted])
    for answer, (document, first, last) in zip(answers, wanted, strict=True):
        offsets = encoded.documents[document].offsets
        assert (answer.document, answer.start, answer.end) == (document, offsets[first, 0], offsets[last, 1])


@settings(deadline=None, max_examples=50)
@given(documents=some_documents, seed=seeds, top_k=st.integers(2, 50), longest=st.integers(1, 4))
def test_answers_never_overlap_in_the_text(
    tokenizer: Tokenizer, documents: list[str], seed: int, top_k: int, longest: int
) -> None:
    task = make_task(tokenizer)
    encoded = task.encode("ok?", documents)
    answers = task.decode(encoded, random_logits(encoded, seed), top_k=top_k, max_answer_tokens=longest).answers

    for left, right in pairwise(sorted(answers, key=lambda answer: (answer.document, answer.start, answer.end))):
        assert left.document != right.document or left.end <= right.start


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(documents_of_parts | st.text(max_size=40).map("{} ok".format), min_size=1, max_size=2),
    seed=seeds,
)
def test_an_answer_is_always_a_slice_of_the_text_without_white_space_around_it(
    tokenizer: Tokenizer, documents: list[str], seed: int
) -> None:
    task = make_task(tokenizer)
    encoded = task.encode("ok?", documents)
    answers = task.decode(encoded, random_logits(encoded, seed), top_k=30, max_answer_tokens=3).answers

    assert answers
    for answer in answers:
        assert documents[answer.document][answer.start : answer.end] == answer.text == answer.text.strip() != ""


@settings(deadline=None, max_examples=50)
@given(
    documents=some_documents, asked=st.integers(1, 49), window=st.integers(16, 64), overlap=st.integers(0, 15)
)  # fmt: skip
def test_windows_cover_every_token_with_the_promised_overlap(
    documents: list[str], asked: int, window: int, overlap: int
) -> None:
    task = make_task(window=window, overlap=overlap)
    try:
        encoded = task.encode(words(asked), documents)
    except TextTooLong:
        assert 64 - 3 - asked < window // 4
        return

    for index, tokens in enumerate(encoded.documents):
        of_document = [w for w in encoded.windows if w.document == index]
        assert of_document[0].start == 0
        assert of_document[-1].start + of_document[-1].length == len(tokens)
        room = of_document[0].length
        for left, right in pairwise(of_document):
            assert left.length == room
            assert left.start + left.length - right.start == min(overlap, room // 2)
            assert right.start + right.length > left.start + left.length  # each window sees something new
        for w in of_document:
            assert w.sequence.ids.tolist() == [
                2, *WORD_PIECES.encode(words(asked)).ids, SEP, *tokens.ids[w.start : w.start + w.length], SEP
            ]  # fmt: skip
            assert w.sequence.second == asked + 2
            assert len(w.sequence) <= 64


@settings(deadline=None, max_examples=30)
@given(tokens=st.integers(1, 300), asked=st.integers(1, 9))
def test_a_short_question_has_windows_no_longer_than_the_tasks(tokens: int, asked: int) -> None:
    encoded = make_task().encode(words(asked), [words(tokens)])

    assert max(len(sequence) for sequence in encoded.sequences) == min(24, tokens + asked + 3)
    assert encoded.tokens == sum(len(sequence) for sequence in encoded.sequences)


def test_a_long_question_may_use_the_models_full_length() -> None:
    encoded = make_task(window=48).encode(words(49), [words(13)])

    assert [len(sequence) for sequence in encoded.sequences] == [64, 59]  # 12 tokens of the document, then 7


@pytest.mark.parametrize("asked", [50, 60, 61, 64, 300])
def test_a_question_that_leaves_documents_no_room_is_refused(asked: int) -> None:
    with pytest.raises(TextTooLong, match=f"the question has {asked} tokens"):
        make_task(window=48).encode(words(asked), ["ok"])


@pytest.mark.parametrize("blank", ["", " ", "\n\t \u3000"])
def test_a_blank_document_among_others_is_left_out_and_named(tokenizer: Tokenizer, blank: str) -> None:
    task = make_task(tokenizer)
    encoded = task.encode("ok?", ["fine", blank, "It was not good.", blank])
    alone = task.encode("ok?", ["fine", "It was not good."])

    assert (encoded.places, encoded.blank) == ([0, 2], [1, 3])
    assert encoded.texts == alone.texts == ["fine", "It was not good."]
    assert [one.ids.tolist() for one in encoded.sequences] == [one.ids.tolist() for one in alone.sequences]
    answers = task.decode(encoded, random_logits(encoded, 1), top_k=20).answers
    assert {answer.document for answer in answers} == {0, 2}


@pytest.mark.parametrize("blank", ["", " ", "\n\t \u3000"])
def test_documents_that_are_all_blank_are_refused(tokenizer: Tokenizer, blank: str) -> None:
    with pytest.raises(InvalidRequest, match="documents are empty"):
        make_task(tokenizer).encode("ok?", [blank, blank])


@pytest.mark.parametrize("blank", ["", " ", "\n\t \u3000"])
def test_a_blank_question_is_refused(tokenizer: Tokenizer, blank: str) -> None:
    with pytest.raises(InvalidRequest, match="the question is empty"):
        make_task(tokenizer).encode(blank, ["fine"])


def by_hand(texts: list[str], offsets: list[list[tuple[int, int]]]) -> EncodedQuestion:
    """One window a document, after a question of one token, with the offsets as given."""
    documents, windows = [], []
    for index, of_document in enumerate(offsets):
        ids: Ints = np.full(len(of_document), 7, dtype=np.int32)
        documents.append(Tokens(ids, np.array(of_document, dtype=np.int32)))
        windows.append(Window(index, 0, len(ids), WORD_PIECES.frame(ids[:1], ids)))
    return EncodedQuestion(texts, documents, windows, places=list(range(len(texts))), blank=[])


def logits_of(start: list[float], end: list[float], null: float = -50.0) -> Floats:
    """Logits of a window after a question of one token: ``null``, the question's, the document's, the last [SEP]'s."""
    return np.array(
        [(null, 0.0), (90.0, 90.0), (90.0, 90.0), *zip(start, end, strict=True), (90.0, 90.0)], dtype=np.float32
    )


def test_scores_are_one_softmax_of_all_spans_and_no_answer_a_logistic_function_of_its_lead() -> None:
    encoded = by_hand(["ab", "c"], [[(0, 1), (1, 2)], [(0, 1)]])
    logits = [logits_of([1.0, 0.5], [0.25, 2.0], null=1.5), logits_of([-1.0], [0.5], null=0.75)]
    result = make_task().decode(encoded, logits, top_k=9)

    # "a" 1.25, "b" 2.5, "ab" 3.0, "c" -0.5; "no answer" is the less sure of 1.5 and 0.75.
    total = sum(map(math.exp, (1.25, 2.5, 3.0, -0.5)))
    assert [(a.text, a.document, a.start, a.end) for a in result.answers] == [("ab", 0, 0, 2), ("c", 1, 0, 1)]
    assert [a.score for a in result.answers] == pytest.approx([math.exp(3) / total, math.exp(-0.5) / total])
    assert result.no_answer_score == pytest.approx(1 / (1 + math.exp(3 - 0.75)))


def test_the_question_and_the_frame_are_no_answers() -> None:
    # Their logits are the highest by far in ``logits_of``.
    result = make_task().decode(by_hand(["ab"], [[(0, 1), (1, 2)]]), [logits_of([0.0, 1.0], [0.0, 1.0])])

    assert [answer.text for answer in result.answers] == ["b"]


def test_a_span_that_two_windows_see_counts_once_by_its_best_logit() -> None:
    ids: Ints = np.array([7, 8, 9], dtype=np.int32)
    tokens = Tokens(ids, np.array([(0, 1), (1, 2), (2, 3)], dtype=np.int32))
    windows = [Window(0, start, 2, WORD_PIECES.frame(ids[:1], ids[start : start + 2])) for start in (0, 1)]
    encoded = EncodedQuestion(["abc"], [tokens], windows, places=[0], blank=[])
    logits = [logits_of([0.0, 1.0], [0.0, 1.0], null=0.0), logits_of([4.0, 0.0], [4.0, 0.0], null=3.0)]
    result = make_task().decode(encoded, logits, max_answer_tokens=1)

    total = sum(map(math.exp, (0.0, 8.0, 0.0)))  # a, b, c
    (answer,) = result.answers
    assert answer.text == "b"
    assert answer.score == pytest.approx(math.exp(8) / total)


def test_an_answer_is_never_longer_than_asked_for() -> None:
    encoded = by_hand(["abcd"], [[(0, 1), (1, 2), (2, 3), (3, 4)]])
    logits = [logits_of([5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0])]

    best = {n: make_task().decode(encoded, logits, max_answer_tokens=n).answers[0].text for n in (1, 2, 3, 4, 5)}
    assert all(len(best[n]) <= n for n in (1, 2, 3))
    assert best[4] == best[5] == "abcd"


def test_white_space_that_is_a_token_is_neither_an_answer_nor_around_one() -> None:
    encoded = by_hand(["a \n b"], [[(0, 1), (1, 3), (3, 4), (4, 5)]])
    favoured = [logits_of([0.0, 9.0, 9.0, 0.0], [0.0, 9.0, 9.0, 0.0])]
    answers = make_task().decode(encoded, favoured, top_k=9).answers

    assert [(answer.text, answer.start, answer.end) for answer in answers[:1]] == [("a", 0, 1)]
    assert all(answer.text.strip() == answer.text != "" for answer in answers)


def test_a_document_whose_tokens_are_all_white_space_has_no_answer() -> None:
    encoded = by_hand(["ok", "\x0b"], [[(0, 2)], [(0, 1)]])
    logits = [logits_of([0.0], [0.0]), logits_of([9.0], [9.0])]
    alone = make_task().decode(by_hand(["\x0b"], [[(0, 1)]]), [logits_of([9.0], [9.0])])

    assert [a.text for a in make_task().decode(encoded, logits, top_k=5).answers] == ["ok"]
    assert (alone.answers, alone.no_answer_score) == ([], 1.0)


@pytest.mark.parametrize(
    ("shift", "threshold", "answered"),
    [
        (0.0, 0.5, False),
        (-1.9, 0.5, False),
        (-2.1, 0.5, True),
        (0.0, 0.87, False),
        (0.0, 0.89, True),
        (9.0, 0.5, False),
    ],
)
def test_no_answer_wins_when_its_score_is_above_the_threshold(shift: float, threshold: float, answered: bool) -> None:
    task = make_task(confidence=Confidence(temperature=7.0, no_answer_shift=shift))
    encoded, logits = by_hand(["ab"], [[(0, 1), (1, 2)]]), [logits_of([0.0, 1.0], [0.0, 1.0], null=4.0)]
    asked = task.decode(encoded, logits, no_answer=True, no_answer_threshold=threshold)
    unasked = task.decode(encoded, logits)

    assert asked.no_answer_score == unasked.no_answer_score == pytest.approx(1 / (1 + math.exp(-2 - shift)))
    assert bool(asked.answers) is answered is (asked.no_answer_score <= threshold)
    assert unasked.answers  # not asked for, "no answer" only has its score


@settings(deadline=None, max_examples=50)
@given(
    documents=some_documents, seed=seeds, scale=st.sampled_from([0.05, 1.0, 4.0]), shift=st.floats(-6, 6),
    temperature=st.sampled_from([1.0, 0.5, 3.0]), exponent=st.sampled_from([1.0, 2.5, 8.0]),
)  # fmt: skip
def test_scores_are_chances_that_leave_room_for_no_answer(
    documents: list[str], seed: int, scale: float, shift: float, temperature: float, exponent: float
) -> None:
    task = make_task(confidence=Confidence(temperature, exponent, scale, shift))
    encoded = task.encode("ok?", documents)
    logits = random_logits(encoded, seed)
    for values in logits:
        values[0] += 4  # near the best spans, so that both outcomes happen
    searched = search(encoded, logits, 30)
    doubt = 1 / (1 + math.exp(-scale * (searched.null - max(searched.spans.values())) - shift))
    asked = task.decode(encoded, logits, no_answer=True, top_k=20)
    unasked = task.decode(encoded, logits, top_k=20)

    assert asked.no_answer_score == unasked.no_answer_score == pytest.approx(doubt, rel=1e-5)
    assert bool(asked.answers) == (asked.no_answer_score <= 0.5)
    scores = [answer.score for answer in unasked.answers]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-6
    assert all(0 <= score <= 1 for score in scores)
    if asked.answers:
        assert [answer.score for answer in asked.answers] == pytest.approx([(1 - doubt) * score for score in scores])


def test_temperature_changes_scores_and_not_answers() -> None:
    encoded = make_task().encode("ok?", [words(30), words(20)])
    logits = random_logits(encoded, seed=1)
    cold, hot = (make_task(confidence=Confidence(t)).decode(encoded, logits, top_k=5) for t in (1.0, 5.0))

    assert [(a.document, a.text, a.start) for a in cold.answers] == [(a.document, a.text, a.start) for a in hot.answers]
    assert hot.answers[0].score < cold.answers[0].score


def test_huge_logits_overflow_nowhere() -> None:
    result = make_task().decode(
        by_hand(["ab"], [[(0, 1), (1, 2)]]), [logits_of([1e4, 0.0], [0.0, 1e4], null=1e4)], top_k=2
    )

    assert [(answer.text, answer.score) for answer in result.answers] == [("ab", 1.0)]
    assert result.no_answer_score == pytest.approx(0.0)


@settings(deadline=None, max_examples=30)
@given(documents=st.lists(documents_of_parts, min_size=2, max_size=3), seed=seeds)
def test_the_order_of_documents_changes_no_answer(documents: list[str], seed: int) -> None:
    task = make_task()
    encoded = task.encode("ok?", documents)
    turned = task.encode("ok?", documents[::-1])
    logits = random_logits(encoded, seed)
    of_document = [[v for w, v in zip(encoded.windows, logits, strict=True) if w.document == d] for d in range(9)]
    turned_logits = [values for d in reversed(range(len(documents))) for values in of_document[d]]
    result, other = task.decode(encoded, logits, top_k=4), task.decode(turned, turned_logits, top_k=4)

    last = len(documents) - 1
    assert [(a.text, a.start, a.document) for a in result.answers] == [
        (a.text, a.start, last - a.document) for a in other.answers
    ]
    assert [a.score for a in result.answers] == pytest.approx([a.score for a in other.answers])


def test_the_same_request_has_the_same_answers_even_where_all_spans_tie() -> None:
    task = make_task()
    documents = [words(40), words(7)]
    results = []
    for _ in range(3):
        encoded = task.encode("ok?", documents)
        results.append(task.decode(encoded, [np.zeros((len(s), 2), np.float32) for s in encoded.sequences], top_k=6))

    assert results[0] == results[1] == results[2]
    assert len(results[0].answers) > 1


def test_decoding_leaves_the_logits_as_they_were() -> None:
    task = make_task()
    encoded = task.encode("ok?", [words(40)])
    logits = random_logits(encoded, seed=2)
    before = [values.copy() for values in logits]
    first = task.decode(encoded, logits, top_k=3)

    assert all(np.array_equal(a, b) for a, b in zip(before, logits, strict=True))
    assert task.decode(encoded, logits, top_k=3) == first


def some_texts() -> list[str]:
    """Forty documents of their own words, two of which share words with the question below, one of them blank."""
    texts = [f"the river carries sand number {words(1 + index % 9)} past the mill" for index in range(40)]
    texts[7], texts[31], texts[12] = "Clara repaired the old clock", "the clock is large", " "
    return texts


@pytest.mark.parametrize("most", [1, 2, 5, 38])
def test_windows_with_most_in_common_with_the_question_are_read(most: int) -> None:
    task, texts = make_task(), some_texts()
    whole = task.encode("repaired clock", texts)
    part = whole.reading(most)

    assert len(part.windows) == most
    assert part.unread == len(whole.windows) - most
    assert 7 in part.places
    assert (31 in part.places) == (most > 1)
    assert part.blank == whole.blank == [12]
    assert part.places == sorted(part.places)
    assert {window.document for window in part.windows} == set(range(len(part.documents)))
    for text, place in zip(part.texts, part.places, strict=True):
        assert text == texts[place]


def test_where_all_are_read_nothing_changes() -> None:
    whole = make_task().encode("repaired clock", some_texts())

    assert whole.reading(len(whole.windows)) is whole
    assert whole.unread == 0


@given(seed=st.integers(0, 10**6), most=st.integers(1, 60), top_k=st.integers(1, 5))
def test_what_is_read_is_answered_as_if_there_were_nothing_else(seed: int, most: int, top_k: int) -> None:
    """Windows of long documents among them: an answer is the slice of the caller's own text, under its number."""
    task = make_task(window=24, overlap=6)
    texts = [words(90), *some_texts(), words(70)]
    whole = task.encode("repaired clock", texts)
    logits = dict(zip(map(id, whole.sequences), random_logits(whole, seed), strict=True))
    part = whole.reading(most)
    answered = task.decode(part, [logits[id(one)] for one in part.sequences], top_k=top_k)

    assert answered.windows == min(most, len(whole.windows))
    assert answered.windows + answered.unread == len(whole.windows)
    for answer in answered.answers:
        assert texts[answer.document][answer.start : answer.end] == answer.text != ""
    assert {answer.document for answer in answered.answers} <= set(part.places)
    # What is decoded is what was read: a book costs no more than the windows of it that were.
    assert sum(map(len, part.documents)) <= part.tokens
    kept, nothing = set(map(id, part.sequences)), np.float32(-1e4)
    whole_logits = [logits[id(one)] if id(one) in kept else np.full((len(one), 2), nothing) for one in whole.sequences]
    wanted = task.decode(whole, whole_logits, top_k=1)
    best = answered.answers[0]
    assert (best.text, best.start, best.document) == (
        wanted.answers[0].text, wanted.answers[0].start, wanted.answers[0].document
    )  # fmt: skip
