"""Scores of answers, and of there being none, as functions of shares and leads."""

import math
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, strategies as st

from service.tasks.confidence import Confidence

weights = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9)


@given(weights, st.sampled_from([1.0, 2.0, 7.5]), st.floats(0, 1))
def test_a_score_is_what_a_share_adds_to_the_chance_that_one_of_many_people_chose_so(
    parts: list[float], exponent: float, others: float
) -> None:
    total = math.fsum(parts) * (1 + others)
    shares = sorted((part / total for part in parts), reverse=True)
    scores = Confidence(exponent=exponent).scores(shares)

    together = [1 - (1 - min(1.0, value)) ** exponent for value in accumulate(shares)]
    assert list(accumulate(scores)) == pytest.approx(together, abs=1e-9)
    assert all(a >= b - 1e-9 for a, b in pairwise(scores))


def test_shares_stay_as_they_are_until_an_exponent_is_fitted() -> None:
    shares = [0.75, 1e-20, 1e-30]

    assert Confidence().scores(shares) == pytest.approx(shares, rel=1e-12)
    assert Confidence().scores([1.0, 0.0]) == [1.0, 0.0]


@pytest.mark.parametrize("lead", [-math.inf, -1e30, -3.0, 0.0, 3.0, 1e30, math.inf])
def test_no_answer_is_a_chance_for_any_lead(lead: float) -> None:
    confidence = Confidence(no_answer_scale=0.5, no_answer_shift=1.0)

    assert 0 <= confidence.no_answer(lead) <= 1
    assert (confidence.no_answer(lead) > 0.5) == (0.5 * lead + 1 > 0)
