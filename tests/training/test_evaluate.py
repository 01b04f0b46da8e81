"""Figures of a version and of a running service, and what is fitted into a new version."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.errors import DataError, QualityError
from service.repository.store import read_manifest
from service.runtime.providers import choose
from service.serving.loading import LoadOptions, load
from service.tasks.exits import ExitPolicy
from service.training.datasets import Labelled, Question
from service.training.evaluate import Request, evaluate, table
from service.training.exits import Point, choose as choose_point
from service.training.predictors import Local, Reply, Scored
from tests.training.test_run import write_questions, write_rows

TWO = [{"text": "the river", "answer_start": 16}]


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A repository of its own, to publish in."""
    return Path(shutil.copytree(repository, tmp_path / "repo"))


class Oracle:
    """Answers what it was told to."""

    def __init__(self, task: str, *given: Any) -> None:
        self.task = task
        self.given = given

    def classify(self, rows: list[Labelled]) -> list[Scored]:
        other = {"a": "b", "b": "a"}
        return [Scored([(label, score), (other[label], 1 - score)], tokens) for label, score, tokens in self.given]

    def answer(self, questions: list[Question], *, no_answer: bool) -> list[Reply]:
        return [Reply(*given) for given in self.given]


def rows(path: Path) -> str:
    path.write_text("label\ttext\na\tgood\na\tnot good\nb\tbad\nb\tnever bad\n")
    return str(path)


def test_a_classifiers_figures(tmp_path: Path) -> None:
    oracle = Oracle("text-classification", ("a", 0.9, 10), ("b", 0.6, 20), ("b", 0.8, 200), ("b", 0.7, 600))
    report = evaluate(oracle, Request(rows(tmp_path / "rows.tsv"), pictures=tmp_path))  # type: ignore[arg-type]

    assert report["accuracy"] == 0.75
    assert report["f1"] == {"a": 0.6667, "b": 0.8}
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-3)
    assert report["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4, abs=1e-4)
    assert report["accuracy_by_tokens"] == {
        "up to 16": {"examples": 1, "score": 1.0}, "up to 32": {"examples": 1, "score": 0.0},
        "up to 256": {"examples": 1, "score": 1.0}, "longer": {"examples": 1, "score": 1.0},
    }  # fmt: skip
    assert report["accuracy_by_negation"]["with"] == {"examples": 2, "score": 0.5}
    assert {path.name for path in tmp_path.glob("*.png")} == {"rows.tsv-confusion.png", "rows.tsv-reliability.png"}
    assert "accuracy" in table(report)


def test_a_readers_figures_with_questions_that_have_no_answer(tmp_path: Path) -> None:
    context = "Nobody knew why the river had changed its course overnight."
    qas: list[dict[str, Any]] = [
        {"id": str(i), "question": "what", "answers": answers} for i, answers in enumerate([TWO, TWO, [], []])
    ]
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}))
    given = ("the river", 20, 0.8, 0.1), ("", 20, 0.0, 0.7), ("", 20, 0.0, 0.9), ("Nobody", 90, 0.6, 0.2)
    oracle = Oracle("question-answering", *given)
    report = evaluate(oracle, Request(str(path)))  # type: ignore[arg-type]

    assert (report["exact_match"], report["f1"], report["said_no_answer"]) == (50.0, 50.0, 0.5)
    assert report["calibration_error"] == pytest.approx((0.2 + 0.6) / 2)  # 0.8 is right, 0.6 is not
    assert report["no_answer_by_answer"]["has an answer"] == {"examples": 2, "score": 0.5}
    assert report["f1_by_answer"]["has none"] == {"examples": 2, "score": 50.0}
    assert report["f1_by_tokens"]["up to 128"] == {"examples": 1, "score": 0.0}


@pytest.mark.parametrize("task", ["text-classification", "question-answering"])
def test_the_wrong_kind_of_file_is_an_error(tmp_path: Path, task: str) -> None:
    wrong = write_questions(tmp_path / "q.json") if task == "text-classification" else write_rows(tmp_path / "r.tsv", 1)
    with pytest.raises(DataError, match="is measured on"):
        evaluate(Oracle(task), Request(str(wrong)))  # type: ignore[arg-type]


def test_a_version_is_evaluated_calibrated_and_published_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = str(write_rows(tmp_path / "rows.tsv", 3))
    version = str(root / "sentiment" / "1")

    assert main(["evaluate", version, examples, "--json", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["texts"] == 12
    assert json.loads((tmp_path / "out" / "rows.tsv.json").read_text()) == report
    assert main(["evaluate", version, examples, "--calibrate", "--device", "cpu"]) == 0
    fitted = read_manifest(root / "sentiment" / "2")
    assert fitted.temperature != 1.0
    assert fitted.calibration["data"] == ["rows.tsv"]
    assert fitted.calibration["calibration_error_after"] <= fitted.calibration["calibration_error_before"] + 0.02
    engine = load(root / "sentiment" / "2", LoadOptions(choose("cpu"), budget=256))
    assert getattr(engine.task, "temperature") == fitted.temperature  # noqa: B009
    assert read_manifest(root / "sentiment" / "1").temperature == 1.0


def test_a_reader_gets_its_confidence(root: Path, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "q.json")
    data = json.loads(path.read_text())
    for article in data["data"][::2]:
        article["paragraphs"][0]["qas"][0]["answers"] = []
    path.write_text(json.dumps(data))

    assert main(["evaluate", str(root / "qa" / "1"), str(path), "--calibrate", "--device", "cpu"]) == 0
    fitted = read_manifest(root / "qa" / "2")
    assert set(fitted.calibration["said_no_answer"]) == {"has an answer", "has none"}
    assert fitted.calibration["calibration_error_after"] <= fitted.calibration["calibration_error_before"] + 0.02
    found = evaluate(Local(load(root / "qa" / "2", LoadOptions(choose("cpu"), budget=256))), Request(str(path)))
    assert found["f1"] == pytest.approx(fitted.calibration["f1"], abs=0.1)


def test_exits_are_chosen_within_the_gate() -> None:
    points = [
        Point(ExitPolicy("confidence", 0.5), 80.0, 1.5),
        Point(ExitPolicy("confidence", 0.9), 89.6, 2.5),
        Point(ExitPolicy("window", 0.9, 2, 2), 89.9, 2.7),
    ]

    assert choose_point(points, 90.0, 0.5, 6).mean_depth == 2.5
    assert choose_point(points, 90.0, 0.2, 6).mean_depth == 2.7
    with pytest.raises(QualityError, match="--exits"):
        choose_point(points, 95.0, 0.5, 6)


def test_an_exit_is_fitted_and_written_into_a_new_version(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = str(write_rows(tmp_path / "rows.tsv", 3))
    command = ["evaluate", str(root / "sentiment" / "1"), examples, "--exits", "--device", "cpu"]

    # A model that was never taught to answer early may lose anything; the gate is as wide as it needs.
    assert main([*command, "--gate", "100", "--out", str(tmp_path / "out")]) == 0
    exits = read_manifest(root / "sentiment" / "2").exits
    assert exits is not None
    assert 1 <= exits.mean_depth < 3
    assert (tmp_path / "out" / "exits.png").exists()
    capsys.readouterr()
    assert main([*command, "--gate", "-100"]) == 1
    assert "Train with --exits" in capsys.readouterr().err
