"""A request and its sequences while the device has them: from their place in the queue to their answers."""

import asyncio
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InferenceFailed, ServiceError
from ..types import Floats, ModelRef, Priority, StepRun, Timings
from .admission import Reservation
from .cost import CostModel
from .stepping import Progress, Stepping, Stop

Outcome = Floats | ServiceError


class Runner(Protocol):
    """What the device needs of a model: its name, its budget in tokens, its cost, and how to run a step of it."""

    @property
    def ref(self) -> ModelRef: ...

    budget: int
    full_budget: int  # what was measured; ``budget`` may be less for a while after the device was out of memory
    clean_steps: int  # since then
    cost: CostModel
    stepping: Stepping
    padding: float  # see scheduler.BatchLimits

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]: ...

    def probe(self) -> None:
        """Run a sequence that cannot fail on a device that works."""

    def rebuild(self) -> None:
        """Make the sessions anew, from the files."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """The sequences of one request.  ``done`` is answered once, when all of them have an outcome, or by an error."""

    runner: Runner
    done: "asyncio.Future[None]"
    outcomes: list[Outcome | None]
    reservation: Reservation | None = None
    request_id: str = ""
    arrived: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    steps: list[StepRun] | None = None  # it was in, where somebody wants to know
    keys: list[int] = field(default_factory=list)  # of its sequences in the queue
    open: int = field(init=False)

    def __post_init__(self) -> None:
        self.open = len(self.outcomes)

    def deliver(self, index: int, outcome: Outcome) -> bool:
        """One sequence's outcome, on the loop; False where it had one, or nobody waits.

        An error that is not the sequence's own is the whole request's.
        """
        if self.done.done() or self.outcomes[index] is not None:
            return False
        if isinstance(outcome, ServiceError) and not isinstance(outcome, InferenceFailed):
            self.done.set_exception(outcome)
            return True
        self.outcomes[index] = outcome
        self.open -= 1
        if not self.open:
            self.done.set_result(None)
        return True

    @property
    def timings(self) -> Timings:
        return Timings(queue=max(0.0, self.started - self.arrived), run=self.finished - self.started)


@dataclass(slots=True, eq=False)
class PendingSequence:
    """One sequence that waits or runs.  ``work`` is in tokens through all layers, ``cost`` in seconds of device time.

    ``arrived`` and ``deadline`` are on the queue's clock; only sequences of one model and ``batch_key`` share a step.
    """

    key: int
    model: ModelRef
    tokens: int
    work: float
    cost: float
    arrived: float
    deadline: float
    priority: Priority = Priority.INTERACTIVE
    batch_key: int = 0
    request: PendingRequest | None = None
    index: int = 0
    progress: Progress | None = None
    rank: float = 0.0
