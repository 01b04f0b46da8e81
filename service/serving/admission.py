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
        # Replaced as one: the device's thread learns while the loop asks.
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    def observe(self, tokens: float, seconds: float) -> None:
        weight, x, xx, y, xy = (self._keep * old for old in self._sums)
        self._sums = (weight + 1.0, x + tokens, xx + tokens * tokens, y + seconds, xy + tokens * seconds)

    @property
    def coefficients(self) -> tuple[float, float]:
        """Seconds per step and per token; never negative, zero before the first step."""
        weight, x, xx, y, xy = self._sums
        if not weight:
            return 0.0, 0.0
        spread = weight * xx - x * x
        if spread <= 1e-9 * weight * xx:  # all steps were of one size
            return 0.0, y / x
        per_token = (weight * xy - x * y) / spread
        per_step = (y - per_token * x) / weight
        if per_token <= 0:
            return y / weight, 0.0
        if per_step < 0:
            return 0.0, xy / xx
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
