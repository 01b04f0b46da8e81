"""How a service ends: seen by probes first, then what runs is answered, then what is left is told so."""

import http.client
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.conversion.pipeline import Options, convert
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.system.conftest import Server, Start
from tests.system.test_server import samples

LONG = "Nobody knew why the river had changed its course overnight. " * 4
HEAVY = {"inputs": [LONG] * 500, "early_exit": False}
PATIENT = ["--max-queue-tokens", "100000000", "--max-text-chars", "10000000", "--deadline-ms", "600000"]


def ask(url: str, body: object, seconds: float = 40) -> int:
    """The status; 0 where the connection is refused or closed without an answer."""
    try:
        return httpx.post(f"{url}/classify", json=body, timeout=seconds).status_code
    except (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        return 0


def in_flight(server: Server) -> float:
    return samples(server.url).get(("albert_requests_in_flight", frozenset()), 0)


def load(server: Server, pool: ThreadPoolExecutor, count: int) -> "list[Future[int]]":
    """So many requests that take seconds together, once all are in work: one on its way may find the door closed."""
    running = [pool.submit(ask, server.url, HEAVY) for _ in range(count)]
    while sum(one.done() for one in running) + in_flight(server) < count:
        time.sleep(0.02)
    return running


def test_probes_see_a_stop_before_the_service_stops_answering(start: Start, repository: Path) -> None:
    server = start(repository, "--shutdown-delay-seconds", "1.5")
    told = server.tell(signal.SIGTERM)
    seen: list[tuple[int, int]] = []
    with httpx.Client(base_url=server.url, timeout=5) as client:
        while time.monotonic() - told < 1.2:
            ready = client.get("/health/ready")
            if ready.status_code != 200:
                assert ready.json()["reason"] == "the service is stopping"
            seen.append((ready.status_code, ask(server.url, {"inputs": "ok"})))
            time.sleep(0.02)
        assert time.monotonic() - told < 2
    assert {asked for _, asked in seen} == {200}
    assert {status for status, _ in seen[len(seen) // 4 :]} == {503}  # at once, in steps of the loop
    assert server.process.wait(10) == 0
    assert 1.4 < time.monotonic() - told < 5
    states = [line.rsplit(" ", 1)[1] for line in server.lines("service.api.lifecycle")]
    assert states == ["serving", "stopping", "draining", "stopped"]


def test_clients_are_answered_or_refused_and_never_hang(start: Start, repository: Path) -> None:
    server = start(repository, "--shutdown-delay-seconds", "0.3")
    statuses: list[int] = []
    longest = 0.0

    def asking(kept: bool) -> None:
        nonlocal longest
        with httpx.Client(base_url=server.url, timeout=10) as client:
            while server.process.poll() is None:
                began = time.monotonic()
                try:
                    if kept:
                        statuses.append(client.post("/classify", json={"inputs": "ok"}).status_code)
                    else:
                        statuses.append(ask(server.url, {"inputs": "ok"}, 10))
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    statuses.append(0)
                except httpx.TimeoutException:
                    statuses.append(-1)
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.001)

    threads = [threading.Thread(target=asking, args=(kept,)) for kept in (True, True, False, False)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.tell(signal.SIGTERM)
    assert server.process.wait(10) == 0
    for thread in threads:
        thread.join(10)
    assert set(statuses) <= {200, 429, 503, 0}
    assert longest < 3


def test_a_request_in_work_at_the_end_of_the_drain_is_503(start: Start, repository: Path) -> None:
    server = start(repository, "--drain-seconds", "1", *PATIENT)
    with ThreadPoolExecutor(40) as pool:
        running = load(server, pool, 40)
        told = server.tell(signal.SIGTERM)
        statuses = Counter(one.result() for one in running)
    assert server.process.wait(20) == 0
    assert time.monotonic() - told < 9
    assert set(statuses) <= {200, 429, 503}
    assert statuses[503] > 0
    assert not server.lines("which is a bug")
    assert not server.lines("Traceback")


def test_a_second_signal_ends_it_at_once(start: Start, repository: Path) -> None:
    server = start(repository, *PATIENT)
    with ThreadPoolExecutor(40) as pool:
        running = load(server, pool, 40)
        server.tell(signal.SIGINT)
        time.sleep(0.3)
        told = server.tell(signal.SIGINT)
        statuses = Counter(one.result() for one in running)
    assert server.process.wait(20) == 0
    assert time.monotonic() - told < 8
    assert set(statuses) <= {200, 429, 503}
    assert statuses[503] > 0
    assert not server.lines("Traceback")


def test_signals_that_come_again_and_again_change_nothing(start: Start, repository: Path) -> None:
    server = start(repository)
    while server.process.poll() is None:
        server.tell(signal.SIGTERM)
        time.sleep(0.01)
    assert server.process.returncode == 0


def test_a_second_signal_skips_the_delay(start: Start, repository: Path) -> None:
    server = start(repository, "--shutdown-delay-seconds", "30")
    server.tell(signal.SIGTERM)
    time.sleep(0.3)
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    told = server.tell(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert time.monotonic() - told < 4


HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


def test_clients_that_are_slow_or_silent_hold_up_no_end(start: Start, repository: Path) -> None:
    server = start(repository)
    sent = {"nothing": b"", "half a head": HEAD[:30], "half a body": HEAD + b'{"inputs": ', "no body": HEAD}
    clients = {name: socket.create_connection(server.address, 10) for name in sent}
    try:
        for name, content in sent.items():
            clients[name].sendall(content)
        time.sleep(0.3)
        told = server.tell(signal.SIGTERM)
        for name in ("half a body", "no body"):
            answer = http.client.HTTPResponse(clients[name])  # head and body may come apart
            answer.begin()
            assert (answer.version, answer.status) == (11, 503), name
            assert json.load(answer)["error"]["code"] == "unavailable"
        assert server.process.wait(20) == 0
        assert time.monotonic() - told < 6
    finally:
        for client in clients.values():
            client.close()


def test_a_stop_during_the_start_is_no_failure(start: Start) -> None:
    codes = {}
    for pause in (0.0, 0.7, 1.0, 1.3):  # models are read, built and timed meanwhile
        server = start(ROOT / "model_repo", ready=False)
        server.wait_for("inference on")
        time.sleep(pause)
        codes[pause] = server.stop()
        assert not server.lines("Traceback")
    assert set(codes.values()) == {0}, codes


@pytest.mark.parametrize("pause", [0.0, 1.5])
def test_a_stop_during_the_start_of_workers_is_no_failure(start: Start, pause: float) -> None:
    server = start(ROOT / "model_repo", "--workers", "2", ready=False)
    server.wait_for("worker")
    time.sleep(pause)
    assert server.stop() == 0
    assert not server.lines("Traceback")


def test_sighup_looks_at_the_repository_at_once(start: Start, tmp_path: Path) -> None:
    checkpoint = str(save_checkpoint(tmp_path / "checkpoint"))
    convert(checkpoint, tmp_path / "repo", Options("sentiment"))
    server = start(tmp_path / "repo", "--watch-seconds", "0", "--required-models", '["sentiment"]')
    convert(checkpoint, tmp_path / "repo", Options("sentiment"))
    time.sleep(0.3)
    assert httpx.get(f"{server.url}/health/ready").json()["models"] == ["sentiment/1"]
    server.tell(signal.SIGHUP)
    server.wait_for("sentiment/2 loaded", seconds=15)
    assert httpx.post(f"{server.url}/classify", json={"inputs": "ok"}).json()["model"]["version"] == 2


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
