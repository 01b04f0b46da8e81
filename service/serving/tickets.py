"""What a caller holds of each of its sequences while the device's worker has them."""

import asyncio
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from service.errors import InferenceFailed, ServiceError
from service.serving.isolation import Runner
from service.serving.scheduler import Job
from service.serving.stepping import Progress
from service.types import Floats, Timings

Outcome = Floats | ServiceError


@dataclass(slots=True)
class Ticket:
    runner: Runner
    progress: Progress
    job: Job
    future: "asyncio.Future[Floats]"
    started: float = 0.0
    finished: float = 0.0


def outcomes(futures: Seq["asyncio.Future[Floats]"]) -> list[Outcome]:
    """A row that the model failed on keeps its error to itself; any other error is everybody's."""
    errors = [future.exception() for future in futures]  # all are read, or asyncio reports the others as forgotten
    for error in errors:
        if error is not None and not isinstance(error, InferenceFailed):
            raise error
    return [
        error if isinstance(error, InferenceFailed) else future.result()
        for error, future in zip(errors, futures, strict=True)
    ]


def timings(tickets: list[Ticket]) -> Timings:
    last = max(tickets, key=lambda ticket: ticket.finished)
    return Timings(queue=max(0.0, last.started - last.job.arrived), run=last.finished - last.started)
