"""Which windows are read: scores as a well-kept library computes them, and the best in their own order."""

import bm25s
import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.tasks.ranking import K1, B, best, bm25

ids = st.integers(0, 12)
windows_of_ids = st.lists(st.lists(ids, min_size=1, max_size=30), min_size=1, max_size=20)


def as_arrays(windows: list[list[int]]) -> list[np.ndarray]:
    return [np.array(window, dtype=np.int32) for window in windows]


@given(st.lists(ids, min_size=1, max_size=8), windows_of_ids)
def test_scores_are_those_of_bm25s(question: list[int], windows: list[list[int]]) -> None:
    library = bm25s.BM25(method="lucene", k1=K1, b=B)
    library.index([[f"t{token}" for token in window] for window in windows], show_progress=False)
    known = {token for window in windows for token in window}
    asked = [f"t{token}" for token in sorted(set(question) & known)]
    wanted = library.get_scores(asked) if asked else np.zeros(len(windows))

    np.testing.assert_allclose(bm25(np.array(question, dtype=np.int32), as_arrays(windows)), wanted, atol=1e-4)


@pytest.mark.parametrize("question", [[99], [0, 99]])
def test_a_window_that_shares_nothing_has_no_score(question: list[int]) -> None:
    scores = bm25(np.array(question, dtype=np.int32), as_arrays([[1, 2], [0, 5], [3]]))

    assert scores[0] == scores[2] == 0
    assert (scores[1] > 0) == (0 in question)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=30), st.integers(1, 40))
def test_the_best_come_in_their_own_order_and_of_equals_the_first(values: list[float], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    chosen = best(scores, count)

    assert chosen == sorted(chosen)
    assert len(chosen) == min(count, len(values))
    left = [index for index in range(len(values)) if index not in chosen]
    assert all((scores[one], -one) > (scores[other], -other) for one in chosen for other in left)


def test_many_windows_are_ranked_in_no_time() -> None:
    """A request has thousands at most: 5,000 of 300 tokens."""
    draw = np.random.default_rng(0)
    windows = [draw.integers(0, 10_000, 300).astype(np.int32) for _ in range(5000)]

    assert bm25(windows[17][:12], windows).argmax() == 17
