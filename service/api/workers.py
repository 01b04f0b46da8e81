"""Several serving processes behind one port, and the one that looks after them.

It answers nothing itself: it binds the port, starts the workers, starts those again that end, with pauses that grow,
and passes signals on.  SIGHUP replaces them one by one: a new worker is ready before an old one is told to stop.
"""

import contextlib
import glob
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import ServiceError
from ..logs import configure
from ..settings import Settings
from .listeners import close

log = logging.getLogger(__name__)
TICK = 0.1  # seconds
STABLE_SECONDS = 60.0  # a worker that lived so long did not fail at its start
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
READY_SECONDS = 300.0  # for a replacement, before the old one is kept
USAGE = 78  # exit code of a worker that can never start (EX_CONFIG)


@dataclass(slots=True, eq=False)
class Worker:
    """One process.  ``reports`` brings "ready" when it serves, or has the models that others serve."""

    process: Any
    reports: Connection
    started: float
    holds_models: bool = False
    ready: bool = False
    stopping: bool = False

    def look(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self.reports.poll():
                self.ready = self.reports.recv() == "ready"

    def __str__(self) -> str:
        return f"{'model process' if self.holds_models else 'worker'} {self.process.pid}"


@dataclass(slots=True)
class Supervisor:
    """``models_at``: where one more process gives the workers the models; None where each has its own."""

    settings: Settings
    listeners: list[socket.socket]
    metrics_folder: str
    models_at: Path | None = None
    workers: list[Worker] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    # Each by Worker.holds_models: what fails of the one kind keeps none of the other waiting.
    _failures: Counter[bool] = field(default_factory=Counter)  # in a row
    _start_at: dict[bool, float] = field(default_factory=lambda: dict.fromkeys((True, False), 0.0))
    _ever_ready: set[bool] = field(default_factory=set)  # Worker.holds_models of those that were

    def run(self) -> int:
        """Until told to stop; the exit code."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for number in numbers:
            signal.signal(number, lambda number, frame: self._signals.append(number))
        self._start_missing()
        while not self._told_to_stop():
            if code := self._look_after():
                return self._stop(code)
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._replace_all()
            time.sleep(TICK)
        return self._stop(0)

    def _told_to_stop(self) -> bool:
        return signal.SIGTERM in self._signals or signal.SIGINT in self._signals

    def _start_missing(self) -> None:
        there = [worker.holds_models for worker in self.workers if not worker.stopping]
        for holds_models, wanted in ((True, int(self.models_at is not None)), (False, self.settings.workers)):
            if time.monotonic() >= self._start_at[holds_models]:
                for _ in range(wanted - there.count(holds_models)):
                    self._start(holds_models=holds_models)

    def _start(self, *, holds_models: bool = False) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        listeners = None if holds_models else self.listeners
        process = context.Process(target=work, args=(self.settings, listeners, self.models_at, theirs), daemon=False)
        process.start()
        theirs.close()
        worker = Worker(process, ours, time.monotonic(), holds_models)
        self.workers.append(worker)
        log.info("%s started", worker)
        return worker

    def _look_after(self) -> int:
        """Start again who ended; an exit code where no worker can ever start."""
        now = time.monotonic()
        for worker in list(self.workers):
            worker.look()
            self._ever_ready |= {worker.holds_models} if worker.ready else set()
            if worker.process.is_alive():
                continue
            self.workers.remove(worker)
            self._bury(worker)
            if worker.stopping:
                continue
            if worker.process.exitcode == USAGE and worker.holds_models not in self._ever_ready:
                return 1
            kind = worker.holds_models
            self._failures[kind] = 1 if now - worker.started > STABLE_SECONDS else self._failures[kind] + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures[kind] - 1))
            self._start_at[kind] = now + pause
            log.error(
                "%s ended with %s; another is started in %.1f s. Its own log says why; after a signal 9 look "
                "for memory, after many of them for a full disk in %s", worker, worker.process.exitcode,
                pause, tempfile.gettempdir(),
            )  # fmt: skip
        self._start_missing()
        return 0

    def _bury(self, worker: Worker) -> None:
        """What a dead worker's files say of now is not true any more; what it counted stays."""
        worker.process.join()
        worker.reports.close()
        pid = worker.process.pid
        with contextlib.suppress(OSError, ValueError):
            lost = 0 if worker.stopping else in_flight(self.metrics_folder, pid)
            record(lost, restarts=0 if worker.stopping else 1)
            for path in glob.glob(os.path.join(self.metrics_folder, f"gauge_*_{pid}.db")):
                os.remove(path)

    def _replace_all(self) -> None:
        """All but the process that holds the models, which looks at the repository in place of that."""
        for worker in self.workers:
            if worker.holds_models and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGHUP)
        replaced = [worker for worker in self.workers if not (worker.stopping or worker.holds_models)]
        log.info("SIGHUP: replacing %d workers, one by one", len(replaced))
        for old in replaced:
            new = self._start()
            if not self._wait_until_ready(new):
                log.error("the new worker is not ready; the old ones go on")
                new.stopping = True
                new.process.terminate()
                return
            old.stopping = True
            old.process.terminate()
        log.info("all workers are replaced; the old ones end what runs")

    def _wait_until_ready(self, worker: Worker) -> bool:
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and not self._told_to_stop() and worker.process.is_alive():
            self._look_after()  # it may need a process that ends just now
            if worker.ready:
                return True
            time.sleep(TICK)
        return False

    def _stop(self, code: int) -> int:
        """All workers end what runs.  This process holds the port no longer: who comes later is refused, not kept."""
        for worker in self.workers:
            worker.process.terminate()
        close(self.listeners, self.settings)
        limit = self.settings.shutdown_delay_seconds + self.settings.drain_seconds + 15
        until, told = time.monotonic() + limit, len(self._signals)
        while any(worker.process.is_alive() for worker in self.workers) and time.monotonic() < until:
            if len(self._signals) > told:  # told once more: they are, too
                told = len(self._signals)
                for worker in self.workers:
                    worker.process.terminate()
            time.sleep(TICK)
        for worker in self.workers:
            if worker.process.is_alive():
                log.error("%s does not end; it is killed", worker)
                worker.process.kill()
            worker.process.join()
            code = code or (0 if worker.process.exitcode in (0, -signal.SIGTERM) else 1)
        return code


def work(
    settings: Settings, listeners: list[socket.socket] | None, models_at: Path | None, reports: Connection
) -> None:
    """The whole of one process: of a worker, or where it has no ``listeners``, of the one that holds the models."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to look again with
    configure(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from . import model_process, server
    from .computing import choose_device

    def ready() -> None:
        with contextlib.suppress(OSError):
            reports.send("ready")

    try:
        if listeners is None:
            assert models_at is not None
            model_process.run(settings, models_at, ready)
        device = choose_device(settings, settings.workers) if models_at is None else None
        server.run(settings, device, listeners, ready, models_at)
    except ServiceError as error:
        log.error("%s", error.message)
        raise SystemExit(USAGE) from None


def _end_with_parent() -> None:
    """A worker that nobody looks after any more must not keep the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    log.error("the supervisor is gone; this worker ends what runs and follows")
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def metrics_folder() -> Iterator[str]:
    """Where the processes write their metrics.  Set before the client library is imported."""
    try:
        folder = tempfile.mkdtemp(prefix="albert-serve-metrics-")
    except OSError as error:
        raise ServiceError(
            f"no folder for the metrics of the workers: {error.strerror}. Free some of the disk, or set TMPDIR."
        ) from error
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield folder
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        shutil.rmtree(folder, ignore_errors=True)


def in_flight(folder: str, pid: int) -> int:
    """The requests that the dead process ``pid`` had in work, by its own gauge."""
    from prometheus_client.mmap_dict import MmapedDict

    path = os.path.join(folder, f"gauge_livesum_{pid}.db")
    values = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
    return int(sum(value for key, value, *_ in values if '"albert_requests_in_flight"' in key))


def record(lost: int, restarts: int) -> None:
    """In this process' own metrics, which a scrape of any worker adds up."""
    from prometheus_client import CollectorRegistry

    from ..metrics import Supervision

    global _counters
    _counters = _counters or Supervision(CollectorRegistry())
    _counters.lost_requests.inc(lost)
    _counters.restarts.inc(restarts)


_counters: Any = None
