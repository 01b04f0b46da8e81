"""Rows answered in a file: as the service answers, every row once however often the run was killed."""

import csv
import datetime
import decimal
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.batch import rows as files
from service.batch.answering import Columns, answer_rows
from service.batch.job import Job
from service.cli import main
from service.errors import DataError, InferenceFailed
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.training.datasets import dialect
from tests.conftest import ROOT

TEXTS = ["It was not good.", "größe 東京 😀", "the plot was good", "word " * 300, ""]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def classifier(repository: Path) -> Engine:
    return load(repository / "sentiment" / "1", LoadOptions(choose("cpu"), budget=64))


@pytest.fixture(scope="module")
def reader(repository: Path) -> Engine:
    return load(repository / "qa" / "1", LoadOptions(choose("cpu"), budget=64))


def write(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), **dialect(path.name))
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[Row]:
    return [row for chunk in files.read_chunks(path) for row in chunk]


@pytest.mark.anyio
async def test_labels_are_those_of_the_service(classifier: Engine, client: httpx.AsyncClient) -> None:
    asked = {"inputs": TEXTS, "top_k": 1, "long_text": "windows"}
    served = (await client.post("/classify", json=asked)).json()["results"]
    found = answer_rows(classifier, [{"text": text, "id": n} for n, text in enumerate(TEXTS)], Columns(), {})

    assert [row["id"] for row in found] == list(range(len(TEXTS)))
    for row, result in zip(found[:-1], served[:-1], strict=True):
        assert row["label"] == result["labels"][0]["label"]
        assert row["score"] == pytest.approx(result["labels"][0]["score"], abs=1e-4)
    assert found[-1].keys() == {"text", "id", "error"}


def test_pairs_other_columns_and_what_is_no_text(classifier: Engine) -> None:
    rows: list[Row] = [{"a": "one", "b": "two"}, {"a": "one", "b": None}, {"a": 1}, {"b": "two"}]
    pair, single, number, none = answer_rows(classifier, rows, Columns(text="a", pair="b"), {})

    assert pair["score"] != pytest.approx(single["score"], abs=1e-9)
    assert number["error"] == none["error"] == "column 'a': wanted a text"


def test_answers_have_offsets_of_the_rows_own_text(reader: Engine) -> None:
    context = "Das Café \U0001f600 liegt in Köln."
    rows: list[Row] = [{"question": "Where?", "context": context}, {"question": "", "context": context}]
    found, empty = answer_rows(reader, rows, Columns(), {})
    (silent, _) = answer_rows(reader, rows, Columns(), {"no_answer": True, "no_answer_threshold": 0.0})

    assert context[found["start"] : found["end"]] == found["answer"]
    assert "error" in empty
    assert silent["answer"] is None
    assert 0 <= silent["no_answer_score"] <= 1


def test_one_row_that_fails_leaves_the_others(classifier: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Engine.step

    def failing(self: Engine, group: Any, stop: Any) -> Any:
        if any(len(one) == length for one in group):
            raise InferenceFailed("broken")
        return step(self, group, stop)

    length = len(classifier.task.encode("bad one here now").sequences[0])
    monkeypatch.setattr(Engine, "step", failing)
    found = answer_rows(
        classifier, [{"text": "good"}, {"text": "bad one here now"}, {"text": "fine then"}], Columns(), {}
    )
    assert ["error" in row for row in found] == [False, True, False]


@pytest.mark.parametrize("kind", files.KINDS)
def test_every_kind_of_file_in_and_out(kind: str, tmp_path: Path, repository: Path) -> None:
    rows = [{"id": str(number), "text": f'the plot was {word}, said "he"'} for number, word in enumerate("abc" * 100)]
    source = write(tmp_path / f"in{kind}", rows)
    out = tmp_path / f"out{kind}"
    command = [
        "batch",
        str(source),
        str(out),
        "--model",
        "sentiment",
        "--model-repo",
        str(repository),
        "--device",
        "cpu",
    ]
    assert main(command) == 0

    found = read(out)
    assert [{"id": row["id"], "text": row["text"]} for row in found] == rows
    assert {row["label"] for row in found} <= {"positive", "negative"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])
    assert main(command) == 1  # it is there already


def test_a_run_that_is_killed_goes_on_and_every_row_is_there_once(tmp_path: Path, repository: Path) -> None:
    rows = [{"id": number, "text": f"the plot was good {number} " * 20} for number in range(4000)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "service", "batch", str(source), str(out), "--model", "sentiment"]
    command += ["--model-repo", str(repository), "--device", "cpu"]
    state = tmp_path / "out.jsonl.part.json"
    kills = 0
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, None):
        before = json.loads(state.read_text())["rows"] if state.exists() else 0
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while number is not None and process.poll() is None:
            if state.exists() and json.loads(state.read_text())["rows"] > before:
                process.send_signal(number)
                kills += 1
                break
            time.sleep(0.002)
        _, errors = process.communicate(timeout=120)
        assert b"Traceback" not in errors
        if number is signal.SIGINT:
            assert process.returncode in (130, 0)
    assert kills >= 2
    assert [row["id"] for row in read(out)] == list(range(4000))


@pytest.mark.parametrize("kind", files.KINDS)
def test_texts_come_out_as_they_went_in(kind: str, tmp_path: Path) -> None:
    rows = [{"day": "2026-11-30", "text": 'a "quoted" word'}, {"day": "2026-12-01", "text": '"', "error": "none"}]
    lines, out = write(tmp_path / "made.jsonl", rows), tmp_path / f"out{kind}"
    files.convert(lines, out)

    assert [{name: one for name, one in row.items() if one} for row in read(out)] == rows


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_values_that_json_has_no_type_for_are_text(kind: str, tmp_path: Path, repository: Path) -> None:
    pytest.importorskip("pyarrow")
    day, cost = datetime.datetime(2026, 11, 30, 3), decimal.Decimal("1.50")
    rows: list[Row] = [
        {"text": "good", "day": day, "cost": cost, "raw": b"\xff\x00", "number": math.nan},
        {"text": "bad", "day": None, "cost": None, "raw": None, "number": 2.5},
    ]
    source, out = write(tmp_path / "in.parquet", rows), tmp_path / f"out{kind}"
    assert main(["batch", str(source), str(out), "--model", "sentiment", "--model-repo", str(repository)]) == 0

    first, second = read(out)
    plain = {"day": "2026-11-30T03:00:00", "cost": "1.50", "raw": "_wA=", "number": None}
    assert {name: first[name] for name in plain} == plain
    assert {name: second[name] for name in plain} == {"day": None, "cost": None, "raw": None, "number": 2.5}


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_spans_and_vectors_are_json_in_a_cell(kind: str, tmp_path: Path) -> None:
    spans = [{"label": "PER", "text": 'A "B"', "start": 0}]
    lines = write(tmp_path / "made.jsonl", [{"spans": spans, "embedding": [0.5, None]}])
    files.convert(lines, tmp_path / f"out{kind}")
    (row,) = read(tmp_path / f"out{kind}")
    assert json.loads(row["spans"]) == spans
    assert json.loads(row["embedding"]) == [0.5, None]


def test_a_tsv_has_a_row_a_line(tmp_path: Path) -> None:
    lines = write(tmp_path / "made.jsonl", [{"text": "one\ttwo\r\nthree"}, {"text": "four"}])
    files.convert(lines, tmp_path / "out.tsv")
    assert read(tmp_path / "out.tsv") == [{"text": "one two three"}, {"text": "four"}]


def job(tmp_path: Path, **facts: Any) -> Job:
    return Job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", facts)


def test_what_was_written_and_not_counted_is_written_once(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"id": number} for number in range(1000)])
    seen: list[int] = []

    def answer(rows: list[Row]) -> list[Row]:
        seen.append(rows[0]["id"])
        if len(seen) == 3:
            raise RuntimeError("the power went")
        return rows

    with pytest.raises(RuntimeError):
        job(tmp_path).run(answer)
    with (tmp_path / "out.jsonl.part").open("ab") as file:
        file.write(b'{"id": 512}\n{"id": 5')  # a chunk that was on its way to the disk
    told: list[int] = []
    assert job(tmp_path).run(answer, told.append) == 1000
    assert told == [512, 256, 232]
    assert seen == [0, 256, 512, 512, 768]
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == list(range(1000))


def test_a_part_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"id": number} for number in range(300)])

    def fail_late(rows: list[Row]) -> list[Row]:
        if rows[0]["id"]:
            raise RuntimeError("the power went")
        return rows

    with pytest.raises(RuntimeError):
        job(tmp_path, model="a/1").run(fail_late)
    with pytest.raises(DataError, match="another input, model or option"):
        job(tmp_path, model="a/2").run(list)
    os.utime(tmp_path / "in.jsonl", (1, 1))
    with pytest.raises(DataError, match="another input, model or option"):
        job(tmp_path, model="a/1").run(list)


def test_two_runs_at_once_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"id": 1}])

    def again(rows: list[Row]) -> list[Row]:
        with pytest.raises(DataError, match="another run is writing it"):
            job(tmp_path).run(list)
        return rows

    assert job(tmp_path).run(again) == 1


@pytest.mark.parametrize("content", ['{"id": 1}\n[1]\n', '{"id": 1}\nnonsense\n', b"\xff\xfe\x00"])
def test_a_row_that_is_none_is_named_with_its_line(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"in\.jsonl(, line 2)?: "):
        read(path)


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (("in.txt", "out.jsonl"), 2),
        (("in.jsonl", "out.xml"), 2),
        (("in.jsonl", "in.jsonl"), 2),
        (("none.csv", "out.csv"), 1),
    ],
)
def test_wrong_files_are_one_line(
    tmp_path: Path, names: tuple[str, str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in.jsonl", [{"text": "x"}])
    (tmp_path / "in.txt").write_text("x")
    assert main(["batch", *(str(tmp_path / name) for name in names), "--model", "sentiment"]) == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", files.KINDS)
def test_a_column_of_the_rows_is_never_taken_for_an_answer(
    kind: str, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / f"in{kind}", [{"text": "good", "label": "mine"}, {"text": "", "label": "other"}])
    out = tmp_path / "out.jsonl"
    command = ["batch", str(source), str(out), "--model", "sentiment", "--model-repo", str(repository)]
    assert main(command) == 2
    assert "the rows have a column 'label', and so have the answers" in capsys.readouterr().err
    assert not out.exists()

    assert main([*command, "--prefix", "model_"]) == 0
    first, second = read(out)
    assert [row["label"] for row in (first, second)] == ["mine", "other"]
    assert first["model_label"] in ("positive", "negative")
    assert set(second) == {"text", "label", "model_error"}


def test_rows_without_the_column_that_is_read_are_told_at_once(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "good"}])
    command = ["batch", str(source), str(tmp_path / "out.jsonl"), "--model", "sentiment", "--text", "review"]
    assert main([*command, "--model-repo", str(repository)]) == 2
    assert "no row has a column 'review'; they have ['text']. --text," in capsys.readouterr().err
