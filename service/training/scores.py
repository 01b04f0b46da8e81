"""Scores: accuracy and macro F1 of labels; exact match and F1 of answers as SQuAD defines them.

Source: Rajpurkar et al. 2016 and the official evaluation script, version 1.1: answers are compared in lower case,
without punctuation, articles and repeated spaces; of several gold answers the best match counts.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(answer: str) -> str:
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 or 0.  No gold answers means the question has none, and only an empty answer is right."""
    return float(normalized(answer) in _wordy(golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, for the gold answer that it is highest for."""
    return max(_f1(normalized(answer).split(), gold.split()) for gold in _wordy(golds))


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


def macro_f1(given: Sequence[str], gold: Sequence[str]) -> float:
    """The mean over the gold labels of each one's F1: a rare label counts as much as a frequent one."""
    values = []
    for label in sorted(set(gold)):
        right = sum(a == b == label for a, b in zip(given, gold, strict=True))
        values.append(2 * right / (given.count(label) + gold.count(label)) if right else 0.0)
    return sum(values) / len(values)
