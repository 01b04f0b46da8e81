"""How much of its score a model keeps when texts are changed, and on which it loses most.

Behavioural tests of invariance as in CheckList (Ribeiro et al. 2020): the right answer stays what it was.
"""

import random
from collections.abc import Iterator, Sequence as Seq
from dataclasses import dataclass, replace

from ..errors import DataError, ServiceError
from ..serving.engine import Engine
from ..tasks.fill_mask import FillMask
from ..tasks.occlusion import WORD
from ..training import splits
from ..training.datasets import Labelled, Question
from ..training.predictors import Local, run_each
from ..training.scores import token_f1
from .perturbations import CHANGES, LENGTHS, Change

SEED = 7
WORST = 3
DISTRACTORS = 3  # paragraphs on other things, around an answer's own


@dataclass(frozen=True, slots=True)
class Example:
    """One whose value fell; ``before`` and ``after`` are what the model said."""

    text: str
    changed: str
    right: str
    before: str
    after: str
    lost: float


@dataclass(frozen=True, slots=True)
class Effect:
    """Of one change: score in points on the ``examples`` that it changes, before and after, and the worst of them."""

    change: str
    examples: int
    before: float
    after: float
    worst: list[Example]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A value from 0 to 1 of what the model ``said``; ``sure``: how sure it was of what is right."""

    said: str
    value: float
    sure: float


def robustness(engine: Engine, source: str, words: Engine | None = None, most: int = 500) -> Iterator[Effect]:
    """The effect of each change on the first ``most`` examples of ``source``.  ``words``: a model that fills masks, for
    synonyms.  DataError where the file does not fit the model."""
    if words is not None:
        _fills(words)
    if splits.is_questions(source):
        questions = [one for one in splits.questions(source) if one.answers][:most]
        if not questions:
            raise DataError(f"{source}: no question that has an answer")
        yield from _of_reader(engine, questions, words)
        return
    yield from _of_classifier(engine, splits.labelled(source)[:most], words)


def _of_classifier(engine: Engine, rows: Seq[Labelled], words: Engine | None) -> Iterator[Effect]:
    before = _labels(engine, rows)
    for name, change in _changes(words, LENGTHS).items():
        draw = random.Random(SEED)
        changed = [replace(row, text=change(row.text, draw)) for row in rows]
        touched = [i for i, (row, other) in enumerate(zip(rows, changed, strict=True)) if row.text != other.text]
        after = _labels(engine, [changed[i] for i in touched])
        shown = [(rows[i].text, changed[i].text, rows[i].label) for i in touched]
        if touched:
            yield _effect(name, shown, [before[i] for i in touched], after)


def _labels(engine: Engine, rows: Seq[Labelled]) -> list[_Judged]:
    if not rows:
        return []
    judged = []
    for row, scored in zip(rows, Local(engine).classify(rows), strict=True):
        said = scored.labels[0][0]
        judged.append(_Judged(said, float(said == row.label), dict(scored.labels).get(row.label, 0.0)))
    return judged


def _of_reader(engine: Engine, questions: Seq[Question], words: Engine | None) -> Iterator[Effect]:
    before = _answers(engine, questions)
    for name, change in _changes(words, {}).items():
        draw = random.Random(SEED)
        changed = [replace(one, question=change(one.question, draw)) for one in questions]
        yield from _compared(engine, name, questions, changed, before)
    contexts = list(dict.fromkeys(one.context for one in questions))
    for name, place in (("answer's paragraph first", 0.0), ("in the middle", 0.5), ("last", 1.0)):
        changed = [_among(one, contexts, place) for one in questions]
        yield from _compared(engine, f"{DISTRACTORS} other paragraphs, {name}", questions, changed, before)


def _compared(
    engine: Engine, name: str, questions: Seq[Question], changed: Seq[Question], before: Seq[_Judged]
) -> Iterator[Effect]:
    touched = [i for i, (one, other) in enumerate(zip(questions, changed, strict=True)) if one != other]
    if touched:
        after = _answers(engine, [changed[i] for i in touched])
        shown = [(questions[i].question, changed[i].question, questions[i].answers[0][0]) for i in touched]
        yield _effect(name, shown, [before[i] for i in touched], after)


def _answers(engine: Engine, questions: Seq[Question]) -> list[_Judged]:
    replies = Local(engine).answer(questions, no_answer=False)
    values = [
        token_f1(reply.text, [text for text, _ in one.answers]) for reply, one in zip(replies, questions, strict=True)
    ]
    return [_Judged(reply.text, value, value) for reply, value in zip(replies, values, strict=True)]


def _among(question: Question, contexts: Seq[str], place: float) -> Question:
    """Its paragraph at ``place`` among others of the file that hold none of its answers."""
    draw = random.Random(f"{SEED}{question.id}")
    golds = [text.lower() for text, _ in question.answers]
    fit = [one for one in contexts if not any(gold in one.lower() for gold in golds)]
    others = draw.sample(fit, min(DISTRACTORS, len(fit)))
    at = round(place * len(others))
    return replace(question, context="\n\n".join([*others[:at], question.context, *others[at:]]))


def _effect(name: str, shown: Seq[tuple[str, str, str]], before: Seq[_Judged], after: Seq[_Judged]) -> Effect:
    examples = [
        Example(text, changed, right, b.said, a.said, b.sure - a.sure)
        for (text, changed, right), b, a in zip(shown, before, after, strict=True)
        if a.value < b.value
    ]
    worst = sorted(examples, key=lambda one: -one.lost)[:WORST]
    values = [100 * sum(one.value for one in many) / len(many) for many in (before, after)]
    return Effect(name, len(after), values[0], values[1], worst)


def _changes(words: Engine | None, more: dict[str, Change]) -> dict[str, Change]:
    found = CHANGES | more
    if words is not None:
        found = found | {"one word for a likely other": lambda text, draw: other_word(words, text, draw)}
    return found


def _fills(engine: Engine) -> FillMask:
    if not isinstance(engine.task, FillMask):
        raise DataError(f"{engine.ref} does {engine.manifest.task}: synonyms take a model that fills masks")
    return engine.task


def other_word(engine: Engine, text: str, draw: random.Random) -> str:
    """``text`` with one word in the place of which the model has another likely one; as it is where there is none."""
    task = _fills(engine)
    places = [match for match in WORD.finditer(text) if match[0].isalpha() and len(match[0]) > 3]
    if not places:
        return text
    match = draw.choice(places)
    try:
        encoded = task.encode(text[: match.start()] + task.mask_token + text[match.end() :])
    except ServiceError:  # too long to see whole
        return text
    ((_, logits),) = run_each(engine, [encoded])
    for word in task.decode(encoded, logits)[0]:
        if word.word.isalpha() and word.word.lower() != match[0].lower():
            return word.text
    return text
