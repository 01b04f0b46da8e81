"""The device's worker: everyone is answered once, by their own result, and one who fails fails alone."""

import asyncio
import contextlib
import functools
import gc
import logging
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence as Seq
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from prometheus_client import CollectorRegistry

from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    OutOfMemory,
    QueueFull,
    ServiceError,
    TooLarge,
    Unavailable,
)
from service.metrics import Metrics
from service.serving.admission import CostModel
from service.serving.device import Worker
from service.serving.stepping import Progress, Stepping, Stop
from service.serving.tickets import Outcome
from service.tasks.exits import ExitPolicy
from service.types import Floats, ModelRef, Priority, Sequence, Timings
from tests.fakes import FakeRunner, ManualClock, row, until

pytestmark = pytest.mark.anyio

FAR = 1e6  # a deadline that no test reaches
SECONDS = 0.125  # of a token, as ``teach`` has it; every product is exact
Submitted = asyncio.Task[tuple[list[Outcome], Timings]]


@contextlib.asynccontextmanager
async def working(**facts: Any) -> AsyncIterator[Worker]:
    """A worker that runs, on a clock that stands still unless one is given."""
    worker = Worker(Metrics(CollectorRegistry()), **{"clock": ManualClock()} | facts)
    async with worker.running():
        yield worker


@pytest.fixture
async def worker(anyio_backend: str) -> AsyncIterator[Worker]:
    async with working() as started:
        yield started


def submit(
    worker: Worker, runner: FakeRunner, firsts: Iterable[int], *, tokens: int = 1, deadline: float = FAR,
    priority: Priority = Priority.INTERACTIVE,
) -> Submitted:  # fmt: skip
    """One caller, whose rows begin with ``firsts``."""
    rows = [row(tokens, first) for first in firsts]
    return asyncio.create_task(worker.submit(runner, rows, deadline=deadline, priority=priority))


def value(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"albert_{name}", labels)


async def waiting(worker: Worker, sequences: int) -> None:
    await until(lambda: value(worker, "queue_sequences") == sequences)


@contextlib.asynccontextmanager
async def held(worker: Worker, runner: FakeRunner, first: int = 1, tokens: int = 1) -> AsyncIterator[Submitted]:
    """The device is busy with one row inside, and free again outside."""
    runner.gate = threading.Event()
    blocker = submit(worker, runner, [first], tokens=tokens)
    try:
        await until(lambda: runner.steps)
        yield blocker
    finally:
        runner.gate.set()


def block(condition: Callable[[], object]) -> None:
    """Hold the loop until ``condition`` holds."""
    began = time.monotonic()
    while not condition() and time.monotonic() - began < 10:
        time.sleep(0.001)


def teach(runner: FakeRunner) -> FakeRunner:
    runner.cost.observe(8, 8 * SECONDS)
    return runner


def read(outcomes: Seq[Outcome]) -> list[int | str]:
    """The ids that came back as logits, or the code of the error in their place."""
    return [outcome.code if isinstance(outcome, ServiceError) else int(outcome[0]) for outcome in outcomes]


async def answers(task: Submitted) -> list[int | str]:
    return read((await task)[0])


def failing(*firsts: int) -> Callable[[Seq[Sequence]], Exception | None]:
    """Fails each step that holds a row that begins with one of ``firsts``."""
    return lambda rows: RuntimeError("bad row") if {int(r.ids[0]) for r in rows} & {*firsts} else None


def take_a_second(clock: ManualClock, rows: Seq[Sequence]) -> None:
    """Fails no step, and each takes a second."""
    clock.advance(1.0)


async def test_an_idle_device_runs_a_text_at_once(worker: Worker) -> None:
    runner = FakeRunner()
    outcomes, timings = await worker.submit(runner, [row(5, first=9)], deadline=FAR)
    assert read(outcomes) == [9]
    assert runner.steps == [[9]]
    assert timings == Timings()


async def test_what_waits_while_it_is_busy_forms_one_batch(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner):
        callers = [submit(worker, runner, [first]) for first in range(10, 20)]
        await waiting(worker, 10)
    assert [await answers(caller) for caller in callers] == [[first] for first in range(10, 20)]
    assert runner.steps == [[1], [*range(10, 20)]]


async def test_a_batch_stays_within_the_budget(worker: Worker) -> None:
    runner = FakeRunner(budget=64)
    async with held(worker, runner):
        caller = submit(worker, runner, range(10), tokens=30)
        await waiting(worker, 10)
    assert await answers(caller) == [*range(10)]
    assert [len(step) for step in runner.steps[1:]] == [2] * 5


async def test_two_models_never_share_a_step(worker: Worker) -> None:
    one, two = FakeRunner(ModelRef("one", 1)), FakeRunner(ModelRef("two", 1))
    async with held(worker, one):
        callers = [submit(worker, runner, range(10, 15)) for runner in (one, two)]
        await waiting(worker, 10)
    assert [await answers(caller) for caller in callers] == [[*range(10, 15)]] * 2
    assert one.steps == [[1], [*range(10, 15)]]
    assert two.steps == [[*range(10, 15)]]


async def test_interactive_runs_before_bulk_that_waited_first(worker: Worker) -> None:
    runner = FakeRunner(budget=1)
    async with held(worker, runner):
        bulk = submit(worker, runner, [2], priority=Priority.BULK)
        await waiting(worker, 1)
        interactive = submit(worker, runner, [3])
        await waiting(worker, 2)
    await asyncio.gather(bulk, interactive)
    assert runner.steps == [[1], [3], [2]]


async def test_results_go_to_their_owners(worker: Worker) -> None:
    runner, pick = FakeRunner(budget=100), random.Random(3)
    wanted = [[pick.randrange(10_000) for _ in range(pick.randint(1, 6))] for _ in range(200)]
    callers = [submit(worker, runner, firsts, tokens=pick.randint(1, 60)) for firsts in wanted]
    assert [await answers(caller) for caller in callers] == wanted
    assert len(runner.steps) < sum(map(len, wanted))


async def test_timings_split_waiting_from_running() -> None:
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner()

        def take_two_seconds(rows: Seq[Sequence]) -> None:
            clock.advance(2.0)

        runner.fails = take_two_seconds
        async with held(worker, runner):
            caller = submit(worker, runner, [5])
            await waiting(worker, 1)
            clock.advance(3.0)
        _, timings = await caller
    assert timings == Timings(queue=5.0, run=2.0)


async def test_a_row_that_fails_fails_alone(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner):
        mixed, clean = submit(worker, runner, [10, 13, 14]), submit(worker, runner, [15, 16])
        await waiting(worker, 5)
        runner.fails = failing(13)
    assert await answers(mixed) == [10, "inference_failed", 14]
    assert await answers(clean) == [15, 16]
    assert value(worker, "failed_sequences_total", model="fake", version="1") == 1


async def test_where_every_row_fails_each_has_its_error(worker: Worker) -> None:
    runner = FakeRunner(fails=lambda rows: RuntimeError("no"))
    outcomes, _ = await worker.submit(runner, [row(3, first) for first in range(5)], deadline=FAR)
    assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)
    assert len(outcomes) == len({id(outcome) for outcome in outcomes}) == 5
    runner.fails = lambda rows: None
    assert await answers(submit(worker, runner, [8])) == [8]


async def test_out_of_memory_halves_the_budget_and_every_row_succeeds(worker: Worker) -> None:
    runner = FakeRunner(budget=64)
    runner.fails = lambda rows: OutOfMemory("full") if sum(map(len, rows)) > 20 else None
    assert await answers(submit(worker, runner, range(8), tokens=8)) == [*range(8)]
    assert runner.budget == 16

    runner.steps.clear()
    assert await answers(submit(worker, runner, range(8), tokens=8)) == [*range(8)]
    assert [len(step) for step in runner.steps] == [2] * 4


async def test_out_of_memory_on_a_single_row_fails_it_and_keeps_the_budget(worker: Worker) -> None:
    runner = FakeRunner(budget=64, fails=lambda rows: OutOfMemory("full"))
    assert await answers(submit(worker, runner, [1], tokens=9)) == ["inference_failed"]
    assert runner.budget == 64


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
async def test_logits_that_are_not_finite_fail_alone(worker: Worker, wrong: float) -> None:
    class Overflowing(FakeRunner):
        def run(self, rows: Seq[Sequence]) -> list[Floats]:
            logits = FakeRunner.run(self, rows)
            return [np.array([1.0, wrong], dtype=np.float32) if one[0] == 13 else one for one in logits]

    assert await answers(submit(worker, Overflowing(), [12, 13, 14])) == [12, "inference_failed", 14]
    assert value(worker, "failed_sequences_total", model="fake", version="1") == 1


async def test_rows_of_a_cancelled_caller_never_run(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner) as blocker:
        gone, stays = submit(worker, runner, [20, 21]), submit(worker, runner, [30])
        await waiting(worker, 3)
        gone.cancel()
        await waiting(worker, 1)
    assert await answers(stays) == [30]
    assert await answers(blocker) == [1]
    assert gone.cancelled()
    assert runner.steps == [[1], [30]]
    assert value(worker, "dropped_sequences_total", reason="cancelled") == 2


async def test_a_caller_may_be_cancelled_while_its_rows_run(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner) as blocker:
        blocker.cancel()
        await asyncio.wait([blocker])
        other = submit(worker, runner, [30])
        await waiting(worker, 1)
    assert await answers(other) == [30]
    assert worker.healthy


async def test_rows_whose_deadline_passes_while_they_wait_never_run() -> None:
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner()
        async with held(worker, runner):
            late = submit(worker, runner, [20, 21], deadline=clock() + 5)
            stays = submit(worker, runner, [30])
            await waiting(worker, 3)
            clock.advance(5)
        with pytest.raises(DeadlineExceeded):
            await late
        assert await answers(stays) == [30]
        assert runner.steps == [[1], [30]]
        assert value(worker, "dropped_sequences_total", reason="deadline") == 2


async def test_a_caller_hears_of_its_deadline_while_the_device_is_still_busy(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner):
        with pytest.raises(DeadlineExceeded):
            await submit(worker, runner, [20], deadline=worker.clock() + 0.02)
        assert value(worker, "queue_sequences") == 0
        assert value(worker, "dropped_sequences_total", reason="deadline") == 1
    assert await answers(submit(worker, runner, [30])) == [30]
    assert runner.steps == [[1], [30]]


@pytest.mark.parametrize("behind", [0.0, 1.0])
async def test_a_deadline_in_the_past_is_refused(worker: Worker, behind: float) -> None:
    runner = FakeRunner()
    with pytest.raises(DeadlineExceeded):
        await submit(worker, runner, [5], deadline=worker.clock() - behind)
    assert runner.steps == []


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async with working(max_queue_tokens=100) as worker:
        runner = teach(FakeRunner())
        async with held(worker, runner, tokens=8):
            waits = submit(worker, runner, range(10, 14), tokens=20)
            await waiting(worker, 4)
            with pytest.raises(QueueFull) as refused:
                await submit(worker, runner, [50], tokens=21)
            fits = submit(worker, runner, [60], tokens=20)
            await waiting(worker, 5)
        # 80 tokens wait, and the 8 that run have just begun.
        assert refused.value.retry_after == 88 * SECONDS
        assert value(worker, "dropped_sequences_total", reason="refused") == 1
        assert await answers(waits) == [10, 11, 12, 13]
        assert await answers(fits) == [60]


async def test_a_request_larger_than_the_queue_is_too_large() -> None:
    async with working(max_queue_tokens=100) as worker:
        runner = FakeRunner()
        with pytest.raises(TooLarge, match="101 tokens"):
            await submit(worker, runner, [5], tokens=101)
        assert await answers(submit(worker, runner, [6], tokens=100)) == [6]
        assert value(worker, "dropped_sequences_total", reason="refused") == 1
        assert runner.steps == [[6]]


async def test_a_request_that_takes_longer_than_its_deadline_is_refused(worker: Worker) -> None:
    runner = teach(FakeRunner())
    with pytest.raises(DeadlineExceeded, match=r"3\.0 s"):
        await submit(worker, runner, [5], tokens=24, deadline=worker.clock() + 2.9)
    assert runner.steps == []
    assert value(worker, "dropped_sequences_total", reason="refused") == 1
    assert await answers(submit(worker, runner, [5], tokens=24, deadline=worker.clock() + 3)) == [5]


async def test_a_request_that_would_wait_too_long_is_refused(worker: Worker) -> None:
    runner = teach(FakeRunner())
    async with held(worker, runner, tokens=8):
        waits = submit(worker, runner, [10, 11], tokens=8)
        await waiting(worker, 2)
        with pytest.raises(QueueFull) as refused:
            await submit(worker, runner, [50], tokens=16, deadline=worker.clock() + 2.5)
    # 1 s runs, 2 s wait and are shorter than its own 2 s: 5 s, twice what it has.
    assert refused.value.retry_after == 3
    assert await answers(waits) == [10, 11]
    assert value(worker, "dropped_sequences_total", reason="refused") == 1


async def test_interactive_is_not_refused_for_the_bulk_that_waits(worker: Worker) -> None:
    runner = teach(FakeRunner())
    async with held(worker, runner):
        bulk = submit(worker, runner, range(10, 20), tokens=8, priority=Priority.BULK)
        await waiting(worker, 10)
        interactive = submit(worker, runner, [5], tokens=8, deadline=worker.clock() + 3)
        await waiting(worker, 11)
    assert await answers(interactive) == [5]
    assert await answers(bulk) == [*range(10, 20)]


async def test_a_step_that_was_faster_than_predicted_does_not_keep_refusing(worker: Worker) -> None:
    runner = teach(FakeRunner())
    await submit(worker, runner, [5], tokens=64)  # predicted to take 8 s, and takes none
    assert await answers(submit(worker, runner, [6], tokens=1, deadline=worker.clock() + 2)) == [6]


class Shaky(ThreadPoolExecutor):
    """Refuses its first piece of work, as a lost device does."""

    broken = True

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.broken:
            self.broken = False
            raise RuntimeError("the device is lost")
        return super().submit(*args, **kwargs)


async def test_a_worker_that_cannot_run_steps_answers_everyone_and_recovers() -> None:
    async with working(executor=Shaky(1)) as worker:
        runner = FakeRunner(budget=1)
        callers = [submit(worker, runner, [first, first + 1]) for first in (10, 20, 30)]
        for caller in callers:
            with pytest.raises(Unavailable):
                await caller
        assert not worker.healthy
        with pytest.raises(Unavailable):
            await submit(worker, runner, [5])
        assert value(worker, "queue_sequences") == value(worker, "queue_tokens") == 0
        await until(lambda: worker.healthy)
        assert await answers(submit(worker, runner, [6])) == [6]
        assert runner.steps == [[6]]


async def test_a_worker_that_fails_after_a_step_answers_those_who_ran_and_those_who_wait() -> None:
    class Forgetful(CostModel):
        def observe(self, tokens: float, seconds: float) -> None:
            raise ZeroDivisionError

    async with working() as worker:
        runner = FakeRunner(cost=Forgetful())
        async with held(worker, runner) as blocker:
            waits = submit(worker, runner, [20])
            await waiting(worker, 1)
        for caller in (blocker, waits):
            with pytest.raises(Unavailable):
                await caller
        runner.cost = CostModel()
        await until(lambda: worker.healthy)
        assert await answers(submit(worker, runner, [6])) == [6]


async def test_stopping_answers_everyone() -> None:
    runner = FakeRunner()

    class Opening(ThreadPoolExecutor):
        """Lets the step that runs end when the worker shuts it down."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            assert runner.gate is not None
            runner.gate.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    async with working(executor=Opening(1)) as worker:
        runner.gate = threading.Event()
        callers = [submit(worker, runner, [10])]
        await until(lambda: runner.steps)
        callers += [submit(worker, runner, [20, 21]), submit(worker, runner, [30])]
        await waiting(worker, 3)
    for caller in callers:
        with pytest.raises(Unavailable):
            await caller
    with pytest.raises(Unavailable):
        await submit(worker, runner, [40])
    assert runner.steps == [[10]]
    assert value(worker, "queue_sequences") == value(worker, "queue_tokens") == 0


async def test_a_worker_that_was_not_started_refuses() -> None:
    with pytest.raises(Unavailable):
        await submit(Worker(Metrics(CollectorRegistry())), FakeRunner(), [5])


async def test_steps_follow_each_other_while_the_loop_is_busy(worker: Worker) -> None:
    runner = FakeRunner(budget=1, gate=threading.Event())
    caller = submit(worker, runner, [1, 2, 3])
    await until(lambda: runner.steps)
    assert runner.gate
    runner.gate.set()
    block(lambda: len(runner.steps) == 3)
    assert runner.steps == [[1], [2], [3]]
    assert await answers(caller) == [1, 2, 3]


async def test_what_else_runs_in_the_devices_thread_gets_its_turn_before_all_is_done() -> None:
    """A model that loads, while there is always something to do."""
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner(budget=1)

        runner.fails = functools.partial(take_a_second, clock)
        async with held(worker, runner):
            caller = submit(worker, runner, [2, 3, 4])
            await waiting(worker, 3)
            load = worker.executor.submit(lambda: len(runner.steps))
        assert await answers(caller) == [2, 3, 4]
        assert load.result() == 1


async def test_a_step_is_counted() -> None:
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner()

        runner.fails = functools.partial(take_a_second, clock)
        await worker.submit(runner, [row(3), row(5), row(10)], deadline=FAR)
        model = {"model": "fake", "version": "1"}
        assert value(worker, "steps_total", **model) == 1
        assert value(worker, "step_sequences_sum", **model) == 3
        assert value(worker, "step_tokens_sum", **model) == 18
        assert value(worker, "padding_avoided_tokens_total", **model) == 3 * 10 - 18
        assert value(worker, "device_busy_seconds_total") == 1.0
        assert value(worker, "cost_seconds", **model, coefficient="per_token") == pytest.approx(1 / 18)
        assert value(worker, "cost_seconds", **model, coefficient="per_step") == 0.0


async def test_the_queue_is_gauged(worker: Worker) -> None:
    runner = FakeRunner()
    async with held(worker, runner):
        assert (value(worker, "queue_sequences"), value(worker, "queue_tokens")) == (0, 0)
        caller = submit(worker, runner, [2, 3], tokens=7)
        await waiting(worker, 2)
        assert value(worker, "queue_tokens") == 14
    await caller
    assert (value(worker, "queue_sequences"), value(worker, "queue_tokens")) == (0, 0)


async def test_the_queue_is_empty_for_the_gauges_too_once_all_who_waited_are_late() -> None:
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner()
        async with held(worker, runner) as blocker:
            late = submit(worker, runner, [2, 3], deadline=clock() + 5)
            await waiting(worker, 2)
            clock.advance(10)
        with pytest.raises(DeadlineExceeded):
            await late
        await blocker
        await waiting(worker, 0)
        assert value(worker, "queue_tokens") == 0


async def test_a_metric_that_fails_keeps_nobody_waiting(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    monkeypatch.setattr(worker.metrics, "steps", None)
    assert await answers(submit(worker, FakeRunner(), [1, 2])) == [1, 2]
    assert await answers(submit(worker, FakeRunner(), [3])) == [3]


async def test_a_model_that_nobody_asks_any_more_is_let_go() -> None:
    """Or each new version of a model would leave the memory of the old one taken."""
    for slow in (False, True):  # a slow step is the last one of its turn
        clock = ManualClock()
        async with working(clock=clock) as worker:
            runner = FakeRunner()
            if slow:
                runner.fails = functools.partial(take_a_second, clock)
            gone = weakref.ref(runner)
            await answers(submit(worker, runner, [5]))
            del runner
            await asyncio.sleep(0.01)
            gc.collect()
            assert gone() is None


async def test_a_failed_row_of_a_caller_that_left_is_not_reported_as_forgotten(worker: Worker) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    opened = threading.Event()

    def fail_the_first_and_hold_the_second(rows: Seq[Sequence]) -> Exception | None:
        return RuntimeError("bad row") if rows[0].ids[0] == 10 else None if opened.wait(10) else TimeoutError()

    try:
        runner = FakeRunner(budget=1, fails=fail_the_first_and_hold_the_second)
        caller = submit(worker, runner, [10, 11])
        await until(lambda: [11] in runner.steps)
        caller.cancel()
        await asyncio.wait([caller])
    finally:
        opened.set()
    assert await answers(submit(worker, runner, [12])) == [12]
    del caller
    gc.collect()
    assert [context["message"] for context in reported] == []


CALLER = st.tuples(
    st.lists(st.integers(2, 40), min_size=1, max_size=5),  # the first ids of its rows; those that 7 divides fail
    st.integers(1, 40),  # tokens in each
    st.sampled_from(["stays", "stays", "leaves", "is late"]),
    st.sampled_from(Priority),
)
Caller = tuple[list[int], int, str, Priority]


@settings(deadline=None, max_examples=40)
@given(st.lists(CALLER, max_size=12), st.integers(1, 100))
def test_every_row_is_accounted_for_once(callers: list[Caller], budget: int) -> None:
    asyncio.run(_accounted(callers, budget))


async def _accounted(callers: list[Caller], budget: int) -> None:
    """Some wait, some leave, some are late, some rows fail: what the callers see is what the metrics say."""
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner(budget=budget, fails=failing(*range(7, 41, 7)))
        async with held(worker, runner) as blocker:
            tasks = [
                submit(
                    worker, runner, firsts, tokens=tokens, priority=priority,
                    deadline=clock() + 5 if fate == "is late" else FAR,
                )
                for firsts, tokens, fate, priority in callers
            ]  # fmt: skip
            await waiting(worker, sum(len(firsts) for firsts, *_ in callers))
            clock.advance(10)
            for task, (_, _, fate, _) in zip(tasks, callers, strict=True):
                if fate == "leaves":
                    task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert await answers(blocker) == [1]
        assert worker.healthy
        await until(lambda: len(worker._queue._tickets) == len(worker._queue) == 0)

        seen: Counter[str] = Counter()
        for result, (firsts, _, fate, _) in zip(results, callers, strict=True):
            if fate == "stays":
                assert not isinstance(result, BaseException)
                assert read(result[0]) == ["inference_failed" if first % 7 == 0 else first for first in firsts]
                seen["failed"] += sum(first % 7 == 0 for first in firsts)
            else:
                assert isinstance(result, asyncio.CancelledError if fate == "leaves" else DeadlineExceeded)
                seen[fate] += len(firsts)
        assert (value(worker, "failed_sequences_total", model="fake", version="1") or 0) == seen["failed"]
        assert (value(worker, "dropped_sequences_total", reason="cancelled") or 0) == seen["leaves"]
        assert (value(worker, "dropped_sequences_total", reason="deadline") or 0) == seen["is late"]


async def test_a_failed_sequence_leaves_its_cause_in_the_log(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        await answers(submit(worker, FakeRunner(fails=failing(5)), [5]))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "bad row"


class Known(CostModel):
    """Knows the cost of a token from the beginning, whatever the clock of a test says."""

    @property
    def coefficients(self) -> tuple[float, float]:
        return 0.0, SECONDS


def steps_of(layers: int, layers_per_step: int = 1, exits: ExitPolicy | None = None) -> Stepping:
    return Stepping(layers, layers_per_step=layers_per_step, exits=exits, mean_depth=layers / 2)


async def test_a_short_text_passes_a_long_one_between_its_layers(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(4))
    async with held(worker, runner, first=1, tokens=64) as long:
        short = submit(worker, runner, [2], tokens=2)
        await waiting(worker, 1)
    assert await answers(short) == [2]
    assert await answers(long) == [1]
    # The long one ran a layer, the short one passed it with all its layers in one step, and the long one went on.
    assert runner.steps == [[1], [2], [1], [1], [1]]


async def test_one_that_goes_later_and_does_not_fit_in_waits_for_the_end(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=64, stepping=steps_of(3))
    async with held(worker, runner, first=1, tokens=60):
        other = submit(worker, runner, [2], tokens=60)
        await waiting(worker, 1)
    assert await answers(other) == [2]
    assert runner.steps == [[1]] * 3 + [[2]] * 3
    assert value(worker, "steps_total", model="fake", version="1") == 2


async def test_who_may_pass_is_not_refused_for_a_long_step_that_runs(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(64))
    async with held(worker, runner, first=1, tokens=64) as long:  # 8 s, one eighth of a second a layer
        short = submit(worker, runner, [2], tokens=1, deadline=worker.clock() + 0.5)
        await waiting(worker, 1)
    assert await answers(short) == [2]
    assert await answers(long) == [1]


async def test_those_of_different_depths_share_a_step(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=64, stepping=steps_of(3))
    async with held(worker, runner, first=1, tokens=33) as early:
        late = submit(worker, runner, [2], tokens=31)
        await waiting(worker, 1)
    assert await answers(early) == [1]
    assert await answers(late) == [2]
    assert runner.steps == [[1], [1, 2], [1, 2], [2]]


async def test_layers_that_differ_are_not_shared(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=32, stepping=replace(steps_of(2), mixes=False))
    async with held(worker, runner, first=1, tokens=32) as early:
        late = submit(worker, runner, [2], tokens=32)
        await waiting(worker, 1)
    assert [await answers(early), await answers(late)] == [[1], [2]]
    assert sorted(map(tuple, runner.steps)) == [(1,), (1,), (2,), (2,)]


async def test_one_whose_caller_leaves_between_layers_runs_no_further(worker: Worker) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(4))
    async with held(worker, runner, first=1, tokens=64) as gone:
        gone.cancel()
        await asyncio.wait([gone])
        other = submit(worker, runner, [2], tokens=8)
        await waiting(worker, 1)
    assert await answers(other) == [2]
    assert runner.steps == [[1], *[[2]] * 4]
    assert value(worker, "queue_tokens") == 0
    assert value(worker, "dropped_sequences_total", reason="cancelled") == 1


async def test_a_deadline_that_passes_between_layers_drops_the_rest() -> None:
    clock = ManualClock()
    async with working(clock=clock) as worker:
        runner = FakeRunner(budget=8, stepping=steps_of(4))

        runner.fails = functools.partial(take_a_second, clock)
        with pytest.raises(DeadlineExceeded):
            await submit(worker, runner, [1], tokens=64, deadline=clock() + 2.5)
        assert runner.steps == [[1]] * 3
        assert value(worker, "dropped_sequences_total", reason="deadline") == 1


async def test_one_that_fails_between_layers_fails_alone(worker: Worker) -> None:
    runner = FakeRunner(budget=64, stepping=steps_of(3))
    async with held(worker, runner, tokens=60):
        rest = submit(worker, runner, [2, 3, 4], tokens=16)
        await waiting(worker, 3)
        runner.fails = lambda rows: RuntimeError("no") if len(runner.steps) > 3 and failing(3)(rows) else None
    assert await answers(rest) == [2, "inference_failed", 4]


class Leaving(FakeRunner):
    """Rows leave after as many layers as their first id says; those who asked for all layers, after all."""

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]:
        moved = FakeRunner.step(self, group, stop)
        return [
            replace(one, logits=np.array([one.sequence.ids[0]], dtype=np.float32))
            if one.early_exit and one.depth >= one.sequence.ids[0]
            else one
            for one in moved
        ]


async def test_whoever_is_settled_leaves_and_its_place_is_taken(worker: Worker) -> None:
    runner = Leaving(budget=32, stepping=steps_of(4, exits=ExitPolicy("confidence", 0.9)))
    async with held(worker, runner, first=3, tokens=16) as third:
        waits = [submit(worker, runner, [first], tokens=16) for first in (1, 2)]
        await waiting(worker, 2)
    assert [await answers(one) for one in (third, *waits)] == [[3], [1], [2]]
    assert runner.steps == [[3], [3, 1], [3, 2], [2]]
    assert value(worker, "layers_total", model="fake", version="1", fate="run") == 16 * 6
    assert value(worker, "layers_total", model="fake", version="1", fate="saved") == 16 * 6
    assert value(worker, "exit_depth_sum", model="fake", version="1") == 6


async def test_a_caller_may_ask_for_full_depth(worker: Worker) -> None:
    runner = Leaving(stepping=steps_of(4, exits=ExitPolicy("confidence", 0.9)))
    outcomes, _ = await worker.submit(runner, [row(5, 1)], deadline=FAR, early_exit=False)
    assert read(outcomes) == [1]
    assert value(worker, "layers_total", model="fake", version="1", fate="saved") == 0


async def test_admission_expects_less_of_those_who_leave_early(worker: Worker) -> None:
    """Half of the layers on average: what waits counts half."""
    early = FakeRunner(cost=Known(), stepping=steps_of(4, exits=ExitPolicy("confidence", 0.9)))
    full = FakeRunner(ModelRef("full", 1), cost=Known(), stepping=steps_of(4))
    for runner, seconds in ((early, 4), (full, 8)):
        async with held(worker, runner, tokens=1):
            waits = submit(worker, runner, [2], tokens=64)
            await waiting(worker, 1)
            assert worker.backlog == pytest.approx(seconds)
        await answers(waits)
