"""Scores: accuracy, macro F1 and calibration error of labels; exact match and F1 of answers as SQuAD defines them.

Source: Rajpurkar et al. 2016 and the official evaluation script, version 1.1: answers are compared in lower case,
without punctuation, articles and repeated spaces; of several gold answers the best match counts.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..tasks.text import EAST

PUNCTUATION = str.maketrans("", "", string.punctuation)
# A character of Han, Hiragana or Katakana; or a run of others without a space.
WORD = re.compile(rf"[{EAST}]|[^\s{EAST}]+")
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(answer: str) -> str:
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 or 0.  No gold answers means the question has none, and only an empty answer is right."""
    return float(normalized(answer) in _wordy(golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, for the gold answer that it is highest for."""
    return max(_f1(_words(normalized(answer)), _words(gold)) for gold in _wordy(golds))


def _words(text: str) -> list[str]:
    """By spaces; Chinese and Japanese, which put none between words, by characters, as the DRCD's and CMRC's scores."""
    return WORD.findall(text)


def _wordy(golds: Sequence[str]) -> list[str]:
    """The gold answers, normalized; version 2.0 drops those that hold no word, and none left means no answer."""
    return [gold for gold in map(normalized, golds) if gold] or [""]


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    shared = sum((Counter(answer) & Counter(gold)).values())
    return 2 * shared / (len(answer) + len(gold))


def accuracy(given: Sequence[str], gold: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(given, gold, strict=True)) / len(gold)


def label_f1(given: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """The F1 of each gold label."""
    values = {}
    for label in sorted(set(gold)):
        right = sum(a == b == label for a, b in zip(given, gold, strict=True))
        values[label] = 2 * right / (given.count(label) + gold.count(label)) if right else 0.0
    return values


def macro_f1(given: Sequence[str], gold: Sequence[str]) -> float:
    """The mean over the gold labels of each one's F1: a rare label counts as much as a frequent one."""
    values = label_f1(given, gold)
    return sum(values.values()) / len(values)


def interval(values: Sequence[float], draws: int = 1000) -> tuple[float, float]:
    """Between which two numbers the mean lies in 95 of 100 resamples of ``values`` (Efron 1979, the bootstrap)."""
    found = np.asarray(values)
    draw = np.random.default_rng(7)
    means = np.sort([float(draw.choice(found, len(found)).mean()) for _ in range(draws)])
    low, high = means[int(0.025 * draws)], means[int(0.975 * draws) - 1]
    return round(float(low), 4), round(float(high), 4)


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same confidence: its mean, the share of them that is right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> list[Bin]:
    """Answers by confidence, in ``bins`` of equal width from 0 to 1."""
    members: list[list[int]] = [[] for _ in range(bins)]
    for index, confidence in enumerate(confidences):
        members[min(bins - 1, int(confidence * bins))].append(index)
    return [
        Bin(
            sum(confidences[i] for i in inside) / len(inside) if inside else (number + 0.5) / bins,
            sum(right[i] for i in inside) / len(inside) if inside else 0.0,
            len(inside),
        )
        for number, inside in enumerate(members)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: |confidence - accuracy|, each bin weighted by its answers (Guo et al. 2017)."""
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / max(1, sum(one.count for one in bins))
