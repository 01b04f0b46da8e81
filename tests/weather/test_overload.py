"""Three times what the service can bear: as much is answered as ever, nobody who was admitted is let down, and whoever
is refused is told the truth.  The figures of docs/operations.md, with room for a busy machine."""

import asyncio
import random

from tests.conftest import ROOT
from tests.weather.conftest import Serve
from tests.weather.harness import REVIEW, Probe
from tests.weather.overload import Outcome, closed_loop

WORDS = REVIEW.split()
DEADLINE_MS = 4000


def reviews(seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(180, 300))) for _ in range(8)]


def test_overload_costs_nobody_who_was_admitted(serve: Serve) -> None:
    started = serve(where=ROOT / "model_repo")
    bodies = [{"inputs": reviews(seed)} for seed in range(20)]

    def load(clients: int, seconds: float, deadline_ms: int) -> Outcome:
        return asyncio.run(closed_loop(started.url, bodies, clients, seconds, deadline_ms))

    load(4, 2, 30_000)
    best = load(16, 6, 30_000)
    with Probe(started.url) as probe:
        over = load(100, 15, DEADLINE_MS)
    told = f"best: {best.table()}\nover: {over.table()}\nlive at worst {probe.worst:.2f} s"

    assert over.rate >= 0.6 * best.rate, told
    assert len(over.of(504)) <= 0.05 * len(over.of(200)), told
    assert not over.of(0, 500, 503), told
    assert len(over.returned) > 20, told
    assert sum(over.returned) >= 0.7 * len(over.returned), told
    assert probe.worst < 1, told
