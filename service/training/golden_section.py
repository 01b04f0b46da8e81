"""The least value of a function with one valley (Kiefer 1953)."""

import math
from collections.abc import Callable

GOLDEN = (math.sqrt(5) - 1) / 2


def least(value: Callable[[float], float], low: float, high: float, rounds: int = 24) -> float:
    """Where ``value`` is least between ``low`` and ``high``, to 1e-5 of their distance."""
    for _ in range(rounds):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if value(left) < value(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def least_scale(value: Callable[[float], float], low: float, high: float, rounds: int = 24) -> float:
    """The same for what is above 0, with its logarithm in place of itself: 0.1 is as far from 1 as 10 is."""
    return math.exp(least(lambda log: value(math.exp(log)), math.log(low), math.log(high), rounds))
