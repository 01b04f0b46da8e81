"""What crosses the socket arrives as it was sent."""

import asyncio
import pickle

import hypothesis.strategies as some
import numpy as np
import pytest
from hypothesis import given

from service import errors
from service.errors import InferenceFailed, QueueFull, ServiceError, Unavailable
from service.serving.pending import Outcome
from service.sharing.messages import LENGTH, LONGEST, Failure, Outcomes, Rows, read
from service.types import Sequence

IDS = some.lists(some.integers(0, 30_000), min_size=1, max_size=40)


def kinds(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in kinds(below))]


def sequence(ids: list[int], masked: bool) -> Sequence:
    types = np.arange(len(ids), dtype=np.int32) % 2
    return Sequence(np.array(ids, np.int32), types, len(ids) // 2, np.array([0], np.int32) if masked else None)


@given(some.lists(some.tuples(IDS, some.booleans()), min_size=1, max_size=8))
def test_rows_arrive_one_by_one(given: list[tuple[list[int], bool]]) -> None:
    rows = [sequence(ids, masked) for ids, masked in given]

    arrived = pickle.loads(pickle.dumps(Rows.of(rows))).sequences()
    assert len(arrived) == len(rows)
    for was, now in zip(rows, arrived, strict=True):
        assert (was.ids.tolist(), was.types.tolist(), was.second) == (now.ids.tolist(), now.types.tolist(), now.second)
        assert (was.masks is None) == (now.masks is None)
        assert now.ids.dtype == now.types.dtype == np.int32


@given(some.lists(some.none() | some.lists(some.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=9))
def test_outcomes_arrive_one_by_one(given: list[list[int] | None]) -> None:
    """None: a row that failed; the others have logits of all shapes, the empty one included."""
    draw = np.random.default_rng(0)
    outcomes: list[Outcome] = [
        InferenceFailed("no") if shape is None else draw.random(shape).astype(np.float32) for shape in given
    ]

    arrived = pickle.loads(pickle.dumps(Outcomes.of(outcomes))).apart()
    assert len(arrived) == len(outcomes)
    for was, now in zip(outcomes, arrived, strict=True):
        if isinstance(was, ServiceError):
            assert (type(now), now.message) == (InferenceFailed, "no")
        else:
            np.testing.assert_array_equal(now, was)
            assert now.dtype == np.float32


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_stays_what_it_is(kind: type[ServiceError]) -> None:
    error = Failure.of(kind("a message")).error()

    assert type(error) is kind or error.code == kind.code
    assert (error.message, error.status) == ("a message", kind.status)


def test_an_error_still_says_when_to_come_back() -> None:
    assert Failure.of(QueueFull("full", 17.0)).error().retry_after == 17.0
    assert Failure.of(Unavailable("away", 3.0)).error().retry_after == 3.0
    assert errors.error_of("queue_full", "full").retry_after == 1.0


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"", b"\x00\x00", LENGTH.pack(10) + b"half", LENGTH.pack(LONGEST + 1)])
async def test_what_is_no_message_ends_the_connection(sent: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    with pytest.raises(EOFError):
        await read(reader)
