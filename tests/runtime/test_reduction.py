"""What is kept of a head's output: exact for what is kept, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from service.runtime.reduction import KEPT, best_words, mean_and_first


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 3, KEPT - 1, KEPT, KEPT + 1, 30_000]), st.integers(0, 99))
def test_the_best_words_are_in_order_and_their_chances_are_of_all(masks: int, vocabulary: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 8, (masks, vocabulary)).astype(np.float32)
    kept = min(KEPT, vocabulary)
    found = best_words(logits)
    assert found.shape == (masks, 2 * kept + 1)
    for row, own in zip(found, logits, strict=True):
        order = np.lexsort((np.arange(vocabulary), -own))[:kept]
        np.testing.assert_array_equal(row[kept:-1].astype(np.int64), order)
        np.testing.assert_array_equal(row[:kept], own[order])
        exp = np.exp(own.astype(np.float64) - own.max())
        assert np.exp(row[0] - row[-1]) == pytest.approx(exp.max() / exp.sum(), rel=1e-4)


def test_ties_go_to_the_lower_id() -> None:
    assert best_words(np.zeros((1, 5), dtype=np.float32))[0, 5:-1].tolist() == [0, 1, 2, 3, 4]


def test_the_mean_and_the_first() -> None:
    states = np.array([[1, 2], [3, 6]], dtype=np.float32)
    assert mean_and_first(states).tolist() == [[2, 4], [1, 2]]
