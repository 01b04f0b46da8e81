"""The attempts of one call, without a network: when it tries again, when it gives up, and by whose clock."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from albert_client import Refused, Retries, Unanswered
from albert_client.retries import Call, Sleep, answer
from hypothesis import given, strategies as st

GOOD = httpx.Response(200, json={"fine": True})
Outcome = httpx.Response | type[httpx.RequestError]


def refusal(status: int, retry_after: str | None = None) -> httpx.Response:
    headers = {"Retry-After": retry_after} if retry_after else {}
    body = {"error": {"code": "queue_full", "message": "too much waits", "request_id": "abc"}}
    return httpx.Response(status, json=body, headers=headers)


@dataclass
class World:
    """Time passes where the call sleeps, and ``seconds`` with each attempt."""

    seconds: float = 0.0
    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    sent: list[httpx.Request] = field(default_factory=list)

    def run(self, outcomes: Callable[[int], Outcome], deadline: float = 60.0, attempts: int = 6) -> Any:
        request = httpx.Request("POST", "http://there:1/classify", json={})
        call = Call(request, Retries(attempts), deadline, clock=lambda: self.now, chance=lambda: 1.0)
        steps, given = call.steps(), None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as end:
                return end.value
            if isinstance(step, Sleep):
                self.slept.append(step.seconds)
                self.now += step.seconds
                given = None
            else:
                self.sent.append(httpx.Request("POST", step.url, headers=step.headers))
                outcome = outcomes(len(self.sent))
                self.now += self.seconds
                given = outcome if isinstance(outcome, httpx.Response) else outcome("broken", request=step)


@pytest.fixture
def world() -> World:
    return World()


def test_a_good_answer_needs_one_attempt(world: World) -> None:
    assert world.run(lambda _: GOOD) == {"fine": True}
    assert world.slept == []


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_names_the_time_to_come_back(world: World, status: int) -> None:
    assert world.run(lambda count: GOOD if count == 3 else refusal(status, "7")) == {"fine": True}
    assert world.slept == [7.0, 7.0]


def test_where_no_time_is_named_pauses_grow(world: World) -> None:
    assert world.run(lambda count: GOOD if count == 5 else httpx.ConnectError) == {"fine": True}
    assert world.slept == [0.4, 0.8, 1.6, 3.2]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 504])
def test_what_would_fail_again_is_not_sent_again(world: World, status: int) -> None:
    with pytest.raises(Refused) as refused:
        world.run(lambda _: refusal(status, "1"))
    assert (refused.value.status, refused.value.code, refused.value.request_id) == (status, "queue_full", "abc")
    assert len(world.sent) == 1


def test_a_time_after_the_deadline_is_not_waited_for(world: World) -> None:
    with pytest.raises(Refused) as refused:
        world.run(lambda _: refusal(429, "30"), deadline=20)
    assert refused.value.retry_after == 30
    assert world.slept == []


def test_each_attempt_tells_what_is_left_of_the_deadline(world: World) -> None:
    world.seconds = 2
    world.run(lambda count: GOOD if count == 3 else refusal(503, "3"), deadline=20)

    assert [float(one.headers["X-Deadline-Ms"]) for one in world.sent] == [20_000, 15_000, 10_000]


def test_so_many_attempts_and_no_more(world: World) -> None:
    with pytest.raises(Unanswered, match="http://there:1: no albert-serve answers there"):
        world.run(lambda _: httpx.ConnectError, attempts=3)
    assert len(world.sent) == 3
    with pytest.raises(ValueError, match="attempts"):
        Retries(0)


@given(
    st.lists(st.sampled_from([429, 503, 0, 200, 422]), min_size=1, max_size=12), st.floats(0.1, 30), st.integers(1, 8)
)
def test_no_call_outlives_its_deadline_or_its_attempts(statuses: list[int], deadline: float, attempts: int) -> None:
    world = World()

    def outcome(count: int) -> Outcome:
        status = statuses[(count - 1) % len(statuses)]
        return httpx.ConnectError if status == 0 else GOOD if status == 200 else refusal(status, "2")

    with contextlib.suppress(Refused, Unanswered):
        world.run(outcome, deadline, attempts)
    assert len(world.sent) <= attempts
    assert world.now <= 100 + deadline


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(502, text="Bad Gateway"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404, json={"error": "Not Found"}),
        httpx.Response(500, json={"error": ["a"]}),
        httpx.Response(500, json={"error": None}),
        httpx.Response(500, json=[1]),
        httpx.Response(307, json={"status": "ok"}),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(200, content=b"null"),
        httpx.Response(200, content=b'{"results": ['),
    ],
    ids=lambda outcome: f"{outcome.status_code} {outcome.text[:20]}",
)
def test_others_that_answer_are_told_from_the_service(outcome: httpx.Response, world: World) -> None:
    outcome.request = httpx.Request("GET", "http://there:1/models")
    with pytest.raises(Unanswered, match=f"status {outcome.status_code}, and no answer of albert-serve's"):
        answer(outcome)
    with pytest.raises(Unanswered):
        world.run(lambda _: outcome)
    assert len(world.sent) == 1


def test_a_balancer_that_names_a_time_is_obeyed(world: World) -> None:
    def outcome(count: int) -> Outcome:
        busy = httpx.Response(503, text="<html>", headers={"Retry-After": "9"})
        busy.request = httpx.Request("GET", "http://there:1")
        return GOOD if count == 2 else busy

    assert world.run(outcome) == {"fine": True}
    assert world.slept == [9.0]


@pytest.mark.parametrize("deadline", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_a_number_of_seconds(world: World, deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        world.run(lambda _: GOOD, deadline=deadline)
    assert world.run(lambda _: GOOD, deadline=1e300) == {"fine": True}


def test_no_answer_in_time_says_so() -> None:
    late = httpx.ReadTimeout("", request=httpx.Request("GET", "http://there:1/models"))
    with pytest.raises(Unanswered, match="http://there:1: no answer in time"):
        answer(late)
