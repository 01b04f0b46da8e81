"""The repository is followed while the service runs, and a failed look is not the last."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.serving.registry import Registry
from service.serving.watcher import watch
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
    started = Shaky(tmp_path, make, Metrics(CollectorRegistry()))
    yield started
    started.close()


def serving(registry: Registry) -> list[str]:
    return [str(engine.ref) for engine in registry.engines()]


def running() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_new_versions_are_picked_up_while_it_runs(registry: Shaky) -> None:
    async with watch(registry, SOON, asyncio.Event()):
        await until(lambda: serving(registry) == ["m/1"])
        (registry.root / "m" / "2").mkdir()
        await until(lambda: serving(registry) == ["m/2"])


async def test_a_look_that_fails_is_logged_and_counted_and_is_not_the_last(
    registry: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    registry.failures_left = 2
    async with watch(registry, SOON, asyncio.Event()):
        await until(lambda: serving(registry) == ["m/1"])
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]
    assert registry.metrics.registry.get_sample_value("albert_repository_failures_total") == 2


async def test_with_zero_seconds_it_looks_once_and_then_when_it_is_told(registry: Shaky) -> None:
    now = asyncio.Event()
    async with watch(registry, 0, now):
        await registry.wait()
        await asyncio.sleep(0.02)
        assert registry.looks == 1
        (registry.root / "m" / "2").mkdir()
        now.set()
        await until(lambda: serving(registry) == ["m/2"])
        await asyncio.sleep(0.02)
        assert registry.looks == 2


async def test_told_during_a_look_it_looks_again(tmp_path: Path) -> None:
    now = asyncio.Event()
    (tmp_path / "m" / "1").mkdir(parents=True)

    class Told(Shaky):
        async def sync(self) -> None:
            await Shaky.sync(self)
            if self.looks == 1:
                (self.root / "m" / "2").mkdir()
                now.set()

    registry = Told(tmp_path, make, Metrics(CollectorRegistry()))
    async with watch(registry, 0, now):
        await until(lambda: serving(registry) == ["m/2"])
    registry.close()


async def test_leaving_ends_it(registry: Shaky) -> None:
    async with watch(registry, SOON, asyncio.Event()):
        await registry.wait()
        assert "repository watcher" in running()
    assert "repository watcher" not in running()


async def test_the_service_starts_before_its_models_are_loaded(registry: Shaky) -> None:
    async with watch(registry, SOON, asyncio.Event()):
        assert not registry.synced
