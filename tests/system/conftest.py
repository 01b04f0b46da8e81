"""A real server process on a free port, as a user starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import conftest
from tests.conftest import ROOT

Start = Callable[..., "Server"]


@dataclass
class Server:
    """``process`` listens at ``url``; ``log`` is where it writes."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def tell(self, number: signal.Signals) -> float:
        """Send a signal; when."""
        self.process.send_signal(number)
        return time.monotonic()

    def stop(self) -> int:
        self.tell(signal.SIGTERM)
        return self.process.wait(30)

    def lines(self, said: str) -> list[str]:
        """Of the log."""
        return [line for line in self.log.read_text().splitlines() if said in line]

    def wait_for(self, said: str, count: int = 1, seconds: float = 60) -> list[str]:
        """So many lines of the log."""
        end = time.monotonic() + seconds
        while len(found := self.lines(said)) < count:
            assert time.monotonic() < end, f"no {said!r} in {self.log.read_text()}"
            time.sleep(0.02)
        return found


def free_port() -> int:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_server(repository: Path, log: Path, *flags: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--device", "cpu"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALBERT_SERVE_")}
    environment["ALBERT_SERVE_CPU_FEATURES"] = conftest.CPU_FEATURES
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--model-repo", str(repository), "--log-format", "text", *flags],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    return Server(process, f"http://127.0.0.1:{port}", log)


def kill(server: Server) -> None:
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a server for a repository, waits until it is ready unless told not to, and kills it at the end."""
    running: list[Server] = []

    def started(repository: Path, *flags: str, ready: bool = True) -> Server:
        server = start_server(repository, tmp_path_factory.mktemp("server") / "log", *flags)
        running.append(server)
        if ready:
            wait_until_ready(server)
        return server

    yield started
    for server in running:
        kill(server)


def wait_until_ready(server: Server, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready after {seconds} s: {server.log.read_text()}")
