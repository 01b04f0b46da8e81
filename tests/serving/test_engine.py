"""Loading, warming up, and where text work is done."""

import shutil
import threading
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np
import pytest

from service.errors import OutOfMemory, RepositoryError
from service.runtime.providers import Device, choose
from service.serving.engine import LONG_TEXT, choose_budget, load, warm_up
from service.types import Floats, Sequence
from tests.fakes import ManualClock, light_engine


class TimedModel:
    """Takes ``per_step`` and ``per_token`` seconds of a hand-held clock."""

    def __init__(self, clock: ManualClock, per_step: float, per_token: float) -> None:
        self.clock, self.per_step, self.per_token = clock, per_step, per_token
        self.sizes: list[int] = []

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        tokens = sum(map(len, rows))
        self.sizes.append(tokens)
        self.clock.advance(self.per_step + self.per_token * tokens)
        return [np.zeros(1, dtype=np.float32) for _ in rows]


@pytest.mark.parametrize(
    ("rates", "budget"),
    [
        ({16: 100.0}, 16),
        ({16: 50.0, 32: 96.0, 64: 100.0}, 32),
        ({16: 10.0, 32: 20.0, 64: 40.0}, 64),
        ({8: 9.0, 16: 8.0}, 8),
    ],
)
def test_the_budget_is_the_smallest_size_that_is_about_as_fast_as_any(rates: dict[int, float], budget: int) -> None:
    assert choose_budget(rates) == budget


def test_warm_up_teaches_the_cost_and_stops_where_larger_steps_gain_nothing() -> None:
    clock = ManualClock()
    flat, steep = TimedModel(clock, 0.0, 0.001), TimedModel(clock, 0.5, 0.0001)
    cheap, dear = light_engine(model=flat), light_engine(model=steep)

    assert warm_up(cheap, choose("cpu"), clock) == 16
    assert max(flat.sizes) == 64
    assert warm_up(dear, choose("cpu"), clock) == 512
    assert dear.cost.coefficients == pytest.approx((0.5, 0.0001), rel=1e-6)


def test_no_row_of_the_warm_up_is_longer_than_the_model_can_see() -> None:
    clock = ManualClock()
    engine = light_engine(model=TimedModel(clock, 1.0, 0.0), max_length=16)

    assert warm_up(engine, choose("cpu"), clock) == 512


@pytest.mark.parametrize("max_length", [8, 48, 50, 100, 512])
def test_warm_up_counts_the_tokens_that_ran(max_length: int) -> None:
    clock = ManualClock()
    engine = light_engine(model=TimedModel(clock, 0.004, 0.001), max_length=max_length)
    warm_up(engine, choose("cpu"), clock)

    assert engine.cost.coefficients == pytest.approx((0.004, 0.001))


class SmallMemory(TimedModel):
    """Holds a thousand tokens."""

    def run(self, rows: Seq[Sequence]) -> list[Floats]:
        if sum(map(len, rows)) > 1000:
            raise OutOfMemory("full")
        return super().run(rows)


def test_warm_up_on_a_device_that_runs_out_of_memory_keeps_to_what_fits() -> None:
    clock = ManualClock()
    engine = light_engine(model=SmallMemory(clock, 0.01, 1e-5))

    assert warm_up(engine, Device("cuda"), clock) == 512


async def _thread(engine_size: int) -> bool:
    engine = light_engine()
    try:
        return await engine.text_work(engine_size, threading.get_ident) == threading.get_ident()
    finally:
        engine.close()


@pytest.mark.anyio
async def test_long_texts_leave_the_loop_and_short_ones_stay() -> None:
    assert await _thread(LONG_TEXT)
    assert not await _thread(LONG_TEXT + 1)


def test_a_version_loads_warm_and_answers(repository: Path) -> None:
    engine = load(repository / "sentiment" / "1", choose("cpu"), budget=77)
    (logits,) = engine.run(engine.task.encode("It was not good.").sequences)  # type: ignore[call-arg]

    assert engine.budget == 77
    assert logits.shape == (2,)
    assert sum(engine.cost.coefficients) > 0


@pytest.mark.parametrize("file", ["weights.bin", "layers.cpu.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_version_with_a_missing_or_changed_file_is_refused_by_name(
    repository: Path, tmp_path: Path, file: str, damage: str
) -> None:
    folder = tmp_path / "sentiment" / "1"
    shutil.copytree(repository / "sentiment" / "1", folder)
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-1] + b"!")

    with pytest.raises(RepositoryError, match=file):
        load(folder, choose("cpu"))
