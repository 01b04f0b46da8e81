"""A stall teaches the service nothing: what it could do before, it does afterwards."""

import asyncio
import signal

from tests.weather.conftest import Serve
from tests.weather.harness import REVIEW, SHORT, ask, clients


def test_after_a_stall_an_idle_device_serves_as_before(serve: Serve) -> None:
    started = serve()

    async def scenario() -> list[int]:
        async with clients() as session:
            for _ in range(20):
                assert (await ask(session, started.url, {"inputs": SHORT})).status == 200
            stalled = [asyncio.create_task(ask(session, started.url, {"inputs": REVIEW})) for _ in range(4)]
            await asyncio.sleep(0.01)
            started.signal(signal.SIGSTOP)
            await asyncio.sleep(3)
            started.signal(signal.SIGCONT)
            await asyncio.gather(*stalled)
            deadline = {"X-Deadline-Ms": "1000"}
            answers = [await ask(session, started.url, {"inputs": SHORT}, **deadline) for _ in range(200)]
            return [answer.status for answer in answers]

    assert asyncio.run(scenario()) == [200] * 200


def test_a_stall_while_models_warm_up_leaves_nothing_behind(serve: Serve) -> None:
    started = serve(ready=False)

    async def scenario() -> list[int]:
        for _ in range(10):
            await asyncio.sleep(0.2)
            started.signal(signal.SIGSTOP)
            await asyncio.sleep(0.2)
            started.signal(signal.SIGCONT)
        async with clients() as session:
            for _ in range(200):
                if (await ask(session, started.url, {"inputs": SHORT})).status == 200:
                    break
                await asyncio.sleep(0.05)
            answers = [
                await ask(
                    session,
                    started.url,
                    {"inputs": [f"{number} {REVIEW}" for number in range(8)]},
                    **{"X-Deadline-Ms": "3000"},
                )
                for _ in range(20)
            ]
            return [answer.status for answer in answers]

    assert asyncio.run(scenario()) == [200] * 20
