"""A step that fails: one bad sequence fails alone, a dead device costs two calls, a budget that was too large grows."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence as Seq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.errors import DeviceLost, InferenceFailed, OutOfMemory
from service.logs import request_id
from service.serving.device_loop import DeviceLoop
from service.serving.isolation import BEFORE_GROWING, Ran, regrow, run_isolating_failures
from service.serving.stepping import Progress, Stop, never
from service.types import Sequence
from tests.fakes import FakeRunner, ManualClock, row
from tests.serving.callers import answers, ask, failing, held, of_fake, waiting, working

pytestmark = pytest.mark.anyio


@pytest.fixture
async def device(anyio_backend: str) -> AsyncIterator[DeviceLoop]:
    async with working() as started:
        yield started


def run(runner: FakeRunner, firsts: Seq[int], tokens: int = 1) -> Ran:
    return run_isolating_failures(runner, [Progress(row(tokens, first)) for first in firsts], never)


def read(ran: Ran) -> list[float | None]:
    """Each one's logit, None where it failed."""
    return [float(one.logits[0]) if isinstance(one, Progress) and one.logits is not None else None for one in ran.after]


def no_room_above(tokens: int) -> Callable[[Seq[Sequence]], Exception | None]:
    return lambda rows: OutOfMemory("full") if sum(map(len, rows)) > tokens else None


@given(st.lists(st.integers(2, 60), min_size=1, max_size=24), st.sets(st.integers(2, 60)))
def test_exactly_the_bad_ones_fail(firsts: list[int], bad: set[int]) -> None:
    ran = run(FakeRunner(fails=failing(*bad)), firsts)

    assert read(ran) == [None if first in bad else first for first in firsts]
    assert ran.clean == (not {*firsts} & bad)
    assert all(isinstance(one, Progress | InferenceFailed) for one in ran.after)


@given(st.integers(1, 64), st.integers(0, 63))
def test_one_bad_among_many_costs_two_calls_a_halving(size: int, bad: int) -> None:
    runner = FakeRunner(fails=failing(bad))
    run(runner, range(size))

    assert len(runner.steps) <= 1 + 2 * (size - 1).bit_length()
    assert runner.probes == (bad < size)


def test_a_dead_device_costs_two_calls_whatever_the_batch() -> None:
    runner = FakeRunner(dead=RuntimeError("nothing works"))
    with pytest.raises(DeviceLost, match="nothing works"):
        run(runner, range(8))

    assert (len(runner.steps), runner.probes) == (1, 1)


def test_a_device_that_says_itself_that_it_is_lost_is_not_asked_again() -> None:
    runner = FakeRunner(fails=lambda rows: DeviceLost("CUDA failure 700"))
    with pytest.raises(DeviceLost):
        run(runner, range(8))

    assert (len(runner.steps), runner.probes) == (1, 0)


def test_a_device_that_is_lost_in_a_half_is_lost_for_all() -> None:
    runner = FakeRunner()
    runner.fails = lambda rows: RuntimeError("bad row") if len(runner.steps) == 1 else DeviceLost("CUDA failure 700")
    with pytest.raises(DeviceLost):
        run(runner, range(8))

    assert len(runner.steps) == 2


def test_where_every_row_fails_each_has_an_error_of_its_own() -> None:
    ran = run(FakeRunner(fails=lambda rows: RuntimeError("no")), range(5))

    assert all(isinstance(one, InferenceFailed) and str(one.__cause__) == "no" for one in ran.after)
    assert len({id(one) for one in ran.after}) == 5


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail_alone(wrong: float) -> None:
    class Overflowing(FakeRunner):
        def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]:
            return [
                replace(one, logits=np.array([1.0, wrong], dtype=np.float32)) if one.sequence.ids[0] == 13 else one
                for one in FakeRunner.step(self, group, stop)
            ]

    runner = Overflowing()
    ran = run(runner, [12, 13, 14])
    assert read(ran) == [12, None, 14]
    assert isinstance(ran.after[1], InferenceFailed)
    assert runner.steps == [[12, 13, 14]]


def test_out_of_memory_halves_the_budget_and_every_row_succeeds() -> None:
    runner = FakeRunner(budget=64, fails=no_room_above(20))
    ran = run(runner, range(8), tokens=8)

    assert read(ran) == [*range(8)]
    assert not ran.clean
    assert (runner.budget, runner.full_budget, runner.probes) == (16, 64, 0)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=16), st.integers(1, 200))
def test_out_of_memory_never_leaves_a_budget_larger_than_what_fitted(lengths: list[int], room: int) -> None:
    tokens = sum(lengths)
    runner = FakeRunner(budget=tokens, fails=no_room_above(room))
    run_isolating_failures(runner, [Progress(row(length)) for length in lengths], never)

    assert 1 <= runner.budget <= runner.full_budget == tokens
    if tokens > room and len(lengths) > 1:
        assert runner.budget <= tokens // 2


def test_out_of_memory_on_a_single_row_fails_it_and_keeps_the_budget() -> None:
    runner = FakeRunner(budget=64, fails=no_room_above(0))

    assert read(run(runner, [1], tokens=9)) == [None]
    assert runner.budget == 64


def test_a_budget_that_was_halved_grows_back_by_steps_that_were_full() -> None:
    runner = FakeRunner(budget=64)
    runner.budget = 16
    seen = [runner.budget]
    while runner.budget < 64:
        for _ in range(BEFORE_GROWING):
            assert runner.budget == seen[-1]
            regrow(runner, runner.budget)
        seen.append(runner.budget)
    assert seen == [16, 20, 25, 31, 39, 49, 61, 64]
    for _ in range(2 * BEFORE_GROWING):
        regrow(runner, 64)
    assert runner.budget == 64


def test_steps_that_are_not_full_do_not_grow_a_budget_and_a_budget_of_one_grows() -> None:
    runner = FakeRunner(budget=64)
    runner.budget = 16
    for _ in range(10 * BEFORE_GROWING):
        regrow(runner, 11)
    assert runner.budget == 16
    runner.budget = 1
    for _ in range(BEFORE_GROWING):
        regrow(runner, 1)
    assert runner.budget == 2


def test_out_of_memory_begins_the_count_of_full_steps_anew() -> None:
    runner = FakeRunner(budget=64, clean_steps=BEFORE_GROWING - 1, fails=no_room_above(20))
    run(runner, range(8), tokens=8)
    assert runner.clean_steps == 0


async def test_a_row_that_fails_fails_alone_among_those_of_others(device: DeviceLoop) -> None:
    runner = FakeRunner()
    async with held(device, runner):
        mixed, clean = ask(device, runner, [10, 13, 14]), ask(device, runner, [15, 16])
        await waiting(device, 5)
        runner.fails = failing(13)
    assert await answers(mixed) == [10, "inference_failed", 14]
    assert await answers(clean) == [15, 16]
    assert of_fake(device, "failed_sequences_total") == 1


async def test_the_budget_that_out_of_memory_left_holds_for_the_next_steps_and_grows_back(device: DeviceLoop) -> None:
    runner = FakeRunner(budget=64, fails=no_room_above(20))
    assert await answers(ask(device, runner, range(8), tokens=8)) == [*range(8)]
    assert runner.budget == 16
    assert of_fake(device, "token_budget") == 16

    runner.steps.clear()
    assert await answers(ask(device, runner, range(8), tokens=8)) == [*range(8)]
    assert [len(step) for step in runner.steps] == [2] * 4

    runner.fails = lambda rows: None
    assert await answers(ask(device, runner, range(1500), tokens=8)) == [*range(1500)]
    assert runner.budget == 64
    assert of_fake(device, "token_budget") == 64


async def test_steps_that_fail_or_run_in_halves_teach_the_cost_nothing() -> None:
    clock = ManualClock()
    async with working(clock) as device:
        for error in (RuntimeError("bad row"), OutOfMemory("full")):
            runner = FakeRunner()

            def fail(rows: Seq[Sequence], error: Exception = error) -> Exception | None:
                clock.advance(1.0)
                return error if rows[0].ids[0] == 2 else None

            runner.fails = fail
            assert await answers(ask(device, runner, [2, 3], tokens=3)) == ["inference_failed", 3]
            assert runner.cost.coefficients == (0.0, 0.0)
            assert await answers(ask(device, runner, [3], tokens=3)) == [3]
            assert runner.cost.coefficients == pytest.approx((0.0, 1 / 3))


async def test_a_failed_sequence_leaves_its_cause_and_its_requests_id_in_the_log(
    device: DeviceLoop, caplog: pytest.LogCaptureFixture
) -> None:
    runner = FakeRunner()
    with caplog.at_level(logging.ERROR):
        async with held(device, runner):
            callers = []
            for first, given in ((5, "the-fifth"), (6, "the-sixth")):
                token = request_id.set(given)
                callers.append(ask(device, runner, [first]))
                request_id.reset(token)
            await waiting(device, 2)
            runner.fails = failing(5)
        await asyncio.gather(*callers)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "bad row"
    assert vars(record)["request_id"] == "the-fifth"
    assert "fake/1 failed on 1 tokens: bad row" in record.getMessage()
