"""A worker whose model process ends, hangs or comes back: who waits hears so at once, and nothing is asked twice."""

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest

from service.errors import DeviceLost, Unavailable
from service.repository.store import fingerprint
from service.serving.aside import THREADS, Aside
from service.serving.loading import at_once
from service.settings import Settings
from service.sharing import link
from service.sharing.host import Host
from service.sharing.link import GONE, HANGS
from service.sharing.messages import Answer, Open
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
            assert (qa.available, sentiment.available) == (True, False)  # so that the worker is not ready
            with pytest.raises(Unavailable, match="sentiment/1 is being opened again"):
                await run(device, sentiment, "ok")
            away.rename(root / "sentiment")
            await until(lambda: sentiment.lease is not None)  # it is tried again by itself
            assert len(await run(device, sentiment, "ok")) == 1


async def test_one_that_says_nothing_any_more_is_let_go_of_and_drops_what_it_was_asked(
    hold: Hold, path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "TICK", 0.02)
    monkeypatch.setattr(Host, "_tell", lambda self, state: None)
    async with hold() as host, worker_at(path) as device:
        seen = []
        hangs = device._link
        engine = await load(device, repository / "sentiment/1")
        async with held(host):
            waits = asyncio.create_task(run(device, engine, "ok"))
            await until(lambda: len(host.device.queue) == 1)
            with pytest.raises(DeviceLost):
                await waits
            seen.append(hangs.down)
            await until(lambda: not len(host.device.queue))
        assert seen == [HANGS]
        # It listens, so it is connected to again, and speaks then.
        await until(lambda: not device.down)
        assert len(leases(host)) == 1


def leases(host: Host) -> list[int]:
    """Each that any worker has."""
    return [lease for worker in host.workers for lease in worker._leases]


async def test_a_connection_that_breaks_at_any_moment_ends_nothing_else(host: Host, path: Path) -> None:
    async with worker_at(path) as device:
        for number in range(300):
            _, writer = await asyncio.open_unix_connection(path)
            await asyncio.sleep(0.0003 * (number % 7))
            writer.transport.abort()
        host.device.stop(Unavailable("the device is away"))
        await until(lambda: device.down == "the device is away")  # it is still told
        await until(lambda: len(host.workers) == 1)


async def test_a_socket_that_is_removed_is_made_again(host: Host, path: Path) -> None:
    os.unlink(path)
    async with worker_at(path) as device:
        assert not device.down


async def test_what_is_opened_again_is_opened_once(hold: Hold, path: Path, repository: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with hold() as first:
            device = await stack.enter_async_context(worker_at(path))
            engines = [await load(device, repository / name) for name in ("qa/1", "sentiment/1")]
            for engine in engines:
                engine.lease = None
            trying = asyncio.create_task(device._open_rest())
            await asyncio.sleep(0)
            for worker in list(first.workers):
                worker.writer.transport.abort()
        async with hold() as second:
            await until(lambda: not device.down)
            await trying
            assert sorted(leases(second)) == sorted(engine.lease or 0 for engine in engines)
            for engine in engines:
                engine.close()
            await until(lambda: not leases(second))


async def test_a_load_outlives_the_process_that_it_was_asked_of(hold: Hold, path: Path, repository: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with hold() as first:
            device = await stack.enter_async_context(worker_at(path))
            async with held(first):  # which a load waits for, too
                loading = asyncio.create_task(load(device, repository / "sentiment/1"))
                await until(lambda: any(worker._asked for worker in first.workers))
                for worker in list(first.workers):
                    worker.writer.transport.abort()
        async with hold():
            assert len(await run(device, await loading, "ok")) == 1


async def test_what_was_opened_for_one_who_left_is_closed(host: Host, path: Path, repository: Path) -> None:
    """The answer was on its way when the loop of the worker saw who had left."""
    async with worker_at(path) as device:
        opened = await device._link.ask(Open("sentiment", 1, fingerprint(repository / "sentiment/1")))
        assert leases(host) == [opened.lease]
        device._link._settle(Answer(12345, opened))
        await until(lambda: not leases(host))


async def test_what_was_loaded_again_is_opened_again_once(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        told: list[str] = []
        device.on_stale = told.append
        engine = await load(device, repository / "sentiment/1")
        host.registry.load_again()
        await host.registry.sync()
        for _ in range(3):
            await run(device, engine, "ok")  # what it opened still answers
        assert told == ["sentiment"]
        newer = await load(device, repository / "sentiment/1")
        engine.close()
        await run(device, newer, "ok")
        assert told == ["sentiment"]


async def test_what_a_process_owed_that_is_gone_is_not_owed(hold: Hold, path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with hold() as host:
            device = await stack.enter_async_context(worker_at(path))
            host.device.admission.reserve("another", 19.0, time.monotonic() + 20)
            await until(lambda: device.admission.promised > 18)
        await until(lambda: device.down)
        device.admission.check("me", 15.0, time.monotonic() + 20)


async def test_who_leaves_an_explanation_frees_both_processes(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        aside, rows = Aside(at_once), rows_of(engine, "It was not good.")
        async with held(host):
            for _ in range(THREADS):
                leaves = asyncio.create_task(
                    aside.run(
                        time.monotonic() + 60, lambda piece: engine.logits_by_depth(rows, time.monotonic() + 60, piece)
                    )
                )
                await until(lambda: host.aside._inside)
                leaves.cancel()
                await asyncio.wait([leaves])
            await until(lambda: not host.aside._inside)
            assert await aside.run(time.monotonic() + 2, lambda piece: piece(lambda: "free")) == "free"
        aside.close()
        host.aside.close()


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
