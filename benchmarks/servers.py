"""albert-serve and its peers as processes of their own, and the same load for each."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from service.bench.drive import Sample, Send, closed_loop, open_loop, sender
from service.bench.report import summarise
from service.bench.traffic import Kind, endless

HERE = Path(__file__).parent
WARM = b'{"inputs": "warm"}'
PATIENCE = 180  # seconds that a server may take to start


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    command: list[str], port: int, log: Path, route: str = "/classify", body: bytes = WARM, **environment: str
) -> Iterator[str]:
    """The address of a server that answers, started by ``command``; stopped with all its children afterwards."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=HERE / "peers", env=os.environ | environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}{route}", body, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", address: str, body: bytes, log: Path) -> None:
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and process.poll() is None:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        # A server that starts may speak another protocol on the port for a moment, as Ray's does.
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(request, timeout=60):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start; see {log}")


def flags(settings: dict[str, Any]) -> list[str]:
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}
    return [part for name, word in words.items() for part in (f"--{name.replace('_', '-')}", word)]


@contextlib.contextmanager
def albert_serve(repository: Path, log: Path, warm: bytes = WARM, **settings: Any) -> Iterator[str]:
    """The address of a service of ours with ``settings``, once it has answered ``warm``."""
    port = free_port()
    serve = [sys.executable, "-m", "service", "serve", "--device", "cpu", "--log-level", "warning"]
    command = [*serve, "--model-repo", str(repository), "--port", str(port), "--watch-seconds", "0", *flags(settings)]
    with running(command, port, log, body=warm, PYTHONPATH=str(HERE.parent)) as url:
        yield url


def resident(url: str) -> int:
    """MB of the memory of the process that was started with the port of ``url``."""
    port = url.rpartition(":")[2]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        if f"--port\0{port}".encode() in command.read_bytes():
            return int(re.findall(r"VmRSS:\s+(\d+)", (command.parent / "status").read_text())[0]) // 1000
    return 0


def counted(url: str, name: str) -> float:
    """The sum of the samples of the service's metrics that begin with ``name``."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def show(row: dict[str, Any]) -> None:
    print(json.dumps({name: value for name, value in row.items() if name != "kinds"}), flush=True)
    for name, kind in row.get("kinds", {}).items():
        if len(row["kinds"]) > 1:
            print("   ", name, json.dumps(kind), flush=True)


def report(folder: Path, part: str, machine: str, rows: list[dict[str, Any]]) -> None:
    """The figures of a part, for ``page.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "rows": rows}
    (folder / f"{part}.json").write_text(json.dumps(found, indent=1))


def closed(url: str, kinds: list[Kind], clients: int, seconds: float, warmup: float) -> dict[str, Any]:
    return _loaded(url, lambda send: closed_loop(send, endless(kinds, 1), clients, seconds), None, warmup)


def opened(url: str, kinds: list[Kind], rate: float, seconds: float, warmup: float) -> dict[str, Any]:
    return _loaded(url, lambda send: open_loop(send, endless(kinds, 1), rate, seconds, 1), seconds, warmup)


def _loaded(
    url: str, loop: Callable[[Send], Awaitable[list[Sample]]], seconds: float | None, warmup: float
) -> dict[str, Any]:
    async def load() -> dict[str, Any]:
        async with sender(url) as send:
            return summarise(await loop(send), warmup, seconds)

    return asyncio.run(load())
