"""albert-serve serve CHECKPOINT: one command from a fine-tuned ALBERT to answers."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.commands.converted import model_name
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT, SENTIMENT
from tests.system.conftest import Server, free_port, kill, wait_until_ready


def serve(checkpoint: str, folder: Path, *flags: str) -> Server:
    port, log = free_port(), folder / "log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALBERT_SERVE_")}
    command = [sys.executable, "-m", "service", "serve", checkpoint, "--port", str(port), "--device", "cpu", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            env=environment | {"XDG_CACHE_HOME": str(folder / "cache")},
        )  # fmt: skip
    return Server(process, f"http://127.0.0.1:{port}", log)


def test_a_checkpoint_is_converted_once_and_served(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "my albert", problem_type="single_label_classification", **SENTIMENT)
    for said in ("published my-albert/1", "was converted before"):
        server = serve(str(checkpoint), tmp_path, "--log-format", "text")
        try:
            wait_until_ready(server, 120)
            answer = httpx.post(f"{server.url}/classify", json={"inputs": "It was not good."}).json()
            assert answer["model"] == {"name": "my-albert", "version": 1}
            (line,) = server.wait_for("ready: ")
            assert line.endswith(f"ready: {server.url}  docs: {server.url}/docs")
            assert server.lines(said)
            assert server.stop() == 0
        finally:
            kill(server)


def test_what_cannot_be_converted_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    server = serve(str(tmp_path / "empty"), tmp_path)

    assert server.process.wait(60) == 1
    assert "config.json" in server.log.read_text()
    assert "there is nothing to serve" in server.log.read_text().splitlines()[-1]
    assert serve(str(tmp_path / "empty"), tmp_path, "--model-repo", "x").process.wait(60) == 2
    assert server.log.read_text() == "albert-serve: give a CHECKPOINT or --model-repo, not both\n"


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("someone/albert-base-v2", "albert-base-v2"),
        ("./my model/", "my-model"),
        ("模型", "model"),
        ("a/", "a"),
    ],
)
def test_the_model_is_called_as_its_folder(checkpoint: str, name: str) -> None:
    assert model_name(checkpoint) == name
