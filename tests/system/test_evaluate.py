"""A running service is measured as a folder is, and gives the same figures."""

import json
from pathlib import Path

import pytest

from service.cli import main
from tests.system.conftest import Server, Start, free_port
from tests.training.test_run import write_questions, write_rows


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository)


@pytest.mark.parametrize("model", ["sentiment", "qa"])
def test_a_service_and_its_folder_give_the_same_figures(
    server: Server, repository: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_rows(tmp_path / "rows.tsv", 20) if model == "sentiment" else write_questions(tmp_path / "q.json")

    assert main(["evaluate", model, str(file), "--url", server.url, "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(repository / model / "1"), str(file), "--device", "cpu", "--json"]) == 0
    assert asked == json.loads(capsys.readouterr().out)


def test_what_is_wrong_with_an_address_or_a_name_is_said(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write_rows(tmp_path / "rows.tsv", 1))

    assert main(["evaluate", "sentiment", file, "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "no albert-serve answers there" in capsys.readouterr().err
    assert main(["evaluate", "nothing", file, "--url", server.url]) == 1
    assert "no model 'nothing'" in capsys.readouterr().err
