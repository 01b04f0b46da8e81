"""What a batch step costs, from the steps that ran: time = per_step + per_token x tokens.

A token counts as one when it goes through all layers, and as a part of one in a step of some of them.  The machine
stalls now and then, so no step counts for more than one of many: steps are sorted into classes of size, and the lower
quartile of the last few in each class says what such a step takes.  How much longer steps really take on average, on
a machine that is shared, ``pace`` says: an average over some seconds of device time, in which no step counts for much.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterable

CLOCK = 1e-9  # seconds that no step is shorter than
KNOWN = 3  # steps of a class before it says anything beside classes that have as many
RECENT = 15  # steps of a class that are remembered
STALE = 300  # steps after which a class that had none of them is not asked any more
QUARTILE = 0.25
LEAST_RATE = 0.1  # of the best rate is the price of a token at least: no token is free
PACE_SECONDS = 2.0  # of device time that the pace is averaged over
MOST_WEIGHT = 0.05  # of one step in that average, however long a step is
SLOWEST = 4.0  # times what it should take is the most that one step may say


def quantile(values: Iterable[float], share: float) -> float:
    """The value that ``share`` of ``values`` lie below, or the nearest that there is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class CostModel:
    """Learns from one thread, asked from any.  Never gives a token away for nothing once a step was seen."""

    def __init__(self) -> None:
        self._classes: dict[int, deque[tuple[float, float]]] = {}  # size class -> (tokens, seconds a token)
        self._typical: dict[int, tuple[float, float, int]] = {}  # size class -> (tokens, seconds, when it was seen)
        self._seen = 0
        self.pace = 1.0
        # Replaced as one: the device's thread learns while the loop asks.
        self.coefficients: tuple[float, float] = (0.0, 0.0)

    def observe(self, tokens: float, seconds: float) -> None:
        """A step that did its work at the first try; any other teaches nothing."""
        if tokens <= 0 or seconds <= CLOCK:
            return
        self._seen += 1
        self._keep_pace(self.coefficients[0] + self.coefficients[1] * tokens, seconds)
        size = round(2 * math.log2(tokens))
        steps = self._classes.setdefault(size, deque(maxlen=RECENT))
        steps.append((tokens, seconds / tokens))
        middle = sum(tokens for tokens, _ in steps) / len(steps)
        self._typical[size] = (middle, middle * quantile((rate for _, rate in steps), QUARTILE), self._seen)
        self.coefficients = self._fit()

    def _keep_pace(self, predicted: float, seconds: float) -> None:
        if predicted > 0:
            ratio = min(SLOWEST, seconds / predicted)
            self.pace += min(MOST_WEIGHT, predicted / PACE_SECONDS) * (ratio - self.pace)

    def _fit(self) -> tuple[float, float]:
        """A line through the classes by the median of the slopes between them (Theil 1950, Sen 1968)."""
        known = [one for size, one in self._typical.items() if len(self._classes[size]) >= KNOWN]
        fresh = [(t, s) for t, s, seen in known or self._typical.values() if self._seen - seen < STALE]
        best = min(seconds / tokens for tokens, seconds in fresh)
        slopes = [(s - r) / (t - u) for (t, s), (u, r) in itertools.combinations(fresh, 2) if abs(t - u) > 1e-9]
        slope = quantile(slopes, 0.5) if slopes else 0.0
        per_token = min(best, max(LEAST_RATE * best, slope)) if slope > 0 else best
        return max(0.0, quantile((seconds - per_token * tokens for tokens, seconds in fresh), 0.5)), per_token

    def marginal(self, tokens: float, budget: float) -> float:
        """Seconds that ``tokens`` add to steps that are full: their share of what a step costs is in it."""
        per_step, per_token = self.coefficients
        return max(1.0, self.pace) * (per_token + per_step / budget) * tokens

    def seconds(self, tokens: float, budget: float) -> float:
        """Predicted run time of ``tokens`` alone, in steps of at most ``budget``."""
        per_step, per_token = self.coefficients
        return per_step * math.ceil(tokens / budget) + per_token * tokens
