"""Every answer is one that the OpenAPI document announces, whatever is asked: Schemathesis makes the requests."""

import subprocess
import sys
from pathlib import Path

from tests.weather.conftest import Serve
from tests.weather.harness import is_ready

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 60  # an operation and phase; the long form is `st run URL/openapi.json --max-examples 1000`


def test_no_answer_is_a_fault_or_undocumented(serve: Serve, tmp_path: Path) -> None:
    started = serve()
    # It asks with deadlines of nothing, too: that they pass is an answer.
    config = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 504]\n'
    (tmp_path / "schemathesis.toml").write_text(config)
    command = [str(Path(sys.executable).with_name("st")), "run", f"{started.url}/openapi.json", "--checks", CHECKS]
    found = subprocess.run(
        [*command, "--max-examples", str(EXAMPLES), "--no-color", "--seed", "1"],
        capture_output=True, text=True, timeout=240, cwd=tmp_path,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-1000:]
    assert is_ready(started)
