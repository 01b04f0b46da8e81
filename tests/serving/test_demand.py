"""The demand of promises: it fits exactly when serving by deadline keeps them all."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from service.serving.demand import GRID, Demand

NOW = 1000.0
JOBS = st.lists(st.tuples(st.floats(0.01, 20.0), st.floats(0.0, 3.0)), max_size=25)  # (patience, seconds)
MANY = settings(deadline=None, max_examples=200)


def lateness(jobs: list[tuple[float, float]], now: float) -> float:
    """Seconds by which the worst of ``(deadline, seconds)`` is late where they run by deadline; below zero: early."""
    worst, at = -math.inf, now
    for deadline, seconds in sorted(jobs):
        at += seconds
        worst = max(worst, at - deadline)
    return worst


def promised(jobs: list[tuple[float, float]]) -> tuple[Demand, list[tuple[float, float]]]:
    """What is kept of ``jobs`` where each is taken that fits, on the grid."""
    demand, kept = Demand(), []
    for patience, seconds in jobs:
        slot = Demand.slot(NOW, NOW + patience)
        if demand.excess(NOW, slot, seconds, 1.0, 1.0) <= 0:
            demand.add(slot, seconds)
            kept.append((slot, seconds))
    return demand, kept


@MANY
@given(JOBS, st.floats(0.01, 20.0), st.floats(0.0, 3.0))
def test_one_more_fits_exactly_when_serving_by_deadline_keeps_every_promise(
    jobs: list[tuple[float, float]], patience: float, seconds: float
) -> None:
    demand, kept = promised(jobs)
    slot = Demand.slot(NOW, NOW + patience)
    late = lateness([*kept, (slot, seconds)], NOW)
    excess = demand.excess(NOW, slot, seconds, 1.0, 1.0)

    assert lateness(kept, NOW) <= 1e-9
    assert (excess <= 0) == (late <= 0) or abs(late) < 1e-9
    assert late <= 0 or excess == pytest.approx(late)


@MANY
@given(JOBS)
def test_slack_is_how_long_the_device_may_stand_still(jobs: list[tuple[float, float]]) -> None:
    demand, kept = promised(jobs)
    slack = demand.slack(NOW)

    assert slack == pytest.approx(-lateness(kept, NOW))
    if kept:
        assert lateness(kept, NOW + slack) == pytest.approx(0.0, abs=1e-9)


@MANY
@given(JOBS, st.floats(0.01, 20.0), st.floats(0.0, 3.0), st.floats(0.1, 1.0), st.floats(0.1, 1.0))
def test_less_fits_into_a_share_of_the_time(
    jobs: list[tuple[float, float]], patience: float, seconds: float, share: float, others: float
) -> None:
    demand, kept = promised(jobs)
    slot = Demand.slot(NOW, NOW + patience)
    due = sum(work for deadline, work in kept if deadline <= slot) + seconds
    bounds = [due - share * (slot - NOW)]
    for later in {deadline for deadline, _ in kept if deadline > slot}:
        before = sum(work for deadline, work in kept if deadline <= later) + seconds
        bounds.append(before - others * (later - NOW))

    assert demand.excess(NOW, slot, seconds, share, others) == pytest.approx(max(bounds), abs=1e-9)


@given(st.floats(0, 1e7), st.floats(1e-3, 1e5))
def test_a_slot_is_never_later_than_its_deadline_and_hardly_earlier(now: float, left: float) -> None:
    deadline = now + left
    slot = Demand.slot(now, deadline)

    assert now < slot <= deadline
    assert deadline - slot <= (deadline - now) / GRID


def test_a_deadline_that_passed_is_its_own_slot() -> None:
    assert Demand.slot(5.0, 5.0) == 5.0
    assert Demand.slot(5.0, 4.3) == 4.3


@MANY
@given(st.lists(st.tuples(st.floats(0.01, 20.0), st.floats(0.0, 3.0), st.floats(-1.0, 1.0)), max_size=25), st.data())
def test_what_is_removed_leaves_nothing_behind(jobs: list[tuple[float, float, float]], data: st.DataObject) -> None:
    demand, kept = Demand(), []
    for patience, seconds, more in jobs:
        slot = Demand.slot(NOW, NOW + patience)
        demand.add(slot, seconds)
        demand.change(slot, more)
        kept.append((slot, seconds + more))
    assert demand.total == pytest.approx(sum(seconds for _, seconds in kept), abs=1e-9)
    for slot, seconds in data.draw(st.permutations(kept)):
        demand.remove(slot, seconds)

    assert demand.total == 0.0
    assert demand.slack(NOW) == math.inf
    assert demand.excess(NOW, NOW + 1.0, 1.0, 1.0, 1.0) == 0.0


def test_there_are_few_slots_whatever_waits() -> None:
    """Deadlines of a millisecond to an hour, over a minute."""
    slots = {
        Demand.slot(now / 10, now / 10 + 0.001 * 3.6e6 ** (step / 1000)) for now in range(600) for step in range(1000)
    }
    at_once = {slot for slot in slots if slot >= 60.0}
    assert len(at_once) < 5000
