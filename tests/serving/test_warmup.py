"""What the warm-up finds: a budget, after how few layers one may look up, and what a step costs."""

import math
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.errors import OutOfMemory
from service.runtime.providers import Device, choose
from service.serving.cost import KNOWN, CostModel
from service.serving.loading import at_once
from service.serving.stepping import Stepping
from service.serving.warmup import (
    as_fast,
    choose_budget,
    exits_pay,
    fit_budget,
    measure_budget,
    measure_layers,
    measure_regrouping,
)
from service.tasks.exits import ExitPolicy
from service.types import Sequence
from tests.fakes import ManualClock


@dataclass
class Timed:
    """Takes ``per_step`` seconds to begin, ``per_token`` for a token through all layers, ``price`` a look up."""

    per_step: float
    per_token: float
    clock: ManualClock = field(default_factory=ManualClock)
    max_length: int = 64
    layers: int = 12
    memory: int = 1_000_000
    price: float = 0.0
    cost: CostModel = field(default_factory=CostModel)
    sizes: list[int] = field(default_factory=list)
    stepping: Stepping = field(init=False)

    def __post_init__(self) -> None:
        self.stepping = Stepping(self.layers)

    def profile_run(self, rows: Seq[Sequence], depth: int, check_interval: int) -> None:
        tokens = sum(map(len, rows))
        if tokens > self.memory:
            raise OutOfMemory("full")
        self.sizes.append(tokens)
        looks = math.ceil(depth / check_interval)
        self.clock.advance(self.per_step + self.price * looks + self.per_token * tokens * depth / self.layers)


@pytest.mark.parametrize(
    ("rates", "budget"),
    [
        ({16: 100.0}, 16),
        ({16: 50.0, 32: 96.0, 64: 100.0}, 32),
        ({16: 10.0, 32: 20.0, 64: 40.0}, 64),
        ({8: 9.0, 16: 8.0}, 8),
    ],
)
def test_the_budget_is_the_smallest_size_that_is_about_as_fast_as_any(rates: dict[int, float], budget: int) -> None:
    assert choose_budget(rates) == budget


@pytest.mark.parametrize(
    ("rates", "budget"),
    [
        ({16: 200.0, 64: 90.0, 128: 95.0, 256: 100.0}, 128),  # the machine was busy when the larger ones were timed
        ({16: 50.0, 128: 60.0, 256: 100.0}, 256),
        ({16: 50.0, 32: 60.0}, 32),  # there is no memory for more
    ],
)
def test_no_budget_is_below_the_floor_where_there_is_memory(rates: dict[int, float], budget: int) -> None:
    assert choose_budget(rates, 128) == budget


def test_it_teaches_the_cost_and_stops_where_larger_steps_gain_nothing() -> None:
    flat, steep = Timed(0.0, 0.1), Timed(0.5, 0.0001)

    assert measure_budget(flat, choose("cpu"), at_once, flat.clock) == 128
    assert max(flat.sizes) == 256
    assert measure_budget(steep, choose("cpu"), at_once, steep.clock) == 512
    assert min(steep.cost.coefficients) > 0


@pytest.mark.parametrize(("per_step", "per_token"), [(0.0, 0.001), (0.0003, 5e-5), (0.004, 0.001), (0.0005, 1e-6)])
def test_what_a_full_step_takes_is_known_by_a_tenth(per_step: float, per_token: float) -> None:
    engine = Timed(per_step, per_token)
    budget = measure_budget(engine, choose("cpu"), at_once, engine.clock)

    assert engine.cost.seconds(budget, budget) == pytest.approx(per_step + per_token * budget, rel=0.1)


def test_no_row_is_longer_than_the_model_can_see() -> None:
    engine = Timed(1.0, 0.0, max_length=16)

    assert measure_budget(engine, choose("cpu"), at_once, engine.clock) == 512


@pytest.mark.parametrize("max_length", [8, 48, 50, 100, 512])
def test_the_tokens_that_ran_are_counted(max_length: int) -> None:
    class Recorded(CostModel):
        def observe(self, tokens: float, seconds: float) -> None:
            seen.append((tokens, seconds))

    seen: list[tuple[float, float]] = []
    engine = Timed(0.004, 0.001, max_length=max_length, cost=Recorded())
    measure_budget(engine, choose("cpu"), at_once, engine.clock)

    assert [seconds for _, seconds in seen] == pytest.approx([0.004 + 0.001 * tokens for tokens, _ in seen])
    assert len(seen) >= 5


def test_a_device_that_runs_out_of_memory_keeps_to_what_fits() -> None:
    engine = Timed(0.01, 1e-5, memory=1000)

    assert measure_budget(engine, Device("cuda"), at_once, engine.clock) == 512


@pytest.mark.parametrize(
    ("memory", "budget"),
    [(1_000_000, 8192), (66_000, 4096), (7_300, 512), (1, 64)],
)
def test_a_budget_holds_where_a_long_row_stands_among_short_ones(memory: int, budget: int) -> None:
    """Memory that grows with rows times longest, as attention's does that keeps its scores."""

    class Skewed(Timed):
        def profile_run(self, rows: Seq[Sequence], depth: int, check_interval: int) -> None:
            if len(rows) * max(map(len, rows)) > memory:
                raise OutOfMemory("full")

    assert fit_budget(Skewed(0.0, 1.0), 8192, 16, at_once) == budget


def test_regrouping_is_told_in_layers_of_the_step() -> None:
    class Regrouped(Timed):
        def regroup_run(self, rows: Seq[Sequence], *, regrouped: bool) -> None:
            self.clock.advance(1.0 + (2.0 if regrouped else 0.0))

    engine = Regrouped(0.0, 0.1)
    for _ in range(KNOWN):
        for tokens in (64, 128, 256):
            engine.cost.observe(tokens, 0.1 * tokens)
    layer = 0.1 * 256 / 12
    assert measure_regrouping(engine, 256, at_once, engine.clock) == pytest.approx(2.0 / layer)


@pytest.mark.parametrize(
    ("asked", "mean_depth", "regrouping", "pays"),
    # All layers take 12 s; at half of the depth and as slow 6 are left, for eleven depths that may be the last.
    [(12.0, 6.0, 0.0, True), (24.0, 6.0, 0.0, False), (12.0, 6.0, 0.5, True), (12.0, 6.0, 0.6, False)],
)
def test_early_exits_pay_where_what_is_saved_is_more_than_asking_and_regrouping(
    asked: float, mean_depth: float, regrouping: float, pays: bool
) -> None:
    clock = ManualClock()

    class Takes(Timed):
        def profile_run(self, rows: Seq[Sequence], depth: int, check_interval: int) -> None:
            clock.advance(self.per_step)

    early, plain = Takes(asked, 0.0, clock), Takes(12.0, 0.0, clock)
    early.stepping = Stepping(12, exits=ExitPolicy("confidence", 0.9), mean_depth=mean_depth, regrouping=regrouping)

    assert exits_pay(early, plain, 256, at_once, clock) is pays


def test_layers_that_take_long_are_timed_one_at_a_time_and_quick_ones_together() -> None:
    slow, quick = Timed(0.0, 0.01), Timed(0.0, 1e-6)
    for engine in (slow, quick):
        measure_budget(engine, choose("cpu"), at_once, engine.clock)

    assert slow.clock() - 100 < 16 * 0.01 + 4 * 512 * 0.01 / 12 * 1.1
    assert quick.cost.coefficients[1] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("price", "layers"),
    [
        (0.0, 1),
        (0.0002, 1),  # beside the 10.7 ms of a layer
        (0.0005, 3),
        (0.001, 5),
        (0.05, 12),  # each look costs more than a layer
    ],
)
def test_one_looks_up_after_as_few_layers_as_cost_next_to_nothing(price: float, layers: int) -> None:
    engine = Timed(0.0, 0.001, price=price)
    engine.cost.observe(128, 0.128)

    assert measure_layers(engine, 128, at_once, engine.clock) == layers


def test_a_quick_layer_is_not_worth_a_look_for_itself_even_where_an_idle_machine_shows_no_price() -> None:
    engine = Timed(0.0, 0.0001)
    engine.cost.observe(128, 0.0128)

    assert measure_layers(engine, 128, at_once, engine.clock) == 10


@pytest.mark.parametrize("layers", [1, 2, 24])
def test_a_model_of_any_depth_is_measured(layers: int) -> None:
    engine = Timed(0.001, 0.001, layers=layers, price=0.0001)
    budget = measure_budget(engine, choose("cpu"), at_once, engine.clock)

    assert 1 <= measure_layers(engine, budget, at_once, engine.clock) <= layers


def test_each_timing_is_a_slice_of_its_own() -> None:
    engine = Timed(0.001, 0.0001)
    slices: list[int] = []

    def sliced(work: Callable[[], Any]) -> Any:
        before = len(engine.sizes)
        result = work()
        slices.append(len(engine.sizes) - before)
        return result

    budget = measure_budget(engine, choose("cpu"), sliced, engine.clock)
    measure_layers(engine, budget, sliced, engine.clock)
    assert {*slices} == {1}
    assert len(slices) == len(engine.sizes)


@pytest.mark.parametrize(
    ("one", "other", "faster"), [(0.001, 0.002, True), (0.002, 0.001, False), (0.001, 0.001, True)]
)
def test_of_two_models_the_one_that_takes_no_longer_is_as_fast(one: float, other: float, faster: bool) -> None:
    clock = ManualClock()

    assert as_fast(Timed(0.0, one, clock), Timed(0.0, other, clock), at_once, clock) == faster


def test_where_not_even_the_smallest_step_fits_the_model_does_not_load() -> None:
    engine = Timed(0.01, 1e-5, memory=8)
    with pytest.raises(OutOfMemory):
        measure_budget(engine, choose("cpu"), at_once, engine.clock)
