"""What runs next: nothing is lost, nothing is late, nothing starves, and the short goes before the long."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.serving.scheduler import Job, Limits, Policy, Scheduler
from service.types import ModelRef, Priority
from tests.fakes import ManualClock

MODELS = [ModelRef("a", 1), ModelRef("a", 2), ModelRef("b", 1)]
A, _, B = MODELS
FOREVER = 1e9
TOKENS = st.integers(1, 200)
COST = st.floats(0, 2)
PRIORITY = st.sampled_from(Priority)
MANY = settings(deadline=None, max_examples=50)


def job(key: int, **changes: object) -> Job:
    facts: dict[str, object] = {
        "model": A, "tokens": 10, "cost": 0.1, "arrived": 100.0, "deadline": FOREVER, "priority": Priority.INTERACTIVE,
    }  # fmt: skip
    return Job(key, **facts | changes)  # type: ignore[arg-type]


def filled(jobs: Iterable[Job], policy: Policy | None = None) -> Scheduler:
    scheduler = Scheduler(policy or Policy())
    for one in jobs:
        scheduler.add(one)
    return scheduler


def order(scheduler: Scheduler, budget: int = 1) -> list[int]:
    """The keys as they leave; with the smallest budget one by one."""
    left = []
    while step := scheduler.next_step(dict.fromkeys(MODELS, Limits(budget))):
        left += [one.key for one in step]
    return left


class Life(RuleBasedStateMachine):
    """Jobs come, go, are late and run, in any order; ``waiting`` is what a scheduler without any order would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(0.0)
        self.scheduler = Scheduler(Policy(ageing=0.1, bulk_delay=10.0))
        self.waiting: dict[int, Job] = {}
        self.left: Counter[int] = Counter()
        self.keys = itertools.count()

    def leave(self, jobs: Iterable[Job]) -> None:
        for one in jobs:
            assert self.waiting.pop(one.key) == one
            self.left[one.key] += 1

    @rule(model=st.sampled_from(MODELS), tokens=TOKENS, cost=COST, patience=st.floats(0, 50), priority=PRIORITY)
    def add(self, model: ModelRef, tokens: int, cost: float, patience: float, priority: Priority) -> None:
        now = self.clock()
        one = Job(next(self.keys), model, tokens, cost, now, now + patience, priority)
        self.scheduler.add(one)
        self.waiting[one.key] = one

    @rule(seconds=st.floats(0, 20))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(key=st.integers(0, 30))
    def remove(self, key: int) -> None:
        assert self.scheduler.remove(key) == (key in self.waiting)
        if key in self.waiting:
            self.leave([self.waiting[key]])

    @rule()
    def expire(self) -> None:
        late = {one.key for one in self.waiting.values() if one.deadline <= self.clock()}
        gone = self.scheduler.expire(self.clock())
        assert {one.key for one in gone} == late
        self.leave(gone)

    @rule(budgets=st.tuples(TOKENS, TOKENS, TOKENS))
    def step(self, budgets: tuple[int, ...]) -> None:
        self.expire()
        limits = dict(zip(MODELS, budgets, strict=True))
        before = list(self.waiting.values())
        chosen = self.scheduler.next_step({model: Limits(tokens) for model, tokens in limits.items()})
        assert bool(chosen) == bool(before)
        if not chosen:
            return
        assert all(one.deadline > self.clock() for one in chosen)
        (model,) = {one.model for one in chosen}
        assert sum(one.tokens for one in chosen) <= limits[model] or len(chosen) == 1
        rank = self.scheduler.policy.rank
        assert min(before, key=lambda one: (rank(one.cost, one.arrived, one.priority), one.key)) in chosen
        self.leave(chosen)

    @precondition(lambda self: self.waiting)
    @rule()
    def drain(self) -> None:
        while step := self.scheduler.next_step(dict.fromkeys(MODELS, Limits(100))):
            self.leave(step)
        assert not self.waiting

    @invariant()
    def counters_are_sums(self) -> None:
        assert len(self.scheduler) == len(self.waiting)
        assert self.scheduler.tokens == sum(one.tokens for one in self.waiting.values())
        assert self.scheduler.cost == pytest.approx(sum(one.cost for one in self.waiting.values()), abs=1e-9)

    @invariant()
    def nothing_leaves_twice(self) -> None:
        assert not self.left or max(self.left.values()) == 1
        assert not self.left.keys() & self.waiting.keys()

    def teardown(self) -> None:
        self.leave(self.scheduler.expire(FOREVER))
        assert not self.waiting
        assert (len(self.scheduler), self.scheduler.tokens, self.scheduler.cost) == (0, 0, 0.0)


TestLife = Life.TestCase
TestLife.settings = settings(deadline=None, max_examples=50, stateful_step_count=40)


def test_an_empty_scheduler_has_no_step() -> None:
    assert Scheduler().next_step({}) == []


def test_short_goes_before_long() -> None:
    assert order(filled([job(0, cost=2.0), job(1, cost=0.5), job(2, cost=1.0)])) == [1, 2, 0]


def test_equal_ones_go_as_they_came() -> None:
    assert order(filled(job(key) for key in range(10))) == list(range(10))


@MANY
@given(COST, st.floats(0, 1000))
def test_interactive_goes_before_bulk_that_came_with_it(cost: float, arrived: float) -> None:
    bulk = job(0, cost=cost, arrived=arrived, priority=Priority.BULK)
    assert order(filled([bulk, job(1, cost=cost, arrived=arrived)])) == [1, 0]


def test_bulk_lets_interactive_go_first_for_its_delay_and_no_longer() -> None:
    bulk = job(0, arrived=100.0, priority=Priority.BULK)
    within, after = job(1, arrived=129.0), job(2, arrived=131.0)
    assert order(filled([bulk, within, after], Policy(bulk_delay=30.0))) == [1, 0, 2]


def test_a_long_one_that_waited_goes_before_short_ones_that_just_came() -> None:
    long, soon, later = job(0, cost=1.0), job(1, cost=0.0, arrived=109.0), job(2, cost=0.0, arrived=111.0)
    assert order(filled([long, soon, later], Policy(ageing=0.1))) == [1, 0, 2]


def test_a_step_passes_over_what_does_not_fit_and_fills_up_with_what_does() -> None:
    sizes = [60, 50, 30, 20, 10]
    scheduler = filled(job(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate(sizes))
    assert [one.key for one in scheduler.next_step({A: Limits(100)})] == [0, 2, 4]


def test_only_one_lane_of_a_model_is_in_a_step() -> None:
    lanes = [3, 0, 3, 0, 5]
    scheduler = filled(job(key, lane=lane, arrived=float(key)) for key, lane in enumerate(lanes))
    steps = [scheduler.next_step({A: Limits(100)}) for _ in range(3)]
    assert [[one.key for one in step] for step in steps] == [[0, 2], [1, 3], [4]]


def test_a_short_one_does_not_join_a_step_that_would_pad_it_to_much_more() -> None:
    scheduler = filled(job(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate([100, 4, 90, 5]))
    assert [one.key for one in scheduler.next_step({A: Limits(1000, padding=20.0)})] == [0, 2]
    assert [one.key for one in scheduler.next_step({A: Limits(1000, padding=20.0)})] == [1, 3]


@MANY
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.floats(0, 50))
def test_no_step_pads_more_than_it_may(sizes: list[int], padding: float) -> None:
    scheduler = filled(job(key, tokens=tokens) for key, tokens in enumerate(sizes))
    ran = 0
    while step := scheduler.next_step({A: Limits(200, padding)}):
        lengths = [one.tokens for one in step]
        ran += len(step)
        assert len(step) * max(lengths) ** 2 - sum(n * n for n in lengths) <= padding * sum(lengths) + 1e-9
    assert ran == len(sizes)


def test_one_that_comes_back_with_less_left_goes_before_others_of_its_size_and_after_shorter_ones() -> None:
    scheduler = filled([job(0, cost=1.0), job(1, cost=1.0)])
    (first,) = scheduler.next_step({A: Limits(1)})
    scheduler.put_back(replace(first, cost=0.5))
    scheduler.add(job(2, cost=0.1))
    assert len(scheduler) == 3
    assert scheduler.cost == pytest.approx(1.6)
    assert order(scheduler) == [2, 0, 1]


def test_one_that_came_back_is_still_late_when_its_time_has_come() -> None:
    scheduler = filled([job(0, deadline=105.0)])
    (first,) = scheduler.next_step({A: Limits(1)})
    scheduler.put_back(first)
    assert scheduler.expire(104.0) == []
    assert scheduler.expire(105.0) == [first]


@MANY
@given(st.lists(st.integers(1, 8), min_size=1, max_size=30), st.integers(1, 12))
def test_no_step_exceeds_its_budget_by_a_token_or_leaves_room_for_one_that_waits(sizes: list[int], budget: int) -> None:
    scheduler = filled(job(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate(sizes))
    waiting = dict(enumerate(sizes))
    while step := scheduler.next_step({A: Limits(budget)}):
        used = sum(waiting.pop(one.key) for one in step)
        assert used <= budget or len(step) == 1
        assert all(used + tokens > budget for tokens in waiting.values())
    assert waiting == {}


def test_one_that_exceeds_the_budget_runs_alone() -> None:
    scheduler = filled([job(0, tokens=500), job(1, tokens=1)])
    assert [one.key for one in scheduler.next_step({A: Limits(100)})] == [0]


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"tokens": 60, "cost": 0.01}, True),  # goes first
        ({"tokens": 60, "cost": 0.5}, False),
        ({"tokens": 60, "cost": 0.01, "model": B}, True),
        ({"tokens": 10, "cost": 0.5}, False),  # would fit in, but they are not few
        ({"tokens": 10, "cost": 0.5, "model": B}, False),
        ({"tokens": 10, "cost": 0.5, "lane": 1}, False),
        ({"tokens": 60, "cost": 0.01, "priority": Priority.BULK}, False),
        ({"tokens": 60, "cost": 0.099, "arrived": 101.0}, False),  # what waited longer goes first
    ],
)
def test_a_step_ends_for_one_that_goes_before_it_or_fits_in(changes: dict[str, object], passes: bool) -> None:
    scheduler = Scheduler(Policy(ageing=0.1))

    assert scheduler.passes(job(2, **changes), [job(1, tokens=54)], Limits(64)) is passes


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"tokens": 48}, True),
        ({"tokens": 49}, False),  # does not fit in
        ({"model": B}, False),
        ({"lane": 1}, False),
    ],
)
def test_a_few_are_joined_between_layers_by_who_fits_in(changes: dict[str, object], passes: bool) -> None:
    later = job(2, **{"cost": 0.5, "tokens": 10} | changes)

    assert Scheduler().passes(later, [job(1, tokens=16)], Limits(64)) is passes


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    cost=st.floats(0.1, 1.0), priority=PRIORITY, ageing=st.floats(0.1, 1.0), delay=st.floats(0, 5.0),
    load=st.floats(0.5, 2.0), shared=st.booleans(),
)  # fmt: skip
def test_nothing_starves_under_an_endless_stream_of_short_ones(
    cost: float, priority: Priority, ageing: float, delay: float, load: float, shared: bool
) -> None:
    """A long one is overtaken only by what comes within ``cost / ageing`` (and the delay) after it."""
    short, tokens, budget = 0.02, 10, 80
    clock = ManualClock(0.0)
    long = job(0, cost=cost, tokens=70, arrived=0.0, priority=priority)
    scheduler = filled([long], Policy(ageing, delay))
    bound = cost / ageing + (delay if priority is Priority.BULK else 0.0)
    longest_step = short * budget / tokens
    arrivals = (k * short / load for k in itertools.count(1))
    due, keys = 0.0, itertools.count(1)
    limit: float | None = None  # by when the long one must have begun
    while True:
        while due <= clock():
            scheduler.add(job(next(keys), cost=short, tokens=tokens, arrived=due, model=A if shared else B))
            due = next(arrivals)
        if limit is None and clock() > bound:
            limit = clock() + scheduler.ahead(cost, 0.0, priority) + longest_step
        step = scheduler.next_step({A: Limits(budget), B: Limits(budget)})
        if long in step:
            assert limit is None or clock() <= limit + 1e-6
            return
        assert min(one.arrived for one in step) <= bound + 1e-6
        clock.advance(sum(one.cost for one in step))


@MANY
@given(
    st.lists(st.tuples(st.sampled_from(MODELS), COST, st.floats(0, 50), PRIORITY), max_size=30),
    COST, st.floats(50, 100), PRIORITY,
)  # fmt: skip
def test_ahead_is_the_cost_of_all_that_goes_before(
    others: list[tuple[ModelRef, float, float, Priority]], cost: float, arrived: float, priority: Priority
) -> None:
    jobs = [job(key, model=m, cost=c, arrived=a, priority=p) for key, (m, c, a, p) in enumerate(others)]
    policy = Policy()
    assume(
        all(policy.rank(one.cost, one.arrived, one.priority) != policy.rank(cost, arrived, priority) for one in jobs)
    )
    said = filled(jobs).ahead(cost, arrived, priority)

    leaving = order(filled([*jobs, job(len(jobs), cost=cost, arrived=arrived, priority=priority)]))
    before = leaving[: leaving.index(len(jobs))]
    assert said == pytest.approx(sum(jobs[key].cost for key in before), abs=1e-9)


def test_ahead_counts_equal_ones_that_came_at_the_same_instant() -> None:
    scheduler = filled(job(key, cost=0.5) for key in range(4))
    assert scheduler.ahead(0.5, 100.0, Priority.INTERACTIVE) == pytest.approx(2.0)


def test_ahead_of_interactive_is_not_the_bulk_that_waits() -> None:
    scheduler = filled(job(key, cost=0.5, priority=Priority.BULK) for key in range(4))
    assert scheduler.ahead(0.5, 101.0, Priority.INTERACTIVE) == 0.0


@MANY
@given(st.integers(1, 16))
def test_models_of_equal_traffic_get_equal_shares(fits: int) -> None:
    """Never further apart than a step."""
    scheduler = filled(job(key, arrived=float(key), model=(A, B)[key % 2]) for key in range(200))
    ran: Counter[ModelRef] = Counter({A: 0, B: 0})
    while step := scheduler.next_step({A: Limits(fits * 10), B: Limits(fits * 10)}):
        ran[step[0].model] += len(step)
        assert abs(ran[A] - ran[B]) <= fits
    assert ran == {A: 100, B: 100}


def test_a_backlog_of_one_model_does_not_hold_up_another() -> None:
    backlog = [job(key, arrived=100.0 + key) for key in range(50)]
    scheduler = filled([*backlog, job(50, model=B, arrived=110.5)])
    assert order(scheduler)[:12] == [*range(11), 50]
