"""Several workers: none outlives the process that looks after them, and none is restarted in a rush."""

import os
import signal
import time
from pathlib import Path

from tests.weather.conftest import Serve
from tests.weather.harness import wait_until


def test_workers_end_with_their_supervisor(serve: Serve) -> None:
    started = serve("--workers", "2")
    pids = started.workers()
    started.process.kill()
    started.process.wait()

    end = time.monotonic() + 20
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_killed_worker_leaves_no_gauge_and_readiness_is_told_by_each(serve: Serve) -> None:
    started = serve("--workers", "2")
    victim = started.workers()[0]
    os.kill(victim, signal.SIGKILL)
    # Until the supervisor has seen it, the dead one is among its children.
    wait_until(lambda: victim not in started.workers() and len(started.workers()) == 2, 30, started)
    wait_until(lambda: started.metrics()["albert_ready"] == 1, 30, started)

    for _ in range(6):
        metrics = started.metrics()
        assert (metrics["albert_ready"], metrics["albert_queue_sequences"]) == (1, 0)
        # The scrape itself; the one before may still be ending in another worker.
        wait_until(lambda: started.metrics()["albert_requests_in_flight"] == 1, 5, started)
    assert metrics["albert_worker_restarts_total"] == 1
    assert "another is started in" in started.log.read_text()
