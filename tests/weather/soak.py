"""An hour's variety in ten minutes: ``python -m tests.weather.soak --minutes 10``.

Every kind of request, good and bad, clients that leave, versions that come and go.  What the process holds is read
after the first fifth and at the end, each time when it has nothing to do: memory, descriptors and threads must be
what they were, and no series of metrics may speak of a version that is gone.
"""

import argparse
import asyncio
import contextlib
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from tqdm import tqdm

from tests.conftest import ROOT
from tests.weather.harness import REVIEW, SHORT, Service, ask, clients, service

WORDS = REVIEW.split()
VERSION = re.compile(r'model="[^"]+",version="[^"]+"')
MORE_MEMORY = 1.05  # times what it was


@dataclass
class Held:
    """What a process holds.  ``series``: those of metrics that speak of a version that is not loaded any more."""

    memory: int
    descriptors: int
    threads: int
    series: int

    @classmethod
    def of(cls, started: Service) -> "Held":
        loaded = httpx.get(f"{started.url}/models", timeout=10).json()["models"]
        versions = {f'model="{one["name"]}",version="{one["version"]}"' for one in loaded}
        told = {found[0] for name in started.metrics() if (found := VERSION.search(name))}
        series = len(told - versions)
        return cls(started.memory(), started.descriptors(), started.threads(), series)


@dataclass
class Soaked:
    before: Held
    after: Held
    statuses: Counter[int] = field(default_factory=Counter)

    def left_over(self) -> list[str]:
        """What is more than it was, in words."""
        now, then = self.after, self.before
        found = []
        if now.memory > MORE_MEMORY * then.memory:
            found.append(f"memory {then.memory >> 20} -> {now.memory >> 20} MiB")
        for name, most in (("descriptors", 2), ("threads", 2), ("series", 0)):
            if getattr(now, name) > getattr(then, name) + most:
                found.append(f"{name} {getattr(then, name)} -> {getattr(now, name)}")
        return found

    def table(self) -> str:
        rows = [
            f"{name:<12} {getattr(self.before, name):>12,} -> {getattr(self.after, name):,}"
            for name in ("memory", "descriptors", "threads", "series")
        ]
        asked = f"requests     {dict(sorted(self.statuses.items()))}"
        return "\n".join([asked, *rows, f"left over    {', '.join(self.left_over()) or 'nothing'}"])


def request(draw: random.Random) -> tuple[str, Any]:
    text = " ".join(draw.choices(WORDS, k=int(draw.lognormvariate(3.5, 1))))
    kind = draw.randrange(9)
    if kind < 3:
        return "/classify", {"inputs": text or SHORT, "top_k": 1}
    if kind == 3:
        texts = [text or SHORT] * draw.randint(1, 12)
        return "/classify", {"inputs": texts, "priority": draw.choice(["bulk", "interactive"])}
    if kind == 4:
        return "/classify", {"inputs": text * 3, "long_text": draw.choice(["windows", "truncate", "error"])}
    if kind == 5:
        return "/qa", {"question": SHORT, "documents": [text or SHORT, REVIEW], "top_k": draw.randint(1, 4)}
    if kind == 6:
        return "/qa", {"question": text[:300], "context": REVIEW * draw.randint(1, 20)}
    if kind == 7:
        wrong: dict[str, Any] = {draw.choice(["inputs", "wrong"]): draw.choice([1, [], None, ""])}
        return draw.choice(["/classify", "/qa", "/nowhere"]), wrong
    return "/classify", {"inputs": SHORT, "model": f"model-{draw.randrange(10_000)}"}


async def user(session: aiohttp.ClientSession, started: Service, statuses: Counter[int], end: float, seed: int) -> None:
    draw = random.Random(seed)
    while time.monotonic() < end:
        path, body = request(draw)
        asked = asyncio.create_task(ask(session, started.url, body, path))
        if draw.random() < 0.1:  # leaves before its answer
            await asyncio.sleep(draw.uniform(0, 0.02))
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
        else:
            statuses[(await asked).status] += 1


async def publish(repository: Path, end: float) -> None:
    """The versions of one model come and go."""
    home = repository / "sentiment"
    newest = max(int(path.name) for path in home.iterdir() if path.name.isdigit())
    for number in range(newest + 1, newest + 1000):
        if time.monotonic() > end - 5:
            return
        aside = home / ".staging-next"
        await asyncio.to_thread(shutil.copytree, home / str(number - 1), aside)
        manifest = aside / "manifest.json"
        text = manifest.read_text().replace(f'"version": {number - 1}', f'"version": {number}', 1)
        manifest.write_text(text)
        aside.rename(home / str(number))
        await asyncio.sleep(5)
        await asyncio.to_thread(shutil.rmtree, home / str(number - 1))


async def load(started: Service, repository: Path, seconds: float, statuses: Counter[int]) -> None:
    end = time.monotonic() + seconds
    async with clients() as session:
        users = [user(session, started, statuses, end, seed) for seed in range(6)]
        await asyncio.gather(publish(repository, end), *users)
    await asyncio.sleep(2)


def run(models: Path, seconds: float) -> Soaked:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(shutil.copytree(models, Path(folder) / "repository"))
        with service(repository, Path(folder) / "log", "--watch-seconds", "0.5") as started:
            statuses: Counter[int] = Counter()
            with tqdm(total=10, desc="soak", unit=" tenths", disable=None) as bar:
                for _ in range(2):
                    asyncio.run(load(started, repository, seconds / 10, statuses))
                    bar.update()
                before = Held.of(started)
                for _ in range(8):
                    asyncio.run(load(started, repository, seconds / 10, statuses))
                    bar.update()
            return Soaked(before, Held.of(started), statuses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", type=Path, default=ROOT / "model_repo")
    options = parser.parse_args()
    soaked = run(options.models, options.minutes * 60)
    print(soaked.table())
    return 1 if soaked.left_over() else 0


if __name__ == "__main__":
    sys.exit(main())
