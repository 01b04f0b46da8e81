"""One loaded version: its facts, its steps, the probe that says whether its device works."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.errors import DeviceLost
from service.runtime.providers import choose
from service.runtime.session import Model
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.serving.pending import Runner
from service.serving.stepping import Progress, never
from service.tasks.exits import ExitPolicy
from service.types import ModelRef
from tests.fakes import light_engine, row


@pytest.fixture(scope="module", params=["sentiment", "qa"])
def engine(request: pytest.FixtureRequest, repository: Path) -> Engine:
    return load(repository / request.param / "1", LoadOptions(choose("cpu"), budget=64))


class Gone:
    """A model whose device is lost."""

    def pack(self, rows: Any) -> Any:
        raise DeviceLost("CUDA failure 700")

    def give_back(self) -> None:
        raise DeviceLost("CUDA failure 700")


def test_its_facts_are_those_of_its_manifest() -> None:
    engine = light_engine("a", 3, max_length=48)
    runner: Runner = engine

    assert runner.ref == ModelRef("a", 3)
    assert engine.max_length == 48
    assert engine.budget == engine.full_budget == 64


def test_a_budget_that_is_set_is_the_full_one() -> None:
    engine = light_engine()
    engine.budget = 7  # as after the device was out of memory
    assert engine.full_budget == 64
    engine.set_budget(128)
    assert engine.budget == engine.full_budget == 128


def test_a_step_takes_everyone_to_the_end_where_nothing_comes_between(engine: Engine) -> None:
    rows = [row(9), row(20, 8)]
    moved = engine.step([*map(Progress, rows)], never)

    assert [one.depth for one in moved] == [engine.manifest.layers] * 2
    for one, wanted in zip(moved, engine.run(rows), strict=True):
        assert one.logits is not None
        np.testing.assert_allclose(one.logits, wanted, atol=1e-5)


def test_a_step_ends_between_layers_where_it_is_told_to(engine: Engine) -> None:
    stepping = replace(engine.stepping, layers_per_check=1, exits=None)
    (moved,) = replace(engine, stepping=stepping).step([Progress(row(64))], lambda: True)

    assert moved.depth == 1
    assert moved.logits is None


@pytest.mark.parametrize("exits", [None, ExitPolicy("confidence", 0.0, 1)])
def test_a_probe_runs_all_layers_and_changes_nothing(engine: Engine, exits: ExitPolicy | None) -> None:
    other = replace(engine, stepping=replace(engine.stepping, exits=exits))
    before = other.cost.coefficients, other.budget, other.clean_steps
    other.probe()

    assert (other.cost.coefficients, other.budget, other.clean_steps) == before


def test_a_probe_fails_where_the_device_is_gone(engine: Engine) -> None:
    with pytest.raises(DeviceLost):
        replace(engine, model=cast(Model, Gone())).probe()


def test_rebuilding_brings_back_a_model_whose_device_was_gone(engine: Engine) -> None:
    model = engine.model
    other = replace(engine, model=cast(Model, Gone()), remake=lambda: model)
    other.rebuild()
    other.probe()

    assert other.model is model


def test_where_it_cannot_be_made_anew_rebuilding_leaves_it_as_it_is() -> None:
    engine = light_engine(model=object())
    model = engine.model
    engine.rebuild()
    assert engine.model is model


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_profile_run_goes_so_deep_and_lets_nobody_leave_early(engine: Engine, depth: int) -> None:
    depths: list[int] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            if name == "head":
                return self.head
            return getattr(engine.model, name)

        def head(self, hidden: Any, *given: Any) -> Any:
            depths.append(hidden.depth)
            return engine.model.head(hidden, *given)

    stepping = replace(engine.stepping, exits=ExitPolicy("confidence", 0.0, 1))
    other = replace(engine, model=cast(Model, Watched()), stepping=stepping)
    other.profile_run([row(9), row(12)], depth, depth)
    assert depths[-1] == depth
