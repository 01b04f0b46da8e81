"""Load without pause while one fault after the other is injected: ``python -m tests.weather.chaos --minutes 10``.

Two workers serve a copy of the models.  What may fail: a request that was in a worker when it was killed.  Ends with a
table: requests, faults, lost, the longest time not ready, recovery times; exit 1 where more was lost.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from tqdm import tqdm

from tests.conftest import ROOT
from tests.weather.harness import REVIEW, SHORT, Answer, Service, ask, clients, service

BODIES = [
    ("/classify", {"inputs": SHORT}),
    ("/classify", {"inputs": [SHORT, REVIEW], "top_k": 1}),
    ("/classify", {"inputs": REVIEW, "long_text": "windows", "priority": "bulk"}),
    ("/qa", {"question": "What had changed its course?", "documents": [REVIEW, {"id": "a", "text": SHORT}]}),
]
AROUND = 2.0  # seconds around a kill in which a connection may break
PAUSE = 4.0  # seconds between two faults


@dataclass
class Weather:
    """What happened.  ``recoveries`` are the seconds until ready after each fault, by its name."""

    answers: list[Answer] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    kills: list[float] = field(default_factory=list)
    recoveries: dict[str, float] = field(default_factory=dict)
    not_ready: float = 0.0
    log: str = ""

    @property
    def lost(self) -> list[Answer]:
        """Requests that should have been answered: neither refused with advice, nor in a worker that was killed."""
        bad = [answer for answer in self.answers if answer.status not in (200, 429, 503)]
        return [one for one in bad if not (one.status == 0 and self._killed(one))]

    def _killed(self, one: Answer) -> bool:
        return any(one.at - AROUND < at < one.at + one.seconds + AROUND for at in self.kills)

    def table(self) -> str:
        statuses = Counter(answer.status for answer in self.answers)
        broken = sum(answer.status == 0 for answer in self.answers)
        rows = [
            ("requests", f"{len(self.answers)} ({', '.join(f'{n} x {s}' for s, n in sorted(statuses.items()))})"),
            ("faults", ", ".join(f"{n} x {name}" for name, n in sorted(self.faults.items()))),
            ("in killed workers", str(broken - sum(one.status == 0 for one in self.lost))),
            ("lost", str(len(self.lost))),
            ("longest not ready", f"{self.not_ready:.1f} s"),
            ("slowest recovery", ", ".join(f"{name} {s:.1f} s" for name, s in sorted(self.recoveries.items()))),
        ]
        return "\n".join(f"{name:<18} {value}" for name, value in rows)


Fault = Callable[[Service, Path, Weather, random.Random], Awaitable[None]]


async def kill_a_worker(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    weather.kills.append(time.monotonic())
    os.kill(draw.choice(started.workers()), signal.SIGKILL)


async def replace_workers(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    started.signal(signal.SIGHUP)
    await asyncio.sleep(3)


async def stall_a_worker(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    pid = draw.choice(started.workers())
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(1.5)
    os.kill(pid, signal.SIGCONT)


async def publish_again(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    """The newest version of a model once more, under its own number, as somebody's script copies it: file by file."""
    folder = newest(repository / "sentiment")
    aside = repository.parent / "aside"
    shutil.copytree(folder, aside)
    shutil.rmtree(folder)
    folder.mkdir()
    for path in sorted(aside.iterdir()):
        shutil.copy2(path, folder / path.name)
        await asyncio.sleep(0.05)
    shutil.rmtree(aside)


async def cut_weights_short(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    path = newest(repository / "sentiment") / "weights.bin"
    content = path.read_bytes()
    os.truncate(path, 0)
    await asyncio.sleep(2)
    path.write_bytes(content)


async def take_the_repository_away(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    away = repository.with_name("away")
    os.rename(repository, away)
    await asyncio.sleep(0.8)
    os.rename(away, repository)


async def send_rubbish(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    """Connections that say nothing, half of something, or nothing that can be read."""
    writers = []
    for _ in range(60):
        _, writer = await asyncio.open_connection("127.0.0.1", started.port)
        writer.write(draw.choice([b"", b"GET / HT", b"\x16\x03\x01" + draw.randbytes(200), b"POST /qa HTTP/1.1\r\n"]))
        writers.append(writer)
    await asyncio.sleep(1)
    for writer in writers:
        writer.transport.abort()


async def send_the_worst(started: Service, repository: Path, weather: Weather, draw: random.Random) -> None:
    async with clients() as session:
        worst = [{"inputs": [1] * 50_000}, {"inputs": "x" * 300_000}, {str(n): n for n in range(5000)}]
        await asyncio.gather(*(ask(session, started.url, body) for body in worst))


FAULTS: list[Fault] = [
    kill_a_worker, replace_workers, stall_a_worker, publish_again, cut_weights_short, take_the_repository_away,
    send_rubbish, send_the_worst,
]  # fmt: skip


def newest(model: Path) -> Path:
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


async def storm(started: Service, repository: Path, seconds: float, users: int = 6) -> Weather:
    """Load and faults for so long; every fault at least once where there is time."""
    weather, draw, end = Weather(), random.Random(7), time.monotonic() + seconds
    async with clients() as session:
        tasks = [asyncio.create_task(user(session, started.url, weather, end, seed)) for seed in range(users)]
        tasks.append(asyncio.create_task(look(session, started.url, weather, end)))
        await asyncio.sleep(1)
        order: list[Fault] = []
        with tqdm(total=round(seconds), unit=" s", desc="chaos", disable=None) as bar:
            while time.monotonic() < end - 2 * PAUSE:
                order = order or draw.sample(FAULTS, len(FAULTS))
                fault = order.pop()
                weather.faults[fault.__name__] += 1
                began = time.monotonic()
                await fault(started, repository, weather, draw)
                took = await ready_again(session, started.url)
                weather.recoveries[fault.__name__] = max(took, weather.recoveries.get(fault.__name__, 0.0))
                await asyncio.sleep(PAUSE)
                bar.update(round(time.monotonic() - began))
        await asyncio.gather(*tasks)
    weather.log = started.log.read_text()
    return weather


async def user(session: aiohttp.ClientSession, url: str, weather: Weather, end: float, seed: int) -> None:
    draw = random.Random(seed)
    while time.monotonic() < end:
        path, body = draw.choice(BODIES)
        answer = await ask(session, url, body, path)
        weather.answers.append(answer)
        await asyncio.sleep(answer.retry_after or draw.uniform(0, 0.05))


async def look(session: aiohttp.ClientSession, url: str, weather: Weather, end: float) -> None:
    """How long readiness was gone at most, seen from outside."""
    since = None
    while time.monotonic() < end:
        if await is_ready(session, url):
            since = None
        else:
            since = since or time.monotonic()
            weather.not_ready = max(weather.not_ready, time.monotonic() - since)
        await asyncio.sleep(0.05)


async def ready_again(session: aiohttp.ClientSession, url: str) -> float:
    began = time.monotonic()
    while not await is_ready(session, url):  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/ready") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def run(models: Path, seconds: float) -> tuple[Weather, int]:
    """What happened, and the exit code of the service at the end."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(shutil.copytree(models, Path(folder) / "repository"))
        flags = ("--workers", "2", "--threads", "1", "--watch-seconds", "0.5")
        with service(repository, Path(folder) / "log", *flags) as started:
            weather = asyncio.run(storm(started, repository, seconds))
            return weather, started.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", type=Path, default=ROOT / "model_repo")
    options = parser.parse_args()
    weather, code = run(options.models, options.minutes * 60)
    print(weather.table())
    for answer in weather.lost[:10]:
        print("lost:", answer, file=sys.stderr)
    print(f"exit {code} on SIGTERM")
    return 1 if weather.lost or code else 0


if __name__ == "__main__":
    sys.exit(main())
