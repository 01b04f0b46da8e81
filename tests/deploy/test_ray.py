"""The service as a Ray Serve application, on a real cluster: it answers, grows by what waits, and outlives a node."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests import clusters
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(600)
DEPLOY = ROOT / "deploy" / "ray"
REPLICAS = """
import json, sys, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
for line in sys.stdin:
    state = serve.status().applications["albert"].deployments["albert"].replica_states
    print(json.dumps({str(name): number for name, number in state.items()}), flush=True)
"""
TEXTS = {"inputs": [f"{number} the plot was good " * 60 for number in range(64)]}


@pytest.fixture(scope="module")
def cluster(repository: Path) -> Iterator[Any]:
    with clusters.running(
        3, PYTHONPATH=f"{ROOT}:{DEPLOY}", ALBERT_SERVE_MODEL_REPO=str(repository), ALBERT_SERVE_DEVICE="cpu"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def url(cluster: Any, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the application as ``deploy/ray/serve.yaml`` has it, with small replicas and short delays."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
    config |= {"http_options": {"host": "127.0.0.1", "port": port}, "proxy_location": "HeadOnly"}
    (application,) = config["applications"]
    application["args"] |= {
        "cpus": 1, "max_replicas": 2, "queue_tokens": 400, "upscale_delay_s": 1, "downscale_delay_s": 4,
    }  # fmt: skip
    application["runtime_env"]["env_vars"] |= {"ALBERT_SERVE_MODEL_REPO": str(repository)}
    path = tmp_path_factory.mktemp("ray") / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("serve")), "run", "--address", cluster.address, str(path)]
    with subprocess.Popen(
        command, cwd=DEPLOY, env=clusters.environment(ROOT), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as running:
        yield f"http://127.0.0.1:{port}"
        running.terminate()
        running.wait(60)


def test_kuberays_pods_fit_their_schema_and_its_application_is_the_same() -> None:
    service = yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())["spec"]
    cluster = service["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}} | group["template"]
        kubernetes_validate.validate(pod, "1.31", strict=True)
    ours, theirs = yaml.safe_load((DEPLOY / "serve.yaml").read_text()), yaml.safe_load(service["serveConfigV2"])
    for config in (ours, theirs):
        (application,) = config["applications"]
        assert application["import_path"] == "application:application"
        assert set(application["args"]) <= {"cpus", "gpus", "min_replicas", "max_replicas", "queue_tokens"}
        names = {name.removeprefix("ALBERT_SERVE_").lower() for name in application["runtime_env"]["env_vars"]}
        assert names <= Settings.model_fields.keys()


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def replicas(cluster: Any, url: str) -> Iterator[Callable[[], dict[str, int]]]:
    until(lambda: answers(url), 120, "an answer")
    with subprocess.Popen(
        [sys.executable, "-c", REPLICAS, cluster.address], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdin
        assert asking.stdout

        def look() -> dict[str, int]:
            assert asking.stdin
            assert asking.stdout
            print(file=asking.stdin, flush=True)
            lines = iter(asking.stdout.readline, "")
            found: dict[str, int] = json.loads(next(line for line in lines if line.startswith("{")))  # not Ray's own
            return found

        yield look
        asking.stdin.close()


def test_it_answers_as_the_service_does(url: str, replicas: Callable[[], dict[str, int]]) -> None:
    answered = httpx.post(f"{url}/classify", json={"inputs": ["the plot was good"]}, timeout=30)
    assert answered.status_code == 200
    assert set(answered.json()["results"][0]["labels"][0]) == {"label", "score"}
    assert httpx.post(f"{url}/classify", json={"inputs": 3}).status_code == 422
    assert "albert_queue_tokens" in httpx.get(f"{url}/metrics").text
    assert replicas() == {"RUNNING": 1}


def test_it_grows_by_what_waits_and_outlives_a_node(
    cluster: Any, url: str, replicas: Callable[[], dict[str, int]]
) -> None:
    busy = True

    def load() -> set[int]:
        seen: set[int] = set()
        while busy:
            seen.add(httpx.post(f"{url}/classify", json=TEXTS, timeout=60).status_code)
        return seen

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        try:
            until(lambda: replicas().get("RUNNING", 0) == 2, 120, "a second replica")
        finally:
            busy = False
    assert set.union(*(one.result() for one in loads)) <= {200, 429, 503}

    for node in [*cluster.worker_nodes][:1]:
        cluster.remove_node(node, allow_graceful=False)
    until(lambda: answers(url), 60, "an answer after a node has died")
    until(lambda: replicas() == {"RUNNING": 1}, 120, "one replica, as nothing waits")
    assert httpx.post(f"{url}/classify", json={"inputs": ["good"]}, timeout=30).status_code == 200
