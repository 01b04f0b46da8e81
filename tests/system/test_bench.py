"""A real service under a real load, by the command that users have."""

import json
from pathlib import Path

import pytest

from service.cli import main
from tests.system.conftest import Server, Start
from tests.training.test_run import write_questions, write_rows


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository)


@pytest.mark.parametrize("load", [["--rate", "20", "40"], ["--clients", "1", "3"]])
def test_texts_and_questions_together(
    server: Server, tmp_path: Path, load: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts, questions = write_rows(tmp_path / "rows.tsv", 20), write_questions(tmp_path / "q.json")
    sources = ["--classify", f"{texts}@3", "--qa", f"{questions}@1"]
    length = ["--seconds", "1.5", "--warmup", "0.3"]

    assert main(["bench", server.url, *sources, *load, *length, "--out", str(tmp_path / "out")]) == 0
    reports = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [report["amount"] for report in reports] == [float(amount) for amount in load[1:]]
    for report in reports:
        assert set(report["kinds"]) == {"classify rows.tsv", "qa q.json"}
        assert report["errors"] == {}
        assert 0 < report["p50_ms"] <= report["p95_ms"] <= report["p99_ms"]
        assert report["requests"] == sum(kind["requests"] for kind in report["kinds"].values())
        assert report["answers_per_second"] > 0
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| qa q.json |" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_said_before_the_load(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = str(write_rows(tmp_path / "rows.tsv", 2))
    flags = ["--clients", "1", "--seconds", "0.3", "--warmup", "0", "--classify-model", "nothing"]

    assert main(["bench", server.url, "--classify", texts, *flags]) == 1
    assert "there is no model 'nothing'; it serves qa, sentiment" in capsys.readouterr().err
