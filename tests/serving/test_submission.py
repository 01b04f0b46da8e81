"""A request's way through the device: what is refused, what is late, who leaves, and where the time went."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Sequence as Seq
from typing import Any

import pytest

from service.errors import DeadlineExceeded, QueueFull, TooLarge, Unavailable
from service.serving.device_loop import DeviceLoop
from service.serving.stepping import Stepping
from service.serving.submission import PART, submit
from service.tasks.exits import ExitPolicy
from service.types import ModelRef, Priority, Sequence, Timings
from tests.fakes import FakeRunner, ManualClock, row, until
from tests.serving.callers import (
    FAR,
    SECONDS,
    Known,
    a_second_each,
    answers,
    ask,
    held,
    teach,
    value,
    waiting,
    working,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def device(anyio_backend: str) -> AsyncIterator[DeviceLoop]:
    async with working() as started:
        yield started


async def test_timings_split_waiting_from_running() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner()

        def take_two_seconds(rows: Seq[Sequence]) -> None:
            clock.advance(2.0)

        runner.fails = take_two_seconds
        async with held(device, runner):
            caller = ask(device, runner, [5])
            await waiting(device, 1)
            clock.advance(3.0)
        _, timings = await caller
    assert timings == Timings(queue=5.0, run=2.0)


async def test_rows_of_a_cancelled_caller_never_run(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner) as blocker:
        gone, stays = ask(device, runner, [20, 21]), ask(device, runner, [30])
        await waiting(device, 3)
        gone.cancel()
        await waiting(device, 1)
    assert await answers(stays) == [30]
    assert await answers(blocker) == [1]
    assert gone.cancelled()
    assert runner.steps == [[1], [30]]
    assert value(device, "dropped_sequences_total", reason="cancelled") == 2


async def test_a_caller_may_be_cancelled_while_its_rows_run(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner) as blocker:
        blocker.cancel()
        await asyncio.wait([blocker])
        other = ask(device, runner, [30])
        await waiting(device, 1)
    assert await answers(other) == [30]
    assert device.healthy


async def test_rows_whose_deadline_passes_while_they_wait_never_run() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner()
        async with held(device, runner):
            late = ask(device, runner, [20, 21], deadline=clock() + 5)
            stays = ask(device, runner, [30])
            await waiting(device, 3)
            clock.advance(5)
        with pytest.raises(DeadlineExceeded):
            await late
        assert await answers(stays) == [30]
        assert runner.steps == [[1], [30]]
        assert value(device, "dropped_sequences_total", reason="deadline") == 2


async def test_rows_in_a_step_that_outlasts_the_deadline_are_late_with_those_that_wait() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        runner = FakeRunner(budget=1, stepping=Stepping(2, layers_per_check=1), fails=a_second_each(clock))
        with pytest.raises(DeadlineExceeded):
            await ask(device, runner, [1, 2, 3], deadline=clock() + 0.5)
        await until(lambda: not device.queue._open)
        assert value(device, "dropped_sequences_total", reason="deadline") == 3
        assert not value(device, "dropped_sequences_total", reason="cancelled")


async def test_a_caller_hears_of_its_deadline_while_the_device_is_still_busy(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner):
        with pytest.raises(DeadlineExceeded):
            await ask(device, runner, [20], deadline=device.clock() + 0.02)
        assert value(device, "queue_sequences") == 0
        assert value(device, "dropped_sequences_total", reason="deadline") == 1
    assert await answers(ask(device, runner, [30])) == [30]
    assert runner.steps == [[1], [30]]


@pytest.mark.parametrize("behind", [0.0, 1.0])
async def test_a_deadline_in_the_past_is_refused(device: DeviceLoop, behind: float) -> None:
    runner = FakeRunner()
    with pytest.raises(DeadlineExceeded):
        await ask(device, runner, [5], deadline=device.clock() - behind)
    assert runner.steps == []


async def test_a_full_queue_refuses_and_says_when_to_come_back(device: DeviceLoop) -> None:
    runner = teach(FakeRunner())
    async with held(device, runner, tokens=8):
        waits = ask(device, runner, range(10, 14), tokens=20)
        await waiting(device, 4)
        with pytest.raises(QueueFull) as refused:
            await ask(device, runner, [50], tokens=21, max_queue_tokens=100)
        fits = ask(device, runner, [60], tokens=20, max_queue_tokens=100)
        await waiting(device, 5)
    assert refused.value.retry_after == 88 * SECONDS  # 80 tokens wait, and the 8 that run have just begun
    assert value(device, "refusals_total", cause="queue") == 1
    assert await answers(waits) == [10, 11, 12, 13]
    assert await answers(fits) == [60]


async def test_a_request_larger_than_the_queue_is_too_large(device: DeviceLoop) -> None:
    runner = FakeRunner()
    with pytest.raises(TooLarge, match="101 tokens"):
        await ask(device, runner, [5], tokens=101, max_queue_tokens=100)
    assert await answers(ask(device, runner, [6], tokens=100, max_queue_tokens=100)) == [6]
    assert value(device, "refusals_total", cause="too_large") == 1
    assert runner.steps == [[6]]


async def test_a_request_that_takes_longer_than_its_deadline_is_refused_where_others_have_promises(
    device: DeviceLoop,
) -> None:
    runner = FakeRunner(cost=Known())
    async with held(device, runner):
        with pytest.raises(DeadlineExceeded, match=r"3\.0 s"):
            await ask(device, runner, [5], tokens=24, deadline=device.clock() + 2.9)
        assert value(device, "refusals_total", cause="too_slow") == 1
        fits = ask(device, runner, [6], tokens=24, deadline=device.clock() + 6)
        await waiting(device, 1)
    assert await answers(fits) == [6]
    assert runner.steps == [[1], [6]]


async def test_a_request_that_would_break_a_promise_is_refused(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known())
    async with held(device, runner):
        promised = ask(device, runner, [10, 11], tokens=8, deadline=device.clock() + 3)  # 2 s of 3 s
        await waiting(device, 2)
        with pytest.raises(QueueFull) as refused:
            await ask(device, runner, [50], tokens=12, deadline=device.clock() + 3)
    assert refused.value.retry_after
    assert refused.value.retry_after >= 1
    assert value(device, "refusals_total", cause="queue") == 1
    assert await answers(promised) == [10, 11]


async def test_a_refused_request_leaves_nothing_reserved(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known())
    async with held(device, runner) as blocker:
        before = device.admission.promised
        for deadline, most in ((1.0, 2**62), (FAR, 10)):
            with pytest.raises((DeadlineExceeded, TooLarge)):
                await ask(device, runner, [5], tokens=64, deadline=device.clock() + deadline, max_queue_tokens=most)
        assert device.admission.promised == before
    await blocker
    assert device.admission.promised == 0.0


async def test_interactive_is_not_refused_for_the_bulk_that_waits(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known())
    async with held(device, runner):
        bulk = ask(device, runner, range(10, 20), tokens=8, priority=Priority.BULK)
        await waiting(device, 10)
        interactive = ask(device, runner, [5], tokens=8, deadline=device.clock() + 3)
        await waiting(device, 11)
    assert await answers(interactive) == [5]
    assert await answers(bulk) == [*range(10, 20)]


async def test_a_step_that_was_faster_than_predicted_does_not_keep_refusing(device: DeviceLoop) -> None:
    runner = teach(FakeRunner())
    await ask(device, runner, [5], tokens=64)  # predicted to take 8 s, and takes none
    assert await answers(ask(device, runner, [6], deadline=device.clock() + 2)) == [6]


async def test_less_is_reserved_for_those_who_may_leave_early(device: DeviceLoop) -> None:
    """Half of the layers on average: what waits counts half."""
    exits = ExitPolicy("confidence", 0.9)
    early = FakeRunner(cost=Known(), stepping=Stepping(4, exits=exits, mean_depth=2.0))
    full = FakeRunner(ModelRef("full", 1), cost=Known(), stepping=Stepping(4))
    for runner, early_exit, seconds in ((early, True, 4), (early, False, 8), (full, True, 8)):
        async with held(device, full) as blocker:
            before = device.admission.promised
            waits = ask(device, runner, [2], tokens=64, early_exit=early_exit)
            await waiting(device, 1)
            assert device.admission.promised - before == pytest.approx(seconds)
            waits.cancel()
            await waiting(device, 0)
        await blocker


async def test_a_reservation_that_the_caller_holds_stays_its_own_and_shrinks_as_steps_run(device: DeviceLoop) -> None:
    runner = FakeRunner(cost=Known())
    reservation = device.admission.reserve("client", 5.0, FAR)
    await submit(device, runner, [row(8)], deadline=FAR, reservation=reservation)
    assert reservation.open
    assert device.admission.promised == 0.0
    device.admission.release(reservation)
    assert not reservation.open


async def test_a_long_list_is_queued_in_parts_and_the_event_loop_gets_its_turn_between(device: DeviceLoop) -> None:
    runner = FakeRunner()
    sizes: list[int] = []
    async with held(device, runner):
        caller = ask(device, runner, range(1024))
        while not sizes or sizes[-1] < 1024:
            await asyncio.sleep(0)
            sizes.append(len(device.queue))
    assert max(after - before for before, after in zip([0, *sizes], sizes, strict=False)) == PART
    assert await answers(caller) == [*range(1024)]


async def test_a_long_list_whose_caller_leaves_half_way_leaves_nothing_behind(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner) as blocker:
        caller = ask(device, runner, range(1024))
        await until(lambda: len(device.queue) >= 2 * PART)
        assert len(device.queue) < 1024
        caller.cancel()
        await waiting(device, 0)
    await blocker
    assert runner.steps == [[1]]
    assert not device.queue._open


async def test_a_failed_row_of_a_caller_that_left_is_not_reported_as_forgotten(device: DeviceLoop) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    opened = threading.Event()

    def fail_the_first_and_hold_the_second(rows: Seq[Sequence]) -> Exception | None:
        return RuntimeError("bad row") if rows[0].ids[0] == 10 else None if opened.wait(10) else TimeoutError()

    try:
        runner = FakeRunner(budget=1, fails=fail_the_first_and_hold_the_second)
        caller = ask(device, runner, [10, 11])
        await until(lambda: [11] in runner.steps)
        caller.cancel()
        await asyncio.wait([caller])
    finally:
        opened.set()
    assert await answers(ask(device, runner, [12])) == [12]
    del caller
    gc.collect()
    assert [context["message"] for context in reported] == []


async def test_a_caller_that_leaves_as_the_device_stops_is_not_reported_as_forgotten(device: DeviceLoop) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    async with held(device, FakeRunner()) as caller:
        device.stop(Unavailable("for a test"))
        caller.cancel()
        await asyncio.wait([caller])
    del caller
    gc.collect()
    assert [context["message"] for context in reported] == []
