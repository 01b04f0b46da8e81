"""The stand-in for the question answering pipeline, against that pipeline of transformers 4.57 on the same weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.pipeline import QuestionAnsweringPipeline, pipeline
from service.conversion.export import export_version
from tests.conftest import ROOT
from tests.conversion.test_against_pipeline_4 import LONG, SHORT, ask
from tests.system.conftest import Start, start
from tests.test_shipped_models import FOLDERS

__all__ = ["start"]


@pytest.fixture(scope="module")
def qa(start: Start) -> Iterator[QuestionAnsweringPipeline]:
    """In float32, as the pipeline computes."""
    server = start(ROOT / "model_repo", "--precision", "float32")
    made = pipeline("question-answering", url=server.url, words="letters")
    yield made
    made.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    export_version(FOLDERS["qa"], folder / "checkpoint")
    return folder / "checkpoint"


@pytest.mark.parametrize("words", [True, False])
def test_the_same_arguments_give_the_same_answers(
    qa: QuestionAnsweringPipeline, checkpoint: Path, tmp_path: Path, words: bool
) -> None:
    """In one window.  Where the words of several spans are the same the pipeline adds them up: docs/pipelines.md."""
    lines: list[dict[str, Any]] = [{"question": q, "context": c, "align_to_words": words} for q, c in SHORT]
    theirs = ask(checkpoint, lines, {}, tmp_path)
    ours = [qa(**line) for line in lines]

    for one, (other,) in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
    same = [(one["start"], one["end"], one["answer"]) == (other["start"], other["end"], other["answer"])
            for one, (other,) in zip(ours, theirs, strict=True)]  # fmt: skip
    assert sum(same) >= (27 if words else len(lines))


def test_every_form_of_a_question_is_taken(qa: QuestionAnsweringPipeline) -> None:
    (first, text), (second, other) = SHORT[0], SHORT[3]
    one, two = qa(question=first, context=text), qa(question=second, context=other)

    assert text[one["start"] : one["end"]] == one["answer"]
    assert qa({"question": first, "context": text}) == one
    assert qa([{"question": first, "context": text}]) == one
    assert qa(question=[first], context=[text]) == one
    assert qa(question=[first, second], context=[text, other]) == [one, two]
    assert qa({"question": first, "context": text}, {"question": second, "context": other}) == [one, two]
    assert qa(question=[first, first], context=text) == [one, one]


def test_several_answers_are_a_list(qa: QuestionAnsweringPipeline) -> None:
    question, context = LONG[0]
    found = qa(question=question, context=context, top_k=3)

    assert len(found) == 3
    assert found[0] == qa(question=question, context=context)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)


def test_no_answer_is_an_empty_one(qa: QuestionAnsweringPipeline) -> None:
    outcomes = [qa(question=q, context=c, handle_impossible_answer=True) for q, c in SHORT]

    assert {bool(one["answer"]) for one in outcomes} == {True, False}
    for one in outcomes:
        assert one["answer"] or (one["start"], one["end"]) == (0, 0)
    several = qa(question=SHORT[0][0], context=SHORT[0][1], handle_impossible_answer=True, top_k=4)
    assert [one["answer"] for one in several].count("") == 1


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ValueError, "wanted a question"),
        ({"question": ["a", "b"], "context": ["c"]}, ValueError, "lengths"),
        ({"question": "a", "context": "b", "max_answer_len": 0}, ValueError, "max_answer_len"),
        ({"question": "a", "context": "b", "colour": 1}, TypeError, "colour"),
    ],
)
def test_what_it_cannot_take_is_an_error(
    qa: QuestionAnsweringPipeline, arguments: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        qa(**arguments)


def test_what_changes_nothing_says_so(qa: QuestionAnsweringPipeline) -> None:
    question, context = SHORT[0]
    with pytest.warns(UserWarning, match="doc_stride changes nothing"):
        assert qa(question=question, context=context, doc_stride=64) == qa(question=question, context=context)
    with pytest.raises(ValueError, match="question-answering"):
        pipeline("summarization")
