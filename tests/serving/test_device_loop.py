"""The loop of a device: what shares a step and in what order, everyone answered once by their own result."""

import asyncio
import gc
import random
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence as Seq
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from prometheus_client import CollectorRegistry

from service.errors import DeadlineExceeded, Unavailable
from service.metrics import Metrics
from service.serving.device_loop import DeviceLoop
from service.serving.stepping import Progress, Stepping, Stop
from service.tasks.exits import ExitPolicy
from service.types import ModelRef, Priority, Sequence
from tests.fakes import FakeRunner, ManualClock, until
from tests.serving.callers import (
    FAR,
    Known,
    a_second_each,
    answers,
    ask,
    block,
    failing,
    held,
    of_fake,
    read,
    value,
    waiting,
    working,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def device(anyio_backend: str) -> AsyncIterator[DeviceLoop]:
    async with working() as started:
        yield started


async def test_an_idle_device_runs_a_text_at_once(device: DeviceLoop) -> None:
    runner = FakeRunner()
    assert await answers(ask(device, runner, [9], tokens=5)) == [9]
    assert runner.steps == [[9]]


async def test_what_waits_while_it_is_busy_forms_one_batch(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner):
        callers = [ask(device, runner, [first]) for first in range(10, 20)]
        await waiting(device, 10)
    assert [await answers(caller) for caller in callers] == [[first] for first in range(10, 20)]
    assert runner.steps == [[1], [*range(10, 20)]]


async def test_a_batch_stays_within_the_budget(device: DeviceLoop) -> None:
    runner = FakeRunner(budget=64)
    async with held(device, runner):
        caller = ask(device, runner, range(10), tokens=30)
        await waiting(device, 10)
    assert await answers(caller) == [*range(10)]
    assert [len(step) for step in runner.steps[1:]] == [2] * 5


async def test_two_models_never_share_a_step(device: DeviceLoop) -> None:
    one, two = FakeRunner(ModelRef("one", 1)), FakeRunner(ModelRef("two", 1))
    async with held(device, one):
        callers = [ask(device, runner, range(10, 15)) for runner in (one, two)]
        await waiting(device, 10)
    assert [await answers(caller) for caller in callers] == [[*range(10, 15)]] * 2
    assert one.steps == [[1], [*range(10, 15)]]
    assert two.steps == [[*range(10, 15)]]


async def test_interactive_runs_before_bulk_that_waited_first(device: DeviceLoop) -> None:
    runner = FakeRunner(budget=1)
    async with held(device, runner):
        bulk = ask(device, runner, [2], priority=Priority.BULK)
        await waiting(device, 1)
        interactive = ask(device, runner, [3])
        await waiting(device, 2)
    await asyncio.gather(bulk, interactive)
    assert runner.steps == [[1], [3], [2]]


async def test_results_go_to_their_owners(device: DeviceLoop) -> None:
    runner, pick = FakeRunner(budget=100), random.Random(3)
    wanted = [[pick.randrange(10_000) for _ in range(pick.randint(1, 6))] for _ in range(200)]
    callers = [ask(device, runner, firsts, tokens=pick.randint(1, 60)) for firsts in wanted]
    assert [await answers(caller) for caller in callers] == wanted
    assert len(runner.steps) < sum(map(len, wanted))


async def test_steps_follow_each_other_while_the_event_loop_is_busy(device: DeviceLoop) -> None:
    runner = FakeRunner(budget=1, gate=threading.Event())
    caller = ask(device, runner, [1, 2, 3])
    await until(lambda: runner.steps)
    assert runner.gate
    runner.gate.set()
    block(lambda: len(runner.steps) == 3)
    assert runner.steps == [[1], [2], [3]]
    assert await answers(caller) == [1, 2, 3]


async def test_a_device_that_was_not_started_refuses() -> None:
    device = DeviceLoop(Metrics(CollectorRegistry()))
    assert not device.healthy
    with pytest.raises(Unavailable, match="not started"):
        await ask(device, FakeRunner(), [5])


async def test_stopping_answers_everyone_even_while_a_step_runs() -> None:
    runner = FakeRunner(gate=threading.Event())
    async with working() as device:
        callers = [ask(device, runner, [10])]
        await until(lambda: runner.steps)
        callers += [ask(device, runner, [20, 21]), ask(device, runner, [30])]
        await waiting(device, 3)
    for caller in callers:
        with pytest.raises(Unavailable):
            await caller
    with pytest.raises(Unavailable, match="stopped"):
        await ask(device, runner, [40])
    assert value(device, "queue_sequences") == value(device, "queue_tokens") == 0
    assert runner.gate is not None
    runner.gate.set()
    await asyncio.sleep(0.01)
    assert runner.steps == [[10]]


async def test_a_device_that_was_stopped_can_be_started_again(device: DeviceLoop) -> None:
    runner = FakeRunner()
    device.stop(Unavailable("for a test"))
    device.start()
    assert device.healthy
    assert await answers(ask(device, runner, [5])) == [5]


async def test_a_model_that_nobody_asks_any_more_is_let_go() -> None:
    """Or each new version of a model would leave the memory of the old one taken."""
    async with working() as device:
        runner = FakeRunner()
        gone = weakref.ref(runner)
        await answers(ask(device, runner, [5]))
        del runner
        await until(lambda: gc.collect() >= 0 and gone() is None)


def called_between_steps(device: DeviceLoop, work: Callable[[], object]) -> "Future[object]":
    """From another thread, as the loader calls; returns once the device has it."""
    before = len(device._slices)
    executor = ThreadPoolExecutor(1)
    future = executor.submit(device.between_steps, work)
    executor.shutdown(wait=False)
    block(lambda: future.done() or len(device._slices) > before)
    return future


async def test_work_between_steps_runs_in_the_devices_thread_and_hands_on_its_errors(device: DeviceLoop) -> None:
    threads: list[int] = []
    runner = FakeRunner(fails=lambda rows: threads.append(threading.get_ident()))
    await answers(ask(device, runner, [1]))

    def fail() -> None:
        raise ValueError("of its own")

    assert await asyncio.to_thread(device.between_steps, threading.get_ident) == threads[0]
    with pytest.raises(ValueError, match="of its own"):
        await asyncio.to_thread(device.between_steps, fail)
    assert await answers(ask(device, runner, [2])) == [2]


async def test_work_between_steps_gets_a_tenth_of_the_time_while_sequences_wait() -> None:
    clock, running = ManualClock(), list[str]()
    async with working(clock) as device:
        runner = FakeRunner(budget=1)

        def step(rows: Seq[Sequence]) -> None:
            running.append("step")
            clock.advance(1.0)

        def load() -> None:
            running.append("load")
            clock.advance(1.0)

        runner.fails = step
        async with held(device, runner):
            caller = ask(device, runner, range(2, 42))
            await waiting(device, 40)
            loads = [called_between_steps(device, load) for _ in range(20)]
        assert await answers(caller) == [*range(2, 42)]
        under_load = running[: len(running) - running[::-1].index("step")]
        await until(lambda: all(one.done() for one in loads))
    assert under_load.count("load") == pytest.approx(len(under_load) / 10, abs=1)
    assert running.count("load") == 20  # once nobody waits, all of the time is theirs


async def test_stopping_answers_those_who_wait_for_their_turn_between_steps() -> None:
    runner = FakeRunner()
    async with working() as device:
        async with held(device, runner) as blocker:
            load = called_between_steps(device, lambda: None)
            device.stop(Unavailable("the device failed"))
            await until(load.done)
            with pytest.raises(Unavailable):
                await blocker
        with pytest.raises(Unavailable, match="the device failed"):
            load.result()
        with pytest.raises(Unavailable):
            await asyncio.to_thread(device.between_steps, lambda: None)


async def test_the_queue_is_gauged(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner):
        assert (value(device, "queue_sequences"), value(device, "queue_tokens")) == (0, 0)
        caller = ask(device, runner, [2, 3], tokens=7)
        await until(lambda: value(device, "queue_sequences") == 2)
        assert value(device, "queue_tokens") == 14
    await caller
    assert (value(device, "queue_sequences"), value(device, "queue_tokens")) == (0, 0)


async def test_the_queue_is_empty_for_the_gauges_too_once_all_who_waited_are_late() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner()
        async with held(device, runner) as blocker:
            late = ask(device, runner, [2, 3], deadline=clock() + 5)
            await waiting(device, 2)
            clock.advance(10)
        with pytest.raises(DeadlineExceeded):
            await late
        await blocker
        await until(lambda: value(device, "queue_sequences") == 0)
        assert value(device, "queue_tokens") == 0


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
    async with working(clock) as device:
        runner = FakeRunner(budget=budget, fails=failing(*range(7, 41, 7)))
        async with held(device, runner) as blocker:
            tasks = [
                ask(
                    device, runner, firsts, tokens=tokens, priority=priority,
                    deadline=clock() + 5 if fate == "is late" else FAR,
                )
                for firsts, tokens, fate, priority in callers
            ]  # fmt: skip
            await waiting(device, sum(len(firsts) for firsts, *_ in callers))
            clock.advance(10)
            for task, (_, _, fate, _) in zip(tasks, callers, strict=True):
                if fate == "leaves":
                    task.cancel()
            await waiting(device, sum(len(firsts) for firsts, _, fate, _ in callers if fate != "leaves"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert await answers(blocker) == [1]
        assert device.healthy
        await until(lambda: len(device.queue._open) == len(device.queue) == 0)
        assert device.admission.promised == 0.0

        seen: Counter[str] = Counter()
        for result, (firsts, _, fate, _) in zip(results, callers, strict=True):
            if fate == "stays":
                assert not isinstance(result, BaseException)
                assert read(result[0]) == ["inference_failed" if first % 7 == 0 else first for first in firsts]
                seen["failed"] += sum(first % 7 == 0 for first in firsts)
            else:
                assert isinstance(result, asyncio.CancelledError if fate == "leaves" else DeadlineExceeded)
                seen[fate] += len(firsts)
        assert (of_fake(device, "failed_sequences_total") or 0) == seen["failed"]
        assert (value(device, "dropped_sequences_total", reason="cancelled") or 0) == seen["leaves"]
        assert (value(device, "dropped_sequences_total", reason="deadline") or 0) == seen["is late"]


def steps_of(layers: int, layers_per_check: int = 1, exits: ExitPolicy | None = None) -> Stepping:
    return Stepping(layers, layers_per_check=layers_per_check, exits=exits, mean_depth=layers / 2)


async def test_a_short_text_passes_a_long_one_between_its_layers(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(4))
    async with held(device, runner, first=1, tokens=200) as long:
        short = ask(device, runner, [2], tokens=2)
        await waiting(device, 1)
    assert await answers(short) == [2]
    assert await answers(long) == [1]
    # The long one ran a layer, the short one passed it with all its layers in one step, and the long one went on.
    assert runner.steps == [[1], [2], [1], [1], [1]]


async def test_one_that_goes_later_and_does_not_fit_in_waits_for_the_end(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=64, stepping=steps_of(3))
    async with held(device, runner, first=1, tokens=60):
        other = ask(device, runner, [2], tokens=60)
        await waiting(device, 1)
    assert await answers(other) == [2]
    assert runner.steps == [[1]] * 3 + [[2]] * 3
    await until(lambda: of_fake(device, "steps_total") == 2)


async def test_one_that_may_pass_is_not_refused_for_a_long_step_that_runs(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(64))
    async with held(device, runner, first=1, tokens=200) as long:  # 25 s
        short = ask(device, runner, [2], tokens=1, deadline=device.clock() + 0.5)
        await waiting(device, 1)
    assert await answers(short) == [2]
    assert await answers(long) == [1]


async def test_sequences_of_different_depths_share_a_step(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=64, stepping=steps_of(12))
    async with held(device, runner, first=1, tokens=10) as early:  # looked at after six layers
        late = ask(device, runner, [2], tokens=31)
        await waiting(device, 1)
    assert await answers(early) == [1]
    assert await answers(late) == [2]
    assert runner.steps == [[1], *[[1, 2]] * 6, *[[2]] * 3]


async def test_layers_that_differ_are_not_shared(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=32, stepping=replace(steps_of(2), mixes=False))
    async with held(device, runner, first=1, tokens=32) as early:
        late = ask(device, runner, [2], tokens=32)
        await waiting(device, 1)
    assert [await answers(early), await answers(late)] == [[1], [2]]
    assert sorted(map(tuple, runner.steps)) == [(1,), (1,), (2,), (2,)]


async def test_one_whose_caller_leaves_between_layers_runs_no_further(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known(), budget=8, stepping=steps_of(4))
    async with held(device, runner, first=1, tokens=64) as gone:
        gone.cancel()
        await asyncio.wait([gone])
        other = ask(device, runner, [2], tokens=8)
        await waiting(device, 1)
    assert await answers(other) == [2]
    assert runner.steps == [[1], *[[2]] * 4]
    assert value(device, "queue_tokens") == 0
    assert value(device, "dropped_sequences_total", reason="cancelled") == 1


async def test_a_deadline_that_passes_between_layers_drops_the_rest() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner(budget=8, stepping=steps_of(4), fails=a_second_each(clock))
        with pytest.raises(DeadlineExceeded):
            await ask(device, runner, [1], tokens=64, deadline=clock() + 2.5)
        assert runner.steps == [[1]] * 3
        assert value(device, "dropped_sequences_total", reason="deadline") == 1


async def test_one_that_fails_between_layers_fails_alone(device: DeviceLoop) -> None:
    runner = FakeRunner(budget=64, stepping=steps_of(3))
    async with held(device, runner, tokens=60):
        rest = ask(device, runner, [2, 3, 4], tokens=16)
        await waiting(device, 3)
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


async def test_one_that_is_settled_leaves_and_its_place_is_taken(device: DeviceLoop) -> None:
    runner = Leaving(budget=32, stepping=steps_of(4, exits=ExitPolicy("confidence", 0.9)))
    async with held(device, runner, first=3, tokens=16) as third:
        waits = [ask(device, runner, [first], tokens=16) for first in (1, 2)]
        await waiting(device, 2)
    assert [await answers(one) for one in (third, *waits)] == [[3], [1], [2]]
    assert runner.steps == [[3], [3, 1], [3, 2], [2]]
    assert of_fake(device, "layers_total", fate="run") == 16 * 6
    assert of_fake(device, "layers_total", fate="saved") == 16 * 6
    assert [of_fake(device, "exited_sequences_total", depth=depth) for depth in "123"] == [1, 1, 1]


async def test_a_caller_may_ask_for_full_depth(device: DeviceLoop) -> None:
    runner = Leaving(stepping=steps_of(4, exits=ExitPolicy("confidence", 0.9)))
    assert await answers(ask(device, runner, [1], tokens=5, early_exit=False)) == [1]
    assert not of_fake(device, "layers_total", fate="saved")
    assert of_fake(device, "exited_sequences_total", depth="4") == 1
