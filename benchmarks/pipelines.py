"""The reader against the question answering pipeline of transformers 4.57: the same weights, questions and contexts.

    python benchmarks/pipelines.py --data SQUAD_JSON --overlay FOLDER [--questions 500] [--model model_repo/qa/6]

OVERLAY is a folder that holds transformers 4.57, which has the pipeline; 5 dropped it:

    make .venv-transformers4/.done

Each question is asked twice.  *Short*: about its own paragraph, which fits one window of both.  *Long*: about that
paragraph among others of its article, in their order, at least ``LONG`` tokens and so several windows of both.  Both
sides compute in float32.  *Same rule*: ours with the pipeline's windows (384 tokens, 128 of them shared) and its
longest answer (15 tokens), and the pipeline without the step that extends an answer to whole words.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from models import newest

from service.conversion.export import export_version
from service.conversion.precision import staged_engine
from service.repository.store import read_manifest
from service.runtime.processor import current
from service.serving.engine import Engine
from service.tasks.question_answering import QuestionAnswering
from service.training.datasets import Question, read_questions
from service.training.predictors import reader, run_each
from service.training.scores import calibration_error, exact_match, reliability, token_f1

PIPELINE = Path(__file__).parents[1] / "tests" / "conversion" / "pipeline_4.py"
LONG = 900  # tokens of a long context, at least where its article is long enough
SHIPPED_MAX, PIPELINE_MAX = 30, 15  # tokens of the longest answer, unless told otherwise


@dataclasses.dataclass(frozen=True)
class Given:
    """An answer, as either side gives it; offsets are code points of the context."""

    text: str
    start: int
    end: int
    score: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file in SQuAD's form, such as dev-v1.1.json")
    parser.add_argument("--overlay", type=Path, required=True, help="a folder that holds transformers 4.57")
    parser.add_argument("--model", type=Path, default=newest("qa"), help="a version of a reader")
    parser.add_argument("--questions", type=int, default=500)
    args = parser.parse_args()
    engine = staged_engine(args.model, read_manifest(args.model), exact=True)
    sets = contexts(read_questions(args.data), reader(engine), args.questions)
    report = [row for kind, asked in sets.items() for row in measure(kind, asked, engine, args.model, args.overlay)]
    print(machine(engine, args.data))
    print("\n| contexts | who | F1 | exact match | mean score | calibration error | same span as the pipeline |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(report))


def contexts(questions: list[Question], task: QuestionAnswering, count: int) -> dict[str, list[Question]]:
    """The same ``count`` questions with a short and with a long context."""
    draw = random.Random(0)
    size = {text: len(task.tokenizer.encode(text)) for text in {one.context for one in questions}}
    fits = [one for one in questions if len(task.encode(one.question, [one.context]).windows) == 1]
    articles = {
        title: list(dict.fromkeys(one.context for one in group))
        for title, group in itertools.groupby(questions, key=lambda one: one.title)
    }
    long_enough = [one for one in fits if sum(size[text] for text in articles[one.title]) >= LONG]
    short = draw.sample(long_enough, min(count, len(long_enough)))
    return {"short": short, "long": [joined(one, articles[one.title], size, draw) for one in short]}


def joined(question: Question, paragraphs: list[str], size: dict[str, int], draw: random.Random) -> Question:
    """``question`` about a run of ``paragraphs`` that holds its own, grown at either end by chance."""
    first = last = paragraphs.index(question.context)
    while sum(size[text] for text in paragraphs[first : last + 1]) < LONG:
        if first > 0 and (last + 1 == len(paragraphs) or draw.random() < 0.5):
            first -= 1
        else:
            last += 1
    return dataclasses.replace(question, context="\n".join(paragraphs[first : last + 1]))


def measure(kind: str, asked: list[Question], engine: Engine, model: Path, overlay: Path) -> list[str]:
    """Rows of the table."""
    shipped = reader(engine)
    same = dataclasses.replace(shipped, window=384, overlap=128)
    theirs, theirs_same = pipeline(asked, model, overlay, [{}, {"align_to_words": False}])
    (ours,) = answers(asked, engine, shipped, [SHIPPED_MAX])
    ours_wide, ours_same = answers(asked, engine, same, [SHIPPED_MAX, PIPELINE_MAX])
    print(told(kind, asked, theirs, same, shipped), file=sys.stderr)
    return [
        row(kind, "pipeline", asked, theirs),
        row(kind, "ours, as shipped", asked, ours, theirs),
        row(kind, "ours, the pipeline's windows", asked, ours_wide, theirs),
        row(kind, "pipeline, same rule", asked, theirs_same),
        row(kind, "ours, same rule", asked, ours_same, theirs_same),
    ]


def told(kind: str, asked: list[Question], theirs: list[Given], *tasks: QuestionAnswering) -> str:
    windows = [mean([len(task.encode(one.question, [one.context]).windows) for one in asked]) for task in tasks]
    above = sum(one.score > 1 for one in theirs)
    return (
        f"{kind}: {len(asked)} questions; windows a question: pipeline {windows[0]:.1f}, ours {windows[1]:.1f}; "
        f"scores of the pipeline above one: {above}"
    )


def pipeline(
    asked: list[Question], model: Path, overlay: Path, variants: Sequence[dict[str, Any]]
) -> list[list[Given]]:
    """The pipeline's answers to all questions, for each of the ``variants`` of its arguments."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, lines = Path(folder) / "checkpoint", Path(folder) / "questions.jsonl"
        export_version(model, checkpoint)
        texts = [{"question": one.question, "context": one.context} for one in asked]
        lines.write_text("".join(json.dumps(text | extra) + "\n" for extra in variants for text in texts))
        environment = os.environ | {"PYTHONPATH": str(overlay), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(PIPELINE), str(checkpoint), str(lines)]
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = [given(json.loads(line)) for line in printed.splitlines()]
    return [found[start : start + len(asked)] for start in range(0, len(found), len(asked))]


def given(printed: Any) -> Given:
    best = printed[0]
    return Given(best["answer"], best["start"], best["end"], best["score"])


def answers(
    asked: list[Question], engine: Engine, task: QuestionAnswering, longest: Sequence[int]
) -> list[list[Given]]:
    """Our answers to all questions, for each length of the longest answer."""
    done = run_each(engine, [task.encode(one.question, [one.context]) for one in asked])
    decoded = [[task.decode(*one, max_answer_tokens=most).answers[0] for one in done] for most in longest]
    return [[Given(best.text, best.start, best.end, best.score) for best in found] for found in decoded]


def row(kind: str, who: str, asked: list[Question], found: list[Given], other: list[Given] | None = None) -> str:
    golds = [[text for text, _ in one.answers] for one in asked]
    f1 = [token_f1(one.text, gold) for one, gold in zip(found, golds, strict=True)]
    exact = [exact_match(one.text, gold) for one, gold in zip(found, golds, strict=True)]
    scores = [one.score for one in found]
    error = calibration_error(reliability([min(1.0, score) for score in scores], [right == 1 for right in exact]))
    share = "" if other is None else f"{mean([same_span(*both) for both in zip(found, other, strict=True)]):.1%}"
    cells = [kind, who, f"{100 * mean(f1):.1f}", f"{100 * mean(exact):.1f}", f"{mean(scores):.3f}", f"{error:.3f}"]
    return f"| {' | '.join([*cells, share])} |"


def same_span(one: Given, other: Given) -> bool:
    return (one.start, one.end) == (other.start, other.end)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def machine(engine: Engine, data: Path) -> str:
    features = [name for name, there in (("VNNI", current().vnni), ("bfloat16", current().bfloat16)) if there]
    return (
        f"{engine.ref} in {engine.precision} on {data.name}; {platform.machine()}, {os.cpu_count()} cores, "
        f"{' and '.join(features) or 'neither VNNI nor bfloat16'}; onnxruntime {ort.__version__}, "
        f"torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
