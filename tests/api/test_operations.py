"""Health, models, metrics, documents: what an operator looks at."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.api.app import create_app
from service.settings import Settings

pytestmark = pytest.mark.anyio


async def test_live_and_ready(client: httpx.AsyncClient) -> None:
    live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert live.json() == {"status": "live"}
    assert ready.status_code == 200
    assert ready.json()["models"] == ["qa/1", "sentiment/1"]


async def test_ready_says_why_not_while_the_models_load(settings: Settings) -> None:
    app = create_app(settings)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        early = await client.get("/health/ready")
        refused = await client.post("/classify", json={"inputs": "ok"})
        await app.state.service.registry.wait()
        late = await client.get("/health/ready")

    assert (early.status_code, late.status_code) == (503, 200)
    assert "loaded" in early.json()["reason"]
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_repository_without_models_is_alive_and_never_ready(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"model_repo": tmp_path}))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        await app.state.service.registry.wait()
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")

    assert (live.status_code, ready.status_code) == (200, 503)
    assert str(tmp_path) in ready.json()["reason"]


async def test_not_ready_when_the_device_is_down(client: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.service.worker.healthy = False

    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 503
    assert "albert_ready 0.0" in (await client.get("/metrics")).text


async def test_models_show_their_manifests(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/models")).json()
    (version,) = (await client.get("/models/sentiment")).json()["versions"]
    missing = await client.get("/models/nope")

    assert [model["name"] for model in listed["models"]] == ["qa", "sentiment"]
    assert version["labels"] == ["negative", "positive"]
    assert version["parity"]["different_answers"] == 0
    assert version["device"] == "cpu"
    assert missing.status_code == 404
    assert "qa" in missing.json()["error"]["message"]


async def test_metrics_add_up(client: httpx.AsyncClient) -> None:
    texts = ["It was not good.", "ok", "Nobody knew why."]
    tokens = sum(r["tokens"] for r in (await client.post("/classify", json={"inputs": texts})).json()["results"])
    await client.post("/qa", json={"question": "Who?", "context": "Nobody knew why."})

    page = (await client.get("/metrics")).text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    sentiment = (("model", "sentiment"), ("version", "1"))
    assert samples["albert_step_sequences_sum", sentiment] == 3
    assert samples["albert_step_tokens_sum", sentiment] == tokens
    assert samples["albert_steps_total", sentiment] >= 1
    assert samples["albert_queue_tokens", ()] == 0
    assert samples["albert_ready", ()] == 1
    assert samples["albert_device_busy_seconds_total", ()] > 0
    for stage in ("encode", "queue", "run", "decode"):
        for model in ("sentiment", "qa"):
            labels = (("model", model), ("stage", stage), ("version", "1"))
            assert samples["albert_stage_seconds_count", labels] == 1
    # The page is being answered while it is written.
    assert samples["albert_requests_in_flight", ()] == 1


def asking() -> dict[str, Any]:
    """The scope of a request to /classify."""
    return {
        "type": "http", "method": "POST", "path": "/classify", "raw_path": b"/classify", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1),
        "root_path": "",
    }  # fmt: skip


async def test_a_client_that_leaves_takes_its_work_along(client: httpx.AsyncClient, app: FastAPI) -> None:
    """Driven at the ASGI level, where leaving is a message."""
    left = asyncio.Event()
    messages = [{"type": "http.request", "body": b'{"inputs": "ok", "priority": "bulk"}', "more_body": False}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    worker = app.state.service.worker
    hold = asyncio.Event()
    loop = asyncio.get_running_loop()
    worker.executor.submit(lambda: asyncio.run_coroutine_threadsafe(hold.wait(), loop).result(10))
    gone = asyncio.create_task(app(asking(), receive, send))  # type: ignore[arg-type]
    stays = asyncio.create_task(client.post("/classify", json={"inputs": "It was not good."}))
    while worker.metrics.queue_sequences._value.get() < 1:  # noqa: ASYNC110  # the gauge has no event
        await asyncio.sleep(0)
    left.set()
    await gone
    hold.set()

    assert sent[0]["status"] == 499
    assert (await stays).status_code == 200
    assert 'albert_requests_total{route="/classify",status="499"} 1.0' in (await client.get("/metrics")).text


async def test_a_client_that_leaves_while_it_sends_is_no_bug(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    messages: list[dict[str, object]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b'{"inputs": ', "more_body": True},
    ]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return messages.pop()

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(asking(), receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 499
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_openapi_has_every_route_and_its_examples_work(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    wanted = {"/classify", "/qa", "/models", "/models/{name}", "/health/live", "/health/ready", "/metrics"}
    assert set(document["paths"]) == wanted
    for route, schema in (("/classify", "ClassifyRequest"), ("/qa", "QaRequest")):
        examples = document["components"]["schemas"][schema]["examples"]
        assert examples
        for example in examples:
            assert (await client.post(route, json=example)).status_code == 200
    assert (await client.get("/docs")).status_code == 200
