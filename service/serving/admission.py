"""What a step costs, learnt from the steps that ran: time = per_step + per_token x tokens.

A token counts as one when it goes through all layers, and as a part of one in a step of some of them.
"""

import math


class CostModel:
    """Least squares over the steps so far, the recent ones counting more.

    ``memory`` is the number of steps after which one has lost most of its weight.
    """

    def __init__(self, memory: float = 200.0) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._weight = self._x = self._xx = self._y = self._xy = 0.0

    def observe(self, tokens: float, seconds: float) -> None:
        sums = (self._weight, self._x, self._xx, self._y, self._xy)
        news = (1.0, tokens, tokens * tokens, seconds, tokens * seconds)
        self._weight, self._x, self._xx, self._y, self._xy = (
            self._keep * old + new for old, new in zip(sums, news, strict=True)
        )

    @property
    def coefficients(self) -> tuple[float, float]:
        """Seconds per step and per token; never negative, zero before the first step."""
        if not self._weight:
            return 0.0, 0.0
        spread = self._weight * self._xx - self._x * self._x
        if spread <= 1e-9 * self._weight * self._xx:  # all steps were of one size
            return 0.0, self._y / self._x
        per_token = (self._weight * self._xy - self._x * self._y) / spread
        per_step = (self._y - per_token * self._x) / self._weight
        if per_token <= 0:
            return self._y / self._weight, 0.0
        if per_step < 0:
            return 0.0, self._xy / self._xx
        return per_step, per_token

    def marginal(self, tokens: float) -> float:
        """Seconds that ``tokens`` add to a step that runs anyway."""
        return self.coefficients[1] * tokens

    def seconds(self, tokens: float, budget: float) -> float:
        """Predicted run time of ``tokens`` in steps of at most ``budget``."""
        per_step, per_token = self.coefficients
        return per_step * math.ceil(tokens / budget) + per_token * tokens


def retry_after(seconds: float) -> float:
    """Whole seconds for the header, at least one: clients round down, and zero would mean at once."""
    return float(max(1, math.ceil(seconds)))
