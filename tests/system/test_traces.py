"""Traces, from a real server to a real collector (rotel's) and by the SDK's own exporter; exemplars; log lines."""

import re
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.api.app import create_app
from service.settings import Settings
from tests.conftest import speaking_to, started
from tests.system.conftest import Server, Start, free_port, start_server
from tests.system.test_grpc import tensor

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ABOVE = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
LEFT_OUT = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


class Seen(InMemorySpanExporter):
    def by_name(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for span in self.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture
async def traced(settings: Settings, monkeypatch: pytest.MonkeyPatch, anyio_backend: str) -> Any:
    seen = Seen()
    monkeypatch.setattr("service.tracing.OTLPSpanExporter", lambda: seen)
    async with started(settings.model_copy(update={"tracing": True})) as app:
        yield app, seen


def spans(app: FastAPI, seen: Seen) -> dict[str, list[Any]]:
    app.state.tracing._provider.force_flush()
    return seen.by_name()


@pytest.mark.anyio
async def test_a_request_has_a_span_for_each_stage_and_each_step(traced: tuple[FastAPI, Seen]) -> None:
    app, seen = traced
    async with speaking_to(app) as client:
        response = await client.post("/classify", json={"inputs": ["one", "two"], "early_exit": False}, headers=ABOVE)
    found = spans(app, seen)

    assert set(found) == {"POST /classify", "encode", "queue", "step", "decode"}
    (root,) = found["POST /classify"]
    assert root.context.trace_id == int(TRACE, 16)
    assert root.parent.span_id == int(PARENT, 16)
    assert response.headers["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01"
    assert root.attributes["albert.model"] == "sentiment"
    assert root.attributes["http.response.status_code"] == 200
    for name, many in found.items():
        for span in many:
            assert name == "POST /classify" or span.parent.span_id == root.context.span_id
            assert root.start_time - 5e6 <= span.start_time <= span.end_time <= root.end_time + 5e6, name
    steps = sorted(found["step"], key=lambda span: span.start_time)
    assert steps[0].attributes["albert.depth.before"] == 0
    depth = app.state.service.registry.named("sentiment")[0].manifest.layers
    assert steps[-1].attributes["albert.depth.after"] == depth
    assert all(span.attributes["albert.tokens"] > 0 for span in steps)


@pytest.mark.anyio
async def test_what_the_caller_does_not_record_is_not_recorded_here(traced: tuple[FastAPI, Seen]) -> None:
    app, seen = traced
    async with speaking_to(app) as client:
        response = await client.post("/classify", json={"inputs": "one"}, headers=LEFT_OUT)
        for path in ("/health/ready", "/metrics", "/"):
            await client.get(path)
    assert spans(app, seen) == {}
    assert response.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert response.headers["traceparent"].endswith("-00")


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-" + "f" * 5000])
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(traced: tuple[FastAPI, Seen], header: str) -> None:
    app, seen = traced
    async with speaking_to(app) as client:
        response = await client.post("/classify", json={"inputs": ""}, headers={"traceparent": header})
    (root,) = spans(app, seen)["POST /classify"]
    assert response.status_code == root.attributes["http.response.status_code"] == 422
    assert root.parent is None


@pytest.mark.anyio
async def test_exemplars_lead_from_a_bucket_to_a_trace(traced: tuple[FastAPI, Seen]) -> None:
    app, _ = traced
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with speaking_to(app) as client:
        await client.post("/classify", json={"inputs": "one"}, headers=ABOVE)
        page = (await client.get("/metrics", headers=openmetrics)).text
        plain = (await client.get("/metrics")).text

    for series in ("albert_request_seconds_bucket", "albert_stage_seconds_bucket", "albert_requests_total"):
        assert re.search(rf'^{series}{{.*}} .* # {{trace_id="{TRACE}"}}', page, re.MULTILINE), series
    assert "# {" not in plain


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A collector that writes what it receives: its port, its log."""
    spec = find_spec("rotel")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    agent = Path(spec.submodule_search_locations[0]) / "rotel-agent"
    port, log = free_port(), tmp_path_factory.mktemp("collector") / "log"
    flags = ["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"]
    flags += ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"]
    with log.open("wb") as output:
        process = subprocess.Popen([agent, "start", *flags], stdout=output, stderr=subprocess.STDOUT)
    yield port, log
    process.kill()
    process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_real_collector_receives_them(
    start: Start, repository: Path, collector: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    port, log = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    monkeypatch.setenv("OTEL_SERVICE_NAME", f"albert-{workers}")
    grpc_port = free_port()
    server = start(repository, "--tracing", "true", "--workers", workers, "--grpc-port", str(grpc_port))
    for _ in range(4):
        assert httpx.post(f"{server.url}/classify", json={"inputs": "one"}).status_code == 200
    client = triton.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    client.infer("sentiment", [tensor("text", ["one"])], headers=ABOVE)
    client.close()
    wanted = [f"albert-{workers}", "POST /classify", "gRPC ModelInfer", TRACE, "albert.tokens", "encode", "decode"]
    end = time.monotonic() + 20
    while missing := [one for one in wanted if one not in log.read_text(errors="replace")]:
        assert time.monotonic() < end, (missing, log.read_text(errors="replace")[-3000:])
        time.sleep(0.2)
    assert server.stop() == 0


def test_a_collector_that_is_away_keeps_nobody_waiting(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    server: Server = start_server(repository, tmp_path / "log", "--tracing", "true", "--log-format", "json")
    server.wait_for("ready: ")
    began = time.monotonic()
    for _ in range(20):
        assert httpx.post(f"{server.url}/classify", json={"inputs": "one"}, headers=ABOVE).status_code == 200
    assert time.monotonic() - began < 5
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 15


def test_log_lines_of_a_request_have_its_trace(repository: Path, tmp_path: Path) -> None:
    server = start_server(
        repository, tmp_path / "log", "--tracing", "true", "--access-log", "true", "--log-format", "json"
    )
    server.wait_for("ready: ")
    httpx.post(f"{server.url}/classify", json={"inputs": "one"}, headers=ABOVE)
    (line,) = server.wait_for("POST /classify 200")
    assert f'"trace_id": "{TRACE}"' in line
    assert server.stop() == 0


def test_nothing_of_it_is_loaded_unless_it_is_wanted(settings: Settings) -> None:
    assert create_app(settings).state.tracing is None
