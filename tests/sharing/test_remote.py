"""A worker whose model process ends, hangs or comes back: who waits hears so at once, and nothing is asked twice."""

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

import pytest

from service.errors import DeviceLost, Unavailable
from service.settings import Settings
from service.sharing import link
from service.sharing.link import GONE, HANGS
from service.sharing.messages import State, write
from tests.fakes import until
from tests.sharing.conftest import Hold, hold_of, load, worker_at
from tests.sharing.held import held
from tests.sharing.test_host import rows_of, run

pytestmark = pytest.mark.anyio


async def test_a_process_that_ends_fails_who_waits_and_another_takes_its_place(
    hold: Hold, path: Path, repository: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with hold() as first:
            device = await stack.enter_async_context(worker_at(path))
            engine = await load(device, repository / "sentiment/1")
            before = await run(device, engine, "ok")
            lease = engine.lease
            async with held(first):
                waits = asyncio.create_task(run(device, engine, "It was not good."))
                await until(lambda: len(first.device.queue) == 1)
                for worker in list(first.workers):  # as if it were killed
                    worker.writer.transport.abort()
                with pytest.raises(DeviceLost):
                    await waits
        await until(lambda: device.down)
        assert device.down == GONE
        with pytest.raises(Unavailable):
            await run(device, engine, "ok")
        async with hold():
            await until(lambda: not device.down)
            assert engine.lease != lease
            after = await run(device, engine, "ok")
    assert before[0].tolist() == after[0].tolist()  # type: ignore[union-attr]


async def test_one_that_comes_back_without_a_version_does_not_keep_the_others_away(
    settings: Settings, path: Path, tmp_path: Path
) -> None:
    root, away = tmp_path / "models", tmp_path / "away"
    shutil.copytree(settings.model_repo, root)
    settings = settings.model_copy(update={"model_repo": root})

    async with contextlib.AsyncExitStack() as stack:
        async with hold_of(settings, path):
            device = await stack.enter_async_context(worker_at(path))
            sentiment, qa = await load(device, root / "sentiment/1"), await load(device, root / "qa/1")
        (root / "sentiment").rename(away)
        async with hold_of(settings, path):
            await until(lambda: not device.down)
            assert qa.lease is not None
            with pytest.raises(Unavailable, match="sentiment/1 is being opened again"):
                await run(device, sentiment, "ok")
            away.rename(root / "sentiment")
            await until(lambda: sentiment.lease is not None)  # it is tried again by itself
            assert len(await run(device, sentiment, "ok")) == 1


async def test_one_that_says_nothing_any_more_is_taken_for_one_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "TICK", 0.02)
    writers: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write(writer, State("", []))
        writers.append(writer)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(silent, path), worker_at(path) as device:
        await until(lambda: device.down == HANGS)
        write(writers[0], State("", []))
        await until(lambda: not device.down)


async def test_a_worker_that_stops_answers_those_who_wait(hold: Hold, path: Path, repository: Path) -> None:
    async with hold() as host, worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        async with held(host):
            waits = asyncio.create_task(run(device, engine, "ok"))
            await until(lambda: len(host.device.queue) == 1)
            device.stop(Unavailable("this did not end in time"))
            with pytest.raises(Unavailable, match="this did not end in time"):
                await waits
        with pytest.raises(Unavailable):
            await run(device, engine, "ok")


async def test_a_model_process_that_answers_nothing_does_not_keep_a_request_beyond_its_deadline(
    hold: Hold, path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sharing.remote.GRACE", 0.1)
    async with hold() as host, worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        rows = rows_of(engine, "ok")

        async def nothing(what: object) -> None:
            await asyncio.sleep(30)

        for worker in host.workers:
            monkeypatch.setattr(type(worker), "_run", lambda self, what: nothing(what))
        began = time.monotonic()
        with pytest.raises(Exception, match="deadline"):
            await device.submit(engine, rows, deadline=time.monotonic() + 0.2)
        assert time.monotonic() - began < 2
