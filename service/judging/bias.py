"""Pairs of texts that differ in one word, a name or a group: what the word alone does to an answer.

A classifier reads each template with each word of two groups; the difference is that of a label's mean scores.  A
reader is asked what a text does not say, which of two people it is, in both orders (Li et al. 2020, UnQover).

The limits: templates are few, in English, and of their writer's choosing; names stand for groups only roughly; a small
difference here is no proof that there is none elsewhere.  The idea is that of the Equity Evaluation Corpus (Kiritchenko
and Mohammad 2018).
"""

import json
from collections.abc import Iterator, Sequence as Seq
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..serving.engine import Engine
from ..tasks.classification import Classification
from ..tasks.question_answering import QuestionAnswering
from ..training.predictors import run_each

TEMPLATES = Path(__file__).with_name("bias_templates.json")


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two groups: the mean difference of their scores (first less second), the largest between two single texts,
    and these texts.  ``label``: of a classifier; for a reader the mean is its preference for the first group."""

    axis: str
    groups: tuple[str, str]
    label: str
    pairs: int
    mean: float
    largest: float
    example: tuple[str, str]


@cache
def templates() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    return found


def bias(engine: Engine) -> Iterator[Difference]:
    """DataError where the model neither classifies nor answers."""
    if isinstance(engine.task, Classification):
        yield from _of_classifier(engine, engine.task)
    elif isinstance(engine.task, QuestionAnswering):
        yield from _of_reader(engine, engine.task)
    else:
        raise DataError(f"{engine.ref} does {engine.manifest.task}: templates are for classifiers and readers")


def _of_classifier(engine: Engine, task: Classification) -> Iterator[Difference]:
    """The label whose mean score differs most, for each pair of groups."""
    for axis in templates()["axes"]:
        (first, ones), (second, others) = axis["groups"].items()
        scored = {
            name: _label_scores(engine, task, [t.replace("{word}", w) for t in templates()["texts"] for w in words])
            for name, words in ((first, ones), (second, others))
        }
        means = scored[first].mean(axis=0) - scored[second].mean(axis=0)
        label = int(np.abs(means).argmax())
        apart = scored[first][:, label].reshape(len(templates()["texts"]), -1)
        from_it = scored[second][:, label].reshape(len(templates()["texts"]), -1)
        differences = apart[:, :, None] - from_it[:, None, :]
        text, one, other = np.unravel_index(int(np.abs(differences).argmax()), differences.shape)
        template = templates()["texts"][int(text)]
        yield Difference(
            axis["name"], (first, second), task.labels[label], differences.size, float(means[label]),
            float(differences[text, one, other]),
            (template.replace("{word}", ones[int(one)]), template.replace("{word}", others[int(other)])),
        )  # fmt: skip


def _label_scores(engine: Engine, task: Classification, texts: Seq[str]) -> Any:
    """(texts, labels)"""
    done = run_each(engine, [task.encode(text) for text in texts])
    rows = [dict(task.decode(*one).labels) for one in done]
    return np.array([[row[label] for label in task.labels] for row in rows])


def _of_reader(engine: Engine, task: QuestionAnswering) -> Iterator[Difference]:
    """How much more of the score the first group gets than the second, over both orders, for each pair of groups."""
    for axis in templates()["axes"]:
        (first, ones), (second, others) = axis["groups"].items()
        asked = [
            (one, other, question)
            for (one, other), question in product(zip(ones, others, strict=True), templates()["questions"])
        ]
        preferred = [
            (_preference(engine, task, one, other, question["text"], question["question"]), one, other, question)
            for one, other, question in asked
        ]
        largest, one, other, question = max(preferred, key=lambda found: abs(found[0]))
        mean = float(np.mean([value for value, *_ in preferred]))
        shown = question["text"].replace("{first}", one).replace("{second}", other)
        yield Difference(axis["name"], (first, second), "", len(asked), mean, largest, (shown, question["question"]))


def _preference(engine: Engine, task: QuestionAnswering, one: str, other: str, text: str, question: str) -> float:
    total = 0.0
    for first, second in ((one, other), (other, one)):  # the order alone must not decide
        context = text.replace("{first}", first).replace("{second}", second)
        encoded = task.encode(question, [context])
        ((_, logits),) = run_each(engine, [encoded])
        scores = {
            name: task.span_score(encoded, logits, at, at + len(name))
            for name in (one, other)
            for at in (context.index(name),)
        }
        total += (scores[one] - scores[other]) / 2
    return total
