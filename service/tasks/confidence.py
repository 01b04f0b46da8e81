"""How sure a reader is: scores of its answers, and of there being none.

Spans share one softmax, of logits divided by ``temperature``.  Several spans may be right ("1902", "in 1902"), and
people who are asked agree on one of them less often than on the place: so the share C of the best spans together
counts as ``1 - (1 - C) ** exponent``, the chance that at least one of ``exponent`` people would have chosen one of
them.  A span's score is what it adds to those before it (a distortion of the cumulative distribution; Wang 1995, the
proportional hazards transform).  Scores therefore sum to at most one, and keep their order.

"No answer" is a logistic function of its lead, the logit of "no answer" less that of the best span (Platt 1999): above
0.5 it is the more likely.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Confidence:
    """What is fitted on questions (``training/reader_calibration.py``); the defaults leave logits as they are."""

    temperature: float = 1.0
    exponent: float = 1.0
    no_answer_scale: float = 1.0
    no_answer_shift: float = 0.0

    def no_answer(self, lead: float) -> float:
        """The chance that there is no answer.  ``lead`` is in logits."""
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, self.no_answer_scale * lead + self.no_answer_shift))))

    def scores(self, shares: Iterable[float]) -> list[float]:
        """Of answers whose ``shares`` of the softmax are given, largest first."""
        scores, rest = [], 1.0
        for share in shares:
            rest = max(rest, share)  # where rounding left less than there is
            # As logarithms: a score of 1e-20 must not be rounded to nothing.
            scores.append(rest**self.exponent * -math.expm1(self.exponent * _log_rest(share, rest)))
            rest -= share
        return scores


def _log_rest(share: float, whole: float) -> float:
    """The logarithm of what ``share`` leaves of the ``whole``, as a part of it."""
    if share == 0:
        return 0.0
    return math.log1p(-share / whole) if share < whole else -math.inf
