"""What need not run: the same sequence twice in a request, and one that was answered a while ago."""

import dataclasses
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from prometheus_client import CollectorRegistry

from service.errors import InferenceFailed
from service.metrics import Metrics
from service.serving.pending import Outcome
from service.serving.reuse import Reuse
from service.settings import Settings
from service.types import Sequence
from tests.conftest import serving

pytestmark = pytest.mark.anyio


@dataclasses.dataclass
class Exits:
    exits: Any = True


@dataclasses.dataclass
class Numbered:
    serial: int
    stepping: Exits = dataclasses.field(default_factory=Exits)


ONE: Any = Numbered(1)


def row(*ids: int, second: int | None = None, masks: Seq[int] | None = None) -> Sequence:
    array = np.array(ids, dtype=np.int32)
    marked = None if masks is None else np.array(masks, dtype=np.int32)
    return Sequence(array, np.zeros_like(array), len(array) if second is None else second, marked)


def answer(rows: Seq[Sequence]) -> list[Outcome]:
    return [np.array([row.ids.sum(), row.second], dtype=np.float32) for row in rows]


def reuse(most: int = 0, **more: Any) -> Reuse:
    return Reuse(Metrics(CollectorRegistry()), most, **more)


def ask(kept: Reuse, rows: Seq[Sequence], engine: Any = ONE, early_exit: bool = True) -> tuple[int, list[Outcome]]:
    plan = kept.plan(engine, rows, early_exit=early_exit)
    outcomes = answer(plan.rows)
    kept.keep(plan, outcomes)
    return len(plan.rows), plan.whole(outcomes)


def test_what_stands_twice_runs_once_and_answers_keep_their_places() -> None:
    ran, found = ask(reuse(), [row(1, 2), row(3), row(1, 2), row(1, 2, second=1)])
    assert ran == 3
    assert [list(one) for one in found] == [[3, 2], [3, 1], [3, 2], [3, 1]]  # type: ignore[arg-type]


def test_another_model_other_masks_or_no_early_exit_is_another_answer() -> None:
    kept = reuse(10**6)
    assert ask(kept, [row(1, 2)])[0] == 1
    assert ask(kept, [row(1, 2)])[0] == 0
    assert ask(kept, [row(1, 2)], Numbered(2))[0] == 1
    assert ask(kept, [row(1, 2)], early_exit=False)[0] == 1
    assert ask(kept, [row(1, 2, masks=[1])])[0] == 1
    assert ask(kept, [row(1, 2, masks=[0])])[0] == 1


def test_it_is_kept_for_so_long_and_no_failure_is() -> None:
    now = [0.0]
    kept = reuse(10**6, seconds=5, clock=lambda: now[0])
    plan = kept.plan(ONE, [row(1)], early_exit=True)
    kept.keep(plan, [InferenceFailed("broken")])
    assert ask(kept, [row(1)])[0] == 1
    now[0] = 5
    assert ask(kept, [row(1)])[0] == 0
    now[0] = 5.1
    assert kept.size
    kept.purge()
    assert not kept.size
    assert ask(kept, [row(1)])[0] == 1
    without = Numbered(3, Exits(None))
    assert [ask(kept, [row(1)], without, early_exit=one)[0] for one in (True, False)] == [1, 0]
    assert reuse().plan(ONE, [row(1)], early_exit=True).rows


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), max_size=12), st.integers(0, 3000))
@hypothesis_settings(deadline=None)
def test_answers_are_those_of_running_everything_and_memory_is_bounded(texts: list[list[int]], most: int) -> None:
    kept = reuse(most)
    rows = [row(*ids) for ids in texts]
    for _ in range(3):
        _, found = ask(kept, rows)
        for one, other in zip(found, answer(rows), strict=True):
            np.testing.assert_array_equal(one, other)
        assert 0 <= kept.size <= most
    assert kept.size == sum(len(key[2]) + logits.nbytes + 300 for key, (_, logits) in kept._kept.items())


async def sequences_run(client: httpx.AsyncClient) -> float:
    page = (await client.get("/metrics")).text
    return sum(
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("albert_step_sequences_sum")
    )


async def test_the_service_runs_a_text_once(settings: Settings, repository: Path) -> None:
    asked = {"inputs": ["It was good.", "no", "It was good."] * 5}
    async with serving(settings.model_copy(update={"cache_mb": 1})) as client:
        before = await sequences_run(client)
        first = (await client.post("/classify", json=asked)).json()
        assert await sequences_run(client) - before == 2
        again = (await client.post("/classify", json=asked)).json()
        assert await sequences_run(client) - before == 2
        page = (await client.get("/metrics")).text
    assert first["results"] == again["results"]
    assert first["results"][0] == first["results"][2]
    assert 'albert_reused_sequences_total{reason="cache"} 2.0' in page
    assert 'albert_reused_sequences_total{reason="duplicate"} 26.0' in page
