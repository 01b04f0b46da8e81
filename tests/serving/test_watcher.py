"""The repository is followed while the service runs, and a failed look is not the last."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.serving.registry import Registry
from service.serving.watcher import following
from tests.fakes import LightEngine, light_engine, until

pytestmark = pytest.mark.anyio
SOON = 0.001  # seconds between two looks


class Shaky(Registry):
    """Fails at its first ``failures_left`` looks; counts them all."""

    failures_left = 0
    looks = 0

    async def sync(self) -> None:
        self.looks += 1
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("the disk is gone")
        await Registry.sync(self)


def make(folder: Path) -> LightEngine:
    return light_engine(folder.parent.name, int(folder.name))


@pytest.fixture
async def registry(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Shaky]:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with ThreadPoolExecutor(1) as executor:
        started = Shaky(tmp_path, make, executor, Metrics(CollectorRegistry()))
        yield started
        started.close()


def serving(registry: Registry) -> list[str]:
    return [str(engine.ref) for engine in registry.engines()]


def running() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_new_versions_are_picked_up_while_it_runs(registry: Shaky) -> None:
    async with following(registry, SOON):
        await until(lambda: serving(registry) == ["m/1"])
        (registry.root / "m" / "2").mkdir()
        await until(lambda: serving(registry) == ["m/2"])


async def test_a_look_that_fails_is_logged_and_is_not_the_last(
    registry: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    registry.failures_left = 2
    async with following(registry, SOON):
        await until(lambda: serving(registry) == ["m/1"])
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]


async def test_zero_seconds_look_once(registry: Shaky) -> None:
    async with following(registry, 0):
        await registry.wait()
        await until(lambda: "repository watcher" not in running())
    assert registry.looks == 1
    assert serving(registry) == ["m/1"]


async def test_leaving_ends_it(registry: Shaky) -> None:
    async with following(registry, SOON):
        await registry.wait()
        assert "repository watcher" in running()
    assert "repository watcher" not in running()


async def test_the_service_starts_before_its_models_are_loaded(registry: Shaky) -> None:
    async with following(registry, SOON):
        assert not registry.synced
