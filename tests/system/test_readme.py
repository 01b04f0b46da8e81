"""The commands of the README and of the docs, run against a real server with the shipped models, give what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
from albert_client import Client

from tests.conftest import ROOT
from tests.system.conftest import Server, Start
from tests.system.documented import CHINESE, PAGES, commands, programs, run

EXAMPLES = [(page.stem, command, output) for page in PAGES for command, output in commands(page)]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo", "--precision", "int8")  # as the pages were made


def same(said: Any, found: Any) -> bool:
    """Equal, but for scores in their second digit: eight bits round, and another processor may run floats."""
    if isinstance(said, float) and isinstance(found, float):
        return found == pytest.approx(said, abs=3e-2)
    if isinstance(said, dict) and isinstance(found, dict):
        # Without VNNI float32 may run in place of eight bits, and then says so.
        kept = said.keys() - {"request_id", "precision"}
        return said.keys() == found.keys() and all(same(said[key], found[key]) for key in kept)
    if isinstance(said, list) and isinstance(found, list):
        return len(said) == len(found) and all(same(a, b) for a, b in zip(said, found, strict=True))
    return bool(said == found)


@pytest.mark.parametrize(("page", "command", "output"), EXAMPLES, ids=[f"{page}: {c[5:45]}" for page, c, _ in EXAMPLES])
def test_a_command_gives_what_the_page_says(server: Server, page: str, command: str, output: str) -> None:
    found = run(command, server)

    assert same(json.loads(output), found), json.dumps(found)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "client" / "README.md"], ids=lambda page: page.parent.name + page.stem)
def test_a_program_of_the_docs_runs(
    server: Server, page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # its client asks this machine only
    assert bool(programs(page)) == (page.stem != "explain")
    for program in programs(page):
        exec(program.replace("localhost:8000", server.url.removeprefix("http://")), {"Client": Client})
        assert capsys.readouterr().out.strip()


def test_every_route_that_answers_json_is_shown() -> None:
    shown = " ".join(command for page, command, _ in EXAMPLES if page == "README")

    for route in ("/classify", "/qa", "/explain", "/models", "/health/ready"):
        assert f"localhost:8000{route}" in shown


def test_the_pages_of_the_tasks_show_what_they_speak_of() -> None:
    for name in ("classify", "ask", "explain"):
        assert len([page for page, *_ in EXAMPLES if page == name]) >= 3


def test_the_chinese_readme_says_the_same() -> None:
    assert commands(CHINESE) == commands(ROOT / "README.md")
