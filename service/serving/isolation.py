"""A step that fails is run again in halves, so that one bad sequence fails alone."""

import logging
from collections.abc import Sequence as Seq
from typing import Protocol

import numpy as np

from service.errors import InferenceFailed, OutOfMemory, ServiceError
from service.serving.admission import CostModel
from service.serving.stepping import Progress, Stepping, Stop
from service.types import ModelRef

log = logging.getLogger(__name__)


class Runner(Protocol):
    """What the worker needs of a model: its name, its budget in tokens, its cost, and how to run a step of it."""

    @property
    def ref(self) -> ModelRef: ...

    budget: int
    cost: CostModel
    stepping: Stepping
    padding: float  # see Limits

    def step(self, group: Seq[Progress], stop: Stop) -> list[Progress]: ...


def run_apart(runner: Runner, group: Seq[Progress], stop: Stop) -> list[Progress | ServiceError]:
    """Step ``group`` together; where that fails, in halves, until what fails stands alone.  In the device's thread."""
    try:
        return [_finite(one) for one in runner.step(group, stop)]
    except Exception as error:
        if isinstance(error, OutOfMemory) and len(group) > 1:
            runner.budget = max(1, sum(map(len, group)) // 2)
            log.warning(
                "%s: out of memory, the budget is now %d tokens; set token_budget lower", runner.ref, runner.budget
            )
        if len(group) == 1:
            log.error("%s failed on a sequence of %d tokens", runner.ref, len(group[0]), exc_info=error)
            return [InferenceFailed("the model failed on this text; the log says why")]
        half = len(group) // 2
        return run_apart(runner, group[:half], stop) + run_apart(runner, group[half:], stop)


def _finite(one: Progress) -> Progress | ServiceError:
    if one.logits is None or np.isfinite(one.logits).all():
        return one
    log.error("logits that are not finite; a half-precision overflow does this, float32 does not")
    return InferenceFailed("the model gave no finite answer on this text")
