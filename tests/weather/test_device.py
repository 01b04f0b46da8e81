"""A device that fails, hangs or has no memory: everyone hears so at once, and it comes back or the process ends."""

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest

from service.api.lifecycle import FAILED
from tests.weather.conftest import Serve
from tests.weather.harness import SHORT, Answer, Service, ask, clients, is_ready, wait_until


@pytest.fixture
def control(tmp_path: Path) -> Path:
    path = tmp_path / "control"
    path.write_text("ok")
    return path


@pytest.fixture
def faulty(serve: Serve, control: Path) -> Service:
    return serve("--step-timeout-seconds", "0.5", module=("tests.weather.faulty", str(control)))


def order(control: Path, word: str) -> None:
    aside = control.with_suffix(".new")
    aside.write_text(word)
    aside.replace(control)


async def crowd(url: str, count: int, **headers: str) -> list[Answer]:
    async with clients() as session:
        return list(await asyncio.gather(*(ask(session, url, {"inputs": SHORT}, **headers) for _ in range(count))))


def test_a_lost_device_is_told_at_once_and_comes_back(faulty: Service, control: Path) -> None:
    order(control, "lost")
    answers = asyncio.run(crowd(faulty.url, 16))

    assert {answer.status for answer in answers} == {503}
    assert max(answer.seconds for answer in answers) < 2
    assert not is_ready(faulty)
    order(control, "ok")
    wait_until(lambda: is_ready(faulty), 10, faulty)
    assert {answer.status for answer in asyncio.run(crowd(faulty.url, 8))} == {200}


def test_a_step_that_hangs_is_given_up_and_the_device_comes_back(faulty: Service, control: Path) -> None:
    order(control, "hang")
    began = time.monotonic()
    answers = asyncio.run(crowd(faulty.url, 16))

    assert {answer.status for answer in answers} == {503}
    assert time.monotonic() - began < 5
    assert not is_ready(faulty)
    order(control, "ok")
    wait_until(lambda: is_ready(faulty), 10, faulty)
    assert {answer.status for answer in asyncio.run(crowd(faulty.url, 8))} == {200}


def test_a_device_that_does_not_come_back_ends_the_process_for_its_supervisor(faulty: Service, control: Path) -> None:
    order(control, "lost")
    asyncio.run(crowd(faulty.url, 4))

    assert faulty.process.wait(20) == FAILED
    assert "does not come back" in faulty.log.read_text()


def test_without_memory_smaller_steps_are_taken_and_nobody_is_lost(faulty: Service, control: Path) -> None:
    order(control, "memory")
    texts = [f"{SHORT} {number}" for number in range(24)]  # alike, they would be computed once
    # In one request: those of many may come so slowly that no step ever holds more than fits.
    answer = httpx.post(f"{faulty.url}/classify", json={"inputs": texts}, timeout=60)
    assert answer.status_code == 200
    assert all("labels" in result for result in answer.json()["results"])
    assert is_ready(faulty)
    assert faulty.metrics()['albert_token_budget{model="sentiment",version="1"}'] <= 64


def test_a_process_that_was_stopped_is_no_step_that_hangs(faulty: Service, control: Path) -> None:
    async def stall() -> list[Answer]:
        crowded = asyncio.create_task(crowd(faulty.url, 32))
        await asyncio.sleep(0.02)
        faulty.signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        faulty.signal(signal.SIGCONT)
        return await crowded

    assert {answer.status for answer in asyncio.run(stall())} == {200}
    assert httpx.get(f"{faulty.url}/health/ready").status_code == 200
    assert faulty.metrics()["albert_device_failures_total"] == 0
