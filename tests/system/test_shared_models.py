"""Workers whose models are in one process for all: the same answers, and each process may end or stand still."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import Server, Start
from tests.system.test_server import ask_many, samples
from tests.system.test_stopping import until
from tests.system.test_workers import NONE, asking, workers

QUESTION = {"question": "Who knew?", "context": "Nobody knew why. The committee did not ask. " * 20}
BODIES = {
    "/classify": {"inputs": ["It was not good.", "ok", "Nobody knew why."]},
    "/qa": QUESTION,
    "/explain": {"text": "It was not good.", "method": "depth"},
    "/v2/models/sentiment/infer": {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["It was not good."]}]
    },
}
FLAGS = ("--workers", "2", "--share-models", "yes", "--admin-keys", "root")


def model_process(server: Server) -> int:
    return int(re.findall(r"model process (\d+) started", server.log.read_text())[-1])


def rounded(content: object) -> object:
    """Numbers as they are whatever else was in the step."""
    if isinstance(content, dict):
        return {name: rounded(value) for name, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return round(content, 4) if isinstance(content, float) else content


@pytest.fixture(scope="module")
def root(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(repository, tmp_path_factory.mktemp("models") / "repository"))


@pytest.fixture(scope="module")
def server(start: Start, root: Path) -> Server:
    server = start(root, *FLAGS, "--watch-seconds", "0.2")
    server.wait_for("ready: http", 2)
    return server


@pytest.fixture(scope="module")
def alone(start: Start, repository: Path) -> Server:
    return start(repository)


@pytest.mark.parametrize("route", BODIES)
def test_the_answers_are_those_of_one_process(server: Server, alone: Server, route: str) -> None:
    answers = [httpx.post(f"{one.url}{route}", json=BODIES[route], timeout=30) for one in (server, server, alone)]

    assert {answer.status_code for answer in answers} == {200}
    assert rounded(answers[0].json()) == rounded(answers[1].json()) == rounded(answers[2].json())


def test_what_each_process_counts_adds_up(server: Server) -> None:
    before = samples(server.url)
    assert set(ask_many(server.url, 60)) == {200}
    after = samples(server.url)

    def more(name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return after[key] - before.get(key, 0.0)

    assert more("albert_requests_total", route="/classify", status="200") == 60
    assert more("albert_step_sequences_sum", model="sentiment", version="1") == 60
    assert more("albert_stage_seconds_count", model="sentiment", version="1", stage="run") == 60
    assert more("albert_device_busy_seconds_total") > 0
    assert after["albert_ready", NONE] == 1
    assert after["albert_models_loaded", NONE] == 2  # in the one process that has them


def test_a_worker_that_is_killed_takes_nobody_along(server: Server) -> None:
    before, holder = workers(server), model_process(server)
    with asking(server, kept=False) as seen:
        time.sleep(0.3)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        server.wait_for(f"worker {victim} ended with -9")
        until(lambda: len(workers(server)) == 2)
        time.sleep(0.5)
    assert {name for name in seen if name.isdigit()} == {"200"}
    assert sum(count for name, count in seen.items() if not name.isdigit()) <= 2  # those that it had itself
    assert model_process(server) == holder
    until(lambda: samples(server.url)["albert_ready", NONE] == 1)


def test_a_model_process_that_is_killed_is_replaced_and_everyone_is_answered(server: Server) -> None:
    holder = model_process(server)
    with asking(server, kept=True, clients=4) as seen:
        time.sleep(0.3)
        os.kill(holder, signal.SIGKILL)
        # A worker that ended before does not make this one wait longer.
        server.wait_for(f"model process {holder} ended with -9; another is started in 0.5 s")
        until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200)
        time.sleep(0.3)
    assert set(seen) == {"200", "503"}, seen  # no connection broke
    assert model_process(server) != holder
    assert samples(server.url)["albert_worker_restarts_total", NONE] >= 1
    assert set(ask_many(server.url, 20)) == {200}


def test_a_model_process_that_stands_still_keeps_nobody_waiting_for_ever(server: Server) -> None:
    os.kill(model_process(server), signal.SIGSTOP)
    try:
        began = time.monotonic()
        late = httpx.post(f"{server.url}/classify", json={"inputs": "ok"}, headers={"X-Deadline-Ms": "500"}, timeout=20)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - began < 5
        until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, 15)
        refused = httpx.post(f"{server.url}/classify", json={"inputs": "ok"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert httpx.get(f"{server.url}/health/live").status_code == 200
    finally:
        os.kill(model_process(server), signal.SIGCONT)
    # Each worker hears it for itself.
    until(lambda: set(ask_many(server.url, 16)) == {200}, 15)


def test_sighup_replaces_the_workers_and_keeps_the_models(server: Server) -> None:
    before, holder, done = workers(server), model_process(server), len(server.lines("all workers are replaced"))
    with asking(server, kept=True) as seen:
        server.tell(signal.SIGHUP)
        server.wait_for("all workers are replaced", done + 1, 60)
        until(lambda: not before & workers(server), 20)
    assert set(seen) <= {"200", "429"}, seen
    assert model_process(server) == holder


def test_a_model_process_that_ends_while_workers_are_replaced_is_replaced_too(server: Server) -> None:
    holder, done = model_process(server), len(server.lines("all workers are replaced"))
    server.tell(signal.SIGHUP)
    os.kill(holder, signal.SIGKILL)
    server.wait_for("all workers are replaced", done + 1, 60)
    assert model_process(server) != holder
    until(lambda: set(ask_many(server.url, 16)) == {200}, 30)


def test_a_model_is_unloaded_and_loaded_by_any_worker(server: Server) -> None:
    key = {"Authorization": "Bearer root"}
    holder = model_process(server)

    def statuses() -> set[int]:
        return {httpx.post(f"{server.url}/qa", json=QUESTION, timeout=30).status_code for _ in range(8)}

    assert statuses() == {200}
    assert httpx.post(f"{server.url}/v2/repository/models/qa/unload", headers=key).status_code == 200
    until(lambda: statuses() == {404})
    closed = server.lines("qa/1 drained and closed")
    assert httpx.post(f"{server.url}/v2/repository/models/qa/load", headers=key, timeout=60).status_code == 200
    until(lambda: statuses() == {200})
    assert len(closed) >= 3  # by each worker, and by the model process
    assert model_process(server) == holder


def test_a_new_version_takes_over_and_no_request_is_lost(server: Server, root: Path) -> None:
    fresh = root / "sentiment/new"
    shutil.copytree(root / "sentiment/1", fresh)
    manifest = (fresh / "manifest.json").read_text()
    (fresh / "manifest.json").write_text(re.sub(r'"version": 1\b', '"version": 2', manifest, count=1))
    with asking(server, kept=True, clients=4) as seen:
        time.sleep(0.2)
        fresh.rename(root / "sentiment/2")

        def version() -> set[int]:
            url = f"{server.url}/classify"
            return {httpx.post(url, json={"inputs": "ok"}).json()["model"]["version"] for _ in range(6)}

        until(lambda: version() == {2})
        until(lambda: len(server.lines("sentiment/1 drained and closed")) >= 3)
    assert set(seen) == {"200"}, seen


def test_all_end_what_runs_when_told_to_stop(server: Server) -> None:
    pids = {*workers(server), model_process(server)}
    with asking(server, kept=False) as seen:
        time.sleep(0.3)
        assert server.stop() == 0
    assert {name for name in seen if name.isdigit()} == {"200"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not server.lines("Traceback")


def test_none_stays_behind_where_the_supervisor_is_killed(start: Start, repository: Path) -> None:
    server = start(repository, *FLAGS)
    pids = {*workers(server), model_process(server)}
    server.process.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


def test_a_device_that_does_not_work_ends_the_start_in_one_line(start: Start, repository: Path) -> None:
    server = start(repository, *FLAGS, "--device", "cuda:7", ready=False)
    assert server.process.wait(60) == 1
    assert server.lines("cuda:7 was asked for and does not work")
    assert not server.lines("Traceback")


def test_a_folder_whose_path_is_too_long_for_a_socket_is_named(
    start: Start, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 20) / ("er" * 20)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    server = start(repository, *FLAGS, ready=False)
    assert server.process.wait(60) == 2
    assert server.lines("AF_UNIX path too long. Set TMPDIR to a shorter path")
    assert not server.lines("Traceback")
