"""Scores of the other heads: by hand where the answer is known, and each on its own kind of file."""

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.cli import main
from service.conversion.pipeline import Options, convert
from service.errors import DataError
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.training import evaluate_heads
from service.training.evaluate import Request, evaluate
from service.training.evaluate_heads import evaluate_head, spearman
from service.training.predictors import Local
from tests.checkpoints import save_checkpoint
from tests.conversion.test_heads import CLASSES

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    root = tmp_path_factory.mktemp("heads")
    config: dict[str, Any] = {
        "id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)},
    }  # fmt: skip
    found = {}
    for task, kind in CLASSES.items():
        source = save_checkpoint(root / task, kind, **(config if task == "token-classification" else {}))
        version = convert(str(source), root / "repository", Options(task))
        found[task] = load(version, LoadOptions(choose("cpu"), budget=256))
    return found


def jsonl(path: Path, rows: Seq[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_words_are_masked_and_ranked(engines: dict[str, Engine], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("it was not good and the plot was not good\n\nshort\n" + "it was good . " * 200 + "\n")
    found = evaluate_head(engines["fill-mask"], path)
    assert found["words"] >= 1
    assert 0 <= found["top_1"] <= found["top_5"] <= found["top_10"] <= found["top_100"] <= 1
    (tmp_path / "none.txt").write_text("two words\n")
    with pytest.raises(DataError, match="no paragraph"):
        evaluate_head(engines["fill-mask"], tmp_path / "none.txt")


def test_spans_that_the_model_itself_gave_are_all_right(engines: dict[str, Engine], tmp_path: Path) -> None:
    engine = engines["token-classification"]
    texts = ["Clara repaired the clock in Berlin.", "it was not good"]
    rows = []
    for text in texts:
        encoded = engine.task.encode(text)
        spans = engine.task.decode(encoded, engine.run(encoded.sequences))
        rows.append({"text": text, "spans": [{"start": s.start, "end": s.end, "label": s.label} for s in spans]})
    found = evaluate_head(engine, jsonl(tmp_path / "own.jsonl", rows))
    assert (found["precision"], found["recall"], found["f1"]) == (1, 1, 1)
    rows[0]["spans"] = []
    worse = evaluate_head(engine, jsonl(tmp_path / "less.jsonl", rows))
    assert worse["precision"] < 1
    assert worse["recall"] == 1


def test_conlls_form_is_read(engines: dict[str, Engine], tmp_path: Path) -> None:
    path = tmp_path / "test.conll"
    first = "-DOCSTART- -X- O O\n\nClara NNP B-NP B-PER\nSmith NNP I-NP I-PER\nslept VBD O O\n"
    path.write_text(f"{first}\nin IN O O\nOslo NNP O I-LOC\n")
    found = evaluate_head(engines["token-classification"], path)
    assert (found["texts"], found["spans"]) == (2, 2)


def test_words_are_those_of_the_file(
    engines: dict[str, Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a tagger was taught: the label of the first token of each of them, and of no other token."""
    words = ["St.", "Ann's", "a+b", "slept", "."]
    seen = {}

    def decode(task: Any, encoded: Any, logits: Any, given: Any = None) -> list[Any]:
        seen["words"] = [encoded.text[start:end] for start, end in given]
        return []

    monkeypatch.setattr(type(engines["token-classification"].task), "decode", decode)
    path = tmp_path / "test.conll"
    path.write_text("".join(f"{word} B-PER\n" for word in words))
    evaluate_head(engines["token-classification"], path)
    assert seen["words"] == words


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.conll", "Clara O\nSmith B-ORG\n", "line 2: label 'B-ORG'"),
        ("a.conll", "Clara\nSmith\n", "line 1: label ''"),
        ("a.jsonl", '{"text": "Ann", "spans": [{"start": 0, "end": 3, "label": "ORG"}]}\n', "line 1: no span .* 'ORG'"),
        ("a.jsonl", '\n{"text": 5, "spans": []}\n', "line 2: '5' is no text"),
    ],
)
def test_labels_that_the_model_has_not_are_refused(
    engines: dict[str, Engine], tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=told):
        evaluate_head(engines["token-classification"], path)


def test_a_byte_order_mark_is_no_part_of_the_first_word(engines: dict[str, Engine], tmp_path: Path) -> None:
    path = tmp_path / "test.conll"
    path.write_text("Clara B-PER\n", encoding="utf-8-sig")
    (example,) = evaluate_heads._conll(path, engines["token-classification"].task)  # type: ignore[arg-type]
    assert example.text == "Clara"


@pytest.mark.parametrize("row", [{"choices": "ab", "label": 0}, {"choices": ["a", "b"], "label": 0.9}])
def test_choices_are_a_list_and_the_right_one_is_a_whole_number(
    engines: dict[str, Engine], tmp_path: Path, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="a row has not"):
        evaluate_head(engines["multiple-choice"], jsonl(tmp_path / "rows.jsonl", [{"prompt": "Where?"} | row]))


def test_a_row_that_cannot_be_served_is_told_with_its_file(engines: dict[str, Engine], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "", "choices": ["a", "b"], "label": 0}])
    with pytest.raises(DataError, match=r"rows\.jsonl: a row of it cannot be served"):
        evaluate_head(engines["multiple-choice"], path)


def test_what_is_no_number_has_no_rank(engines: dict[str, Engine], tmp_path: Path) -> None:
    rows = [{"text": "a", "text_pair": "b", "label": label} for label in ("nan", 1, 2)]
    with pytest.raises(DataError, match="no finite number"):
        evaluate_head(engines["feature-extraction"], jsonl(tmp_path / "pairs.jsonl", rows))


def test_vectors_of_equal_texts_are_most_alike(engines: dict[str, Engine], tmp_path: Path) -> None:
    rows = [{"text": "it was good", "text_pair": "it was good", "label": 5}]
    rows += [{"text": "it was good", "text_pair": "Clara repaired the clock", "label": 0}] * 2
    found = evaluate_head(engines["feature-extraction"], jsonl(tmp_path / "pairs.jsonl", rows))
    assert found == {"pairs": 3, "spearman": 1.0}


def test_choices_are_counted_against_chance(engines: dict[str, Engine], tmp_path: Path) -> None:
    engine, choices = engines["multiple-choice"], ["in Berlin", "it was not good"]
    encoded = engine.task.encode("Where?", choices)
    best = int(np.argmax(engine.task.decode(encoded, engine.run(encoded.sequences))))
    rows = [
        {"prompt": "Where?", "choices": choices, "label": best},
        {"prompt": "Where?", "choices": choices, "label": 1 - best},
    ]
    found = evaluate_head(engine, jsonl(tmp_path / "choices.jsonl", rows))
    assert found == {"prompts": 2, "accuracy": 0.5, "by_chance": 0.5}


@pytest.mark.parametrize("task", CLASSES)
def test_a_file_of_another_kind_is_refused(engines: dict[str, Engine], task: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is measured on"):
        evaluate_head(engines[task], jsonl(tmp_path / "squad.json", [{}]))
    if ".jsonl" in evaluate_heads.EVALUATORS[task][0]:
        with pytest.raises(DataError, match="a row has not"):
            evaluate_head(engines[task], jsonl(tmp_path / "rows.jsonl", [{"other": 1}]))
        with pytest.raises(DataError, match="no rows"):
            evaluate_head(engines[task], jsonl(tmp_path / "empty.jsonl", []))


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("feature-extraction", {"text": "a", "text_pair": "b", "label": "high"}),
        ("multiple-choice", {"prompt": "a", "choices": [], "label": 0}),
        ("multiple-choice", {"prompt": "a", "choices": ["b", "c"], "label": 2}),
        ("multiple-choice", {"prompt": "a", "choices": ["b", "c"], "label": "b"}),
        ("token-classification", {"text": "a", "spans": [{"start": 0}]}),
    ],
)
def test_a_row_that_is_wrong_is_an_error_of_the_data(
    engines: dict[str, Engine], task: str, row: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError):
        evaluate_head(engines[task], jsonl(tmp_path / "rows.jsonl", [row]))


def test_a_part_of_a_file_is_not_taken_for_the_whole(engines: dict[str, Engine], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", [{"text": "a", "text_pair": "b", "label": 1}])
    with pytest.raises(DataError, match="whole files"):
        evaluate(Local(engines["feature-extraction"]), Request(f"{path}:1/2"))


def test_the_command_takes_them(engines: dict[str, Engine], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertModel")
    rows = [{"text": "a", "text_pair": "a", "label": 5}, {"text": "a", "text_pair": "the clock", "label": 0}]
    path = jsonl(tmp_path / "pairs.jsonl", rows)
    root = str(tmp_path / "repository")
    assert main(["convert", str(source), "--name", "m", "--model-repo", root, "--evaluate", str(path)]) == 0
    assert main(["evaluate", f"{root}/m/1", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["spearman"] == 1.0


@given(st.lists(st.integers(0, 20), min_size=3, max_size=30))
def test_rank_correlation_is_one_with_itself_and_never_beyond(values: list[int]) -> None:
    if len(set(values)) == 1:
        with pytest.raises(DataError):
            spearman(values, values)
        return
    assert spearman(values, values) == pytest.approx(1)
    assert spearman(values, [-one for one in values]) == pytest.approx(-1)
    assert spearman(values, [one**3 for one in values]) == pytest.approx(1)
