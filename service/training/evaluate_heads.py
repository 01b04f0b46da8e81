"""Scores of the heads beside a classifier's and a reader's, each on the kind of file that fits it.

fill-mask             .txt: plain text; in each paragraph some words are masked, one at a time
token-classification  .conll: a word and, last in its line, its label; an empty line ends a sentence
                      .jsonl: {"text", "spans": [{"start", "end", "label"}]}, in code points
feature-extraction    .tsv, .csv, .jsonl: "text", "text_pair", and as "label" how alike they are
multiple-choice       .jsonl: {"prompt", "choices", "label"}, the label the index of the right one
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence as Seq
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import DataError, InvalidRequest, ServiceError
from ..serving.engine import Engine
from ..tasks.embedding import Embedding
from ..tasks.fill_mask import FillMask
from ..tasks.multiple_choice import MultipleChoice
from ..tasks.occlusion import WORD
from ..tasks.token_classification import OUTSIDE, TokenClassification
from .datasets import read_lines, read_rows
from .predictors import run_each

MASKED = 1000  # words of a file, at most
SHORTEST, LONGEST = 5, 100  # words of a paragraph that is masked in
SEED = 7
TOP = (1, 5, 10, 100)
T = TypeVar("T")
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tagged:
    """A text with its spans, as (start, end, label), and its words, as (start, end), where the file says them."""

    text: str
    spans: frozenset[tuple[int, int, str]]
    words: tuple[tuple[int, int], ...] | None = None


def evaluate_head(engine: Engine, path: Path) -> Report:
    """DataError where ``path`` is not of the kind that the model's task is measured on."""
    check_kind(engine.manifest.task, path)
    try:
        return EVALUATORS[engine.manifest.task][1](engine, path)
    except InvalidRequest as error:
        raise DataError(f"{path}: a row of it cannot be served: {error.message}") from error
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{path}: a row has not what {engine.manifest.task} is measured on: {error!r}") from error


def check_kind(task: str, path: Path) -> None:
    """DataError where ``path`` is of another kind than ``task`` is measured on, or is not there."""
    kinds, _ = EVALUATORS[task]
    if not path.name.removesuffix(".xz").endswith(kinds):
        raise DataError(f"{path}: {task} is measured on {', '.join(kinds)} (docs/heads.md)")
    if not path.exists():
        raise DataError(f"{path}: there is no such file")


def _check_some(path: Path, rows: list[T]) -> list[T]:
    if not rows:
        raise DataError(f"{path}: no rows in it")
    return rows


def _fill_mask(engine: Engine, path: Path) -> Report:
    task = engine.task
    assert isinstance(task, FillMask)
    cases = list(itertools.islice(_masked(task, path), MASKED))
    if not cases:
        raise DataError(f"{path}: no paragraph of {SHORTEST} to {LONGEST} words whose words are one piece each")
    ranks = []
    done = run_each(engine, [task.encode(text) for text, _ in cases])
    for (item, logits), (_, token) in zip(done, cases, strict=True):
        words = [one.token for one in task.decode(item, logits, top_k=TOP[-1])[0]]
        ranks.append(words.index(token) if token in words else TOP[-1])
    return {"words": len(cases)} | {
        f"top_{most}": round(float(np.mean([rank < most for rank in ranks])), 4) for most in TOP
    }


def _masked(task: FillMask, path: Path) -> Iterator[tuple[str, int]]:
    """Texts with one word masked, and the word's piece; words of several pieces are left out."""
    draw = random.Random(SEED)
    for line in read_lines([path]):
        words = list(WORD.finditer(line))
        if not SHORTEST <= len(words) <= LONGEST:
            continue
        for match in draw.sample(words, max(1, len(words) // 20)):
            pieces = task.tokenizer.ids(match[0])
            text = f"{line[: match.start()]}{task.mask_token}{line[match.end() :]}"
            if len(pieces) == 1 and match[0].isalpha():
                try:
                    task.encode(text)
                except ServiceError:
                    continue
                yield text, int(pieces[0])


def _tokens(engine: Engine, path: Path) -> Report:
    task = engine.task
    assert isinstance(task, TokenClassification)
    examples = _check_some(
        path, list((_conll if path.name.removesuffix(".xz").endswith(".conll") else _spans)(path, task))
    )
    done = run_each(engine, [task.encode(one.text) for one in examples])
    found = [
        frozenset((span.start, span.end, span.label) for span in task.decode(item, logits, one.words))
        for one, (item, logits) in zip(examples, done, strict=True)
    ]
    right = sum(len(given & one.spans) for given, one in zip(found, examples, strict=True))
    given, wanted = sum(map(len, found)), sum(len(one.spans) for one in examples)
    precision, recall = right / max(1, given), right / max(1, wanted)
    scores = {"precision": precision, "recall": recall, "f1": 2 * right / max(1, given + wanted)}
    return {"texts": len(examples), "spans": wanted} | {name: round(value, 4) for name, value in scores.items()}


def _spans(path: Path, task: TokenClassification) -> Iterator[Tagged]:
    for line, row in read_rows(path):
        if unknown := sorted({str(one["label"]) for one in row["spans"]} - task.kinds):
            raise DataError(f"{path}, line {line}: no span of the model is a {unknown[0]!r}: {sorted(task.kinds)}")
        spans = frozenset((one["start"], one["end"], one["label"]) for one in row["spans"])
        yield Tagged(_text(path, line, row["text"]), spans)


def _text(path: Path, line: int, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}, line {line}: {str(value)[:60]!r} is no text")
    return value


def _conll(path: Path, task: TokenClassification) -> Iterator[Tagged]:
    """Sentences, their words with one space between."""
    words: list[tuple[str, str]] = []
    for number, line in enumerate(itertools.chain(read_lines([path]), [""]), start=1):
        if line and not line.startswith("-DOCSTART-"):
            word, *_, label = [*line.split(), ""] if len(line.split()) == 1 else line.split()
            if label not in task.labels and label not in OUTSIDE:
                raise DataError(f"{path}, line {number}: label {label!r} is none of the model's: {list(task.labels)}")
            words.append((word, label))
        elif words:
            text = " ".join(word for word, _ in words)
            placed = list(_placed(words))
            spans = frozenset((s.start, s.end, s.label) for s in task.joined(text, placed))
            yield Tagged(text, spans, tuple((start, end) for start, end, *_ in placed))
            words = []


def _placed(words: Seq[tuple[str, str]]) -> Iterator[tuple[int, int, str, float]]:
    start = 0
    for word, label in words:
        yield start, start + len(word), label, 1.0
        start += len(word) + 1


def _vectors(engine: Engine, path: Path) -> Report:
    task = engine.task
    assert isinstance(task, Embedding)
    rows = [
        (_text(path, line, row["text"]), _text(path, line, row["text_pair"]), float(row["label"]))
        for line, row in read_rows(path)
    ]
    _check_some(path, rows)
    texts = [text for first, second, _ in rows for text in (first, second)]
    vectors = np.stack([task.decode(*one) for one in run_each(engine, [task.encode(text) for text in texts])])
    alike = (vectors[::2] * vectors[1::2]).sum(axis=1)
    return {"pairs": len(rows), "spearman": round(spearman(alike, [label for *_, label in rows]), 4)}


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """The rank correlation of two lists of numbers; ties have their mean rank.  DataError where one does not vary, or
    holds what is no number."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("a label is no finite number: how alike texts are cannot be put in order")
    first, second = _ranks(np.asarray(a)), _ranks(np.asarray(b))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise DataError("all pairs are equally alike: there is no order to compare")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], dtype=np.float64)


def _choices(engine: Engine, path: Path) -> Report:
    task = engine.task
    assert isinstance(task, MultipleChoice)
    rows = [
        (
            _text(path, line, row["prompt"]),
            [_text(path, line, one) for one in _list(row["choices"])],
            index(row["label"]),
        )
        for line, row in read_rows(path)
    ]
    _check_some(path, rows)
    for prompt, choices, label in rows:
        if not 0 <= label < len(choices):
            raise DataError(f"{path}: {prompt[:60]!r} has {len(choices)} choices, and the label {label}")
    done = run_each(engine, [task.encode(prompt, choices) for prompt, choices, _ in rows])
    right = [int(np.argmax(task.decode(*one))) == label for one, (*_, label) in zip(done, rows, strict=True)]
    chance = float(np.mean([1 / len(choices) for _, choices, _ in rows]))
    return {"prompts": len(rows), "accuracy": round(float(np.mean(right)), 4), "by_chance": round(chance, 4)}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:60]!r} is no list")
    return value


EVALUATORS: dict[str, tuple[tuple[str, ...], Callable[[Engine, Path], Report]]] = {
    "fill-mask": ((".txt",), _fill_mask),
    "token-classification": ((".conll", ".jsonl"), _tokens),
    "feature-extraction": ((".tsv", ".csv", ".jsonl"), _vectors),
    "multiple-choice": ((".jsonl",), _choices),
}
