"""Callers of a device that runs: what they hand it, how it is kept busy, what they are answered."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence as Seq

from prometheus_client import CollectorRegistry

from service.errors import ServiceError
from service.metrics import Metrics
from service.serving.cost import CostModel
from service.serving.device_loop import DeviceLoop
from service.serving.pending import Outcome
from service.serving.submission import submit
from service.types import Priority, Sequence, Timings
from tests.fakes import FakeRunner, ManualClock, row, until

FAR = 1e6  # a deadline that no test reaches
SECONDS = 0.125  # of a token, as ``Known`` and ``teach`` have it; every product is exact
Submitted = asyncio.Task[tuple[list[Outcome], Timings]]


class Known(CostModel):
    """Knows the cost of a token from the beginning, whatever the clock of a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = (0.0, SECONDS)

    def observe(self, tokens: float, seconds: float) -> None:
        pass


@contextlib.asynccontextmanager
async def working(clock: ManualClock | None = None) -> AsyncIterator[DeviceLoop]:
    """A device that runs, on a clock that stands still unless one is given."""
    async with DeviceLoop(Metrics(CollectorRegistry()), clock=clock or ManualClock()).running() as device:
        yield device


def ask(
    device: DeviceLoop, runner: FakeRunner, firsts: Iterable[int], *, tokens: int = 1, deadline: float = FAR,
    priority: Priority = Priority.INTERACTIVE, early_exit: bool = True, max_queue_tokens: int = 2**62,
) -> Submitted:  # fmt: skip
    """One caller, whose rows begin with ``firsts``."""
    rows = [row(tokens, first) for first in firsts]
    return asyncio.create_task(
        submit(
            device, runner, rows, deadline=deadline, priority=priority, early_exit=early_exit,
            max_queue_tokens=max_queue_tokens,
        )
    )  # fmt: skip


def read(outcomes: Seq[Outcome]) -> list[int | str]:
    """The ids that came back as logits, or the code of the error in their place."""
    return [outcome.code if isinstance(outcome, ServiceError) else int(outcome[0]) for outcome in outcomes]


async def answers(task: Submitted) -> list[int | str]:
    return read((await task)[0])


def value(device: DeviceLoop, name: str, **labels: str) -> float | None:
    return device.metrics.registry.get_sample_value(f"albert_{name}", labels)


def of_fake(device: DeviceLoop, name: str, **labels: str) -> float | None:
    return value(device, name, model="fake", version="1", **labels)


async def waiting(device: DeviceLoop, sequences: int) -> None:
    await until(lambda: len(device.queue) == sequences)


@contextlib.asynccontextmanager
async def held(device: DeviceLoop, runner: FakeRunner, first: int = 1, tokens: int = 1) -> AsyncIterator[Submitted]:
    """The device is busy with one row inside, and free again outside."""
    runner.gate = threading.Event()
    before = len(runner.steps)
    blocker = ask(device, runner, [first], tokens=tokens)
    try:
        await until(lambda: len(runner.steps) > before)
        yield blocker
    finally:
        runner.gate.set()


def block(condition: Callable[[], object]) -> None:
    """Hold the event loop until ``condition`` holds."""
    began = time.monotonic()
    while not condition() and time.monotonic() - began < 10:
        time.sleep(0.001)


def teach(runner: FakeRunner) -> FakeRunner:
    runner.cost.observe(8, 8 * SECONDS)
    return runner


def failing(*firsts: int) -> Callable[[Seq[Sequence]], Exception | None]:
    """Fails each step that holds a row that begins with one of ``firsts``."""
    return lambda rows: RuntimeError("bad row") if {int(r.ids[0]) for r in rows} & {*firsts} else None


def a_second_each(clock: ManualClock) -> Callable[[Seq[Sequence]], Exception | None]:
    """Fails no step, and each takes a second."""
    return lambda rows: clock.advance(1.0)
