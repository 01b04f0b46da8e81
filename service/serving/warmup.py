"""What a device is asked before a model serves: how many tokens make a full step, and how few layers it may run."""

import time
from collections.abc import Callable, Sequence as Seq
from typing import Protocol

import numpy as np

from service.errors import OutOfMemory
from service.runtime.providers import Device
from service.serving.admission import CostModel
from service.serving.stepping import Stepping
from service.types import Sequence

Clock = Callable[[], float]
NEARLY = 0.95  # of the best rate is as good as the best
STEPPING = 0.02  # of the time of a pass is what its steps may cost
HANDOVER = 0.0003  # seconds that the loop and the scheduler take between two steps


class Warmable(Protocol):
    cost: CostModel
    stepping: Stepping

    @property
    def max_length(self) -> int: ...

    def walk(self, rows: Seq[Sequence], layers: int) -> int:
        """Through the whole model, nobody leaving early, ``layers`` at a time; returns the number of steps."""


def measure_budget(engine: Warmable, device: Device, clock: Clock = time.perf_counter) -> int:
    """Time steps of growing size, teach the cost model, and return the smallest budget that is about as fast as any.

    Each size runs once unmeasured: the first run of a shape pays for memory and for choosing kernels.
    """
    largest = 512 if device.kind == "cpu" else 32_768
    rates: dict[int, float] = {}
    tokens = 16
    while tokens <= largest and not _flat(rates):
        rows = _rows(tokens, engine.max_length)
        ran = sum(map(len, rows))  # rows of a short model do not always add up to the size
        try:
            rates[ran] = ran / _pass(engine, rows, engine.stepping.layers, clock, learn=True)
        except OutOfMemory:
            if not rates:
                raise
            break  # what fits is known now
        tokens *= 2
    return choose_budget(rates)


def measure_layers(engine: Warmable, budget: int, clock: Clock = time.perf_counter) -> int:
    """The fewest layers a step, of those that divide the depth, with which a full pass is about as fast as in one."""
    rows, whole = _rows(budget, engine.max_length), engine.stepping.layers
    at_once = _pass(engine, rows, whole, clock)
    for layers in (n for n in range(1, whole) if whole % n == 0):
        if _pass(engine, rows, layers, clock) <= at_once * (1 + STEPPING):
            return layers
    return whole


def _pass(engine: Warmable, rows: Seq[Sequence], layers: int, clock: Clock, *, learn: bool = False) -> float:
    """Seconds of the fastest of three passes, after one that is not measured; the cost model may learn from them."""
    engine.walk(rows, layers)
    tokens, seconds = sum(map(len, rows)), []
    for _ in range(3):
        began = clock()
        steps = engine.walk(rows, layers)
        seconds.append(clock() - began + steps * HANDOVER)
        if learn:
            engine.cost.observe(tokens / steps, seconds[-1] / steps)
    return min(seconds)


def choose_budget(rates: dict[int, float]) -> int:
    """The smallest size whose rate (tokens per second) is nearly the best."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= NEARLY * best)


def _flat(rates: dict[int, float]) -> bool:
    """Two doublings in a row gained under two per cent: larger steps will not either."""
    values = list(rates.values())
    return len(values) >= 3 and max(values[-2:]) < 1.02 * max(values[:-2])


def _rows(tokens: int, max_length: int) -> list[Sequence]:
    """``tokens`` in rows of at most 64, as short texts are, one row at least; any id will do."""
    length = min(64, tokens, max_length)
    ids = np.ones(length, dtype=np.int32)
    return [Sequence(ids, np.zeros_like(ids), length)] * max(1, tokens // length)
