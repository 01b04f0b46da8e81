"""The stage before the device: bounded, in two lanes, and never shut by what one text took."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from service.errors import DeadlineExceeded, QueueFull
from service.serving.encoding import LONG, ON_THE_LOOP, EncodingStage
from tests.fakes import ManualClock, until

FAR = 1e9
SHORT = ON_THE_LOOP + 1  # the fewest code points that go to a thread
pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def held(stage: EncodingStage, size: int) -> AsyncIterator[None]:
    """Keep the lane of ``size`` busy with such a text."""
    entered, release = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        assert release.wait(20)

    task = asyncio.create_task(stage.run(size, FAR, work))
    await until(entered.is_set)
    try:
        yield
    finally:
        release.set()
        await task


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0.0)


@pytest.fixture
def refused() -> list[str]:
    return []


@pytest.fixture
async def stage(clock: ManualClock, refused: list[str], anyio_backend: str) -> AsyncIterator[EncodingStage]:
    made = EncodingStage(max_chars=200_000, clock=clock, on_refusal=refused.append)
    yield made
    made.close()


def taking(clock: ManualClock, seconds: float) -> Callable[[], None]:
    return lambda: clock.advance(seconds)


async def test_short_texts_are_encoded_on_the_loop_whatever_waits(stage: EncodingStage) -> None:
    async with held(stage, SHORT), held(stage, LONG + 1):
        assert await stage.run(ON_THE_LOOP, FAR, threading.current_thread) is threading.main_thread()


@pytest.mark.parametrize("size", [SHORT, LONG, LONG + 1])
async def test_longer_texts_are_encoded_in_a_thread(stage: EncodingStage, size: int) -> None:
    assert await stage.run(size, FAR, threading.current_thread) is not threading.main_thread()
    assert stage.waiting == 0


async def test_a_book_does_not_hold_up_the_sentences(stage: EncodingStage) -> None:
    async with held(stage, LONG + 1):
        assert await asyncio.wait_for(stage.run(LONG, FAR, lambda: "done"), 10) == "done"
    async with held(stage, LONG):
        assert await asyncio.wait_for(stage.run(LONG + 1, FAR, lambda: "done"), 10) == "done"


async def test_arguments_results_and_errors_go_through(stage: EncodingStage) -> None:
    def divide(one: int, *, by: int) -> int:
        return one // by

    for size in (1, SHORT, LONG + 1):
        assert await stage.run(size, FAR, divide, 9, by=3) == 3
        with pytest.raises(ZeroDivisionError):
            await stage.run(size, FAR, divide, 9, by=0)
    assert stage.waiting == 0


async def test_what_waits_in_a_lane_is_bounded(stage: EncodingStage, refused: list[str]) -> None:
    async with held(stage, 120_000):
        with pytest.raises(QueueFull) as full:
            await stage.run(80_001, FAR, lambda: None)
        assert (full.value.retry_after or 0.0) >= 1.0
        assert refused == ["encoding"]
        fits = asyncio.create_task(stage.run(80_000, FAR, lambda: "done"))
        await until(lambda: stage.waiting == 200_000)
        assert await stage.run(SHORT, FAR, lambda: "the other lane") == "the other lane"
    assert await fits == "done"
    assert stage.waiting == 0


async def test_an_idle_lane_takes_a_text_of_any_size(stage: EncodingStage) -> None:
    assert await stage.run(10_000_000, FAR, lambda: "done") == "done"


async def test_who_would_be_done_too_late_is_refused_at_once(stage: EncodingStage, clock: ManualClock) -> None:
    await stage.run(10_000, FAR, taking(clock, 10.0))  # a millisecond a code point
    async with held(stage, 5000):
        with pytest.raises(QueueFull) as full:
            await stage.run(SHORT, clock() + 4.9, lambda: None)
        assert full.value.retry_after == pytest.approx(5.0)
        patient = asyncio.create_task(stage.run(SHORT, clock() + 5.1, lambda: "done"))
        await until(lambda: stage.waiting > 5000)
    assert await patient == "done"


async def test_who_is_late_when_the_turn_comes_is_not_encoded(stage: EncodingStage, clock: ManualClock) -> None:
    ran: list[int] = []
    async with held(stage, SHORT):
        late = asyncio.create_task(stage.run(SHORT, clock() + 5.0, ran.append, 1))
        await until(lambda: stage.waiting > SHORT)
        clock.advance(5.0)
    with pytest.raises(DeadlineExceeded):
        await late
    assert ran == []
    assert stage.waiting == 0


async def test_who_leaves_makes_room(stage: EncodingStage) -> None:
    ran: list[int] = []
    async with held(stage, 120_000):
        task = asyncio.create_task(stage.run(80_000, FAR, ran.append, 1))
        await until(lambda: stage.waiting == 200_000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.waiting == 120_000
    await stage.run(LONG + 1, FAR, lambda: None)
    assert ran == []


async def taken_behind(stage: EncodingStage, clock: ManualClock, patience: float) -> bool:
    """Is a text taken that waits for one of its size?"""
    async with held(stage, SHORT):
        try:
            task = asyncio.create_task(stage.run(SHORT, clock() + patience, lambda: None))
            await until(lambda: stage.waiting > SHORT or task.done())
        finally:
            pass
    try:
        await task
    except QueueFull:
        return False
    return True


async def test_one_stall_after_usual_texts_shuts_nobody_out(stage: EncodingStage, clock: ManualClock) -> None:
    for _ in range(10):
        await stage.run(SHORT, FAR, taking(clock, 0.001))
    await stage.run(SHORT, FAR, taking(clock, 45.0))
    assert await taken_behind(stage, clock, 0.1)


async def test_the_rate_recovers_after_a_stall_in_the_first_text(stage: EncodingStage, clock: ManualClock) -> None:
    await stage.run(SHORT, FAR, taking(clock, 45.0))
    assert not await taken_behind(stage, clock, 10.0)
    for _ in range(15):
        await stage.run(SHORT, FAR, taking(clock, 0.001))
    assert await taken_behind(stage, clock, 1.0)


async def test_the_rate_follows_a_machine_that_becomes_slower(stage: EncodingStage, clock: ManualClock) -> None:
    for seconds in [0.001] * 10 + [1.0] * 25:
        await stage.run(SHORT, FAR, taking(clock, seconds))
    assert not await taken_behind(stage, clock, 0.5)
    assert await taken_behind(stage, clock, 2.0)


async def test_a_closed_stage_encodes_what_it_has_begun_and_nothing_else(clock: ManualClock) -> None:
    stage, ran = EncodingStage(clock=clock), list[int]()
    async with held(stage, SHORT):
        waiting = asyncio.create_task(stage.run(SHORT, FAR, ran.append, 1))
        await until(lambda: stage.waiting > SHORT)
        stage.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ran == []
