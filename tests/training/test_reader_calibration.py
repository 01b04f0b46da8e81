"""A reader's scores are fitted to be the chance of being right, and silence is bounded."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.tasks.confidence import Confidence
from service.training.reader_calibration import BINS, MOST_LOST, WIDTH, Asked, best_threshold, fit, report

cases_of_questions = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


@given(cases_of_questions)
def test_no_other_threshold_is_better(cases: list[tuple[float, float, float]]) -> None:
    doubts, answered, silent = (np.array([case[i] for case in cases]) for i in range(3))
    threshold, score = best_threshold(doubts, answered, silent)

    def mean(limit: float) -> float:
        return sum(s if doubt > limit else a for doubt, a, s in cases) / len(cases)

    # Questions of equal doubt fall on one side together, so the fitted score is an upper bound that ties may miss.
    tried = [mean(limit) for limit in (-1.0, 2.0, *(doubt - 1e-9 for doubt in doubts), *doubts)]
    assert score >= max(tried) - 1e-9
    distinct = sorted(doubts)
    if all(b - a > 1e-6 for a, b in itertools.pairwise(distinct)) and distinct[0] > 0:
        assert mean(threshold) == pytest.approx(score)


def drawn(truth: Confidence, questions: int = 20_000, unanswerable: float = 0.5, seed: int = 0) -> Asked:
    """Questions whose answers are right, and which have one, as often as ``truth`` says."""
    draw = np.random.default_rng(seed)
    others = np.zeros((questions, BINS))
    places = np.minimum(draw.exponential(4 / WIDTH, (questions, 30)), BINS - 1).astype(int)
    for column in places.T:
        others[np.arange(questions), column] += 1
    leads = draw.normal(0, 4, questions) + np.log(unanswerable / (1 - unanswerable))
    made = Asked(leads, others, np.zeros(questions, bool), np.zeros(questions, bool), np.zeros(0), np.zeros(0))
    answerable = draw.random(questions) > made.doubts(truth)
    right = answerable & (draw.random(questions) < made.scores(truth))
    return replace(
        made, answerable=answerable, right=right, answered=right.astype(float), silent=(~answerable).astype(float)
    )


@pytest.mark.parametrize(
    "truth", [Confidence(0.7, 1.0, 1.0, 0.0), Confidence(1.8, 6.0, 2.0, -1.0), Confidence(3.0, 2.0, 0.9, 0.5)]
)
def test_the_confidence_that_made_the_questions_is_found_again(truth: Confidence) -> None:
    asked = drawn(truth)
    found = fit(asked, most_lost=1.0)

    assert (found.no_answer_scale, found.no_answer_shift) == pytest.approx(
        (truth.no_answer_scale, truth.no_answer_shift), rel=0.1, abs=0.06
    )
    # Temperature and exponent pull against each other: what they give together is what counts.
    assert asked.scores(found) == pytest.approx(asked.scores(truth), abs=0.04)
    assert report(asked, found)["calibration_error_after"] < 0.02


def test_a_reader_that_knows_little_stays_silent_on_few_questions_that_have_an_answer() -> None:
    blind = drawn(Confidence(1.0, 1.0, 0.02, 1.0))  # three quarters have no answer, and the lead says hardly which
    found = fit(blind)
    told = report(blind, found)["said_no_answer"]

    assert 0.8 * MOST_LOST < told["has an answer"] <= MOST_LOST
    assert told["has none"] >= told["has an answer"]
    assert report(blind, fit(blind, most_lost=1.0))["said_no_answer"]["has an answer"] > 0.9


def test_where_the_bound_does_not_matter_it_changes_nothing() -> None:
    clear = drawn(Confidence(1.0, 1.0, 3.0, -2.0))

    assert fit(clear) == fit(clear, most_lost=1.0)


def test_both_kinds_are_told_apart_with_the_threshold_that_is_best_here() -> None:
    asked = drawn(Confidence(1.8, 6.0, 0.3, 0.5))
    found = fit(asked)
    told = report(asked, found)
    silent = asked.doubts(found) > told["best"]["no_answer_threshold"]

    assert told["f1_by_answer"]["has none"] == pytest.approx(100 * told["said_no_answer"]["has none"], abs=0.01)
    assert told["best"]["f1"] >= told["f1"]
    assert 100 * np.where(silent, asked.silent, asked.answered).mean() == pytest.approx(told["best"]["f1"], abs=0.1)
