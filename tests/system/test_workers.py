"""Several workers: one that dies is replaced, all are replaced on request, and nobody's request is lost."""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import Server, Start
from tests.system.test_server import samples
from tests.system.test_stopping import until

NONE: frozenset[tuple[str, str]] = frozenset()
ANSWERED = ("albert_requests_total", frozenset({("route", "/classify"), ("status", "200")}))


def workers(server: Server) -> set[int]:
    """Those that run."""
    started = {int(pid) for pid in re.findall(r"worker (\d+) started", server.log.read_text())}
    return {pid for pid in started if Path(f"/proc/{pid}").exists()}


@contextmanager
def asking(server: Server, *, kept: bool, clients: int = 2) -> Iterator[Counter[str]]:
    """Requests one after the other, none of them tried again; what became of them."""
    seen, stop = Counter[str](), threading.Event()

    def loop() -> None:
        while not stop.is_set():
            with httpx.Client(base_url=server.url, timeout=20) as client:
                for _ in range(200 if kept else 1):
                    try:
                        seen[str(client.post("/classify", json={"inputs": "It was not good."}).status_code)] += 1
                    except httpx.TransportError as error:
                        seen[repr(error)] += 1
                        break
                    time.sleep(0.003)
                    if stop.is_set():
                        break

    threads = [threading.Thread(target=loop) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(25)


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository, "--workers", "2")


def test_a_worker_that_is_killed_is_replaced_and_the_metrics_stay_true(server: Server) -> None:
    until(lambda: samples(server.url)["albert_models_loaded", NONE] == 4)
    with httpx.Client(base_url=server.url) as client:
        for _ in range(20):
            assert client.post("/classify", json={"inputs": "ok"}).status_code == 200
    before = samples(server.url)
    victim = min(workers(server))
    os.kill(victim, signal.SIGKILL)
    server.wait_for(f"worker {victim} ended with -9", seconds=10)

    until(lambda: samples(server.url)["albert_models_loaded", NONE] == 2, 3)  # its gauges go
    statuses = {httpx.post(f"{server.url}/classify", json={"inputs": "ok"}).status_code for _ in range(5)}
    assert statuses == {200}
    until(lambda: samples(server.url)["albert_models_loaded", NONE] == 4)
    after = samples(server.url)
    assert after[ANSWERED] == before[ANSWERED] + 5
    assert after["albert_worker_restarts_total", NONE] == 1
    assert after["albert_lost_requests_total", NONE] == 0
    assert after["albert_requests_in_flight", NONE] == 1  # this scrape
    assert victim not in workers(server)
    assert len(workers(server)) == 2
    until(lambda: samples(server.url)["albert_ready", NONE] == 1, 5)


def test_sighup_replaces_the_workers_and_loses_no_request(server: Server) -> None:
    before, done = workers(server), len(server.lines("all workers are replaced"))
    counted = samples(server.url)[ANSWERED]
    with asking(server, kept=True) as kept, asking(server, kept=False) as fresh:
        server.tell(signal.SIGHUP)
        server.wait_for("all workers are replaced", done + 1, 60)
        until(lambda: not before & workers(server), 20)
    both = kept + fresh
    assert set(both) <= {"200", "429"}, both
    assert both["429"] <= 0.01 * both["200"]  # where a new worker's start keeps all processors busy
    assert len(workers(server)) == 2
    assert samples(server.url)[ANSWERED] == counted + both["200"]
    assert samples(server.url)["albert_worker_restarts_total", NONE] <= 1  # those that were asked for do not count


def test_all_workers_end_what_runs_when_told_to_stop(server: Server) -> None:
    pids = workers(server)
    with asking(server, kept=False) as seen:
        time.sleep(0.3)
        assert server.stop() == 0
    assert {name for name in seen if name.isdigit()} == {"200"}
    assert not pids & workers(server)
    assert not server.lines("Traceback")
