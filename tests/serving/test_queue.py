"""Where the loop and the device's thread meet: what is taken, requeued and dropped is always somebody's."""

import gc
import threading
import time
import weakref
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from service.serving.admission import Admission, Reservation
from service.serving.pending import PendingRequest, PendingSequence
from service.serving.queue import Queue, estimate, work_left
from service.serving.stepping import Progress, Stepping
from service.types import ModelRef, Priority
from tests.fakes import FakeRunner, ManualClock, row

FAR = 1e6
PER_TOKEN = 0.125  # seconds


def priced_runner(**changes: Any) -> FakeRunner:
    facts: dict[str, Any] = {"budget": 8, "stepping": Stepping(4, layers_per_check=1)}
    runner = FakeRunner(**facts | changes)
    runner.cost.coefficients = (0.0, PER_TOKEN)
    return runner


def requested(runner: FakeRunner, rows: int, client: str = "", deadline: float = FAR) -> PendingRequest:
    future: Any = None
    return PendingRequest(runner, future, [None] * rows, Reservation(client, deadline, deadline, 0.0))


@dataclass
class Setup:
    """A queue with its admission, on a clock held in the hand."""

    runner: FakeRunner = field(default_factory=priced_runner)
    clock: ManualClock = field(default_factory=lambda: ManualClock(0.0))

    def __post_init__(self) -> None:
        self.admission = Admission(self.clock)
        self.queue = Queue(self.admission)

    def add(
        self, *lengths: int, client: str = "", deadline: float = FAR, priority: Priority = Priority.INTERACTIVE,
        runner: FakeRunner | None = None,
    ) -> list[int]:  # fmt: skip
        """A request of rows of ``lengths``, not promised anything; their keys."""
        request = requested(runner or self.runner, len(lengths), client, deadline)
        rows = enumerate(map(row, lengths))
        return self.queue.add(request, rows, now=self.clock(), priority=priority, early_exit=True)

    def take(self) -> tuple[list[int], list[PendingSequence]]:
        late, batch = self.queue.next_batch(self.clock())
        return keys(late), batch


def keys(sequences: Seq[PendingSequence]) -> list[int]:
    return [one.key for one in sequences]


def unmoved(batch: Seq[PendingSequence]) -> list[tuple[PendingSequence, Progress]]:
    return [(one, one.progress) for one in batch if one.progress is not None]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_what_is_taken_waits_no_more_and_is_answered_once(setup: Setup) -> None:
    first, second = setup.add(1, 2)
    assert (len(setup.queue), setup.queue.tokens) == (2, 3)
    late, batch = setup.take()
    assert (late, keys(batch), len(setup.queue), setup.queue.tokens) == ([], [first, second], 0, 0)
    assert [one.index for one in batch] == [0, 1]
    assert setup.queue.close(first) is batch[0]
    assert setup.queue.close(first) is None


def test_what_is_late_is_not_in_the_batch(setup: Setup) -> None:
    (late,), (soon,) = setup.add(1, deadline=5.0), setup.add(1)
    setup.clock.now = 5.0
    found, batch = setup.take()
    assert (found, keys(batch)) == ([late], [soon])
    assert setup.queue.close(late) is not None


@pytest.mark.parametrize(("now", "first"), [(0.0, "short"), (0.7, "short"), (0.95, "long")])
def test_where_a_promise_is_about_to_break_the_earliest_deadline_goes_first(
    setup: Setup, now: float, first: str
) -> None:
    """A second of two is promised: so long may the device be busy with others, and hardly longer."""
    setup.admission.reserve("", 1.0, 2.0)
    (long,), (short,) = setup.add(100, deadline=2.0), setup.add(8, deadline=4.0)
    setup.clock.now = now
    assert keys(setup.take()[1]) == [{"long": long, "short": short}[first]]


def test_one_that_is_not_done_comes_back_with_the_work_that_is_left(setup: Setup) -> None:
    (key,) = setup.add(8)
    _, (taken,) = setup.take()
    assert taken.progress is not None
    assert (taken.work, taken.cost) == (8.0, 1.0)
    setup.queue.requeue([(taken, Progress(taken.progress.sequence, depth=3))])
    assert (taken.work, taken.cost) == (2.0, 0.25)  # a layer of four
    assert keys(setup.take()[1]) == [key]


def test_layers_that_differ_keep_those_that_come_back_apart() -> None:
    setup = Setup(priced_runner(stepping=Stepping(4, mixes=False, layers_per_check=1)))
    (begun,) = setup.add(2)
    _, (taken,) = setup.take()
    assert taken.progress is not None
    (new,) = setup.add(2)
    setup.queue.requeue([(taken, Progress(taken.progress.sequence, depth=2))])
    assert sorted([keys(setup.take()[1]), keys(setup.take()[1])]) == [[begun], [new]]


def test_what_was_dropped_from_a_step_does_not_come_back(setup: Setup) -> None:
    first, second = setup.add(1, 1)
    _, batch = setup.take()
    assert setup.queue.drop([first]) == 1
    assert not setup.queue.preemption_requested  # the other one is still wanted
    assert setup.queue.drop([first, second]) == 1
    assert setup.queue.preemption_requested
    setup.queue.requeue(unmoved(batch))
    assert len(setup.queue) == 0
    assert setup.take() == ([], [])


def test_what_was_dropped_while_it_waited_never_runs(setup: Setup) -> None:
    first, second = setup.add(1, 1)
    assert setup.queue.drop([first, 12345]) == 1
    assert keys(setup.take()[1]) == [second]


def test_when_all_is_dropped_each_request_is_told_once(setup: Setup) -> None:
    running = requested(setup.runner, 2)
    waiting = requested(setup.runner, 3)
    for request in (running, waiting):
        rows = [(index, row(4)) for index in range(request.open)]
        setup.queue.add(request, rows, now=0.0, priority=Priority.INTERACTIVE, early_exit=True)
        if request is running:
            _, batch = setup.take()
    assert setup.queue.drop_all() == [running, waiting]
    assert setup.queue.drop_all() == []
    setup.queue.requeue(unmoved(batch))
    assert (len(setup.queue), setup.queue.tokens) == (0, 0)


def test_a_step_of_much_is_preempted_by_what_is_much_shorter(setup: Setup) -> None:
    setup = Setup(priced_runner(budget=1000))
    setup.add(1000)
    setup.take()
    setup.add(1000)
    assert not setup.queue.preemption_requested
    setup.add(1000, 1)
    assert setup.queue.preemption_requested
    setup.take()
    assert not setup.queue.preemption_requested


def test_nothing_is_preempted_where_no_step_runs(setup: Setup) -> None:
    setup.add(8)
    _, batch = setup.take()
    setup.queue.requeue(unmoved(batch))
    setup.add(1)
    assert not setup.queue.preemption_requested


def test_sequences_of_another_client_do_not_wait_behind_a_whole_list(setup: Setup) -> None:
    listed = setup.add(*[8] * 100, client="list")
    others = [setup.add(8, client=f"other {number}")[0] for number in range(3)]
    order = [key for _ in range(103) for key in keys(setup.take()[1])]
    assert order[:4] == [listed[0], *others]
    assert order[4:] == listed[1:]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 3), min_size=20, max_size=60), st.integers(2, 4))
def test_clients_that_have_much_waiting_get_equal_shares_of_the_device(sizes: list[int], clients: int) -> None:
    setup = Setup(priced_runner(budget=1))
    owner = {key: n for n in range(clients) for key in setup.add(*sizes, client=str(n))}
    ran = dict.fromkeys(range(clients), 0)
    for _ in range(len(sizes) * clients):
        _, (one,) = setup.take()
        ran[owner[one.key]] += one.tokens
        if max(ran.values()) < sum(sizes):
            assert max(ran.values()) - min(ran.values()) <= 2 * max(sizes)


def test_a_client_that_waited_for_nothing_is_as_good_as_new(setup: Setup) -> None:
    setup.add(*[8] * 100, client="a")
    while setup.take()[1]:
        pass
    (first,) = setup.add(8, client="a")
    setup.add(8, client="b")
    assert keys(setup.take()[1]) == [first]


def test_clients_that_went_are_forgotten_though_the_queue_is_never_empty(setup: Setup) -> None:
    for number in range(3000):
        setup.clock.advance(1.0)
        setup.add(8, client=f"client {number}")
        if len(setup.queue) < 2:
            setup.add(8, client="always", priority=Priority.BULK)
        _, batch = setup.take()  # one of two: they do not fit into one step
        setup.queue.requeue([])
        for one in batch:
            setup.queue.close(one.key)
    remembered = len(setup.queue._virtual)
    assert remembered < 1000


def test_a_request_that_an_idle_device_tries_is_run_though_its_price_says_that_it_takes_too_long(
    setup: Setup,
) -> None:
    """Only what runs can correct a price that is wrong."""
    setup.runner.cost.coefficients = (0.0, 45.0)
    request = requested(setup.runner, 1, deadline=1.0)
    request.reservation = setup.admission.reserve("", estimate(setup.runner, [row(4)], True), 1.0)
    (key,) = setup.queue.add(request, [(0, row(4))], now=0.0, priority=Priority.INTERACTIVE, early_exit=True)
    late, batch = setup.take()
    assert (late, keys(batch)) == ([], [key])


def test_a_model_that_nobody_asks_any_more_is_not_held(setup: Setup) -> None:
    other = priced_runner(ref=ModelRef("other", 1))
    held = weakref.ref(other)
    (key,) = setup.add(4, runner=other)
    setup.add(4)
    del other
    assert setup.queue.drop([key]) == 1
    setup.take()
    setup.queue.requeue([])
    gc.collect()
    assert held() is None


def test_what_is_left_and_what_a_request_takes_are_priced_alike() -> None:
    runner = priced_runner(budget=100)
    runner.cost.coefficients = (0.5, 0.01)
    assert work_left(runner, Progress(row(40))) == pytest.approx((40.0, 0.6))
    assert work_left(runner, Progress(row(40), depth=3)) == pytest.approx((10.0, 0.15))
    rows = [row(40), row(60), row(20)]
    parts = sum(work_left(runner, Progress(one))[1] for one in rows)
    assert estimate(runner, rows, True) == pytest.approx(parts + 0.5)  # one step may not be full


@pytest.mark.parametrize("wake", ["add", "notify"])
def test_the_devices_thread_wakes_up_when_something_comes(setup: Setup, wake: str) -> None:
    ready: list[bool] = []
    thread = threading.Thread(target=setup.queue.wait, args=(lambda: ready, 20.0), daemon=True)
    thread.start()
    if wake == "add":
        setup.add(1)
    else:
        ready.append(True)
        setup.queue.notify()
    thread.join(10)
    assert not thread.is_alive()


def test_the_devices_thread_wakes_up_by_itself_after_a_while(setup: Setup) -> None:
    setup.queue.wait(lambda: False, 0.01)
    assert len(setup.queue) == 0


def test_many_threads_lose_nobody(setup: Setup) -> None:
    """One takes and requeues while others add and drop, as the device's thread and the loop do."""
    ran, dropped, added = set[int](), set[int](), set[int]()
    done = threading.Event()

    def add(first: int) -> None:
        for number in range(300):
            one = setup.add(1, client=str(first))
            added.update(one)
            if number % 3 == 0 and setup.queue.drop(one):
                dropped.update(one)

    def take() -> None:
        once: set[int] = set()
        while not done.is_set() or len(setup.queue):
            _, batch = setup.take()
            again = {one.key for one in batch if one.key % 5 == 0} - once  # these need two steps
            once |= again
            setup.queue.requeue((one, at) for one, at in unmoved(batch) if one.key in again)
            ran.update(key for key in keys(batch) if key not in again and setup.queue.close(key))
            if not batch:
                time.sleep(0.001)

    adders = [threading.Thread(target=add, args=(first,)) for first in range(3)]
    taker = threading.Thread(target=take, daemon=True)
    for thread in [*adders, taker]:
        thread.start()
    for thread in adders:
        thread.join(20)
    done.set()
    taker.join(20)
    assert not any(thread.is_alive() for thread in [*adders, taker])
    assert len(added) == 900
    assert ran | dropped == added
    assert not ran & dropped
    assert len(setup.queue) == setup.queue.tokens == 0
