"""When a sequence may leave: sure enough, late enough, and agreed for long enough."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.tasks.exits import ExitPolicy, ExitSignal, exit_signal, exit_signals

histories = st.lists(
    st.builds(ExitSignal, st.tuples(st.integers(0, 2)), st.floats(0, 1)), min_size=1, max_size=12
)  # fmt: skip
policies = st.builds(
    ExitPolicy, st.sampled_from(["confidence", "window"]), st.floats(0, 1), st.integers(1, 4), st.integers(1, 3)
)  # fmt: skip


def said(*pairs: tuple[int, float]) -> list[ExitSignal]:
    return [ExitSignal((choice,), confidence) for choice, confidence in pairs]


def test_it_leaves_at_the_first_depth_that_is_sure() -> None:
    history = said((0, 0.6), (1, 0.95), (1, 0.99), (1, 0.99))

    assert ExitPolicy("confidence", 0.9).depth(history) == 2
    assert ExitPolicy("confidence", 0.9, first=3).depth(history) == 3
    assert ExitPolicy("window", 0.9, window=2).depth(history) == 3
    assert ExitPolicy("window", 0.0, window=2).depth(history) == 3
    assert ExitPolicy("confidence", 1.0).depth(history) == 4


@given(policies, histories)
def test_the_depth_is_one_of_those_there_are_and_leaving_says_the_same(
    policy: ExitPolicy, history: list[ExitSignal]
) -> None:
    depth = policy.depth(history)

    assert 1 <= depth <= len(history)
    assert depth == len(history) or policy.leaves(history[:depth], depth)
    assert not any(policy.leaves(history[:before], before) for before in range(1, depth))


@given(histories, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_leaves_earlier(history: list[ExitSignal], one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert ExitPolicy("confidence", low).depth(history) <= ExitPolicy("confidence", high).depth(history)


def test_an_opinion_is_the_largest_probability() -> None:
    logits = np.log(np.array([0.1, 0.7, 0.2], dtype=np.float32))
    found = exit_signal(logits)

    assert found.choice == (1,)
    assert found.confidence == pytest.approx(0.7, rel=1e-5)
    assert exit_signal(logits, temperature=2.0).confidence < 0.7
    assert exit_signal(np.array([500.0, -500.0], dtype=np.float32)).confidence == pytest.approx(1)


@pytest.mark.parametrize("shape", [(3,), (9, 2)])
def test_opinions_together_are_those_one_by_one(shape: tuple[int, ...]) -> None:
    rows = list(np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32) * 3)

    together = exit_signals(rows, 1.7)
    for one, row in zip(together, rows, strict=True):
        alone = exit_signal(row, 1.7)
        assert one.choice == alone.choice
        assert one.confidence == pytest.approx(alone.confidence)


def test_a_readers_opinion_is_the_product_of_its_two_choices() -> None:
    first, last = np.log([0.8, 0.1, 0.1]), np.log([0.25, 0.25, 0.5])
    found = exit_signal(np.stack([first, last], axis=1).astype(np.float32))

    assert found.choice == (0, 2)
    assert found.confidence == pytest.approx(0.8 * 0.5, rel=1e-5)
