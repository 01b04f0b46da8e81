"""A request is answered once: by the outcomes of all its sequences, or by an error that is the whole request's."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.errors import DeadlineExceeded, InferenceFailed, Unavailable
from service.serving.pending import Outcome, PendingRequest
from tests.fakes import FakeRunner

LOGITS = np.array([1.0], dtype=np.float32)


def requested(count: int) -> PendingRequest:
    return PendingRequest(FakeRunner(), asyncio.get_running_loop().create_future(), [None] * count)


@pytest.mark.anyio
async def test_it_is_done_when_its_last_sequence_has_an_outcome() -> None:
    request = requested(3)
    for index in (2, 0):
        assert request.deliver(index, LOGITS)
        assert not request.done.done()
    assert request.deliver(1, LOGITS)
    assert request.done.result() is None
    assert all(outcome is LOGITS for outcome in request.outcomes)


@pytest.mark.anyio
async def test_a_sequence_that_fails_alone_is_an_outcome_like_others() -> None:
    request, error = requested(2), InferenceFailed("not this one")
    assert request.deliver(0, error)
    assert request.deliver(1, LOGITS)
    assert request.done.result() is None
    assert request.outcomes == [error, LOGITS]


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), Unavailable("down")])
@pytest.mark.anyio
async def test_an_error_of_the_service_is_the_whole_requests(error: DeadlineExceeded | Unavailable) -> None:
    request = requested(3)
    assert request.deliver(1, error)
    assert request.done.exception() is error
    assert not request.deliver(0, LOGITS)
    assert not request.deliver(2, error)


@pytest.mark.anyio
async def test_what_comes_for_one_that_was_answered_or_left_is_not_taken() -> None:
    request = requested(2)
    assert request.deliver(0, LOGITS)
    assert not request.deliver(0, InferenceFailed("again"))
    assert request.outcomes == [LOGITS, None]
    request.done.cancel()
    assert not request.deliver(1, LOGITS)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["logits", "failed", "late"])), max_size=20))
def test_whatever_comes_it_is_answered_at_most_once(events: list[tuple[int, str]]) -> None:
    outcomes: dict[str, Outcome] = {"logits": LOGITS, "failed": InferenceFailed("one"), "late": DeadlineExceeded("all")}

    async def run() -> None:
        request = requested(5)
        seen: set[int] = set()
        over = False
        for index, kind in events:
            assert request.deliver(index, outcomes[kind]) is (not over and index not in seen)
            over = over or (kind == "late" and index not in seen)
            seen.add(index)
            over = over or len(seen) == 5
            assert request.done.done() is over
        if over:
            request.done.exception()

    asyncio.run(run())


@pytest.mark.anyio
async def test_its_timings_split_waiting_from_running_and_are_never_negative() -> None:
    request = requested(1)
    request.arrived, request.started, request.finished = 10.0, 10.5, 12.0
    assert (request.timings.queue, request.timings.run) == (0.5, 1.5)
    request.started = 9.999
    assert request.timings.queue == 0.0
