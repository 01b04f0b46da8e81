"""Files of examples, looked at before the hours of work that end with them."""

from collections.abc import Sequence

from ..errors import DataError
from . import splits
from .datasets import Question
from .evaluate_heads import EVALUATORS, check_kind


def check_examples(flag: str, source: str, task: str, labels: Sequence[str]) -> None:
    """Read ``source`` (FILE or FILE:K/N) as ``task`` will.  ``labels`` are the model's; ``flag`` is told with the file.

    DataError where it is of the other kind, cannot be read, or has labels that the model does not have.
    """
    if task in EVALUATORS:
        if flag != "--evaluate":
            raise DataError(f"{flag}: fitted for classifiers and readers only; a model for {task} can be evaluated")
        check_kind(task, splits.path_of(source))
        return
    questions = splits.is_questions(source)
    if (task == "question-answering") != questions:
        wanted = "questions in SQuAD's form (.json)" if not questions else "labelled texts (.tsv, .csv, .jsonl)"
        raise DataError(f"{flag} {source}: the model is for {task}, which is measured on {wanted}")
    if questions:
        splits.questions(source)
        return
    unknown = sorted({row.label for row in splits.labelled(source)} - set(labels))
    if unknown:
        raise DataError(f"{flag} {source}: label {unknown[0]!r} is none of the model's: {', '.join(labels)}")


def check_both_kinds(told: str, questions: Sequence[Question]) -> None:
    """DataError, which begins with ``told``, where ``questions`` all have an answer, or none has."""
    if len({bool(question.answers) for question in questions}) < 2:
        raise DataError(f"{told}: calibration takes questions with an answer and without one, as in SQuAD 2.0")
