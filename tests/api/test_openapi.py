"""The OpenAPI document: whole, true, and good enough to make a client from."""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.access import is_public
from service.settings import Settings
from tests.api.test_bad_input import check_error
from tests.conftest import serving

pytestmark = pytest.mark.anyio
KEY = {"Authorization": "Bearer secret"}


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


async def test_every_property_and_every_operation_is_described(client: httpx.AsyncClient) -> None:
    described = await document(client)
    silent = [
        f"{name}.{field}"
        for name, schema in described["components"]["schemas"].items()
        for field, facts in schema.get("properties", {}).items()
        if not facts.get("description")
    ]
    operations = [one for methods in described["paths"].values() for one in methods.values()]

    assert silent == []
    assert all(one["summary"] for one in operations)
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    assert {"classify", "answer_question", "explain", "list_models"} <= set(names)


async def test_keys_and_headers_are_in_it(client: httpx.AsyncClient) -> None:
    described = await document(client)
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            public = is_public(path, method.upper())
            assert ("security" in operation) is not public, path
            assert all("X-Request-ID" in one["headers"] for one in operation["responses"].values())
    classify = described["paths"]["/classify"]["post"]
    assert {one["name"] for one in classify["parameters"]} == {"X-Request-ID", "X-Deadline-Ms"}
    assert "Server-Timing" in classify["responses"]["200"]["headers"]
    assert "Retry-After" in classify["responses"]["429"]["headers"]


async def test_a_generated_client_classifies_asks_and_reads_errors(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By openapi-python-client, typed from the document alone, against the service itself."""
    async with serving(settings.model_copy(update={"api_keys": ["secret"]})) as asked:
        (tmp_path / "openapi.json").write_bytes((await asked.get("/openapi.json")).content)
        command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
        made = await asyncio.to_thread(
            subprocess.run, [*command, "--path", "openapi.json", "--output-path", "made_client"], cwd=tmp_path,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # it formats with ruff
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr

        monkeypatch.syspath_prepend(tmp_path)
        models: Any = importlib.import_module("made_client.models")
        classify: Any = importlib.import_module("made_client.api.tasks.classify")
        answer: Any = importlib.import_module("made_client.api.tasks.answer_question")
        client: Any = importlib.import_module("made_client").AuthenticatedClient("http://test", "secret")
        client.set_async_httpx_client(asked)
        asked.headers.update(KEY)

        labels = await classify.asyncio(client=client, body=models.ClassifyRequest(inputs="It was not good."))
        assert {one.label for one in labels.results[0].labels} == {"negative", "positive"}
        question = models.QaRequest(question="Where?", context="It lies in Cologne.")
        found = await answer.asyncio(client=client, body=question, x_deadline_ms=60_000)
        (span,) = found.answers
        assert span.text == "It lies in Cologne."[span.start : span.end]
        wrong = await classify.asyncio(client=client, body=models.ClassifyRequest(inputs="x", model="none"))
        assert wrong.error.code == "model_not_found"
        late = await classify.asyncio(client=client, body=models.ClassifyRequest(inputs="x"), x_deadline_ms=0.001)
        assert late.error.code == "deadline_exceeded"


@pytest.mark.parametrize("seen", ["/albert/{}", "/{}"], ids=["left on", "taken off"])
async def test_behind_a_prefix(settings: Settings, seen: str) -> None:
    """A proxy serves this at /albert, and takes that off or not."""
    keyed = settings.model_copy(update={"root_path": "/albert", "api_keys": ["secret"]})
    async with serving(keyed) as client:
        described = (await client.get(seen.format("openapi.json"))).json()
        assert described["servers"] == [{"url": "/albert"}]
        documents = await client.get(seen.format("docs"))
        assert "/albert/openapi.json" in documents.text
        assert "/albert/static-offline-docs/swagger-ui.css" in documents.text
        assert (await client.get(seen.format("static-offline-docs/swagger-ui.css"))).status_code == 200
        assert (await client.get(seen.format("health/ready"))).status_code == 200
        assert (await client.get(seen.format("static/style.css"))).status_code == 200
        assert (await client.get(seen.format(""))).status_code == 200
        check_error(await client.post(seen.format("classify"), json={"inputs": "x"}), 401, "unauthorized")
        answer = await client.post(seen.format("classify"), json={"inputs": "x"}, headers=KEY)
        assert answer.status_code == 200
        assert 'route="/classify",status="200"' in (await client.get(seen.format("metrics"))).text


async def test_a_prefix_hides_nothing_from_the_key(settings: Settings) -> None:
    keyed = settings.model_copy(update={"root_path": "/health", "api_keys": ["secret"]})
    async with serving(keyed) as client:
        for path in ("/health/classify", "/classify", "/health/health/../classify"):
            assert (await client.post(path, json={"inputs": "x"})).status_code == 401


async def test_browsers_elsewhere_may_ask_only_where_it_is_set(settings: Settings, client: httpx.AsyncClient) -> None:
    beforehand = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    beforehand["Access-Control-Request-Headers"] = "authorization,content-type,x-deadline-ms"
    refused = await client.options("/classify", headers=beforehand)
    assert "access-control-allow-origin" not in refused.headers
    for origins, allowed in ((["https://a.example"], True), (["https://b.example"], False), (["*"], True)):
        set_so = settings.model_copy(update={"cors_origins": origins, "api_keys": ["secret"]})
        async with serving(set_so) as open_client:
            asked = await open_client.options("/classify", headers=beforehand)
            answer = await open_client.post("/classify", json={"inputs": "x"}, headers=KEY | beforehand)
            assert ("access-control-allow-origin" in asked.headers) is allowed
            assert ("access-control-allow-origin" in answer.headers) is allowed
            # What a browser may not send is still told to it.
            keyless = await open_client.post("/classify", json={"inputs": "x"}, headers=beforehand)
            check_error(keyless, 401, "unauthorized")
            assert ("access-control-allow-origin" in keyless.headers) is allowed
