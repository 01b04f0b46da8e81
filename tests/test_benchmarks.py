"""Every benchmark starts: what it imports is still there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "ArgumentParser" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_says_what_it_takes(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_each_part_of_the_page_is_made_by_a_script() -> None:
    made = "".join(path.read_text() for path in SCRIPTS)
    page = (ROOT / "benchmarks/page.py").read_text()
    parts = [line.split('"')[1] for line in page.splitlines() if line.startswith('    "') and ': """' in line]

    assert len(parts) > 8
    assert [part for part in parts if f'"{part}"' not in made] == []
