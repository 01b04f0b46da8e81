"""A step that fails is run again in halves, so that one bad sequence fails alone; a device that fails, fails as one."""

import logging
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass

import numpy as np

from ..errors import DeviceLost, InferenceFailed, OutOfMemory, ServiceError
from .pending import Runner
from .stepping import Progress, Stop

log = logging.getLogger(__name__)
FULL = 0.75  # of a budget: a step of less says nothing of whether more would fit
BEFORE_GROWING, GROWTH = 20, 1.25  # full steps that must fit before a budget grows, and by how much


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of each of a step.  ``clean``: at the first try, so that its time says something."""

    after: list[Progress | ServiceError]
    clean: bool


def run_isolating_failures(
    runner: Runner, group: Seq[Progress], stop: Stop, wanted: Callable[[], bool] = lambda: True
) -> Ran:
    """Step ``group`` together; where that fails, in halves, until what fails stands alone.  In the device's thread.

    DeviceLost where the fault is the device's: a sequence that cannot fail is run once, before any half is.  Where the
    step is not ``wanted`` any more, its thread having been given up, its error is raised as it is.
    """
    try:
        return Ran([_finite(one) for one in runner.step(group, stop)], clean=True)
    except Exception as error:
        if isinstance(error, DeviceLost) or not wanted():
            raise
        if not isinstance(error, OutOfMemory):
            _probe(runner, error)
        return Ran(_halved(runner, group, stop, wanted, error), clean=False)


def _probe(runner: Runner, error: Exception) -> None:
    try:
        runner.probe()
    except Exception:
        raise DeviceLost(f"nothing can be computed any more: {error}") from error


def _halved(
    runner: Runner, group: Seq[Progress], stop: Stop, wanted: Callable[[], bool], error: Exception
) -> list[Progress | ServiceError]:
    if len(group) == 1:
        failure = InferenceFailed("the model failed on this text; the log says why")
        failure.__cause__ = error
        return [failure]
    if isinstance(error, OutOfMemory):
        runner.budget, runner.clean_steps = max(1, min(runner.budget, sum(map(len, group)) // 2)), 0
        log.warning("%s: out of memory; a step holds %d tokens now, and grows again", runner.ref, runner.budget)
    half = len(group) // 2
    return [after for part in (group[:half], group[half:]) for after in _tried(runner, part, stop, wanted)]


def _tried(
    runner: Runner, group: Seq[Progress], stop: Stop, wanted: Callable[[], bool]
) -> list[Progress | ServiceError]:
    try:
        return [_finite(one) for one in runner.step(group, stop)]
    except Exception as error:
        if isinstance(error, DeviceLost) or not wanted():
            raise
        return _halved(runner, group, stop, wanted, error)


def _finite(one: Progress) -> Progress | ServiceError:
    if one.logits is None or np.isfinite(one.logits).all():
        return one
    failure = InferenceFailed("the model gave no finite answer on this text")
    failure.__cause__ = ArithmeticError("logits that are not finite; half precision may overflow, float32 does not")
    return failure


def regrow(runner: Runner, tokens: int) -> None:
    """After a step of ``tokens`` that fitted: a budget that was halved for want of memory grows again, by and by."""
    if runner.budget >= runner.full_budget or tokens < FULL * runner.budget:
        return
    runner.clean_steps += 1
    if runner.clean_steps >= BEFORE_GROWING:
        runner.clean_steps = 0
        runner.budget = min(runner.full_budget, max(runner.budget + 1, round(runner.budget * GROWTH)))
        log.info("%s: a step holds %d tokens again", runner.ref, runner.budget)
