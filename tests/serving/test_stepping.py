"""Through the layers in any steps, in any company: the same logits; and out as soon as the answer is settled."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from service.runtime.providers import choose
from service.runtime.session import Hidden
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from service.serving.stepping import Progress, Stepping, advance
from service.tasks.exits import ExitPolicy, ExitSignal, exit_signal
from service.types import Floats, Sequence
from tests.fakes import row

NEAR = 1e-5
policies = st.builds(
    ExitPolicy, st.sampled_from(["confidence", "window"]), st.floats(0, 1.1), st.integers(1, 7), st.integers(1, 3)
)


@pytest.fixture(scope="module", params=["sentiment", "qa"])
def engine(request: pytest.FixtureRequest, repository: Path) -> Engine:
    return load(repository / request.param / "1", LoadOptions(choose("cpu"), budget=64))


def some_rows(count: int, seed: int = 0) -> list[Sequence]:
    draw = np.random.default_rng(seed)
    return [row(int(length), int(first)) for length, first in zip(*draw.integers(5, 30, (2, count)), strict=True)]


def run_in_steps(engine: Engine, rows: list[Sequence], seed: int, stepping: Stepping) -> list[Progress]:
    """Everyone to the end: in each step some of those that share a batch key, through as many layers as they may."""
    draw = random.Random(seed)
    state = dict(enumerate(map(Progress, rows)))
    done: dict[int, Progress] = {}
    while state:
        first = draw.choice(list(state))
        batch_key = stepping.batch_key(state[first])
        others = [key for key in state if stepping.batch_key(state[key]) == batch_key and draw.random() < 0.6]
        keys = list(dict.fromkeys([first, *others]))
        draw.shuffle(keys)
        group = [state[key] for key in keys]
        interval, stop = draw.randint(1, stepping.layers), lambda: draw.random() < 0.5
        for key, one in zip(keys, advance(engine.model, stepping, group, interval, stop), strict=True):
            state[key] = one
            if one.logits is not None:
                done[key] = state.pop(key)
    return [done[key] for key in range(len(rows))]


def difference(found: list[Floats], wanted: list[Floats]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("regrouping", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("seed", range(4))
def test_steps_and_company_do_not_change_the_logits(engine: Engine, seed: int, regrouping: float) -> None:
    rows = some_rows(9, seed)
    ends = run_in_steps(engine, rows, seed, replace(engine.stepping, exits=None, regrouping=regrouping))

    assert all(one.depth == engine.manifest.layers and one.hidden is None for one in ends)
    assert difference([one.logits for one in ends if one.logits is not None], engine.run(rows)) < NEAR


@pytest.mark.parametrize("depths", [(0, 0), (1, 1), (0, 1)])
def test_of_the_last_layer_there_is_what_the_head_reads_where_all_end_with_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, depths: tuple[int, ...]
) -> None:
    stepping, read = replace(engine.stepping, exits=None, regrouping=0.0), engine.model.head
    group = [
        Progress(one) if not depth else advance(engine.model, stepping, [Progress(one)], depth, lambda: True)[0]
        for one, depth in zip(some_rows(2), depths, strict=True)
    ]
    assert [one.depth for one in group] == [*depths]
    narrowed = []

    def head(hidden: Hidden, *given: Any) -> list[Floats]:
        narrowed.append(hidden.narrowed)
        return read(hidden, *given)

    monkeypatch.setattr(engine.model, "head", head)
    while group := [one for one in group if one.logits is None]:
        group = advance(engine.model, stepping, group, engine.stepping.layers)
    classifies = engine.manifest.task == "text-classification"
    assert narrowed == ([classifies] if depths[0] == depths[1] else [False, classifies])


@pytest.mark.parametrize("regrouping", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("policy", [ExitPolicy("confidence", 0.52, 1), ExitPolicy("window", 0.0, 2, 2)])
def test_each_leaves_where_the_policy_alone_would_let_it(engine: Engine, policy: ExitPolicy, regrouping: float) -> None:
    rows = some_rows(12)
    asked = Stepping(engine.manifest.layers, exits=replace(policy, first=1, threshold=2))  # at every depth
    exit_history: list[list[ExitSignal]] = []
    for sequence in rows:
        at = Progress(sequence)
        while at.logits is None:
            (at,) = advance(engine.model, asked, [at], 1, lambda: True)
        exit_history.append(list(at.exit_history))
    stepping = replace(engine.stepping, exits=policy, regrouping=regrouping)
    ends = run_in_steps(engine, rows, 1, stepping)

    assert [one.depth for one in ends] == [policy.depth(signals) for signals in exit_history]
    for one, signals in zip(ends, exit_history, strict=True):
        assert one.logits is not None
        assert exit_signal(one.logits).choice == signals[one.depth - 1].choice


def test_an_engine_that_runs_rows_by_itself_lets_them_leave_too(engine: Engine) -> None:
    rows, policy = some_rows(12), ExitPolicy("confidence", 0.52, 1)
    early = replace(engine, stepping=replace(engine.stepping, exits=policy))
    ends = run_in_steps(engine, rows, 2, early.stepping)

    assert difference(early.run(rows, early_exit=True), [one.logits for one in ends if one.logits is not None]) < NEAR
    assert difference(early.run(rows), engine.run(rows)) < NEAR


def test_who_asks_for_full_depth_gets_it_beside_those_who_leave(engine: Engine) -> None:
    rows = some_rows(4)
    stepping = replace(engine.stepping, exits=ExitPolicy("confidence", 0.0))
    patient, hasty = Progress(rows[0], early_exit=False), Progress(rows[1])
    first = advance(engine.model, stepping, [patient, hasty], 1)

    assert first[1].logits is not None
    assert first[0].logits is None or engine.manifest.layers == 1
    (last,) = advance(engine.model, stepping, [first[0]], 1)
    assert last.logits is not None
    assert difference([last.logits], engine.run([rows[0]])) < NEAR


@given(policies, st.integers(1, 12), st.integers(0, 11), st.booleans())
def test_no_step_passes_a_depth_at_which_the_head_must_be_asked(
    policy: ExitPolicy, layers: int, depth: int, early: bool
) -> None:
    stepping = Stepping(layers, exits=policy)
    one = Progress(row(5), early, min(depth, layers - 1))
    end = one.depth + stepping.end([one])

    assert one.depth < end <= layers
    assert stepping.needs_head(replace(one, depth=end))
    assert not any(stepping.needs_head(replace(one, depth=between)) for between in range(one.depth + 1, end))
    assert early or end == layers


@given(
    st.integers(1, 24), st.integers(0, 24), st.lists(st.integers(2, 300), min_size=1, max_size=9), st.integers(1, 500)
)
def test_a_small_group_goes_far_before_it_looks_up_and_a_full_one_looks_up_soon(
    layers: int, least: int, lengths: list[int], budget: int
) -> None:
    stepping = Stepping(layers, layers_per_check=min(least, layers))
    interval = stepping.check_interval([Progress(row(length)) for length in lengths], budget)
    tokens = sum(lengths)

    if stepping.layers_per_check:
        assert interval == 1 or interval * tokens <= budget * stepping.layers_per_check
        assert (interval + 1) * tokens > budget * stepping.layers_per_check
    else:
        assert interval == layers


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_it_stops_after_an_interval_where_it_is_told_to_and_goes_on_where_it_is_not(
    engine: Engine, interval: int
) -> None:
    stepping = replace(engine.stepping, exits=None)
    (stopped,) = advance(engine.model, stepping, [Progress(row(9))], interval, lambda: True)
    (ended,) = advance(engine.model, stepping, [Progress(row(9))], interval, lambda: False)

    assert stopped.depth == min(interval, stepping.layers)
    assert ended.depth == stepping.layers
    assert ended.logits is not None


def test_it_goes_on_by_itself_where_the_head_was_asked_and_nobody_leaves(engine: Engine) -> None:
    stepping = replace(engine.stepping, exits=ExitPolicy("confidence", 2.0))
    (ended,) = advance(engine.model, stepping, [Progress(row(9))], 1)

    assert ended.depth == len(ended.exit_history) == stepping.layers


@pytest.mark.parametrize(
    ("lengths", "done", "depth", "regrouping", "ends"),
    [
        ((10, 10), (), 4, 0.0, False),
        ((10, 10), (0,), 4, 0.0, True),
        ((10, 10), (0, 1), 12, 100.0, True),  # nobody is left
        ((10, 10), (0,), 4, 3.9, True),  # half of eight layers for nothing
        ((10, 10), (0,), 4, 4.1, False),
        ((10, 30), (0,), 4, 2.1, False),  # a quarter of eight
        ((10, 10), (0,), 11, 0.6, False),
    ],
)
def test_a_step_ends_for_those_that_leave_where_that_costs_less_than_to_carry_them(
    lengths: tuple[int, ...], done: tuple[int, ...], depth: int, regrouping: float, ends: bool
) -> None:
    group = [Progress(row(length), depth=depth) for length in lengths]
    group = [replace(one, logits=np.zeros(2, np.float32)) if i in done else one for i, one in enumerate(group)]

    assert Stepping(12, regrouping=regrouping).worth_ending(group) is ends


def test_how_far_the_others_have_to_go_is_that_of_the_one_with_most_before_it() -> None:
    done = Progress(row(10), logits=np.zeros(2, np.float32))
    for others in ((5, 1), (1, 5)):
        group = [done, *(Progress(row(10), depth=depth) for depth in others)]
        assert Stepping(6, regrouping=1.0).worth_ending(group)
        assert not Stepping(6, regrouping=2.0).worth_ending(group)


def test_layers_that_differ_keep_sequences_of_different_depth_apart() -> None:
    at = Progress(row(5), depth=3)

    assert Stepping(12, mixes=True).batch_key(at) == Stepping(12, mixes=True).batch_key(Progress(row(5)))
    assert Stepping(12, mixes=False).batch_key(at) != Stepping(12, mixes=False).batch_key(Progress(row(5)))


def test_what_is_left_shrinks_and_never_ends_before_the_sequence_does() -> None:
    full = Stepping(12)
    early = Stepping(12, exits=ExitPolicy("confidence", 0.9), mean_depth=4.0)

    assert [full.remaining(Progress(row(5), depth=depth)) for depth in (0, 6, 11)] == [1.0, 0.5, 1 / 12]
    assert [early.remaining(Progress(row(5), depth=depth)) for depth in (0, 3, 11)] == [4 / 12, 1 / 12, 1 / 12]
    assert early.remaining(Progress(row(5), early_exit=False)) == 1.0
