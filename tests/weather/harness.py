"""A real service under load: its process, what it holds, clients that note everything, and a probe of its health."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from tests import conftest
from tests.conftest import ROOT
from tests.system.conftest import free_port

SHORT = "It was not good."
REVIEW = "Nobody knew why the river had changed its course overnight, and the committee did not ask. " * 8


@dataclass
class Service:
    """``process`` serves at ``url``; ``log`` is where it writes."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, seconds: float = 60) -> int:
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def workers(self) -> list[int]:
        """The processes that serve, where there are several."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in path.read_text().split()]
        return [pid for pid in pids if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def metrics(self) -> dict[str, float]:
        """Each sample of a scrape, by its name with its labels as they are written."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


@contextlib.contextmanager
def service(
    repository: Path, log: Path, *flags: str, module: Sequence[str] = ("service",), before: str = "", ready: bool = True
) -> Iterator[Service]:
    """A service for ``repository``; ``before`` is shell that runs first, such as ``ulimit -n 256;``."""
    port = free_port()
    command = [sys.executable, "-m", *module, "serve", "--port", str(port), "--device", "cpu", "--log-format", "text"]
    command += ["--model-repo", str(repository), *flags]
    if before:
        command = ["bash", "-c", f'{before} exec "$@"', "bash", *command]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALBERT_SERVE_")}
    environment["ALBERT_SERVE_CPU_FEATURES"] = conftest.CPU_FEATURES
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
    started = Service(process, f"http://127.0.0.1:{port}", log)
    try:
        if ready:
            wait_until(lambda: is_ready(started), 60, started)
        yield started
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


def is_ready(started: Service) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{started.url}/health/ready", timeout=5).status_code == 200
    return False


def wait_until(condition: Any, seconds: float, started: Service) -> float:
    """Seconds until ``condition()`` held."""
    began = time.monotonic()
    while not condition():
        assert started.process.poll() is None, started.log.read_text()[-4000:]
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {started.log.read_text()[-4000:]}"
        time.sleep(0.05)
    return time.monotonic() - began


@dataclass
class Answer:
    """``status`` is 0 where the connection broke; ``seconds`` until then."""

    status: int
    seconds: float
    at: float
    body: Any = None
    retry_after: float | None = None
    error: str = ""


async def ask(session: aiohttp.ClientSession, url: str, body: Any, path: str = "/classify", **headers: str) -> Answer:
    """One request, and whatever came of it."""
    began = time.monotonic()
    try:
        data = io.BytesIO(json.dumps(body).encode())
        async with session.post(f"{url}{path}", data=data, headers=headers) as response:
            content = await response.json()
            after = response.headers.get("Retry-After")
            seconds = time.monotonic() - began
            return Answer(response.status, seconds, began, content, float(after) if after else None)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Answer(0, time.monotonic() - began, began, error=f"{type(error).__name__}: {error}")


@contextlib.asynccontextmanager
async def clients(connections: int = 0) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose requests do not wait for each other; 0: any number of connections."""
    connector = aiohttp.TCPConnector(limit=connections, force_close=False)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=90)) as session:
        yield session


@dataclass
class Probe:
    """Asks ``/health/live`` (or another path) again and again, on a thread of its own; ``seconds`` of each answer."""

    url: str
    path: str = "/health/live"
    seconds: list[float] = field(default_factory=list)
    statuses: list[tuple[float, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Probe":
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(30)

    @property
    def worst(self) -> float:
        return max(self.seconds)

    def _run(self) -> None:
        host = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=30)  # costs next to nothing, for it shares the processor
        while not self.seconds or not self._stop.wait(0.02):  # once at least, however short the probed time is
            began = time.monotonic()
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (http.client.HTTPException, OSError):
                connection.close()
                status = 0
            self.seconds.append(time.monotonic() - began)
            self.statuses.append((began, status))
        connection.close()


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
