"""The price of a token follows the machine, and no stall of it moves the price by much."""

import math
import random

import pytest
from hypothesis import given, settings, strategies as st

from service.serving.cost import CLOCK, RECENT, CostModel, quantile

BUDGET = 512
STEPS = st.lists(st.tuples(st.floats(0.01, 40_000), st.just(0.0) | st.floats(1e-6, 100)), max_size=60)
NEAR = 0.05  # of a price: what the noise of a machine moves it by
STALL = 45.0  # seconds
MANY = settings(deadline=None, max_examples=50)


def taught(
    per_step: float, per_token: float, *, steps: int = 400, noise: float = 0.0, cost: CostModel | None = None,
    sizes: tuple[int, int] = (8, BUDGET),
) -> CostModel:  # fmt: skip
    """``cost`` after steps of ``sizes``, in tokens."""
    cost, draw = cost or CostModel(), random.Random(7)
    for _ in range(steps):
        tokens = draw.randint(*sizes)
        cost.observe(tokens, (per_step + per_token * tokens) * max(0.5, draw.gauss(1.0, noise)))
    return cost


def price(cost: CostModel) -> float:
    return cost.marginal(1.0, BUDGET)


def test_a_model_that_ran_no_step_costs_nothing() -> None:
    cost = CostModel()
    assert cost.coefficients == (0.0, 0.0)
    assert cost.marginal(100, 64) == cost.seconds(100, 64) == 0.0


@MANY
@given(st.floats(1e-5, 1e-2), st.floats(0, 1e-3), st.integers(1, BUDGET))
def test_full_steps_are_predicted_as_they_run(per_token: float, per_step: float, small: int) -> None:
    cost = CostModel()
    for _ in range(RECENT):
        for tokens in (small, BUDGET):
            cost.observe(tokens, per_step + per_token * tokens)
    assert cost.seconds(BUDGET, BUDGET) >= (1 - 1e-9) * (per_step + per_token * BUDGET)
    assert cost.marginal(BUDGET, BUDGET) == pytest.approx(per_step + per_token * BUDGET, rel=0.5)


def test_steps_are_predicted_from_noisy_ones() -> None:
    cost = taught(0.05, 0.001, noise=0.05)
    for tokens in (64, 200, 512):
        assert cost.seconds(tokens, BUDGET) == pytest.approx(0.05 + 0.001 * tokens, rel=0.2)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_steps_of_one_size_predict_that_size(steps: int) -> None:
    cost = CostModel()
    for _ in range(steps):
        cost.observe(16, 0.04)
    assert cost.coefficients == pytest.approx((0.0, 0.0025))
    assert cost.seconds(16, 16) == pytest.approx(0.04)


def test_each_step_that_the_budget_makes_is_counted() -> None:
    cost = CostModel()
    cost.coefficients = (0.5, 0.01)
    assert cost.seconds(100, 100) == pytest.approx(0.5 + 1.0)
    assert cost.seconds(101, 100) == pytest.approx(2 * 0.5 + 1.01)
    assert cost.marginal(100, 100) == pytest.approx(0.5 + 1.0)
    assert cost.marginal(50, 100) == pytest.approx(0.25 + 0.5)


@MANY
@given(STEPS)
def test_a_price_is_finite_and_never_negative_and_zero_only_before_the_first_step(
    steps: list[tuple[float, float]],
) -> None:
    cost = CostModel()
    for tokens, seconds in steps:
        cost.observe(tokens, seconds)
        assert all(math.isfinite(value) and value >= 0 for value in cost.coefficients)
    if any(seconds > CLOCK for _, seconds in steps):
        assert price(cost) > 0


def test_larger_steps_that_were_faster_still_have_a_price() -> None:
    cost = CostModel()
    cost.observe(10, 2.0)
    cost.observe(100, 1.0)
    assert min(cost.coefficients) > 0
    assert 0 < price(cost) < 0.2


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 1.0), (-1, 1.0), (10, 0.0), (10, -1.0)])
def test_a_step_without_work_or_time_teaches_nothing(tokens: float, seconds: float) -> None:
    cost = taught(0.01, 0.001)
    before = cost.coefficients
    cost.observe(tokens, seconds)
    assert cost.coefficients == before


@MANY
@given(st.lists(st.integers(100, 399), min_size=1, max_size=3, unique=True), st.integers(0, 1000))
def test_a_few_stalls_move_the_price_of_a_token_no_more_than_noise(at: list[int], seed: int) -> None:
    """Steps of usual sizes, all of which were seen before."""
    draw = random.Random(seed)
    stalled, calm = CostModel(), CostModel()
    for step in range(400):
        tokens = draw.choice([16, 64, 200, 512])
        seconds = (0.005 + 0.0001 * tokens) * draw.gauss(1.0, 0.02)
        calm.observe(tokens, seconds)
        stalled.observe(tokens, STALL if step in at else seconds)
        assert stalled.coefficients[0] == pytest.approx(calm.coefficients[0], rel=4 * NEAR)
        assert stalled.coefficients[1] == pytest.approx(calm.coefficients[1], rel=NEAR)
        assert price(stalled) <= price(calm) * (1 + 6 * NEAR)


@pytest.mark.parametrize("tokens", [1, 8, 32, 128, 512, 700])
@pytest.mark.parametrize("others", [(512,), (64, 512), (16, 64, 512), (16, 64, 200, 512)])
def test_a_stall_in_the_first_step_of_a_size_moves_the_price_no_more_than_noise(
    tokens: int, others: tuple[int, ...]
) -> None:
    """Whatever sizes ran lately: of some that are rare, or new to the service, one step is all that is known."""
    cost = CostModel()
    for _ in range(100):
        for other in others:
            cost.observe(other, 0.005 + 0.0001 * other)
    before = price(cost)
    cost.observe(tokens, STALL)
    assert price(cost) == pytest.approx(before, rel=6 * NEAR)


@pytest.mark.parametrize("step", [0.01, 0.05, 0.25, 1.0])
def test_a_stall_moves_the_price_no_more_than_noise_however_long_a_usual_step_takes(step: float) -> None:
    cost = CostModel()
    for _ in range(100):
        cost.observe(BUDGET, step)
    before = price(cost)
    cost.observe(BUDGET, STALL)
    assert price(cost) == pytest.approx(before, rel=6 * NEAR)


@pytest.mark.parametrize("wrong", [45.0, 10.0, 0.1])
@pytest.mark.parametrize("seen", [1, 3, RECENT])
def test_a_price_that_was_wrong_recovers_within_some_steps(wrong: float, seen: int) -> None:
    """As after a warm-up that met another load than there is now."""
    cost = CostModel()
    for _ in range(seen):
        cost.observe(BUDGET, wrong * 0.0001 * BUDGET)
    for _ in range(RECENT):
        cost.observe(BUDGET, 0.0001 * BUDGET)
    assert price(cost) == pytest.approx(0.0001, rel=6 * NEAR)


def test_the_price_follows_a_machine_that_becomes_slower_or_faster() -> None:
    cost = taught(0.005, 0.0001)
    for factor in (3.0, 1.0, 2.0, 0.5):
        taught(0.005 * factor, 0.0001 * factor, steps=1000, cost=cost)
        assert price(cost) == pytest.approx((0.005 / BUDGET + 0.0001) * factor, rel=0.15)


def test_sizes_that_are_not_seen_any_more_do_not_keep_the_price_down() -> None:
    cost = taught(0.005, 0.0001, sizes=(8, BUDGET))
    taught(0.015, 0.0003, steps=400, cost=cost, sizes=(200, 300))
    assert cost.seconds(256, BUDGET) == pytest.approx(0.015 + 0.0003 * 256, rel=0.15)


def test_the_price_is_that_of_a_shared_machine_while_it_is_shared() -> None:
    """Half of the steps take four times as long: the quartile does not know it, and promises are made for them all."""
    cost, draw = taught(0.0, 0.0001), random.Random(1)
    for _ in range(1000):
        cost.observe(BUDGET, 0.0001 * BUDGET * draw.choice([1, 4]))
    assert price(cost) == pytest.approx(0.00025, rel=0.3)
    for _ in range(300):
        cost.observe(BUDGET, 0.0001 * BUDGET)
    assert price(cost) == pytest.approx(0.0001, rel=NEAR)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_with_its_share_below(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value < found for value in values) <= share * len(values)
