"""Files to examples: labelled texts (TSV, CSV, JSONL) and questions (JSON in SQuAD's form), plain or ``.xz``."""

import contextlib
import csv
import itertools
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError

csv.field_size_limit(2**24)  # characters; Python's own limit, 131,072, is less than a long document


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, or a pair of texts, and its label."""

    label: str
    text: str
    text_pair: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question on one context.  ``answers`` are (text, first code point in the context); none: it has no answer."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    title: str = ""


def read_labelled(path: Path) -> list[Labelled]:
    """Rows with the columns ``label``, ``text`` and perhaps ``text_pair``.  DataError names file and line."""
    rows = [_labelled(path, line, row) for line, row in read_rows(path)]
    if len({row.label for row in rows}) < 2:
        raise DataError(f"{path}: a classifier needs at least two labels, this file has {len({r.label for r in rows})}")
    return rows


def read_questions(path: Path) -> list[Question]:
    """A SQuAD file, version 1.1 or 2.0.  DataError where an answer does not stand where the file says it does."""
    with _open(path) as file:
        try:
            questions = [
                _question(path, article, paragraph, qa)
                for article in json.load(file)["data"]
                for paragraph in article["paragraphs"]
                for qa in paragraph["qas"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: not in SQuAD's form: {error!r}"[:500]) from error
    if not questions:
        raise DataError(f"{path}: no questions in it")
    return questions


def texts_of(paths: Iterable[Path], lines: int = 60_000) -> Iterator[str]:
    """Every text of labelled files and of questions; of a ``.txt`` its first ``lines`` lines."""
    for path in paths:
        name = path.name.removesuffix(".xz")
        if name.endswith(".json"):
            questions = read_questions(path)
            yield from dict.fromkeys(question.context for question in questions)
            yield from (question.question for question in questions)
        elif name.endswith(".txt"):
            with _open(path) as file:
                yield from (line[:20_000] for line in itertools.islice(file, lines))
        else:
            yield from (text for row in read_labelled(path) for text in (row.text, row.text_pair) if text)


def read_lines(paths: Iterable[Path]) -> Iterator[str]:
    """The lines of plain text files, without the white space at their ends."""
    for path in paths:
        with _open(path) as file:
            yield from (line.strip() for line in file)


def _question(path: Path, article: Any, paragraph: Any, qa: Any) -> Question:
    context = paragraph["context"]
    if not all(isinstance(text, str) for text in (context, qa["question"], *(one["text"] for one in qa["answers"]))):
        raise TypeError(f"question {qa['id']}: question, context and answers are texts")
    answers = tuple((answer["text"], answer["answer_start"]) for answer in qa["answers"])
    for text, start in answers:
        if context[start : start + len(text)] != text:
            where = f"{path}, line {_line_of(path, qa['id'])}: question {qa['id']}"
            raise DataError(f"{where}: the answer {text!r} is not at {start} of its context")
    return Question(str(qa["id"]), qa["question"], context, answers, str(article.get("title") or ""))


def _line_of(path: Path, id: Any) -> int:
    """The line that a question's id stands in: JSON itself does not tell where it was read."""
    with _open(path) as file:
        return next((number for number, line in enumerate(file, start=1) if json.dumps(id) in line), 1)


def _labelled(path: Path, line: int, row: Any) -> Labelled:
    try:
        label, text = row["label"], row["text"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}, line {line}: wants 'label' and 'text'") from error
    if isinstance(label, (list, dict, bool, float)):
        raise DataError(f"{path}, line {line}: label is {label!r}; wanted one text or whole number a row")
    if label is None or label == "" or not isinstance(text, str) or not text.strip():
        raise DataError(f"{path}, line {line}: label or text is empty, or text is none")
    pair = row.get("text_pair") or None
    if not isinstance(pair, str | None):
        raise DataError(f"{path}, line {line}: text_pair is {str(pair)[:60]!r}; wanted a text")
    return Labelled(str(label), text, pair)


def dialect(name: str) -> dict[str, Any]:
    """How the csv module reads and writes the file ``name``: quotes in a TSV are quotes in the text."""
    return {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if name.endswith(".tsv") else {}


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with the numbers of their lines.  DataError names file and line."""
    name = path.name.removesuffix(".xz")
    with _open(path) as file:
        if name.endswith((".tsv", ".csv")):
            reader = csv.DictReader(file, **dialect(name))
            try:
                yield from ((reader.line_num, row) for row in reader)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
        elif name.endswith(".jsonl"):
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _json(path, line, text)
        else:
            raise DataError(f"{path}: wants .tsv, .csv or .jsonl, plain or .xz")


def _json(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {line}: not JSON: {error}") from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """``path`` as text.  What fails while it is read is a DataError too: an archive may be damaged in its middle."""
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
