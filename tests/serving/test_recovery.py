"""A device that fails or hangs: everyone is told, and new sessions bring it back or the process ends."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence as Seq
from dataclasses import dataclass, field

import pytest

from service.errors import DeviceLost, ServiceError, Unavailable
from service.serving import recovery
from service.serving.cost import CostModel
from service.serving.device_loop import DeviceLoop
from service.serving.recovery import Recovery
from service.types import Sequence
from tests.fakes import FakeRunner, until
from tests.serving.callers import Known, Submitted, answers, ask, block, held, of_fake, value, working

pytestmark = pytest.mark.anyio
TIMEOUT = 0.2  # seconds after which a step hangs
GONE = RuntimeError("CUDA failure 700: an illegal memory access was encountered")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "TICK", 0.01)


@dataclass
class Watched:
    """A device with its watchdog; ``given_up`` says why the process was to end."""

    device: DeviceLoop
    recovery: Recovery
    given_up: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def watched(*runners: FakeRunner, pauses: tuple[float, ...] = (0.0,)) -> AsyncIterator[Watched]:
    given_up: list[str] = []
    async with working() as device:
        watchdog = Recovery(device, lambda: runners, given_up.append, TIMEOUT, pauses)
        async with watchdog.watching():
            yield Watched(device, watchdog, given_up)


@contextlib.asynccontextmanager
async def hanging(one: Watched, runner: FakeRunner, firsts: Iterable[int] = (1,)) -> AsyncIterator[Submitted]:
    """A step that does not return inside; steps that begin later do.  The late result comes outside."""
    gate = runner.gate = threading.Event()
    caller = ask(one.device, runner, firsts)
    try:
        await until(lambda: runner.steps)
        runner.gate = None
        yield caller
    finally:
        gate.set()


async def errors_of(callers: Iterable[Submitted]) -> list[ServiceError]:
    found = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(error, ServiceError) for error in found), found
    return [error for error in found if isinstance(error, ServiceError)]


def revive(runner: FakeRunner) -> Callable[[], None]:
    def rebuilt() -> None:
        runner.dead = None

    return rebuilt


def waits_for(opened: threading.Event) -> Callable[[], None]:
    def rebuilt() -> None:
        opened.wait(10)

    return rebuilt


async def test_a_dead_device_costs_two_calls_and_everyone_is_told_that_it_is_lost() -> None:
    runner = FakeRunner()
    async with watched(runner, pauses=()) as one:
        async with held(one.device, runner) as running:
            callers = [running, *(ask(one.device, runner, [first]) for first in range(2, 10))]
            await until(lambda: len(one.device.queue) == 8)
            runner.dead = GONE
        errors = await errors_of(callers)
        assert (len(runner.steps), runner.probes) == (1, 1)
        assert {error.status for error in errors} == {503}
        assert {error.code for error in errors} == {"device_lost"}


async def test_a_dead_device_costs_two_calls_for_a_batch_of_eight() -> None:
    runner = FakeRunner(dead=GONE)
    async with watched(runner, pauses=()) as one:
        (error,) = await errors_of([ask(one.device, runner, range(8))])
        assert (len(runner.steps), runner.probes) == (1, 1)
        assert error.status == 503


async def test_a_device_that_fails_is_brought_back_and_serves_again() -> None:
    runner, other = FakeRunner(dead=GONE), FakeRunner()
    runner.on_rebuild = revive(runner)
    async with watched(runner, other) as one:
        await errors_of([ask(one.device, runner, [1])])
        await until(lambda: one.device.healthy)
        assert (runner.rebuilds, other.rebuilds) == (1, 1)
        assert (runner.probes, other.probes) == (2, 1)  # what is rebuilt is tried before anyone is served
        assert await answers(ask(one.device, runner, [2, 3])) == [2, 3]
        assert value(one.device, "device_failures_total") == 1
        assert one.given_up == []


async def test_while_it_is_brought_back_requests_are_refused_and_the_device_says_why() -> None:
    runner, opened = FakeRunner(dead=GONE), threading.Event()
    runner.on_rebuild = lambda: revive(runner)() if opened.wait(10) else None
    async with watched(runner) as one:
        try:
            await errors_of([ask(one.device, runner, [1])])
            assert not one.device.healthy
            assert "restarted" in one.device.down
            (error,) = await errors_of([ask(one.device, runner, [2])])
            assert isinstance(error, Unavailable)
            assert "restarted" in str(error)
        finally:
            opened.set()
        await until(lambda: one.device.healthy)


async def test_a_device_may_fail_and_come_back_again_and_again() -> None:
    runner = FakeRunner()
    runner.on_rebuild = revive(runner)
    async with watched(runner) as one:
        for first in range(1, 6):
            assert await answers(ask(one.device, runner, [first])) == [first]
            runner.dead = GONE
            await errors_of([ask(one.device, runner, [99])])
            await until(lambda: one.device.healthy)
        assert (runner.rebuilds, value(one.device, "device_failures_total")) == (5, 5)
        assert one.given_up == []


async def test_a_device_that_comes_back_at_a_later_try_is_not_given_up() -> None:
    runner = FakeRunner(dead=GONE)

    def rebuilt_at_the_third() -> None:
        if runner.rebuilds < 3:
            raise RuntimeError("no device")
        runner.dead = None

    runner.on_rebuild = rebuilt_at_the_third
    async with watched(runner, pauses=(0.0, 0.0, 0.0)) as one:
        await errors_of([ask(one.device, runner, [1])])
        await until(lambda: one.device.healthy)
        assert (runner.rebuilds, one.given_up) == (3, [])


async def test_where_rebuilding_fails_the_process_is_given_up_with_the_reason() -> None:
    runner = FakeRunner(dead=GONE)  # the probe after the rebuilding fails too
    async with watched(runner, pauses=(0.0, 0.0)) as one:
        await errors_of([ask(one.device, runner, [1])])
        await until(lambda: one.given_up)
        assert len(one.given_up) == 1
        assert "CUDA failure 700" in one.given_up[0]
        assert runner.rebuilds == 2
        assert not one.device.healthy
        (error,) = await errors_of([ask(one.device, runner, [2])])
        assert error.status == 503


async def test_where_rebuilding_hangs_the_process_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "REBUILD_SECONDS", 0.05)
    opened = threading.Event()
    runner = FakeRunner(dead=GONE, on_rebuild=waits_for(opened))
    async with watched(runner) as one:
        try:
            await errors_of([ask(one.device, runner, [1])])
            await until(lambda: one.given_up)
        finally:
            opened.set()


async def test_a_step_that_hangs_is_given_up_and_everyone_who_waits_is_told() -> None:
    runner = FakeRunner()
    async with watched(runner) as one, hanging(one, runner) as stuck:
        waits = [ask(one.device, runner, [20, 21]), ask(one.device, runner, [30])]
        errors = await errors_of([stuck, *waits])
        assert {error.status for error in errors} == {503}
        await until(lambda: one.device.healthy)
        assert runner.rebuilds == 1
        assert await answers(ask(one.device, runner, [40])) == [40]  # the old step hangs still
        assert runner.steps == [[1], [40]]
        assert value(one.device, "device_failures_total") == 1


async def test_after_a_hang_steps_and_rebuilding_run_in_new_threads() -> None:
    runner = FakeRunner()
    threads: list[int] = []
    gate = threading.Event()

    def note(rows: Seq[Sequence]) -> Exception | None:
        threads.append(threading.get_ident())
        return None if rows[0].ids[0] != 1 or gate.wait(10) else TimeoutError()

    runner.fails, runner.on_rebuild = note, lambda: threads.append(threading.get_ident())
    async with watched(runner) as one:
        try:
            await errors_of([ask(one.device, runner, [1])])
            await until(lambda: one.device.healthy)
            assert await answers(ask(one.device, runner, [2])) == [2]
        finally:
            gate.set()
    assert len({threading.get_ident(), threads[0], *threads[2:]}) == 3
    assert threads[1] not in (threading.get_ident(), threads[0])


async def test_the_late_result_of_a_step_that_hung_is_not_delivered_counted_or_learnt_from() -> None:
    runner = FakeRunner()
    async with watched(runner) as one:
        async with hanging(one, runner) as stuck:
            await errors_of([stuck])
            await until(lambda: one.device.healthy)
            old = [thread for thread in threading.enumerate() if thread.name == "device"]
        await until(lambda: sum(thread.is_alive() for thread in old) == 1)
        assert await answers(ask(one.device, runner, [2])) == [2]
        await until(lambda: of_fake(one.device, "steps_total"))
        assert of_fake(one.device, "steps_total") == 1
        assert runner.cost.coefficients == (0.0, 0.0)
        assert one.device.healthy


@pytest.mark.parametrize("late", [RuntimeError("at last"), DeviceLost("CUDA failure 700")])
async def test_the_late_error_of_a_step_that_hung_changes_nothing(late: Exception) -> None:
    runner = FakeRunner(budget=8)
    async with watched(runner) as one:
        async with hanging(one, runner, range(1, 5)) as stuck:
            await errors_of([stuck])
            await until(lambda: one.device.healthy)
            runner.fails = lambda rows: late if int(rows[0].ids[0]) == 1 else None
            old = [thread for thread in threading.enumerate() if thread.name == "device"]
        await until(lambda: sum(thread.is_alive() for thread in old) == 1)
        assert await answers(ask(one.device, runner, [6])) == [6]
        assert (runner.rebuilds, value(one.device, "device_failures_total")) == (1, 1)
        # A thread that was given up must not run the new sessions beside the new one.
        assert runner.steps == [[1, 2, 3, 4], [6]]


async def test_a_step_that_is_known_to_take_long_does_not_hang() -> None:
    runner = FakeRunner(cost=Known())  # a token takes an eighth of a second, and fifty times that is allowed
    async with watched(runner) as one:
        async with held(one.device, runner) as slow:
            await asyncio.sleep(2 * TIMEOUT)
            assert one.device.healthy
            assert not slow.done()
        assert await answers(slow) == [1]


async def test_time_in_which_the_whole_process_stood_still_is_no_hang() -> None:
    runner = FakeRunner()
    async with watched(runner) as one:
        async with held(one.device, runner) as slow:
            until_then = time.monotonic() + 2 * TIMEOUT
            block(lambda: time.monotonic() > until_then)
            await asyncio.sleep(0.03)
        assert await answers(slow) == [1]
        assert runner.rebuilds == 0


async def test_an_idle_device_does_not_hang() -> None:
    runner = FakeRunner()
    async with watched(runner) as one:
        assert await answers(ask(one.device, runner, [1])) == [1]
        await asyncio.sleep(2 * TIMEOUT)
        assert one.device.healthy
        assert runner.rebuilds == 0


async def test_a_fault_of_the_loops_own_answers_those_who_ran_and_those_who_wait_and_it_is_started_again() -> None:
    class Forgetful(CostModel):
        def observe(self, tokens: float, seconds: float) -> None:
            raise ZeroDivisionError

    runner = FakeRunner(cost=Forgetful())
    async with watched(runner) as one:
        async with held(one.device, runner) as blocker:
            waits = ask(one.device, runner, [20])
            await until(lambda: len(one.device.queue) == 1)
        assert {error.status for error in await errors_of([blocker, waits])} == {503}
        runner.cost = CostModel()
        await until(lambda: one.device.healthy)
        assert await answers(ask(one.device, runner, [6])) == [6]


async def test_what_ran_before_the_device_failed_is_still_answered() -> None:
    runner = FakeRunner(budget=1)
    async with watched(runner) as one:
        async with held(one.device, runner) as first:
            second = ask(one.device, runner, [2])
            await until(lambda: len(one.device.queue) == 1)
            runner.fails = lambda rows: DeviceLost("CUDA failure 700") if int(rows[0].ids[0]) == 2 else None
        assert await answers(first) == [1]
        await errors_of([second])


@pytest.mark.parametrize("broken", ["device_failures", "queue_tokens"])
async def test_a_metric_that_fails_keeps_nobody_waiting_for_a_device_that_failed(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    runner = FakeRunner()

    def fail(rows: Seq[Sequence]) -> Exception:
        monkeypatch.setattr(one.device.metrics, broken, None)
        return DeviceLost("CUDA failure 700")

    def rebuilt() -> None:
        runner.fails = lambda rows: None

    runner.fails, runner.on_rebuild = fail, rebuilt
    async with watched(runner) as one:
        async with asyncio.timeout(2):
            (error,) = await errors_of([ask(one.device, runner, [1])])
            assert error.status == 503
            await until(lambda: one.device.healthy)


async def test_work_between_steps_that_hangs_does_not_keep_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the loader would load nothing any more once the device is back."""
    monkeypatch.setattr(recovery, "SLOW", 0.01)
    runner, gate = FakeRunner(), threading.Event()
    async with watched(runner) as one:
        load = asyncio.create_task(asyncio.to_thread(one.device.between_steps, lambda: gate.wait(10)))
        try:
            await until(lambda: runner.rebuilds and one.device.healthy)
            assert await answers(ask(one.device, runner, [1])) == [1]
            done, _ = await asyncio.wait([load], timeout=1)
            assert done, "the loader waits for a thread that was given up"
        finally:
            gate.set()
            await asyncio.wait([load])
    assert isinstance(load.exception(), Unavailable)


async def test_a_device_that_is_lost_while_a_model_warms_up_is_brought_back_before_anyone_asks() -> None:
    runner = FakeRunner()

    def lose() -> None:
        raise DeviceLost("CUDA failure 700")

    async with watched(runner) as one:
        with pytest.raises(DeviceLost):
            await asyncio.to_thread(one.device.between_steps, lose)
        async with asyncio.timeout(1):
            await until(lambda: runner.rebuilds == 1 and one.device.healthy)


async def test_leaving_ends_the_watchdog_and_a_rebuilding_that_hangs() -> None:
    opened = threading.Event()
    runner = FakeRunner(dead=GONE, on_rebuild=waits_for(opened))
    try:
        async with watched(runner) as one:
            await errors_of([ask(one.device, runner, [1])])
            await until(lambda: runner.rebuilds)
    finally:
        opened.set()
    await asyncio.sleep(0.02)
    assert {"device watchdog", "device recovery"}.isdisjoint(task.get_name() for task in asyncio.all_tasks())
    assert not one.device.healthy
