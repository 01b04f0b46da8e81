"""The README's commands, run against a real server with the shipped models, give what it says they give."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.system.conftest import Server, Start

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(curl .+?)\n```\n```json\n(.+?)\n```", README, re.DOTALL)


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo")


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


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command[5:45] for command, _ in EXAMPLES])
def test_a_command_gives_what_the_readme_says(server: Server, command: str, output: str) -> None:
    address = server.url.removeprefix("http://")
    done = subprocess.run(
        command.replace("localhost:8000", address).replace("curl", "curl -sS", 1),
        shell=True, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert same(json.loads(output), json.loads(done.stdout)), done.stdout


def test_every_route_that_answers_json_is_shown() -> None:
    shown = " ".join(command for command, _ in EXAMPLES)

    assert len(EXAMPLES) >= 6
    for route in ("/classify", "/qa", "/models", "/health/ready"):
        assert f"localhost:8000{route}" in shown
