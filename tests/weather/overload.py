"""More clients than a service can bear, who do as they are told: what becomes of each request."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.weather.harness import Answer, ask, clients, percentile


@dataclass
class Outcome:
    """Every answer, and of those that came back when ``Retry-After`` said, whether they were taken."""

    seconds: float
    end: float  # by time.monotonic
    answers: list[Answer] = field(default_factory=list)
    returned: list[bool] = field(default_factory=list)

    def of(self, *statuses: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.status in statuses]

    @property
    def rate(self) -> float:
        """Answers a second: those that were there in time.  Of few answers, the last that wait are many."""
        return sum(answer.at + answer.seconds < self.end for answer in self.of(200)) / self.seconds

    def table(self) -> str:
        good, refused = self.of(200), self.of(429)
        parts = [f"{self.rate:.1f} answers/s", f"{len(good)} answered", f"{len(refused)} refused"]
        parts += [f"{len(self.of(504))} late", f"{len(self.of(0, 500, 503))} lost"]
        if good:
            parts.append(f"answered p99 {percentile([one.seconds for one in good], 0.99):.2f} s")
        if refused:
            parts.append(f"refused p99 {1000 * percentile([one.seconds for one in refused], 0.99):.0f} ms")
        if self.returned:
            share = sum(self.returned) / len(self.returned)
            parts.append(f"{share:.1%} of {len(self.returned)} who came back were taken")
        return ", ".join(parts)


async def closed_loop(
    url: str, bodies: Sequence[Any], count: int, seconds: float, deadline_ms: int, *, path: str = "/classify",
    follow: bool = True,
) -> Outcome:  # fmt: skip
    """``count`` clients, each with one request at a time; who is refused comes back as told, or after 0.1 s."""
    end = time.monotonic() + seconds
    outcome = Outcome(seconds, end)
    draw = random.Random(1)

    async def client(session: Any) -> None:
        told = False
        while time.monotonic() < end:
            answer = await ask(session, url, draw.choice(bodies), path, **{"X-Deadline-Ms": str(deadline_ms)})
            if answer.at < end:
                outcome.answers.append(answer)
            if told:
                outcome.returned.append(answer.status == 200)
            told = follow and answer.status == 429 and answer.retry_after is not None
            if answer.status != 200:
                await asyncio.sleep(min(end - time.monotonic() + 0.5, answer.retry_after or 1.0) if told else 0.1)

    async with clients() as session:
        await asyncio.gather(*(client(session) for _ in range(count)))
    return outcome
