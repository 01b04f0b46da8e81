"""The gate that every request passes: id, key, clock."""

from collections.abc import AsyncIterator

import httpx
import pytest

from service.api.app import create_app
from service.settings import Settings

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
    app = create_app(settings.model_copy(update={"api_keys": ["first", "sécond"]}))
    async with app.router.lifespan_context(app):
        await app.state.service.registry.wait()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            yield client


async def test_keys_where_configured_are_asked_of_all_but_probes(keyed: httpx.AsyncClient) -> None:
    async def status(key: str | None) -> int:
        headers = [] if key is None else [(b"Authorization", key.encode())]
        return (await keyed.post("/classify", json={"inputs": "ok"}, headers=headers)).status_code

    given = [await status(key) for key in (None, "Bearer wrong", "Bearer ", "Bearer first", "Bearer sécond")]
    assert given == [401, 401, 401, 200, 200]
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
