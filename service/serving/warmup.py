"""What is measured before a model serves: how many tokens make a full step, and after how few layers to look up.

Layers are alike, so a few of them tell of all, and every size is timed several times in turn: what disturbs the machine
for a moment then meets one timing of each, and not all of one.  Each timing is a slice of its own in the device's
thread, so that what is served meanwhile waits for one of them at most.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import OutOfMemory
from ..runtime.providers import Device
from ..types import Sequence
from .cost import KNOWN, CostModel
from .stepping import Stepping

Clock = Callable[[], float]
Run = Callable[[Callable[[], Any]], Any]
GOOD_ENOUGH = 0.95  # of the best rate is as good as the best
CHECKING = 0.02  # of the time of all layers is what looking up between them may cost
MIN_CHECK_COST = 0.0002  # seconds: under load the interpreter has to be taken back from the event loop
SMALLEST, LARGEST = 16, {"cpu": 512, "cuda": 32_768}  # tokens
# No budget below this: a paragraph is a step of so many anyway, and a busy moment of the machine must not decide more.
FLOOR = {"cpu": 128, "cuda": 1024}
ROUNDS = 2
STEP_SHARE = 0.05  # of a full step; where the price of a step is more, whole steps are timed too
MIN_MEASURED = 0.002  # seconds that the shortest timing should take, or what shares the processor with it decides it


class Warmable(Protocol):
    cost: CostModel
    stepping: Stepping

    @property
    def max_length(self) -> int: ...

    def profile_run(self, rows: Seq[Sequence], depth: int, check_interval: int) -> None:
        """Through the first ``depth`` layers and the head, none leaving early."""


class Regroupable(Warmable, Protocol):
    def regroup_run(self, rows: Seq[Sequence], *, regrouped: bool) -> None:
        """Into the first layer; where ``regrouped``, half of them then go on without the others."""


@dataclass(frozen=True, slots=True)
class _Timer:
    """Times runs of ``engine`` on the device."""

    engine: Warmable
    run: Run
    clock: Clock

    def __call__(self, rows: Seq[Sequence], depth: int, check_interval: int) -> float:
        def timed() -> float:
            began = self.clock()
            self.engine.profile_run(rows, depth, check_interval)
            return self.clock() - began

        return float(self.run(timed))


def measure_budget(engine: Warmable, device: Device, run: Run, clock: Clock = time.perf_counter) -> int:
    """Time steps of growing size, teach the cost model, and return the smallest budget that is about as fast as any."""
    time_of = _Timer(engine, run, clock)
    depth = _depth(engine, time_of)
    seconds: dict[int, float] = {}
    sizes = itertools.takewhile(lambda size: size <= LARGEST[device.kind], (SMALLEST << n for n in itertools.count()))
    for size in sizes:
        rows = _rows(size, engine.max_length)
        try:
            time_of(rows, depth, depth)  # the first run of a shape pays for memory and for choosing kernels
            seconds[size] = time_of(rows, depth, depth)
        except OutOfMemory:
            if not seconds:
                raise
            break  # what fits is known now
        if size > FLOOR[device.kind] and _flat({n: n / value for n, value in seconds.items()}):
            break
    rates: dict[int, float] = {}
    for size in [*seconds] * ROUNDS:
        seconds[size] = min(seconds[size], time_of(_rows(size, engine.max_length), depth, depth))
    for size, best in seconds.items():
        ran = sum(map(len, _rows(size, engine.max_length)))  # rows of a short model do not always add up to the size
        for _ in range(KNOWN):
            engine.cost.observe(ran * depth / engine.stepping.layers, best)
        rates[ran] = ran / best
    budget = choose_budget(rates, FLOOR[device.kind])
    full, layers = _rows(budget, engine.max_length), engine.stepping.layers
    if engine.cost.coefficients[0] > STEP_SHARE * engine.cost.seconds(budget, budget):
        for _ in range(KNOWN):  # a few layers do not tell what a whole step costs beside them
            engine.cost.observe(sum(map(len, full)), time_of(full, layers, layers))
    return budget


def measure_layers(engine: Warmable, budget: int, run: Run, clock: Clock = time.perf_counter) -> int:
    """After how few layers of a full step it costs next to nothing to look up."""
    layers = engine.stepping.layers
    if layers == 1:
        return 1
    time_of = _Timer(engine, run, clock)
    few = _rows(2, engine.max_length)  # the price does not depend on the size, and shows best beside little work
    time_of(few, layers, 1)
    at_once, apart = (min(time_of(few, layers, every) for _ in range(2 * ROUNDS)) for every in (layers, 1))
    price = max(MIN_CHECK_COST, (apart - at_once) / (layers - 1))
    layer = engine.cost.seconds(budget, budget) / layers
    return min(layers, max(1, math.ceil(price / (CHECKING * layer)))) if layer else 1


def fit_budget(engine: Warmable, budget: int, places: int, run: Run) -> int:
    """``budget``, or as much of it as there is memory for where a long row stands among as many short ones as may.

    ``places``: how many (rows times longest) there may be a token, in ``BatchLimits``' sense.
    """
    while budget > engine.max_length and not _fits(engine, _skewed(budget, engine.max_length, places), run):
        budget //= 2
    return budget


def _fits(engine: Warmable, rows: Seq[Sequence], run: Run) -> bool:
    layers = engine.stepping.layers
    try:
        run(lambda: engine.profile_run(rows, layers, layers))
    except OutOfMemory:
        return False
    return True


def _skewed(budget: int, longest: int, places: int) -> list[Sequence]:
    short = max(1, longest // places)
    return [_row(longest)] + [_row(short)] * ((budget - longest) // short)


def measure_regrouping(engine: Regroupable, budget: int, run: Run, clock: Clock = time.perf_counter) -> float:
    """What it costs to take half of a full step out, in layers of the step."""
    rows = _rows(budget, engine.max_length)

    def timed(*, regrouped: bool) -> float:
        began = clock()
        engine.regroup_run(rows, regrouped=regrouped)
        return clock() - began

    ways = [functools.partial(timed, regrouped=regrouped) for regrouped in (False, True)]
    plain, regrouped = (min(float(run(way)) for _ in range(2 * ROUNDS)) for way in ways)
    layer = engine.cost.seconds(budget, budget) / engine.stepping.layers
    return max(0.0, regrouped - plain) / layer if layer else 0.0


def exits_pay(engine: Warmable, plain: Warmable, budget: int, run: Run, clock: Clock = time.perf_counter) -> bool:
    """Is a full step of ``engine``, that asks the head at every depth and loses texts on the way, faster than all the
    layers of ``plain``?  As deep as texts go on average, and regrouped once for each depth that may be the last."""
    rows, layers, stepping = _rows(budget, engine.max_length), engine.stepping.layers, engine.stepping
    timers = [_Timer(one, run, clock) for one in (engine, plain)]
    rounds = [[time_of(rows, layers, layers) for time_of in timers] for _ in range(2 * ROUNDS)]
    asked, straight = (min(times) for times in zip(*rounds, strict=True))
    may_be_last = layers - stepping.exits.first if stepping.exits else 0
    regrouping = may_be_last * stepping.regrouping * straight / layers
    return bool(asked * stepping.mean_depth / layers + regrouping < straight)


def as_fast(one: Warmable, other: Warmable, run: Run, clock: Clock = time.perf_counter) -> bool:
    """Is ``one`` at least as fast as ``other``, on a paragraph?  Timed in turn."""
    timers = [_Timer(engine, run, clock) for engine in (one, other)]
    rows, layers = _rows(FLOOR["cpu"], one.max_length), one.stepping.layers
    for time_of in timers:
        time_of(rows, layers, layers)
    rounds = [[time_of(rows, layers, layers) for time_of in timers] for _ in range(2 * ROUNDS)]
    first, second = (min(times) for times in zip(*rounds, strict=True))
    return bool(first <= second)


def _depth(engine: Warmable, time_of: _Timer) -> int:
    """As few layers as can be timed well in the smallest step."""
    rows, layers = _rows(SMALLEST, engine.max_length), engine.stepping.layers
    time_of(rows, layers, layers)
    one = max(1e-9, min(time_of(rows, 1, 1) for _ in range(ROUNDS)))
    return min(layers, math.ceil(MIN_MEASURED / one))


def choose_budget(rates: dict[int, float], floor: int = 1) -> int:
    """The smallest size, of ``floor`` or more, whose rate (tokens per second) is nearly the best of those."""
    large = {size: rate for size, rate in rates.items() if size >= min(floor, max(rates))}
    best = max(large.values())
    return min(size for size, rate in large.items() if rate >= GOOD_ENOUGH * best)


def _flat(rates: dict[int, float]) -> bool:
    """Two doublings in a row gained under two per cent: larger steps will not either."""
    values = list(rates.values())
    return len(values) >= 3 and max(values[-2:]) < 1.02 * max(values[:-2])


def _rows(tokens: int, max_length: int) -> list[Sequence]:
    """``tokens`` in rows of at most 64, as short texts are, one row at least; any id will do."""
    length = min(64, tokens, max_length)
    return [_row(length)] * max(1, tokens // length)


def _row(length: int) -> Sequence:
    ids = np.ones(length, dtype=np.int32)
    return Sequence(ids, np.zeros_like(ids), length)
