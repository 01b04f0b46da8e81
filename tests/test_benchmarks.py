"""Every benchmark starts: what it imports is still there."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import parser
from tests.conftest import ROOT

SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "ArgumentParser" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_says_what_it_takes(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_settings_become_flags_that_serve_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    wanted = {"early_exit": True, "ageing": 0.5, "workers": 2, "share_models": "no"}
    read = parser().parse_args(["serve", *importlib.import_module("servers").flags(wanted)])

    assert {name: str(getattr(read, name)).lower() for name in wanted} == {n: str(v).lower() for n, v in wanted.items()}


def test_each_part_of_the_page_is_made_by_a_script() -> None:
    made = "".join(path.read_text() for path in SCRIPTS)
    page = (ROOT / "benchmarks/page.py").read_text()
    parts = [line.split('"')[1] for line in page.splitlines() if line.startswith('    "') and ': """' in line]

    assert len(parts) > 8
    assert [part for part in parts if f'"{part}"' not in made] == []
