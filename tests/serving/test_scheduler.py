"""What runs next: nothing is lost, nothing is late, nothing starves, and the short goes before the long."""

import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.serving.pending import PendingSequence
from service.serving.scheduler import SMALLEST_CLASS, BatchLimits, Policy, Scheduler, size_class
from service.types import ModelRef, Priority
from tests.fakes import ManualClock

MODELS = [ModelRef("a", 1), ModelRef("a", 2), ModelRef("b", 1)]
A, _, B = MODELS
FOREVER = 1e9
TOKENS = st.integers(1, 200)
COST = st.floats(0, 2)
WORK = st.floats(0.1, 5000)
PRIORITY = st.sampled_from(Priority)
KEYS = st.integers(0, 2)
MANY = settings(deadline=None, max_examples=50)


def pending(key: int, **changes: Any) -> PendingSequence:
    """A sequence whose work is a whole size class: its rank has its very cost in it."""
    facts: dict[str, Any] = {"model": A, "tokens": 10, "work": 256.0, "cost": 0.1, "arrived": 100.0}
    return PendingSequence(key, **facts | {"deadline": FOREVER} | changes)


def filled(sequences: Iterable[PendingSequence], policy: Policy | None = None) -> Scheduler:
    scheduler = Scheduler(policy or Policy())
    for one in sequences:
        scheduler.add(one)
    return scheduler


def limits(tokens: int) -> dict[ModelRef, BatchLimits]:
    return dict.fromkeys(MODELS, BatchLimits(tokens))


def order(scheduler: Scheduler, budget: int = 1, *, critical: bool = False) -> list[int]:
    """The keys as they leave; with the smallest budget one by one."""
    left = []
    while batch := scheduler.next_batch(limits(budget), critical=critical):
        left += [one.key for one in batch]
    return left


class Life(RuleBasedStateMachine):
    """Sequences come, go, are late, run and come back, in any order; ``waiting`` is what a plain dict would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(0.0)
        self.scheduler = Scheduler(Policy(ageing=0.1, bulk_delay=10.0))
        self.waiting: dict[int, PendingSequence] = {}
        self.ran: list[PendingSequence] = []
        self.keys = itertools.count()

    def enter(self, one: PendingSequence) -> None:
        self.scheduler.add(one)
        self.waiting[one.key] = one

    def leave(self, sequences: Iterable[PendingSequence]) -> None:
        for one in sequences:
            assert self.waiting.pop(one.key) is one  # fails where one leaves twice

    @rule(
        model=st.sampled_from(MODELS), tokens=TOKENS, work=WORK, cost=COST, patience=st.floats(0, 50),
        priority=PRIORITY, batch_key=KEYS,
    )  # fmt: skip
    def add(
        self, model: ModelRef, tokens: int, work: float, cost: float, patience: float, priority: Priority,
        batch_key: int,
    ) -> None:  # fmt: skip
        now = self.clock()
        self.enter(PendingSequence(
            next(self.keys), model, tokens, work, cost, now, now + patience, priority, batch_key,
        ))  # fmt: skip

    @precondition(lambda self: self.ran)
    @rule(share=st.floats(0.1, 1.0), batch_key=KEYS)
    def come_back(self, share: float, batch_key: int) -> None:
        one = self.ran.pop()
        one.work, one.cost, one.batch_key = one.work * share, one.cost * share, batch_key
        self.enter(one)

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

    @rule(budgets=st.tuples(TOKENS, TOKENS, TOKENS), critical=st.booleans())
    def step(self, budgets: tuple[int, ...], critical: bool) -> None:
        self.expire()
        most = dict(zip(MODELS, budgets, strict=True))
        before = list(self.waiting.values())
        chosen = self.scheduler.next_batch({ref: BatchLimits(n) for ref, n in most.items()}, critical=critical)
        assert bool(chosen) == bool(before)
        if not chosen:
            return
        assert all(one.deadline > self.clock() for one in chosen)
        ((model, _),) = {(one.model, one.batch_key) for one in chosen}
        assert sum(one.tokens for one in chosen) <= most[model] or len(chosen) == 1
        rank = self.scheduler.policy.rank
        assert min(before, key=lambda one: (one.deadline if critical else rank(one), one.key)) is chosen[0]
        self.leave(chosen)
        self.ran = chosen

    @precondition(lambda self: self.waiting)
    @rule(critical=st.booleans())
    def drain(self, critical: bool) -> None:
        while batch := self.scheduler.next_batch(limits(100), critical=critical):
            self.leave(batch)
        assert not self.waiting

    @invariant()
    def counters_are_sums(self) -> None:
        assert len(self.scheduler) == len(self.waiting)
        assert self.scheduler.tokens == sum(one.tokens for one in self.waiting.values())
        models = {one.model for one in self.waiting.values()}
        assert [self.scheduler.waiting(model) for model in MODELS] == [model in models for model in MODELS]

    def teardown(self) -> None:
        self.leave(self.scheduler.expire(FOREVER))
        assert not self.waiting
        assert (len(self.scheduler), self.scheduler.tokens) == (0, 0)


TestLife = Life.TestCase
TestLife.settings = settings(deadline=None, max_examples=50, stateful_step_count=40)


@pytest.mark.parametrize("critical", [False, True])
def test_an_empty_scheduler_has_no_batch(critical: bool) -> None:
    assert Scheduler().next_batch({}, critical=critical) == []


def test_short_goes_before_long() -> None:
    sequences = [pending(key, work=work, cost=work / 1000) for key, work in enumerate([1000.0, 50.0, 200.0])]
    assert order(filled(sequences)) == [1, 2, 0]


@MANY
@given(st.lists(st.floats(65, 256), min_size=1, max_size=20))
def test_those_of_about_one_size_go_as_they_came(works: list[float]) -> None:
    sequences = [pending(key, work=work, cost=work / 1000, arrived=100.0 + key) for key, work in enumerate(works)]
    assert order(filled(sequences)) == list(range(len(works)))


@given(st.floats(1e-3, 1e6))
def test_a_size_class_is_the_work_rounded_up_to_a_power_of_four(work: float) -> None:
    found = size_class(work)
    assert found >= work * (1 - 1e-6)
    assert found == SMALLEST_CLASS or found < 4 * work * (1 + 1e-6)
    assert size_class(found) == found


@MANY
@given(COST, WORK, st.floats(0, 1000))
def test_interactive_goes_before_bulk_that_came_with_it(cost: float, work: float, arrived: float) -> None:
    bulk = pending(0, cost=cost, work=work, arrived=arrived, priority=Priority.BULK)
    assert order(filled([bulk, pending(1, cost=cost, work=work, arrived=arrived)])) == [1, 0]


def test_bulk_lets_interactive_go_first_for_its_delay_and_no_longer() -> None:
    bulk = pending(0, arrived=100.0, priority=Priority.BULK)
    within, after = pending(1, arrived=129.0), pending(2, arrived=131.0)
    assert order(filled([bulk, within, after], Policy(bulk_delay=30.0))) == [1, 0, 2]


def test_a_long_one_that_waited_goes_before_short_ones_that_just_came() -> None:
    long, soon, later = pending(0, cost=1.0), pending(1, cost=0.0, arrived=109.0), pending(2, cost=0.0, arrived=111.0)
    assert order(filled([long, soon, later], Policy(ageing=0.1))) == [1, 0, 2]


@MANY
@given(st.lists(st.tuples(st.floats(0, 50), st.sampled_from(MODELS), KEYS), min_size=1, max_size=30))
def test_where_a_promise_is_about_to_break_the_earliest_deadline_goes_first(
    facts: list[tuple[float, ModelRef, int]],
) -> None:
    sequences = [
        pending(key, deadline=deadline, model=model, batch_key=batch_key, cost=float(-key))
        for key, (deadline, model, batch_key) in enumerate(facts)
    ]
    wanted = sorted(sequences, key=lambda one: (one.deadline, one.key))
    assert order(filled(sequences), critical=True) == [one.key for one in wanted]


def test_a_critical_batch_is_filled_with_those_that_may_share_it() -> None:
    others = [pending(1, deadline=2.0, model=B), pending(2, deadline=3.0, batch_key=1), pending(3, deadline=4.0)]
    scheduler = filled([pending(0, deadline=1.0), *others])
    batches = [[one.key for one in scheduler.next_batch(limits(100), critical=True)] for _ in range(3)]
    assert batches == [[0, 3], [1], [2]]


def test_a_batch_passes_over_what_does_not_fit_and_fills_up_with_what_does() -> None:
    sizes = [60, 50, 30, 20, 10]
    scheduler = filled(pending(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate(sizes))
    assert [one.key for one in scheduler.next_batch({A: BatchLimits(100)})] == [0, 2, 4]


def test_only_one_batch_key_of_a_model_is_in_a_batch() -> None:
    batch_keys = [3, 0, 3, 0, 5]
    scheduler = filled(pending(key, batch_key=it, arrived=float(key)) for key, it in enumerate(batch_keys))
    batches = [scheduler.next_batch({A: BatchLimits(100)}) for _ in range(3)]
    assert [[one.key for one in batch] for batch in batches] == [[0, 2], [1, 3], [4]]


def test_a_short_one_does_not_join_a_batch_that_would_pad_it_to_much_more() -> None:
    scheduler = filled(pending(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate([100, 4, 90, 5]))
    assert [one.key for one in scheduler.next_batch({A: BatchLimits(1000, padding=20.0)})] == [0, 2]
    assert [one.key for one in scheduler.next_batch({A: BatchLimits(1000, padding=20.0)})] == [1, 3]


@MANY
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.floats(0, 50), st.booleans())
def test_no_batch_pads_more_than_it_may(sizes: list[int], padding: float, critical: bool) -> None:
    scheduler = filled(pending(key, tokens=tokens) for key, tokens in enumerate(sizes))
    ran = 0
    while batch := scheduler.next_batch({A: BatchLimits(200, padding)}, critical=critical):
        lengths = [one.tokens for one in batch]
        ran += len(batch)
        assert len(batch) * max(lengths) ** 2 - sum(n * n for n in lengths) <= padding * sum(lengths) + 1e-9
    assert ran == len(sizes)


def test_one_that_comes_back_with_less_left_goes_before_others_of_its_size_and_after_shorter_ones() -> None:
    scheduler = filled([pending(0, work=1000.0, cost=1.0), pending(1, work=1000.0, cost=1.0)])
    (first,) = scheduler.next_batch(limits(1))
    first.work, first.cost = 250.0, 0.25
    scheduler.add(first)
    scheduler.add(pending(2, work=50.0, cost=0.05))
    assert len(scheduler) == 3
    assert order(scheduler) == [2, 0, 1]


def test_one_that_came_back_is_still_late_when_its_time_has_come() -> None:
    scheduler = filled([pending(0, deadline=105.0)])
    (first,) = scheduler.next_batch(limits(1))
    scheduler.add(first)
    assert scheduler.expire(104.0) == []
    assert scheduler.expire(105.0) == [first]


@MANY
@given(st.lists(st.integers(1, 8), min_size=1, max_size=30), st.integers(1, 12))
def test_no_batch_exceeds_its_budget_by_a_token_or_leaves_room_for_one_that_waits(
    sizes: list[int], budget: int
) -> None:
    scheduler = filled(pending(key, tokens=tokens, arrived=float(key)) for key, tokens in enumerate(sizes))
    waiting = dict(enumerate(sizes))
    while batch := scheduler.next_batch({A: BatchLimits(budget)}):
        used = sum(waiting.pop(one.key) for one in batch)
        assert used <= budget or len(batch) == 1
        assert all(used + tokens > budget for tokens in waiting.values())
    assert waiting == {}


def test_one_that_exceeds_the_budget_runs_alone() -> None:
    scheduler = filled([pending(0, tokens=500), pending(1, tokens=1)])
    assert [one.key for one in scheduler.next_batch({A: BatchLimits(100)})] == [0]


@pytest.mark.parametrize(
    ("changes", "preempts"),
    [
        ({"tokens": 60, "cost": 0.01}, True),  # goes first
        ({"tokens": 60, "cost": 0.5}, False),
        ({"tokens": 60, "cost": 0.01, "model": B}, True),
        ({"tokens": 10, "cost": 0.5}, False),  # would fit in, but they are not few
        ({"tokens": 10, "cost": 0.5, "model": B}, False),
        ({"tokens": 10, "cost": 0.5, "batch_key": 1}, False),
        ({"tokens": 60, "cost": 0.01, "priority": Priority.BULK}, False),
        ({"tokens": 60, "cost": 0.099, "arrived": 101.0}, False),  # what waited longer goes first
    ],
)
def test_a_step_ends_for_one_that_goes_before_it(changes: dict[str, Any], preempts: bool) -> None:
    scheduler = Scheduler(Policy(ageing=0.1))

    assert scheduler.preempts(pending(2, **changes), [pending(1, tokens=54)], BatchLimits(64)) is preempts


@pytest.mark.parametrize(
    ("changes", "preempts"),
    [
        ({"tokens": 48}, True),
        ({"tokens": 49}, False),  # does not fit in
        ({"model": B}, False),
        ({"batch_key": 1}, False),
    ],
)
def test_a_few_are_joined_between_layers_by_one_that_fits_in(changes: dict[str, Any], preempts: bool) -> None:
    later = pending(2, **{"cost": 0.5, "tokens": 10} | changes)

    assert Scheduler().preempts(later, [pending(1, tokens=16)], BatchLimits(64)) is preempts


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
    long = pending(0, cost=cost, tokens=70, arrived=0.0, priority=priority)
    scheduler = filled([long], Policy(ageing, delay))
    bound = cost / ageing + (delay if priority is Priority.BULK else 0.0)
    longest_step = short * budget / tokens
    arrivals = (k * short / load for k in itertools.count(1))
    due, keys, waiting = 0.0, itertools.count(1), {0: long}
    limit: float | None = None  # by when the long one must have begun
    while True:
        while due <= clock():
            one = pending(next(keys), cost=short, tokens=tokens, arrived=due, model=A if shared else B)
            scheduler.add(one)
            waiting[one.key] = one
            due = next(arrivals)
        if limit is None and clock() > bound:
            limit = clock() + sum(one.cost for one in waiting.values() if one.rank < long.rank) + longest_step
        batch = scheduler.next_batch(limits(budget))
        if long in batch:
            assert limit is None or clock() <= limit + 1e-6
            return
        assert min(one.arrived for one in batch) <= bound + 1e-6
        for one in batch:
            del waiting[one.key]
        clock.advance(sum(one.cost for one in batch))


@MANY
@given(st.integers(1, 16))
def test_models_of_equal_traffic_get_equal_shares(fits: int) -> None:
    """Never further apart than a step."""
    scheduler = filled(pending(key, arrived=float(key), model=(A, B)[key % 2]) for key in range(200))
    ran: Counter[ModelRef] = Counter({A: 0, B: 0})
    while batch := scheduler.next_batch(limits(fits * 10)):
        ran[batch[0].model] += len(batch)
        assert abs(ran[A] - ran[B]) <= fits
    assert ran == {A: 100, B: 100}


def test_a_backlog_of_one_model_does_not_hold_up_another() -> None:
    backlog = [pending(key, arrived=100.0 + key) for key in range(50)]
    scheduler = filled([*backlog, pending(50, model=B, arrived=110.5)])
    assert order(scheduler)[:12] == [*range(11), 50]


def many(count: int, seed: int = 0) -> list[PendingSequence]:
    """Of all models, sizes, ages and deadlines."""
    draw = random.Random(seed)
    return [
        pending(
            key, model=draw.choice(MODELS), batch_key=draw.randrange(3), tokens=draw.randint(1, 200),
            work=draw.uniform(1, 5000), cost=draw.uniform(0, 2), arrived=draw.uniform(0, 100),
            deadline=draw.uniform(100, 1000),
        )
        for key in range(count)
    ]  # fmt: skip


def seconds_of(work: Callable[[], object], times: int = 30) -> float:
    """The median, for the machine has other things to do."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return statistics.median(timed() for _ in range(times))


@pytest.mark.parametrize("critical", [False, True])
def test_no_call_takes_long_where_much_waits(critical: bool) -> None:
    scheduler = filled(many(50_000))
    keys = itertools.count(100_000)
    assert seconds_of(lambda: scheduler.next_batch(limits(500), critical=critical)) < 0.005
    assert seconds_of(lambda: scheduler.add(pending(next(keys), deadline=500.0))) < 0.001
    assert seconds_of(lambda: scheduler.expire(50.0)) < 0.001
    removed = itertools.count(1000)
    assert seconds_of(lambda: scheduler.remove(next(removed))) < 0.001


def entries(scheduler: Scheduler) -> int:
    """In all heaps, with those of sequences that left."""
    return len(scheduler._deadlines) + sum(map(len, scheduler._queues.values()))


def test_what_was_removed_leaves_little_behind() -> None:
    scheduler = filled(many(100, seed=1))
    for one in many(20_000):
        one.key += 1000
        scheduler.add(one)
        assert scheduler.remove(one.key)
    assert entries(scheduler) < 2000
    assert len(order(scheduler, 500)) == 100


@pytest.mark.parametrize("critical", [False, True])
def test_what_ran_in_many_steps_leaves_little_behind(critical: bool) -> None:
    """Whatever is chosen comes back with a little less work, and so with another rank, over and over."""
    scheduler = filled(many(100))
    for _ in range(3000):
        for one in scheduler.next_batch(limits(500), critical=critical):
            one.work, one.cost = one.work * 0.99, one.cost * 0.99
            scheduler.add(one)
    assert entries(scheduler) < 2000
    assert len(order(scheduler, 500, critical=critical)) == 100
