"""The model process answers each worker as a device of its own would, and drops what nobody waits for."""

import asyncio
import contextlib
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from service.errors import DeadlineExceeded, QueueFull, RepositoryError, ServiceError, TooLarge, Unavailable
from service.repository.store import read_manifest
from service.serving.pending import Outcome
from service.serving.unloaded import Unloaded
from service.settings import Settings
from service.sharing.host import Host
from service.sharing.messages import Depths, Rows
from service.sharing.remote import RemoteDevice, RemoteEngine
from service.types import Floats, ModelRef, Sequence
from tests.fakes import until
from tests.sharing.conftest import Hold, hold_of, load, worker_at
from tests.sharing.held import held

pytestmark = pytest.mark.anyio
SOON = 20.0


def rows_of(engine: RemoteEngine, *texts: str) -> list[Sequence]:
    return [row for text in texts for row in engine.task.encode(text).sequences]


def value(outcome: Outcome) -> Floats:
    assert not isinstance(outcome, ServiceError)
    return outcome


async def run(device: RemoteDevice, engine: RemoteEngine, *texts: str, seconds: float = SOON) -> list[Outcome]:
    outcomes, _ = await device.submit(engine, rows_of(engine, *texts), deadline=time.monotonic() + seconds)
    return outcomes


async def test_logits_are_those_of_the_model_itself(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        rows = rows_of(engine, "It was not good.", "ok", "Nobody knew why.")
        outcomes, timings = await device.submit(engine, rows, deadline=time.monotonic() + SOON)

        (own,) = host.registry.named("sentiment")
        for outcome, logits in zip(outcomes, own.run(rows), strict=True):
            np.testing.assert_allclose(value(outcome), logits, atol=1e-5)
        assert timings.run > 0
        assert engine.cost.coefficients == own.cost.coefficients
        assert (engine.budget, engine.precision, engine.device) == (own.budget, own.precision, own.device)


async def test_a_long_list_comes_back_whole_and_in_order(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        texts = [f"It was {'not ' * (number % 7)}good {number}." for number in range(300)]
        together = await run(device, engine, *texts)
        alone = [(await run(device, engine, text))[0] for text in texts[::50]]
    for one, other in zip(together[::50], alone, strict=True):
        np.testing.assert_allclose(value(one), value(other), atol=1e-5)


async def test_work_that_nobody_waits_for_is_dropped(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device, worker_at(path) as other:
        engine, theirs = [await load(one, repository / "sentiment/1") for one in (device, other)]
        async with held(host):
            cancelled = asyncio.create_task(run(device, engine, "ok"))
            stays = asyncio.create_task(run(other, theirs, "ok"))
            await until(lambda: len(host.device.queue) == 2)
            cancelled.cancel()
            await until(lambda: len(host.device.queue) == 1)
        assert len(await stays) == 1


async def test_a_worker_that_ends_leaves_nothing_behind(host: Host, path: Path, repository: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with worker_at(path) as device:
            engine = await load(device, repository / "sentiment/1")
            await stack.enter_async_context(held(host))
            lost = asyncio.create_task(run(device, engine, "ok"))
            await until(lambda: len(host.device.queue) == 1)
        with pytest.raises(Unavailable):
            await lost
        await until(lambda: not host.workers and not len(host.device.queue))
    assert host.device.admission.promised == pytest.approx(0.0)
    assert all(loaded.leases == 0 for loaded in host.registry._models["sentiment"].values())


async def test_a_deadline_is_kept_though_the_device_is_busy(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        async with held(host):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await run(device, engine, "ok", seconds=0.2)
            assert time.monotonic() - began < 0.9  # told by the model process itself
        assert not len(host.device.queue)


async def test_what_has_no_room_is_refused_with_its_own_error(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        host.max_queue_tokens = 20
        with pytest.raises(TooLarge):
            await run(device, engine, *(f"It was not good {number}" for number in range(9)))
        async with held(host):
            waits = asyncio.create_task(run(device, engine, "It was not good, and nobody knew why."))
            await until(lambda: len(host.device.queue) == 1)
            with pytest.raises(QueueFull) as refused:
                await run(device, engine, "It was not good, and nobody knew who.")
            assert (refused.value.retry_after or 0) >= 1
        await waits


async def test_a_worker_knows_what_the_device_owes_to_others(host: Host, path: Path, repository: Path) -> None:
    """So that it refuses by the head of a request what the model process would refuse later."""
    async with worker_at(path) as device:
        deadline = time.monotonic() + 5
        device.admission.check("me", 3.0, deadline)
        taken = host.device.admission.reserve("another", 4.0, deadline)
        await until(lambda: device.admission.promised > 3.9)
        with pytest.raises(QueueFull):
            device.admission.check("me", 3.0, deadline)
        host.device.admission.release(taken)
        await until(lambda: device.admission.promised == 0)
        device.admission.check("me", 3.0, deadline)


async def test_a_device_that_is_down_is_down_for_all(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        host.device.stop(Unavailable("the device is away"))
        await until(lambda: device.down)
        assert device.down == "the device is away"
        with pytest.raises(Unavailable, match="the device is away"):
            await run(device, engine, "ok")
        host.device.start()
        await until(lambda: not device.down)
        await run(device, engine, "ok")


async def test_what_does_not_load_says_why(settings: Settings, hold: Hold, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models/sentiment/1"
    shutil.copytree(settings.model_repo / "sentiment/1", folder)
    head = read_manifest(folder).graphs["cpu"].head
    (folder / head).write_bytes(b"damaged")  # a worker does not read it
    settings = settings.model_copy(update={"model_repo": folder.parents[1]})
    async with hold_of(settings, path), worker_at(path) as device:
        with pytest.raises(RepositoryError, match=f"{head} is damaged"):
            await load(device, folder)


async def test_a_version_that_is_retired_stays_until_the_last_worker_has_let_it_go(
    settings: Settings, path: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(settings.model_repo, root)
    watched = settings.model_copy(update={"model_repo": root})
    async with hold_of(watched, path) as host, worker_at(path) as device:
        first = await load(device, root / "sentiment/1")
        second = root / "sentiment/2"
        shutil.copytree(root / "sentiment/1", second)
        manifest = (second / "manifest.json").read_text()
        (second / "manifest.json").write_text(manifest.replace('"version": 1', '"version": 2', 1))
        newer = await load(device, second)  # which has it loaded there
        assert [engine.ref for engine in host.registry.named("sentiment")] == [ModelRef("sentiment", 2)]
        assert len(await run(device, first, "ok")) == 1  # a request that began before is answered by what it began with
        assert len(await run(device, newer, "ok")) == 1
        first.close()
        with pytest.raises(Unavailable):
            await run(device, first, "ok")


async def test_files_that_differ_from_what_is_loaded_are_not_opened(
    host: Host, path: Path, repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "sentiment/1"  # the same content in other files, as after a publication in between
    shutil.copytree(repository / "sentiment/1", other)
    async with worker_at(path) as device:
        with pytest.raises(RepositoryError, match="its files differ"):
            await load(device, other)


async def test_what_is_cancelled_before_it_began_leaves_nothing(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        asked = [asyncio.create_task(run(device, engine, "ok")) for _ in range(200)]
        await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await run(device, engine, "ok")
        await until(lambda: not any(worker._asked for worker in host.workers))


async def test_what_was_unloaded_by_another_worker_goes_though_something_is_opened(
    host: Host, path: Path, repository: Path, tmp_path: Path
) -> None:
    host.registry.unloaded = Unloaded(tmp_path)
    await host.registry.wait()
    Unloaded(tmp_path).add("qa")
    async with worker_at(path) as device:
        await load(device, repository / "sentiment/1")
        await until(lambda: not host.registry.named("qa"))


async def test_a_lease_of_another_process_means_nothing(host: Host, path: Path, repository: Path) -> None:
    async with worker_at(path) as device:
        engine = await load(device, repository / "sentiment/1")
        engine.lease = 1
        with pytest.raises(Unavailable, match="opened again"):
            await device.ask(engine, lambda lease: Depths(lease, Rows.of(rows_of(engine, "ok")), time.monotonic() + 5))
