"""The images' probe asks the port that the service listens on."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = "import runpy, sys, socket; socket.create_connection = lambda place, timeout: sys.exit(place[1] % 256)"


@pytest.mark.parametrize(("given", "port"), [(None, 8000), ("", 8000), ("9001", 9001), ("tcp://10.0.0.1:8000", 8000)])
def test_the_port_is_the_services(given: str | None, port: int) -> None:
    environment = {"PATH": os.environ["PATH"]} | ({} if given is None else {"ALBERT_SERVE_PORT": given})
    code = f"{CODE}; runpy.run_path({str(ROOT / 'deploy' / 'ready.py')!r})"

    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == port % 256
