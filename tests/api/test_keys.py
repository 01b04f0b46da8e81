"""Keys: as digests, from settings and from a file that changes; what each may; and the port of the administration."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.access import is_public
from service.api.keys import Keys
from service.cli import main
from service.errors import RateLimited, UsageError
from service.settings import Settings
from tests.api.test_bad_input import check_error
from tests.conftest import serving, started
from tests.fakes import until

pytestmark = pytest.mark.anyio
LOAD = "/v2/repository/models/qa/load"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def write(path: Path, **keys: str) -> Path:
    """``keys``: the lines of each, by name; its key is its name."""
    entries = [f'[keys.{name}]\nsha256 = "{digest(name)}"\n{more}\n' for name, more in keys.items()]
    path.write_text("\n".join(entries))
    return path


async def ask(client: httpx.AsyncClient, key: str) -> int:
    return (await client.post("/classify", json={"inputs": "ok"}, headers=bearer(key))).status_code


async def test_a_key_may_be_given_as_its_digest(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"api_keys": [f"sha256:{digest('first')}", "plain"]})) as client:
        assert [await ask(client, key) for key in ("first", "plain", "second")] == [200, 200, 401]
        assert await ask(client, f"sha256:{digest('first')}") == 401  # the digest opens nothing


async def test_the_file_is_read_again_when_it_changes_and_a_wrong_one_changes_nothing(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "keys.toml", first="")
    async with started(settings.model_copy(update={"api_key_file": path})) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert [await ask(client, key) for key in ("first", "second")] == [200, 401]
            write(path, second="rate = 100")
            await until(lambda: app.state.keys.find(b"second"))
            assert [await ask(client, key) for key in ("first", "second")] == [401, 200]
            for wrong in ("no toml [", '[keys.a]\nsha256 = "secret-key"', "[keys.a]\nrate = 1", "[other]\n"):
                path.write_text(wrong)
                app.state.keys.look()
                assert await ask(client, "second") == 200
            path.unlink()
            before = len(caplog.records)
            for _ in range(5):
                app.state.keys.look()
            assert await ask(client, "second") == 200
            assert sum("stay as they were" in one.getMessage() for one in caplog.records[before:]) == 1

    told = "\n".join(record.getMessage() for record in caplog.records)
    assert told.count("the keys stay as they were") >= 5
    assert "secret-key" not in told


@pytest.mark.parametrize("text", ["", "x", '[keys.a]\nsha256 = "abc"', "[keys.a]\nadmin = true"])
def test_a_file_that_is_wrong_at_the_start_ends_it(settings: Settings, tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match="api_key_file"):
        Keys(settings.model_copy(update={"api_key_file": path}))
    with pytest.raises(UsageError, match="No such file"):
        Keys(settings.model_copy(update={"api_key_file": tmp_path / "none"}))


def test_the_command_writes_an_entry_that_is_taken(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "shop", "--admin"]) == 0
    told = capsys.readouterr()
    (tmp_path / "keys.toml").write_text(told.out)
    keys = Keys(settings.model_copy(update={"api_key_file": tmp_path / "keys.toml"}))

    found = keys.find(told.err.split()[-1].encode())
    assert found is not None
    assert (found.name, found.admin) == ("shop", True)
    assert told.err.split()[-1] not in told.out


@pytest.mark.parametrize("name", ['a"b', "a b", "", "x" * 65, "é", "a\n"])
def test_the_command_takes_no_name_that_the_file_would_not(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["key", name])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


async def test_above_its_rate_a_key_is_429_and_others_are_not(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "keys.toml", slow="rate = 0.3", fast="")
    async with serving(settings.model_copy(update={"api_key_file": path})) as client:
        assert [await ask(client, "slow") for _ in range(3)] == [200, 200, 200]
        refused = await client.post("/classify", json={"inputs": "ok"}, headers=bearer("slow"))
        check_error(refused, 429, "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1
        assert await ask(client, "fast") == 200
        assert 'albert_refusals_total{cause="rate"} 1.0' in (await client.get("/metrics")).text


def test_a_rate_comes_back_with_time(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "keys.toml", slow="rate = 2")
    keys = Keys(settings.model_copy(update={"api_key_file": path}))
    key = keys.find(b"slow")
    assert key is not None
    begun = time.time()
    taken = 0
    for tenth in range(600):  # a minute, ten requests a second
        monkeypatch.setattr("time.time", lambda now=begun + tenth / 10: now)
        try:
            keys.count(key)
            taken += 1
        except RateLimited:
            pass
    assert 100 <= taken <= 145  # 2 a second, and the burst at the beginning


def test_each_worker_has_its_part_of_a_rate(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "keys.toml", slow="rate = 2")
    keys = Keys(settings.model_copy(update={"api_key_file": path, "workers": 4}))
    key = keys.find(b"slow")
    assert key is not None
    for _ in range(5):
        keys.count(key)
    with pytest.raises(RateLimited):
        keys.count(key)


async def test_a_share_bounds_what_a_key_has_waiting(settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path / "keys.toml", small="share = 0.1", large="")
    async with started(settings.model_copy(update={"api_key_file": path})) as app:
        admission = app.state.service.device.admission
        now = admission.clock()
        admission.reserve("large", 1.0, now + 30)
        held = [admission.reserve("small", 1.0, now + 30) for _ in range(2)]
        with pytest.raises(Exception, match="come back"):
            admission.reserve("small", 1.5, now + 30)
        admission.reserve("large", 1.5, now + 30)
        admission.release(held[0])
        admission.reserve("small", 1.5, now + 30)


@pytest.fixture
async def administered(settings: Settings, anyio_backend: str) -> AsyncIterator[httpx.AsyncClient]:
    update = {"api_keys": ["user"], "admin_keys": ["root"]}
    async with serving(settings.model_copy(update=update)) as client:
        yield client


async def test_models_are_loaded_with_an_admin_key_only(administered: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("user"), bearer("wrong")):
        refused = await administered.post(LOAD, headers=headers)
        assert refused.status_code == 403
        assert "admin key" in refused.json()["error"]
    assert (await administered.post(LOAD, headers=bearer("root"))).status_code == 200
    assert await ask(administered, "root") == 200  # which is a key as others are


@pytest.mark.parametrize("end", ["%0A", "%0D", "%00", "%7F"])
async def test_a_newline_at_the_end_of_a_path_is_no_way_round_a_key(settings: Settings, end: str) -> None:
    for update in ({"api_keys": ["user"], "admin_keys": ["root"]}, {"admin_port": 9000}):
        async with serving(settings.model_copy(update=update)) as client:
            for path in (LOAD, "/v2/repository/models/qa/unload"):
                assert (await client.post(path + end, headers=bearer("user"))).status_code == 404
            assert (await client.get(f"/metrics{end}")).status_code == 404
            assert (await client.post(f"/classify{end}", json={"inputs": "x"})).status_code == 404


async def test_a_service_without_keys_loads_nothing_for_anyone(client: httpx.AsyncClient) -> None:
    assert (await client.post(LOAD)).status_code == 403


async def test_an_admin_key_alone_closes_nothing_else(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"admin_keys": ["root"]})) as client:
        assert (await client.post("/classify", json={"inputs": "ok"})).status_code == 200
        assert (await client.post(LOAD, headers=bearer("root"))).status_code == 200


@pytest.mark.parametrize(("keys", "status"), [({}, 200), ({"admin_keys": ["root"]}, 403)])
async def test_the_administration_has_a_port_of_its_own(settings: Settings, keys: Any, status: int) -> None:
    async with started(settings.model_copy(update={"admin_port": 9000} | keys)) as app:
        transport = httpx.ASGITransport(app=app)
        here, apart = (httpx.AsyncClient(transport=transport, base_url=f"http://test:{p}") for p in (8000, 9000))
        async with here, apart:
            assert (await here.get("/metrics")).status_code == 404
            assert (await here.post(LOAD)).status_code == 404
            assert (await here.post("/classify", json={"inputs": "ok"})).status_code == 200
            assert (await apart.get("/metrics")).status_code == 200
            assert (await apart.post(LOAD)).status_code == status
            for path in ("/", "/docs", "/models"):
                check_error(await apart.get(path), 404, "not_found")
            for client in (here, apart):
                assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("path", "method", "public"),
    [
        ("/", "GET", True),
        ("/", "HEAD", True),
        ("/", "POST", False),
        ("/health", "GET", True),
        ("/healthy", "GET", False),
        ("/health/ready", "GET", True),
        ("/v2/health/live", "GET", True),
        ("/v2", "GET", False),
        ("/metrics", "GET", True),
        ("/metricsx", "GET", False),
        ("/docs", "GET", True),
        ("/docs/../classify", "GET", False),
        ("/openapi.json", "GET", True),
        ("/classify", "POST", False),
        ("/predict", "POST", False),
        ("/models/qa", "POST", False),
    ],
)
def test_what_is_public(path: str, method: str, public: bool) -> None:
    assert is_public(path, method) is public


async def test_keys_are_in_no_log_line(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    update = {"api_keys": ["very-secret-key"], "access_log": True, "log_level": "debug"}
    async with serving(settings.model_copy(update=update)) as client:
        await ask(client, "very-secret-key")
        await ask(client, "very-wrong-key")
        await asyncio.sleep(0)
    assert caplog.records
    assert not [one for one in caplog.records if "very-" in one.getMessage()]
