"""The notebook of the docs, run by a real kernel in a short form: a small start, few epochs, the rows that it makes."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from service.conversion.export import export_version
from tests.conftest import ROOT
from tests.test_shipped_models import FOLDERS

NOTEBOOK = ROOT / "docs" / "colab.ipynb"


def read() -> Any:
    return nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@pytest.mark.timeout(500)
def test_every_cell_of_the_notebook_runs_and_the_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_version(FOLDERS["topic"], tmp_path / "init")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    short = {
        "install": "",
        "parameters": f'INIT, ROWS, PORT = "init", "rows.tsv", {free_port()}\n'
        'RECIPE = "--epochs 6 --learning-rate 3e-4 --batch-tokens 512"',
    }
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            cell.source = short[tag]
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    (answers,) = [printed(cell) for cell in notebook.cells if "/classify" in cell.source]
    assert [line.split()[0] for line in answers.splitlines()] == ["luggage", "timetable"]
    (metrics,) = [printed(cell) for cell in notebook.cells if "/metrics" in cell.source]
    assert 'route="/classify",status="200"' in metrics
    (exported,) = [printed(cell) for cell in notebook.cells if "export mine" in cell.source]
    assert "model.onnx" in exported


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = read()

    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags == ["install", "parameters"]
