"""The gate that every request passes: id, key, clock."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from service.settings import Settings
from tests.conftest import hold_device, serving, speaking_to, started
from tests.fakes import until

pytestmark = pytest.mark.anyio


async def test_a_request_id_is_echoed_or_made(client: httpx.AsyncClient) -> None:
    given = await client.get("/health/live", headers={"X-Request-ID": "abc-123"})
    made = await client.get("/health/live")

    assert given.headers["x-request-id"] == "abc-123"
    assert len(made.headers["x-request-id"]) == 32


@pytest.mark.parametrize("bad", ["a b", "x" * 129, 'é"'])
async def test_an_id_that_could_forge_a_log_line_is_replaced(client: httpx.AsyncClient, bad: str) -> None:
    response = await client.get("/health/live", headers=[(b"X-Request-ID", bad.encode())])

    assert response.headers["x-request-id"] != bad
    assert len(response.headers["x-request-id"]) == 32


@pytest.fixture
async def keyed(settings: Settings, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings.model_copy(update={"api_keys": ["first", "second"]})) as client:
        yield client


async def ask(client: httpx.AsyncClient, key: str | None) -> httpx.Response:
    headers = [] if key is None else [(b"Authorization", key.encode())]
    return await client.post("/classify", json={"inputs": "ok"}, headers=headers)


@pytest.mark.parametrize("key", ["Bearer first", "Bearer second", "bearer first", "BEARER first", "Bearer  first "])
async def test_a_key_is_taken_whatever_the_case_of_its_scheme(keyed: httpx.AsyncClient, key: str) -> None:
    assert (await ask(keyed, key)).status_code == 200


@pytest.mark.parametrize(
    "key",
    [None, "Bearer wrong", "Bearer ", "Bearer", "", "first", "Basic first", "Bearer firs", "Bearer FIRST", "Bearer é"],
)
async def test_without_a_key_it_is_401_and_says_which_scheme_is_wanted(
    keyed: httpx.AsyncClient, key: str | None
) -> None:
    response = await ask(keyed, key)

    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "first" not in response.text


async def test_probes_and_documents_need_no_key(keyed: httpx.AsyncClient) -> None:
    for open_path in ("/health/ready", "/metrics", "/docs", "/openapi.json"):
        assert (await keyed.get(open_path)).status_code == 200
    assert (await keyed.get("/models")).status_code == 401


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    await client.post("/classify", json={"inputs": "ok"})
    await client.post("/classify", json={"inputs": ""})
    await client.get("/models/nope")
    await client.get("/no/such/path")

    page = (await client.get("/metrics")).text
    assert 'albert_requests_total{route="/classify",status="200"} 1.0' in page
    assert 'albert_requests_total{route="/classify",status="422"} 1.0' in page
    assert 'albert_requests_total{route="/models/{name}",status="404"} 1.0' in page
    assert 'albert_requests_total{route="unmatched",status="404"} 1.0' in page


async def test_requests_above_the_limit_are_429_and_probes_are_answered(settings: Settings) -> None:
    async with started(settings.model_copy(update={"max_requests": 2})) as app, speaking_to(app) as client:
        held, release = await hold_device(app)
        waiting = [asyncio.create_task(client.post("/classify", json={"inputs": "ok"})) for _ in range(2)]
        await until(lambda: app.state.loop.queue.tokens)
        refused = [await client.post("/classify", json={"inputs": "ok"}) for _ in range(8)]
        probes = [(await client.get(path)).status_code for path in ("/health/live", "/health/ready", "/metrics")]
        release.set()
        await held

        assert {response.status_code for response in refused} == {429}
        assert {response.json()["error"]["code"] for response in refused} == {"queue_full"}
        waits = {int(response.headers["retry-after"]) for response in refused}
        assert waits <= set(range(1, 6))
        assert len(waits) > 1  # not all at the same time again
        assert probes == [200, 200, 200]
        assert [(await one).status_code for one in waiting] == [200, 200]
        assert 'albert_refusals_total{cause="requests"} 8.0' in (await client.get("/metrics")).text
