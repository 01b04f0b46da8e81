"""Work in pieces between the device's steps: bounded, and given up with its caller."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import DeadlineExceeded, QueueFull
from service.serving.aside import MOST, THREADS, Aside
from service.serving.depths import InDeviceThread

pytestmark = pytest.mark.anyio


class Device:
    """Runs pieces where they are asked for, and counts them."""

    pieces = 0

    def between_steps(self, work: Any) -> Any:
        self.pieces += 1
        return work()


@pytest.fixture
async def device() -> Device:
    return Device()


@pytest.fixture
async def aside(device: Device) -> AsyncIterator[Aside]:
    causes: list[str] = []
    made = Aside(device.between_steps, causes.append)
    made.causes = causes  # type: ignore[attr-defined]
    yield made
    made.close()


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def test_pieces_go_to_the_device_and_the_result_comes_back(aside: Aside, device: Device) -> None:
    assert await aside.run(soon(), lambda piece: [piece(lambda n=n: n) for n in range(3)]) == [0, 1, 2]  # type: ignore[misc]
    assert device.pieces == 3


async def test_an_error_is_the_callers(aside: Aside) -> None:
    def fail(piece: InDeviceThread) -> None:
        raise QueueFull("full", 3)

    with pytest.raises(QueueFull, match="full"):
        await aside.run(soon(), fail)


async def test_after_the_deadline_no_piece_begins(aside: Aside, device: Device) -> None:
    ended = threading.Event()

    def endless(piece: InDeviceThread) -> None:
        try:
            while True:
                piece(lambda: time.sleep(0.01))
        finally:
            ended.set()

    with pytest.raises(DeadlineExceeded):
        await aside.run(soon(0.1), endless)
    assert await asyncio.to_thread(ended.wait, 5)
    before = device.pieces
    await asyncio.sleep(0.05)
    assert device.pieces == before


async def test_who_waits_too_long_for_a_thread_is_not_kept(aside: Aside) -> None:
    held = threading.Event()
    keepers = [asyncio.create_task(aside.run(soon(), lambda _: held.wait(10))) for _ in range(THREADS)]
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await aside.run(soon(0.05), lambda _: None)
    held.set()
    assert await asyncio.gather(*keepers) == [True] * THREADS


async def test_too_many_are_refused_at_once_and_room_comes_back(aside: Aside) -> None:
    held = threading.Event()
    inside = [asyncio.create_task(aside.run(soon(), lambda _: held.wait(10))) for _ in range(MOST)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refused:
        await aside.run(soon(), lambda _: None)
    assert refused.value.retry_after
    assert aside.causes == ["explaining"]  # type: ignore[attr-defined]
    held.set()
    await asyncio.gather(*inside)
    assert await aside.run(soon(), lambda _: "room") == "room"
