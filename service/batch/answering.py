"""The answers of a model to rows, by the code that serves: packed, through the shared layer, leaving early."""

from collections.abc import Callable, Iterable, Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InvalidRequest, ServiceError, UsageError
from ..runtime.packing import like_lengths
from ..serving.engine import Engine
from ..serving.isolation import run_isolating_failures
from ..serving.pending import Outcome
from ..serving.stepping import Progress, never
from ..tasks.classification import Classification, EncodedText
from ..tasks.embedding import Embedding, EncodedVector
from ..tasks.fill_mask import EncodedMasks, FillMask
from ..tasks.question_answering import EncodedQuestion, QuestionAnswering
from ..tasks.token_classification import EncodedTokens, TokenClassification
from ..types import Floats, Sequence
from .rows import Row

LEAST_BUDGET = 128  # tokens in a step
Encoded = EncodedText | EncodedQuestion | EncodedTokens | EncodedVector | EncodedMasks


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row has its texts.  ``pair`` may be missing in a row; a reader takes question and context.

    ``prefix`` stands before the names of the columns that are added.
    """

    text: str = "text"
    pair: str = "text_pair"
    question: str = "question"
    context: str = "context"
    prefix: str = ""

    def read(self, task: str) -> set[str]:
        """Those that every row has, for a model of ``task``."""
        return {self.question, self.context} if task == "question-answering" else {self.text}

    def check_apart(self, task: str, names: Iterable[str]) -> None:
        """UsageError where a row has a column among its ``names`` that the answer of a ``task`` has too."""
        if both := sorted({self.prefix + name for name in (*KINDS[task][2], "error")} & set(names)):
            raise UsageError(
                f"the rows have a column {both[0]!r}, and so have the answers: rename it, or name the answers' "
                "otherwise, such as with --prefix answer_"
            )


def answer_rows(engine: Engine, rows: Seq[Row], columns: Columns, options: dict[str, Any]) -> list[Row]:
    """Each row with its answer: ``label`` and ``score``; ``answer``, ``start``, ``end``, ``score`` and
    ``no_answer_score``; ``spans``; ``embedding``; or ``words`` and ``scores``.  One that cannot be read has ``error``
    in their place.  UsageError where a row has a column of that name already.

    ``options``: those of ``decode`` of a reader.  The engine's task is one of KINDS.
    """
    columns.check_apart(engine.manifest.task, {name for row in rows for name in row})
    encoded = [_encoded(engine, row, columns) for row in rows]
    read = [item for item in encoded if not isinstance(item, str)]
    outcomes = iter(outcomes_of(engine, [one for item in read for one in item.sequences]))
    answered = []
    for row, item in zip(rows, encoded, strict=True):
        own = [] if isinstance(item, str) else [next(outcomes) for _ in item.sequences]
        answer = _answer(engine, item, own, options)
        answered.append(row | {columns.prefix + name: value for name, value in answer.items()})
    return answered


def outcomes_of(engine: Engine, rows: Seq[Sequence]) -> list[Outcome]:
    """Each sequence's logits, or the error that it alone failed with.  DeviceLost where nothing can be computed."""
    found: dict[int, Outcome] = {}
    for step in like_lengths(rows, max(engine.budget, LEAST_BUDGET)):
        waiting = {index: Progress(rows[index]) for index in step}
        while waiting:
            ran = run_isolating_failures(engine, list(waiting.values()), never)
            for index, now in zip(list(waiting), ran.after, strict=True):
                if isinstance(now, Progress) and now.logits is None:
                    waiting[index] = now
                    continue
                del waiting[index]
                found[index] = now if isinstance(now, ServiceError) else _logits(now)
    return [found[index] for index in range(len(rows))]


def _logits(one: Progress) -> Outcome:
    assert one.logits is not None
    return one.logits


def _encoded(engine: Engine, row: Row, columns: Columns) -> Encoded | str:
    """Or why not."""
    try:
        encoded: Encoded = KINDS[engine.manifest.task][0](engine.task, row, columns)
        return encoded
    except ServiceError as error:
        return error.message


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise InvalidRequest(f"column {column!r}: wanted a text")
    return value


def _answer(engine: Engine, item: Encoded | str, outcomes: Seq[Outcome], options: dict[str, Any]) -> Row:
    failed = [one.message for one in outcomes if isinstance(one, ServiceError)]
    if isinstance(item, str) or failed:
        return {"error": item if isinstance(item, str) else failed[0]}
    found: Row = KINDS[engine.manifest.task][1](engine.task, item, outcomes, options)
    return found


def _classify(task: Classification, row: Row, columns: Columns) -> EncodedText:
    pair = _text(row, columns.pair) if row.get(columns.pair) else None
    return task.encode(_text(row, columns.text), pair, "windows")


def _label(task: Classification, item: EncodedText, logits: Seq[Floats], options: dict[str, Any]) -> Row:
    ((label, score), *_) = task.decode(item, logits).labels
    return {"label": label, "score": score}


def _ask(task: QuestionAnswering, row: Row, columns: Columns) -> EncodedQuestion:
    return task.encode(_text(row, columns.question), [_text(row, columns.context)])


def _answered(task: QuestionAnswering, item: EncodedQuestion, logits: Seq[Floats], options: dict[str, Any]) -> Row:
    done = task.decode(item, logits, **options)
    if not done.answers:
        return {"answer": None, "start": None, "end": None, "score": None, "no_answer_score": done.no_answer_score}
    best = done.answers[0]
    place = {"answer": best.text, "start": best.start, "end": best.end}
    return place | {"score": best.score, "no_answer_score": done.no_answer_score}


def _spans(task: TokenClassification, item: EncodedTokens, logits: Seq[Floats], options: dict[str, Any]) -> Row:
    return {"spans": [asdict(span) for span in task.decode(item, logits)]}


def _vector(task: Embedding, item: EncodedVector, logits: Seq[Floats], options: dict[str, Any]) -> Row:
    return {"embedding": task.decode(item, logits).tolist()}


def _words(task: FillMask, item: EncodedMasks, logits: Seq[Floats], options: dict[str, Any]) -> Row:
    best = [words[0] for words in task.decode(item, logits, top_k=1)]
    return {"words": [one.word for one in best], "scores": [one.score for one in best]}


# How a row is encoded, what is answered, and the columns of the answer, by task.
KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Row], tuple[str, ...]]] = {
    "text-classification": (_classify, _label, ("label", "score")),
    "question-answering": (_ask, _answered, ("answer", "start", "end", "score", "no_answer_score")),
    "token-classification": (lambda task, row, columns: task.encode(_text(row, columns.text)), _spans, ("spans",)),
    "feature-extraction": (
        lambda task, row, columns: task.encode(_text(row, columns.text), "windows"), _vector, ("embedding",),
    ),
    "fill-mask": (lambda task, row, columns: task.encode(_text(row, columns.text)), _words, ("words", "scores")),
}  # fmt: skip
