"""The fitted cost of a step, and what Retry-After says."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from service.serving.admission import CostModel, retry_after

STEPS = st.lists(st.tuples(st.integers(1, 40_000), st.floats(0, 100)), max_size=60)


def taught(per_step: float, per_token: float, *, steps: int = 400, noise: float = 0.0, cost: CostModel) -> CostModel:
    """``cost`` after steps of 8 to 512 tokens."""
    random = np.random.default_rng(7)
    for tokens in random.integers(8, 512, steps):
        exact = per_step + per_token * float(tokens)
        cost.observe(int(tokens), exact * float(random.normal(1.0, noise)))
    return cost


def test_an_untaught_model_costs_nothing() -> None:
    cost = CostModel()
    assert cost.coefficients == (0.0, 0.0)
    assert cost.marginal(100) == cost.seconds(100, 10) == 0.0


def test_exact_coefficients_are_recovered() -> None:
    assert taught(0.02, 0.0013, cost=CostModel()).coefficients == pytest.approx((0.02, 0.0013), rel=1e-6)


def test_coefficients_are_recovered_from_noise() -> None:
    per_step, per_token = taught(0.05, 0.001, noise=0.05, cost=CostModel()).coefficients
    assert per_token == pytest.approx(0.001, rel=0.1)
    assert per_step == pytest.approx(0.05, rel=0.3)


def test_it_adapts_when_the_machine_becomes_slower() -> None:
    cost = taught(0.02, 0.001, cost=CostModel(memory=100))
    taught(0.06, 0.003, steps=1000, cost=cost)
    assert cost.coefficients == pytest.approx((0.06, 0.003), rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_steps_of_one_size_predict_that_size(steps: int) -> None:
    cost = CostModel()
    for _ in range(steps):
        cost.observe(16, 0.04)
    assert cost.coefficients == pytest.approx((0.0, 0.0025))
    assert cost.seconds(16, 16) == pytest.approx(0.04)


@settings(deadline=None, max_examples=100)
@given(STEPS)
def test_it_is_never_negative(steps: list[tuple[int, float]]) -> None:
    cost = CostModel()
    for tokens, seconds in steps:
        cost.observe(tokens, seconds)
        assert min(cost.coefficients) >= 0.0
        assert np.isfinite(cost.coefficients).all()


def test_larger_steps_that_were_faster_still_cost_something() -> None:
    cost = CostModel()
    cost.observe(10, 2.0)
    cost.observe(100, 1.0)
    assert cost.coefficients == pytest.approx((1.5, 0.0), rel=0.01)


def test_seconds_counts_each_step_that_the_budget_makes() -> None:
    cost = taught(0.5, 0.01, cost=CostModel())
    assert cost.seconds(100, 100) == pytest.approx(0.5 + 1.0)
    assert cost.seconds(101, 100) == pytest.approx(2 * 0.5 + 1.01)
    assert cost.marginal(100) == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "said"), [(-5.0, 1), (0.0, 1), (0.2, 1), (1.0, 1), (1.2, 2), (59.5, 60)])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: float, said: float) -> None:
    assert retry_after(seconds) == said
