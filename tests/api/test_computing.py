"""Threads follow the cores that may be used, while the service answers."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from fastapi import FastAPI

from service.api import computing
from service.runtime import processor
from service.settings import Settings
from tests import conftest
from tests.conftest import sharing, speaking_to, started
from tests.fakes import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", [started, sharing])
async def test_a_quota_that_changes_has_the_models_loaded_again(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: Callable[[Settings], AbstractAsyncContextManager[FastAPI]],
) -> None:
    if conftest.SHARE_MODELS:
        pytest.skip("both ways are here")
    caplog.set_level("INFO")
    monkeypatch.setattr(computing, "CORES_SECONDS", 0.05)
    monkeypatch.setattr(processor, "usable_cores", lambda: 3)
    async with how(settings) as app, speaking_to(app) as client:
        await until(lambda: {engine.device.threads for engine in app.state.models.engines()} == {3})
        statuses, done = Counter[int](), asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                statuses[(await client.post("/classify", json={"inputs": "It was not good."})).status_code] += 1

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        before = {engine.serial for engine in app.state.models.engines()}
        monkeypatch.setattr(processor, "usable_cores", lambda: 1)
        await until(lambda: {engine.device.threads for engine in app.state.models.engines()} == {1})
        assert not before & {engine.serial for engine in app.state.models.engines()}
        # And who opened what was there before has it closed, and asks the new one.
        await until(lambda: {one.device.threads for one in app.state.service.registry.named("sentiment")} == {1})
        await until(lambda: "sentiment/1 drained and closed" in caplog.text)
        done.set()
        await asyncio.gather(*asking)
    assert set(statuses) == {200}
    assert "1 cores may be used now: models are loaded again, for 1 threads" in caplog.text


async def test_threads_that_were_set_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "CORES_SECONDS", 0.02)
    monkeypatch.setattr(processor, "usable_cores", lambda: 9)
    async with started(settings.model_copy(update={"threads": 2})) as app:
        await asyncio.sleep(0.2)
        assert {engine.device.threads for engine in app.state.models.engines()} == {2}
