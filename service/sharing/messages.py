"""What a worker and the model process say to each other over a local socket: a length, then a pickled message.

Pickle, for both ends are processes of one service: the socket lies in a folder that only their user may enter.
"""

import asyncio
import contextlib
import pickle
import struct
from collections.abc import Iterable, Sequence as Seq
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import QueueFull, ServiceError, Unavailable, error_of
from ..repository.store import Fingerprint
from ..runtime.providers import Device
from ..serving.pending import Outcome
from ..serving.stepping import Stepping
from ..types import Floats, Priority, Sequence, StepRun, Timings

LENGTH = struct.Struct("!Q")
LONGEST = 2**32  # bytes of a message; more is no message


class Rows(NamedTuple):
    """Sequences as a few large arrays: a thousand small ones would hold the event loop up."""

    lengths: list[int]
    seconds: list[int]
    masks: list[Any]
    ids: Any  # (tokens,) of all sequences, one after the other
    types: Any

    @classmethod
    def of(cls, rows: Seq[Sequence]) -> "Rows":
        return cls(
            [len(row) for row in rows], [row.second for row in rows], [row.masks for row in rows],
            np.concatenate([row.ids for row in rows]), np.concatenate([row.types for row in rows]),
        )  # fmt: skip

    def sequences(self) -> list[Sequence]:
        return [
            Sequence(self.ids[start:end], self.types[start:end], second, masks)
            for (start, end), second, masks in zip(_spans(self.lengths), self.seconds, self.masks, strict=True)
        ]


class Failure(NamedTuple):
    """A ServiceError on its way."""

    code: str
    message: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: ServiceError) -> "Failure":
        return cls(error.code, error.message, error.retry_after)

    def error(self) -> ServiceError:
        error = error_of(self.code, self.message)
        if isinstance(error, QueueFull | Unavailable) and self.retry_after is not None:
            error.retry_after = self.retry_after
        return error


class Open(NamedTuple):
    """Load this version where it is not yet, from files that look like ``files``, and keep it until ``Close``."""

    name: str
    version: int
    files: Fingerprint


class Opened(NamedTuple):
    """``lease`` names it from now on; the rest is what was measured of it."""

    lease: int
    device: Device
    budget: int
    precision: str
    padding: float
    stepping: Stepping
    cost: "Cost"


class Cost(NamedTuple):
    """What the cost model has learnt: seconds a step, seconds a token, and how much longer steps take now."""

    per_step: float
    per_token: float
    pace: float


class Run(NamedTuple):
    """``deadline`` is on time.monotonic, which all processes of a machine have in common."""

    lease: int
    rows: Rows
    deadline: float
    priority: Priority
    early_exit: bool
    client: str
    request_id: str
    traced: bool


class Outcomes(NamedTuple):
    """Of some rows, as one array.  ``failures``: by their index, and then nothing of it is in ``logits``."""

    shapes: list[tuple[int, ...]]
    logits: Floats
    failures: dict[int, Failure]

    @classmethod
    def of(cls, outcomes: Seq[Outcome]) -> "Outcomes":
        none = np.empty(0, dtype=np.float32)
        failures = {index: Failure.of(one) for index, one in enumerate(outcomes) if isinstance(one, ServiceError)}
        found = [none if isinstance(one, ServiceError) else one for one in outcomes]
        return cls([one.shape for one in found], np.concatenate([one.ravel() for one in found]), failures)

    def apart(self) -> list[Outcome]:
        spans = _spans([prod(shape) for shape in self.shapes])
        found: list[Outcome] = [
            self.logits[start:end].reshape(shape) for (start, end), shape in zip(spans, self.shapes, strict=True)
        ]
        for index, failure in self.failures.items():
            found[index] = failure.error()
        return found


class Ran(NamedTuple):
    outcomes: Outcomes
    timings: Timings
    steps: list[StepRun]
    cost: Cost
    stale: bool  # another has taken its place meanwhile, of the same version: it is to be opened again


class Depths(NamedTuple):
    """The head's logits after each layer."""

    lease: int
    rows: Rows
    deadline: float


class Look(NamedTuple):
    """Where one row looked, by layer and head; None takes all."""

    lease: int
    rows: Rows
    layers: Seq[int] | None
    heads: Seq[int] | None
    deadline: float


class Ask(NamedTuple):
    """``number`` comes back with the answer."""

    number: int
    what: Open | Run | Depths | Look


class Answer(NamedTuple):
    number: int
    result: Any


class Cancel(NamedTuple):
    """Nobody waits for this answer any more."""

    number: int


class Close(NamedTuple):
    lease: int


class State(NamedTuple):
    """Of the device: why it answers nothing, if so, and the seconds that it owes by slot (see serving/demand.py)."""

    down: str
    owed: list[tuple[float, float]]


def _spans(sizes: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Where each begins and ends that lies after the others."""
    return pairwise(accumulate(sizes, initial=0))


def write(writer: asyncio.StreamWriter, message: Any) -> None:
    """To nobody where the connection is gone: who reads from it learns that there."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    with contextlib.suppress(RuntimeError):  # uvloop's, where the connection has just been lost
        writer.write(LENGTH.pack(len(content)) + content)


async def read(reader: asyncio.StreamReader) -> Any:
    """The next message.  EOFError where the other side is gone."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > LONGEST:
            raise EOFError("what came is no message")
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the other side is gone") from error
