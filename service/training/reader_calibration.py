"""A reader's confidence: answers scored as the chance of being right, and "no answer" by what is more likely.

Both are fitted by log loss: temperature and exponent on the questions that have an answer, a logistic function of the
lead of "no answer" on all.  A reader that cannot tell the two kinds apart would then be silent on many questions that
have an answer, for half of a file such as SQuAD 2.0 has none.  So the shift is bounded: at most MOST_LOST of the
questions that have an answer go without one.  A request that knows better names its own threshold; the one with the
best F1 on these files is told with the facts.
"""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..serving.engine import Engine
from ..tasks.confidence import Confidence
from ..tasks.question_answering import QuestionAnswering, Weighed
from . import splits
from .checked_files import check_both_kinds
from .datasets import Question
from .golden_section import least, least_scale
from .predictors import encode_questions, run_each
from .scores import calibration_error, exact_match, reliability, token_f1

# 15 % are promised; articles differ by some points, and those to come are others.
MOST_LOST = 0.13
TEMPERATURES, EXPONENTS, SCALES = (0.2, 10.0), (1.0, 16.0), (0.01, 10.0)
SURE = 1e-6
# Logits below the best span's, for the softmax of a question: so many bins of this width.
WIDTH, BINS = 1 / 16, 1024
Doubles = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of a file, each with one value: the lead of "no answer" in logits; ``others`` (questions, BINS), how
    many spans are how far below the best; whether it has an answer; whether the best span is it; the F1 of that span
    and of silence."""

    leads: Doubles
    others: Doubles
    answerable: Truths
    right: Truths
    answered: Doubles
    silent: Doubles

    @classmethod
    def of(cls, engine: Engine, task: QuestionAnswering, questions: Seq[Question]) -> Self:
        rows = []
        for question, (item, logits) in zip(
            questions, run_each(engine, encode_questions(task, questions)), strict=True
        ):
            weighed = task.weigh(item, logits)
            text = task.decode(item, logits).answers[0].text
            golds = [gold for gold, _ in question.answers]
            right = bool(golds) and bool(exact_match(text, golds))
            scores = token_f1(text, golds), token_f1("", golds)
            rows.append((weighed.lead, _below(weighed), bool(golds), right, *scores))
        return cls(*(np.array(column) for column in zip(*rows, strict=True)))

    def of_kind(self, *, answerable: bool) -> "Asked":
        kept = self.answerable == answerable
        return Asked(*(getattr(self, name)[kept] for name in self.__slots__))

    def shares(self, temperature: float) -> Doubles:
        """The best span's share of each question's softmax."""
        distances = (np.arange(BINS) + 0.5) * WIDTH
        shares: Doubles = 1 / (1 + self.others @ np.exp(-distances / temperature))
        return shares

    def scores(self, confidence: Confidence) -> Doubles:
        """Of the best spans, where documents hold an answer."""
        scores: Doubles = 1 - (1 - self.shares(confidence.temperature)) ** confidence.exponent
        return scores

    def doubts(self, confidence: Confidence) -> Doubles:
        return np.array([confidence.no_answer(lead) for lead in self.leads.tolist()])


def _below(weighed: Weighed) -> npt.NDArray[np.int64]:
    counts = np.zeros(BINS, dtype=np.int64)
    for table in weighed.spans:
        distances = weighed.best - table[np.isfinite(table)]
        counts += np.bincount(np.minimum(distances / WIDTH, BINS - 1).astype(np.int64), minlength=BINS)
    counts[0] -= 1  # the best itself
    return counts


def calibrate_reader(engine: Engine, task: QuestionAnswering, sources: Seq[str]) -> dict[str, Any]:
    """``temperature``, ``exponent``, ``no_answer_scale``, ``no_answer_shift`` and the facts, for the manifest.

    DataError for files without a question that has an answer, or without one that has none.
    """
    questions = [question for source in sources for question in splits.questions(source)]
    check_both_kinds(", ".join(sources), questions)
    asked = Asked.of(engine, task, questions)
    fitted = fit(asked)
    facts = {"data": [splits.name(source) for source in sources]} | report(asked, fitted)
    facts["calibration_error_before"] = _error(asked, Confidence())
    names = ("temperature", "exponent", "no_answer_scale", "no_answer_shift")
    return {name: getattr(fitted, name) for name in names} | {"calibration": facts}


def fit(asked: Asked, most_lost: float = MOST_LOST) -> Confidence:
    """The confidence with the least log loss.  ``most_lost`` bounds the share that is lost."""
    answerable = asked.of_kind(answerable=True)
    temperature = least_scale(lambda value: _least_exponent(answerable, value)[1], *TEMPERATURES)
    exponent = _least_exponent(answerable, temperature)[0]
    scale, shift = _no_answer(asked, float(np.quantile(answerable.leads, 1 - most_lost, method="higher")))
    return Confidence(round(temperature, 4), round(exponent, 4), scale, shift)


def _least_exponent(asked: Asked, temperature: float) -> tuple[float, float]:
    """The exponent with the least log loss of the answers being right, and that loss."""
    rest = 1 - asked.shares(temperature)

    def loss(exponent: float) -> float:
        return _log_loss(1 - rest**exponent, asked.right)

    exponent = least_scale(loss, *EXPONENTS)
    return exponent, loss(exponent)


def _no_answer(asked: Asked, bound: float) -> tuple[float, float]:
    """Scale and shift of the logistic function with the least log loss that is at most 0.5 at the lead ``bound``."""

    def loss(scale: float, middle: float) -> float:
        chance = 1 / (1 + np.exp(-np.clip(scale * (asked.leads - middle), -700, 700)))
        return _log_loss(chance, ~asked.answerable)

    def best(scale: float) -> float:
        """The lead at which the chance is 0.5: the loss has one valley, so beyond the bound the bound is best."""
        beyond = 20 / scale  # where the chance is 2e-9
        low, high = float(asked.leads.min()) - beyond, float(asked.leads.max()) + beyond
        return max(bound, least(lambda middle: loss(scale, middle), low, high))

    scale = round(least_scale(lambda value: loss(value, best(value)), *SCALES), 4)
    # Rounded down, so that the question at the bound stays answered.
    return scale, math.floor(-scale * best(scale) * 1e6) / 1e6


def _log_loss(chances: Doubles, truths: Truths) -> float:
    sure = np.clip(chances, SURE, 1 - SURE)
    return float(-np.mean(np.log(np.where(truths, sure, 1 - sure))))


def report(asked: Asked, fitted: Confidence) -> dict[str, Any]:
    """What the decision gives on these questions, both kinds apart; shares of one, F1 in points."""
    doubts = asked.doubts(fitted)
    silent = doubts > 0.5
    f1 = 100 * np.where(silent, asked.silent, asked.answered)
    kinds = (("has an answer", asked.answerable), ("has none", ~asked.answerable))
    threshold, best = best_threshold(doubts, asked.answered, asked.silent)
    return {
        "f1": round(float(f1.mean()), 2),
        "f1_by_answer": {name: round(float(f1[kind].mean()), 2) for name, kind in kinds},
        "said_no_answer": {name: round(float(silent[kind].mean()), 4) for name, kind in kinds},
        "best": {"no_answer_threshold": round(threshold, 4), "f1": round(100 * best, 2)},
        "calibration_error_after": _error(asked, fitted),
    }


def best_threshold(doubts: Doubles, answered: Doubles, silent: Doubles) -> tuple[float, float]:
    """The ``no_answer_score`` above which silence gives the best mean score, and that score.

    ``answered`` and ``silent`` are the scores of the answer and of silence.  The threshold lies between two questions.
    """
    order = np.argsort(doubts)
    ahead, gain, loss = doubts[order], answered[order], silent[order]
    # With the threshold after the first k questions, those are answered and the rest are not.
    scores = np.concatenate(([0.0], np.cumsum(gain))) + np.concatenate((np.cumsum(loss[::-1])[::-1], [0.0]))
    best = int(scores.argmax())
    edges = np.concatenate(([0.0], (ahead[1:] + ahead[:-1]) / 2, [1.0]))
    return float(edges[best]), float(scores[best] / len(order))


def _error(asked: Asked, confidence: Confidence) -> float:
    """Of the answers to questions that have one."""
    answerable = asked.of_kind(answerable=True)
    return round(calibration_error(reliability(answerable.scores(confidence).tolist(), answerable.right.tolist())), 4)
