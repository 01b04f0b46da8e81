"""Health, models, metrics, documents: what an operator looks at."""

import asyncio
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.api import failures
from service.api.app import create_app
from service.api.lifecycle import FAILED, Lifecycle, State
from service.errors import InferenceFailed, Unavailable
from service.logs import LimitedLog
from service.runtime.packing import Pack
from service.settings import Settings
from tests import conftest
from tests.conftest import hold_device, serving, speaking_to
from tests.fakes import until
from tests.system.conftest import free_port

pytestmark = pytest.mark.anyio


async def test_live_and_ready(client: httpx.AsyncClient) -> None:
    live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert live.json() == {"status": "live"}
    assert ready.status_code == 200
    assert ready.json()["models"] == ["qa/1", "sentiment/1"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/models", "/models/qa", "/health/live", "/metrics"])
async def test_whatever_answers_get_answers_head(client: httpx.AsyncClient, path: str) -> None:
    head, got = await client.head(path), await client.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert (await client.head("/classify")).status_code == 405


async def test_the_documents_need_no_network(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(named) >= 3
    for path in named:
        assert path.startswith("/static-offline-docs/")
        assert (await client.get(path)).status_code == 200


async def test_metrics_in_openmetrics_where_asked_and_every_cause_from_the_start(client: httpx.AsyncClient) -> None:
    plain = await client.get("/metrics")
    asked = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["content-type"].startswith("text/plain")
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")
    for cause in ("queue", "too_slow", "requests", "busy", "documents"):
        assert f'albert_refusals_total{{cause="{cause}"}} 0.0' in plain.text
    assert "_created" not in plain.text + asked.text


async def test_a_line_for_each_request_where_it_is_wanted(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "service.api.middleware")
    async with serving(settings) as client:
        await client.get("/health/live")
    assert not [record for record in caplog.records if record.name == "service.api.middleware"]
    async with serving(settings.model_copy(update={"access_log": True})) as client:
        await client.post("/classify", json={"inputs": ""})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.api.middleware"]
    assert re.fullmatch(r"POST /classify 422 \d+\.\d ms", line)


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


INPUT = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["one"]}]}
WHILE_LOADING: list[tuple[str, str, Any]] = [
    ("POST", "/classify", {"inputs": "one"}),
    ("POST", "/classify", {"inputs": "one", "model": "sentiment"}),
    ("POST", "/qa", {"question": "who", "context": "one"}),
    ("POST", "/embed", {"inputs": "one"}),
    ("POST", "/fill-mask", {"inputs": "one [MASK]"}),
    ("POST", "/tokens", {"inputs": "one"}),
    ("POST", "/summarize", {"text": "one. two."}),
    ("POST", "/choose", {"prompt": "one", "choices": ["a", "b"]}),
    ("POST", "/explain", {"text": "one"}),
    ("GET", "/models/sentiment", None),
    ("GET", "/v2/models/sentiment", None),
    ("GET", "/v2/models/sentiment/ready", None),
    ("GET", "/v2/models/sentiment/versions/1", None),
    ("GET", "/v2/models/sentiment/config", None),
    ("POST", "/v2/models/sentiment/infer", INPUT),
    ("POST", "/v2/models/sentiment/versions/1/infer", INPUT),
    ("POST", "/models/sentiment", {"inputs": "one"}),
    ("POST", "/models/tags", {"inputs": "one", "parameters": {"top_k": 2}}),
    ("POST", "/", {"inputs": "one"}),
    ("POST", "/predict", {"inputs": "one"}),
    ("GET", "/info", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WHILE_LOADING)
async def test_no_model_is_said_to_be_missing_while_the_models_load(
    settings: Settings, method: str, path: str, body: Any
) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app), speaking_to(app) as client:
        assert not app.state.service.registry.synced
        early = await client.request(method, path, json=body)
        await app.state.service.registry.wait()

    assert early.status_code == 503, early.text
    assert "loaded" in early.text
    assert int(early.headers["retry-after"]) >= 1


async def test_a_worker_takes_calls_of_grpc_once_it_is_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares the port with workers that may be ready already."""
    port, may_be_ready = free_port(), asyncio.Event()
    monkeypatch.setattr("service.api.app._ready", lambda service: may_be_ready.wait())
    app = create_app(settings.model_copy(update={"workers": 2, "grpc_port": port, "host": "127.0.0.1"}))

    async def listening() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    life = app.router.lifespan_context(app)
    starting = asyncio.create_task(life.__aenter__())
    await asyncio.sleep(0.2)
    assert not await listening()
    may_be_ready.set()
    await starting
    assert await listening()
    await life.__aexit__(None, None, None)


async def test_a_repository_without_models_is_alive_and_never_ready(settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings.model_copy(update={"model_repo": tmp_path}))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        await app.state.service.registry.wait()
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")

    assert (live.status_code, ready.status_code) == (200, 503)
    assert "sentiment, qa" in ready.json()["reason"]
    assert "required_models" in ready.json()["reason"]


async def test_not_ready_when_the_device_is_down(client: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.service.device.stop(Unavailable("the device is away"))

    ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "the device is away")
    assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 503
    assert "albert_ready 0.0" in (await client.get("/metrics")).text


async def test_a_required_model_that_is_not_loaded_makes_it_not_ready(settings: Settings) -> None:
    changes: dict[str, Any] = {"required_models": ["sentiment", "topic", "spam"]}
    async with serving(settings.model_copy(update=changes)) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "not ready"
        assert "topic, spam" in ready.json()["reason"]
        assert ready.headers["retry-after"] == "1"
        # What is loaded is served all the same.
        assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 200
        assert "albert_ready 0.0" in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"classify_model": "topic"}, "topic"),
        ({"qa_model": "reader"}, "reader"),
        ({"classify_model": "topic", "required_models": ["qa"]}, ""),
        ({"classify_model": "topic", "required_models": []}, ""),
    ],
)
async def test_the_default_models_are_required_unless_others_are_named(
    settings: Settings, changes: dict[str, Any], missing: str
) -> None:
    async with serving(settings.model_copy(update=changes)) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == (503 if missing else 200)
        assert missing in ready.json().get("reason", "")


def only(repository: Path, root: Path, *copies: tuple[str, str]) -> Path:
    """A repository with models of ``repository`` under other names."""
    for source, name in copies:
        shutil.copytree(repository / source / "1", root / name / "1")
        manifest = root / name / "1" / "manifest.json"
        manifest.write_text(manifest.read_text().replace(f'"name": "{source}"', f'"name": "{name}"', 1))
    return root


async def test_the_only_model_of_a_task_is_its_default(settings: Settings, repository: Path, tmp_path: Path) -> None:
    root = only(repository, tmp_path, ("sentiment", "mine"))
    async with serving(Settings(**settings.model_dump(exclude_defaults=True) | {"model_repo": root})) as client:
        assert (await client.get("/health/ready")).status_code == 200
        found = await client.post("/classify", json={"inputs": "ok"})
        assert found.json()["model"]["name"] == "mine"
        assert (await client.post("/explain", json={"text": "ok"})).json()["model"]["name"] == "mine"
        refused = await client.post("/qa", json={"question": "Who?", "context": "ok"})
        assert refused.status_code == 404
        assert "mine/1" in refused.json()["error"]["message"]


async def test_of_several_none_is_the_default_and_the_service_is_ready(
    settings: Settings, repository: Path, tmp_path: Path
) -> None:
    root = only(repository, tmp_path, ("sentiment", "mine"), ("sentiment", "yours"), ("qa", "reader"))
    async with serving(Settings(**settings.model_dump(exclude_defaults=True) | {"model_repo": root})) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 404
        assert (await client.post("/classify", json={"inputs": "ok", "model": "yours"})).status_code == 200
        found = await client.post("/qa", json={"question": "Who?", "context": "ok"})
        assert found.json()["model"]["name"] == "reader"


async def test_a_service_that_was_told_to_stop_is_not_ready_and_still_answers(settings: Settings) -> None:
    life = Lifecycle()
    app = create_app(settings, life=life)
    async with app.router.lifespan_context(app), speaking_to(app) as client:
        await app.state.service.registry.wait()
        assert (await client.get("/health/ready")).status_code == 200
        life.stop()
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the service is stopping")
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 200
        assert "albert_ready 0.0" in (await client.get("/metrics")).text
    assert life.state is State.STOPPED


def test_a_lifecycle_goes_forward_only() -> None:
    life, seen = Lifecycle(), []
    for state in (State.SERVING, State.STARTING, State.STOPPING, State.SERVING, State.DRAINING, State.STOPPING):
        life.advance(state)
        seen.append(life.state)
    assert seen == [State.SERVING] * 2 + [State.STOPPING] * 2 + [State.DRAINING] * 2
    assert life.draining
    life.stop()
    assert (life.state, life.ending, life.exit_code) == (State.DRAINING, True, 0)


def test_a_stop_before_the_start_has_ended_is_not_forgotten() -> None:
    life = Lifecycle()
    life.stop()
    life.advance(State.SERVING)
    assert (life.state, life.ending, life.draining) == (State.STOPPING, True, False)


def test_a_failure_stops_with_an_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    life = Lifecycle()
    life.advance(State.SERVING)
    life.fail("the device is gone")
    assert (life.state, life.exit_code, life.reason) == (State.STOPPING, FAILED, "the device is gone")
    assert "the device is gone" in caplog.text


@pytest.mark.parametrize(("late", "given", "status"), [(10.0, "5000", 504), (0.0, "5000", 200), (31.0, None, 504)])
async def test_a_deadline_counts_from_the_first_byte(app: FastAPI, late: float, given: str | None, status: int) -> None:
    """Not from when the head was read, or the request's turn came."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b'{"inputs": "ok"}', "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [] if given is None else [(b"x-deadline-ms", given.encode())]
    scope = asking() | {"headers": headers, "state": {"began": time.monotonic() - late}}
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == status


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


async def test_a_model_that_cannot_answer_makes_the_service_not_ready(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that the process which has the models could not load again."""
    engine = app.state.service.registry.named("sentiment")[0]
    monkeypatch.setattr(type(engine), "available", property(lambda self: self is not engine))
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/v2/models/sentiment/ready")).status_code == 503
    assert (await client.get("/v2/models/qa/ready")).status_code == 200
    listed = (await client.post("/v2/repository/index", json={"ready": True})).json()
    assert [one["name"] for one in listed] == ["qa"]


async def test_metrics_add_up(client: httpx.AsyncClient) -> None:
    if conftest.SHARE_MODELS:
        pytest.skip("what two processes count is added up in tests/system")
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

    held, release = await hold_device(app)
    gone = asyncio.create_task(app(asking(), receive, send))  # type: ignore[arg-type]
    stays = asyncio.create_task(client.post("/classify", json={"inputs": "It was not good."}))
    await until(lambda: len(app.state.loop.queue) == 2)
    left.set()
    await gone
    release.set()
    await held

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

    wanted = {"/classify", "/qa", "/explain", "/models", "/models/{name}", "/health/live", "/health/ready", "/metrics"}
    assert set(document["paths"]) >= wanted
    for route, schema in (("/classify", "ClassifyRequest"), ("/qa", "QaRequest"), ("/explain", "ExplainRequest")):
        examples = document["components"]["schemas"][schema]["examples"]
        assert examples
        for example in examples:
            assert (await client.post(route, json=example)).status_code == 200
    assert (await client.get("/docs")).status_code == 200


async def test_refusals_and_faults_are_logged_and_rate_limited(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "often", LimitedLog(failures.log))
    app.state.service.device.stop(Unavailable("the device is away"))
    for _ in range(20):
        refused = await client.post("/classify", json={"inputs": "ok"}, headers={"X-Request-ID": "mine"})
        assert refused.status_code == 503
        late = await client.post("/classify", json={"inputs": "ok"}, headers={"X-Deadline-Ms": "0"})
        assert late.status_code == 504

    lines = [record.getMessage() for record in caplog.records if record.name == "service.api.failures"]
    assert len(lines) == 2
    assert "answered 503: the device is away" in lines[0]
    assert "answered 504" in lines[1]
    assert "deadline_ms" in lines[1]


async def test_a_request_that_is_wrong_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    caplog.clear()
    for body in ({"inputs": ""}, {"inputs": 5}, {"inputs": "x", "model": "nope"}):
        assert 400 <= (await client.post("/classify", json=body)).status_code < 500
    assert [record for record in caplog.records if record.name.startswith("service.")] == []


async def test_an_inference_that_fails_is_logged_with_the_id_of_its_request(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = next(one for one in app.state.models.engines() if one.ref.name == "sentiment")

    @dataclass
    class Failing:
        """A model that cannot bear one length; the device is well."""

        model: Any

        def __getattr__(self, name: str) -> Any:
            return getattr(self.model, name)

        def embed(self, pack: Pack) -> Any:
            if 7 in pack.lengths:
                raise InferenceFailed("no such matrix")
            return self.model.embed(pack)

    monkeypatch.setattr(engine, "model", Failing(engine.model))
    texts = ["ok", "It was not good.", "Nobody knew why."]
    answer = await client.post("/classify", json={"inputs": texts}, headers={"X-Request-ID": "mine"})

    results = answer.json()["results"]
    assert answer.status_code == 200
    assert ["labels" in result for result in results] == [True, False, True]
    assert results[1]["error"]["code"] == "inference_failed"
    assert "matrix" not in answer.text
    (record,) = [record for record in caplog.records if "failed on 7 tokens" in record.getMessage()]
    assert record.request_id == "mine"  # type: ignore[attr-defined]
    assert "no such matrix" in record.getMessage()
    alone = await client.post("/classify", json={"inputs": "It was not good."})
    assert (alone.status_code, alone.json()["error"]["code"]) == (500, "inference_failed")
    assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 200
