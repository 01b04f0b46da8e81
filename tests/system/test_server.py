"""The service as a process of its own, under real clients."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.system.conftest import Server, Start

TEXTS = ["ok", "It was not good.", "Nobody knew why the river had changed its course overnight."]


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository)


def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = httpx.get(f"{url}/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def ask_many(url: str, count: int) -> Counter[int]:
    """``count`` requests from eight clients at once; how many of each status."""
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        bodies = [{"inputs": TEXTS[index % len(TEXTS)]} for index in range(count)]
        return Counter(pool.map(lambda body: client.post("/classify", json=body).status_code, bodies))


def test_many_clients_are_all_answered_and_counted(server: Server) -> None:
    before = samples(server.url).get(
        ("albert_requests_total", frozenset({("route", "/classify"), ("status", "200")})), 0
    )
    assert ask_many(server.url, 80) == {200: 80}

    after = samples(server.url)
    assert after["albert_requests_total", frozenset({("route", "/classify"), ("status", "200")})] - before == 80
    model = frozenset({("model", "sentiment"), ("version", "1")})
    assert after["albert_step_sequences_sum", model] >= 80
    assert after["albert_steps_total", model] <= after["albert_step_sequences_sum", model]


def test_a_client_that_hangs_up_harms_nobody(server: Server) -> None:
    body = b'{"inputs": "It was not good."}'
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for cut in (len(head) - 5, len(head) + 3, len(head) + len(body)):
        with socket.create_connection(server.address) as client:
            client.sendall((head + body)[:cut])

    assert ask_many(server.url, 16) == {200: 16}
    assert httpx.get(f"{server.url}/health/ready").status_code == 200


def test_a_new_version_is_picked_up_while_running(start: Start, tmp_path: Path) -> None:
    from service.conversion.pipeline import Options, convert

    checkpoint = str(save_checkpoint(tmp_path / "checkpoint"))
    convert(checkpoint, tmp_path / "repo", Options("sentiment"))
    server = start(tmp_path / "repo", "--watch-seconds", "0.1", "--required-models", '["sentiment"]')
    convert(checkpoint, tmp_path / "repo", Options("sentiment"))

    end = time.monotonic() + 30
    versions: set[int] = set()
    while time.monotonic() < end and 2 not in versions:
        response = httpx.post(f"{server.url}/classify", json={"inputs": "ok"})
        assert response.status_code == 200
        versions.add(response.json()["model"]["version"])
    assert 2 in versions


def test_several_workers_share_the_port_and_their_metrics_add_up(start: Start, repository: Path) -> None:
    server = start(repository, "--workers", "2")
    assert ask_many(server.url, 60) == {200: 60}

    # Each scrape may reach either process; both must tell of all.
    for _ in range(10):
        seen = samples(server.url)
        assert seen["albert_requests_total", frozenset({("route", "/classify"), ("status", "200")})] == 60
        assert seen["albert_step_sequences_sum", frozenset({("model", "sentiment"), ("version", "1")})] == 60
        assert seen["albert_queue_tokens", frozenset()] == 0
    assert server.stop() == 0


def test_sigterm_ends_it_after_the_running_request(start: Start, repository: Path) -> None:
    server = start(repository)
    with ThreadPoolExecutor(1) as pool:
        texts = [f"Nobody knew why the river had changed its course, {number}." for number in range(200)]
        running = pool.submit(httpx.post, f"{server.url}/classify", json={"inputs": texts}, timeout=30)
        while samples(server.url).get(("albert_requests_in_flight", frozenset()), 0) < 2 and not running.done():
            time.sleep(0.001)
        assert server.stop() == 0
        assert running.result().status_code == 200


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model-repo", "/no/such/folder"], "No such file"),
        (["--model-repo", "."], "holds no model"),
        (["--port", "99999"], "port"),
        (["--device", "tpu"], "device: wanted auto, cpu, cuda or cuda:N"),
        (["--api-keys", "two words"], "api_keys"),
        (["--api-keys", '[""]'], "api_keys"),
        (["--cpu-features", "avx"], "cpu_features"),
    ],
)
def test_a_start_that_cannot_work_says_why_in_one_line(
    repository: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    command = [sys.executable, "-m", "service", "serve", "--model-repo", str(repository), *flags, "--get", "/models"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False
    )

    assert done.returncode == (1 if said in ("No such file", "holds no model") else 2)
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def start_in_vain(*flags: str, environment: dict[str, str] | None = None) -> list[str]:
    """What a start that fails says."""
    command = [sys.executable, "-m", "service", "serve", "--log-format", "text", *flags]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_said_in_one_line(repository: Path, workers: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        flags = ["--model-repo", str(repository), "--device", "cpu", "--port", str(taken.getsockname()[1])]
        said = start_in_vain(*flags, "--workers", workers)

    assert "cannot listen on 127.0.0.1" in said[-1]
    assert "--port" in said[-1]


@pytest.mark.parametrize("flags", [["--device", "cuda:99"], ["--workers", "2", "--device", "cuda:99"]])
def test_a_device_that_does_not_work_ends_all_workers(repository: Path, flags: list[str]) -> None:
    said = start_in_vain("--model-repo", str(repository), "--port", "0", *flags)

    assert "cuda:99 was asked for and does not work" in said[-1]
    assert len(said) < 8


def test_a_variable_that_is_no_setting_is_said(repository: Path) -> None:
    said = start_in_vain(
        "--model-repo", str(repository), "--device", "cuda:99", environment={"ALBERT_SERVE_WORKER": "2"}
    )
    assert any("ALBERT_SERVE_WORKER " in line and "ALBERT_SERVE_WORKERS" in line for line in said)


def test_a_deadline_counts_from_the_first_byte_of_the_request(server: Server) -> None:
    body = b'{"inputs": "It was not good."}'
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Deadline-Ms: 400\r\nContent-Length: %d\r\n\r\n" % len(body)
    for pause, status in ((0.0, b"200"), (0.6, b"504")):
        with socket.create_connection(server.address, 10) as client:
            client.sendall(head[:20])
            time.sleep(pause)
            client.sendall(head[20:] + body)
            assert client.recv(65_536).startswith(b"HTTP/1.1 " + status)


def test_a_body_that_is_too_large_is_413_for_clients_that_send_it_all(server: Server) -> None:
    body = b"x" * (20 * 2**20)
    parts = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    for content in (body, parts):
        response = httpx.post(f"{server.url}/classify", content=content, timeout=30)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_cuda_without_cuda_is_an_honest_error(repository: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    command = [sys.executable, "-m", "service", "serve", "--model-repo", str(repository), "--device", "cuda"]
    done = subprocess.run(
        [*command, "--get", "/models"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "extra 'gpu'" in done.stderr


def test_one_answer_without_a_port(repository: Path) -> None:
    command = [sys.executable, "-m", "service", "serve", "--model-repo", str(repository), "--device", "cpu"]
    ready = subprocess.run([*command, "--get", "/health/ready"], cwd=ROOT, capture_output=True, text=True, check=False)
    missing = subprocess.run([*command, "--get", "/models/no"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ready.returncode, missing.returncode) == (0, 1)
    assert '"status":"ready"' in ready.stdout
    assert "model_not_found" in missing.stdout
