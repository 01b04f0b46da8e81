"""Where the loop and the device's thread meet: what is taken, put back and dropped is always somebody's."""

import threading
from typing import Any

import pytest

from service.serving.queue import Queue, cost
from service.serving.scheduler import Job
from service.serving.stepping import Progress, Stepping
from service.serving.tickets import Ticket
from service.types import Priority
from tests.fakes import FakeRunner, row

FAR = 1e6


def ticket(runner: FakeRunner, key: int, tokens: int = 1, deadline: float = FAR) -> Ticket:
    start = Progress(row(tokens))
    job = Job(key, runner.ref, tokens, cost(runner, start), 0.0, deadline, Priority.INTERACTIVE)
    future: Any = None
    return Ticket(runner, start, job, future)


def keys(tickets: list[Ticket]) -> list[int]:
    return [one.job.key for one in tickets]


@pytest.fixture
def runner() -> FakeRunner:
    made = FakeRunner(budget=8, stepping=Stepping(4, layers_per_step=1))
    made.cost.observe(8, 1.0)  # an eighth of a second a token
    return made


def test_what_is_taken_waits_no_more_and_is_answered_once(runner: FakeRunner) -> None:
    queue = Queue()
    queue.add([ticket(runner, 1), ticket(runner, 2)])
    assert (len(queue), queue.tokens, queue.cost) == (2, 2, 0.25)
    late, step = queue.take(0.0)
    assert (late, keys(step), len(queue), queue.tokens, queue.cost) == ([], [1, 2], 0, 0, 0.0)
    assert [queue.pop(1) is None, queue.pop(1) is None] == [False, True]


def test_what_is_late_is_not_in_the_step(runner: FakeRunner) -> None:
    queue = Queue()
    queue.add([ticket(runner, 1, deadline=5.0), ticket(runner, 2)])
    late, step = queue.take(5.0)
    assert (late, keys(step)) == ([1], [2])
    assert queue.pop(1) is not None


def test_who_is_not_through_comes_back_with_the_work_that_is_left(runner: FakeRunner) -> None:
    queue = Queue()
    queue.add([ticket(runner, 1, tokens=8)])
    _, (taken,) = queue.take(0.0)
    queue.put_back([(taken, Progress(taken.progress.sequence, depth=3))], 1.0)
    assert queue.cost == pytest.approx(0.25)  # of a second, a layer of four
    assert keys(queue.take(1.0)[1]) == [1]


def test_who_was_dropped_from_a_step_does_not_come_back(runner: FakeRunner) -> None:
    queue = Queue()
    queue.add([ticket(runner, 1), ticket(runner, 2)])
    _, step = queue.take(0.0)
    assert keys(queue.drop([1])) == [1]
    assert not queue.stopping  # the other one is still wanted
    queue.drop([2])
    assert queue.stopping
    queue.put_back([(one, one.progress) for one in step], 1.0)
    assert len(queue) == 0
    assert queue.take(1.0) == ([], [])


def test_the_time_of_the_step_lies_before_whoever_may_not_pass_it(runner: FakeRunner) -> None:
    queue = Queue()
    queue.add([ticket(runner, 1, tokens=8)])
    queue.take(0.0)
    longer, shorter = ticket(runner, 2, tokens=16).job, ticket(runner, 3).job
    assert queue.ahead(longer, 0.25) == pytest.approx(0.75)
    assert queue.ahead(shorter, 0.25) == pytest.approx(0.25)  # a layer, after which the step looks up
    assert queue.left(0.25) == pytest.approx(0.75)
    queue.put_back([], 0.5)
    assert queue.left(0.5) == 0.0


def test_many_threads_lose_nobody(runner: FakeRunner) -> None:
    """One takes and puts back while others add and drop, as the device's thread and the loop do."""
    queue, ran, dropped = Queue(), set[int](), set[int]()

    def add(first: int) -> None:
        for key in range(first, first + 300):
            queue.add([ticket(runner, key)])
            if key % 3 == 0:
                dropped.update(keys(queue.drop([key])))

    def take() -> None:
        again = {*range(0, 900, 5)}  # these need two steps
        while len(ran | dropped) < 900:
            _, step = queue.take(0.0)
            queue.put_back([(one, one.progress) for one in step if one.job.key in again], 0.0)
            through = [key for key in keys(step) if key not in again]
            again.difference_update(keys(step))
            ran.update(key for key in through if queue.pop(key))

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 300, 600)]
    threads.append(threading.Thread(target=take, daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert ran | dropped == set(range(900))
    assert not ran & dropped
    assert len(queue) == queue.tokens == 0
