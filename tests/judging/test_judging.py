"""Models compared, changed texts, one word changed: against models whose behaviour is known."""

import json
import random
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from service.cli import main
from service.errors import DataError
from service.judging.bias import bias, templates
from service.judging.compare import Compared, compare, table
from service.judging.perturbations import CHANGES, LENGTHS
from service.judging.robustness import robustness
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.training.predictors import Scored
from service.training.scores import interval


@pytest.fixture(scope="module")
def classifier(repository: Path) -> Engine:
    return load(repository / "sentiment" / "1", LoadOptions(choose("cpu"), budget=256))


@pytest.fixture(scope="module")
def reader(repository: Path) -> Engine:
    return load(repository / "qa" / "1", LoadOptions(choose("cpu"), budget=256))


def rows(path: Path, texts: Seq[tuple[str, str]]) -> str:
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in texts), encoding="utf-8")
    return str(path)


def test_models_are_compared_on_one_file(repository: Path, tmp_path: Path) -> None:
    source = rows(tmp_path / "data.tsv", [("positive", "it was good"), ("negative", "it was not good")] * 10)
    folder = repository / "sentiment" / "1"
    first, second = compare([folder, folder], source, "cpu")
    for one in (first, second):
        assert one.model == "sentiment/1"
        assert one.rows_per_second > 0
        assert one.milliseconds > 0
        assert 0 < one.depth <= 1
        assert one.interval[0] <= one.score <= one.interval[1]
        assert one.size == sum(path.stat().st_size for path in folder.iterdir())
    assert first.score == second.score
    assert "| sentiment/1, float32 |" in table([first, second])


def test_models_of_two_tasks_are_not_compared(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do different things"):
        list(compare([repository / "sentiment" / "1", repository / "qa" / "1"], str(tmp_path / "x.tsv"), "cpu"))


def test_the_best_of_each_column_is_bold() -> None:
    facts: dict[str, Any] = {"precision": "int8", "layers": 6, "memory": 1, "depth": 0.5, "interval": (80.0, 90.0)}
    small = Compared("a/1", size=10, rows_per_second=5.0, milliseconds=9.0, score=80.0, calibration_error=0.1, **facts)
    large = Compared("b/1", size=20, rows_per_second=4.0, milliseconds=8.0, score=85.0, calibration_error=0.2, **facts)
    lines = table([small, large]).splitlines()
    assert "**0.0**" in lines[2]
    assert "**5.0**" in lines[2]
    assert "**85.00**" in lines[3]
    assert "3.0 of 6" in lines[3]


class Shouting:
    """Says "positive" of what holds a capital letter."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.task = "text-classification"

    def classify(self, rows: Seq[Any]) -> list[Scored]:
        return [
            Scored([("positive", 0.9), ("negative", 0.1)], 1)
            if any(letter.isupper() for letter in row.text)
            else Scored([("negative", 0.8), ("positive", 0.2)], 1)
            for row in rows
        ]


def test_a_change_that_matters_is_found_with_its_worst_examples(
    classifier: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.judging.robustness.Local", Shouting)
    source = rows(
        tmp_path / "data.tsv", [("negative", f"it was number {n} .") for n in range(10)] + [("positive", "YES")]
    )
    effects = {one.change: one for one in robustness(classifier, source)}

    upper = effects["upper case"]
    assert (upper.before, upper.after) == (100, 0)
    assert upper.examples == 10
    assert len(upper.worst) == 3
    assert upper.worst[0].changed.isupper()
    assert (upper.worst[0].before, upper.worst[0].after, upper.worst[0].right) == ("negative", "positive", "negative")
    assert effects["lower case"].examples == 1
    assert effects["no punctuation"].after == effects["no punctuation"].before == 100
    assert "negation in other words" not in effects  # no text has one


def test_a_readers_questions_and_the_place_of_the_answer_are_changed(reader: Engine, tmp_path: Path) -> None:
    names = ["Clara", "Peter", "Anna", "Oskar", "Maria"]
    data = [
        {
            "title": name,
            "paragraphs": [
                {
                    "context": f"{name} repaired the clock.",
                    "qas": [
                        {"id": name, "question": "Who wasn't late?", "answers": [{"text": name, "answer_start": 0}]}
                    ],
                }
            ],
        }
        for name in names
    ]
    (tmp_path / "questions.json").write_text(json.dumps({"data": data}))
    effects = {one.change: one for one in robustness(reader, str(tmp_path / "questions.json"))}
    assert {"upper case", "negation in other words"} <= effects.keys()
    assert sum("3 other paragraphs" in name for name in effects) == 3
    assert all(0 <= one.after <= 100 and one.examples == 5 for one in effects.values() if "paragraphs" in one.change)


def test_one_word_changes_what_a_classifier_says_by_so_much(classifier: Engine) -> None:
    found = list(bias(classifier))
    assert [one.axis for one in found] == [axis["name"] for axis in templates()["axes"]]
    task: Any = classifier.task
    for one in found:
        scores = []
        for text in one.example:
            encoded = task.encode(text)
            scores.append(dict(task.decode(encoded, classifier.run(encoded.sequences)).labels)[one.label])
        assert scores[0] - scores[1] == pytest.approx(one.largest, abs=1e-4)
        assert abs(one.mean) <= abs(one.largest) <= 1


def test_a_reader_that_looks_at_the_order_only_prefers_nobody(reader: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(reader.task), "span_score", lambda self, encoded, logits, start, end: 0.9 if start < 5 else 0.1
    )
    assert all(one.mean == pytest.approx(0) for one in bias(reader))


def test_templates_differ_in_one_place_and_groups_are_of_one_size() -> None:
    assert all(text.count("{word}") == 1 for text in templates()["texts"])
    for question in templates()["questions"]:
        assert question["text"].count("{first}") == question["text"].count("{second}") == 1
    for axis in templates()["axes"]:
        (ones, others) = axis["groups"].values()
        assert len(ones) == len(others) == len(set(ones) | set(others)) / 2


@given(st.text(min_size=1), st.sampled_from([*CHANGES, *LENGTHS]), st.integers(0, 99))
def test_a_change_leaves_a_text_of_a_text(text: str, name: str, seed: int) -> None:
    changed = (CHANGES | LENGTHS)[name](text, random.Random(seed))
    assert isinstance(changed, str)
    assert bool(changed.strip()) >= bool(text.strip())


@pytest.mark.parametrize(
    ("text", "changed"),
    [("it is n't good", "it is not good"), ("It wasn't bad", "It was not bad"), ("it was not bad", "it wasn't bad")],
)
def test_negation_in_other_words(text: str, changed: str) -> None:
    assert CHANGES["negation in other words"](text, random.Random(0)) == changed


def test_an_interval_holds_the_mean_and_narrows_with_more() -> None:
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 1000)
    assert few[0] < 0.5 < few[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert interval([1.0] * 5) == (1.0, 1.0)


@pytest.mark.parametrize("command", ["compare", "robustness", "bias"])
def test_the_commands_print_a_table_and_keep_json_and_a_picture(
    command: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = rows(tmp_path / "data.tsv", [("positive", "it was good"), ("negative", "it was not good .")] * 5)
    more = {"compare": ["--data", source], "robustness": [source], "bias": []}[command]
    asked = [
        command,
        "sentiment",
        *more,
        "--model-repo",
        str(repository),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(asked) == 0
    assert capsys.readouterr().out.startswith("| ")
    written = sorted(path.suffix for path in (tmp_path / "out").iterdir())
    assert written == [".json", ".png"]
    assert main([*asked[:-2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main([command, "none", *more, "--model-repo", str(repository)]) == 1


def test_where_no_report_can_lie_nothing_is_measured(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = rows(tmp_path / "data.tsv", [("positive", "it was good"), ("negative", "it was not good")])
    where = ["--out", source, "--model-repo", str(repository)]
    for command in (["compare", "nosuch", "--data", source], ["robustness", "nosuch", source], ["bias", "nosuch"]):
        assert main([*command, *where]) == 2
        assert "no folder can be made there" in capsys.readouterr().err


def test_a_model_that_fills_no_masks_is_told_before_anything_is_measured(classifier: Engine, tmp_path: Path) -> None:
    source = rows(tmp_path / "data.tsv", [("positive", "it was good"), ("negative", "it was not good")])
    with pytest.raises(DataError, match="synonyms take a model that fills masks"):
        next(robustness(classifier, source, classifier))


def test_labels_that_a_model_has_not_are_told_before_anything_is_measured(repository: Path, tmp_path: Path) -> None:
    source = rows(tmp_path / "data.tsv", [("positive", "it was good"), ("other", "it was not good")])
    with pytest.raises(DataError, match="label 'other' is none of sentiment/1's"):
        next(compare([repository / "sentiment" / "1"], source, "cpu"))
