"""One call as a series of attempts, without a network: the clients send what it asks for and sleep as it says.

A request changes nothing in the service, so it may always be sent again.  ``Retry-After`` is an appointment there: who
comes at it goes before new requests.  Where none is given, pauses grow and are drawn by chance (full jitter).
"""

import math
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import httpx

from albert_client.errors import AGAIN, AlbertError, Refused, Unanswered

LONGEST_DEADLINE = 86_400.0  # seconds; what is longer is as good as none
GRACE_SECONDS = 1.0  # the service ends a request at its deadline; its answer needs a moment to come
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Retries:
    """``attempts`` of one request at most, each after what the service asked for; 1 never tries again."""

    attempts: int = 6

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts: wanted 1 or more")


@dataclass(frozen=True, slots=True)
class Sleep:
    """Seconds to wait before the next attempt."""

    seconds: float


@dataclass(slots=True)
class Call:
    """``deadline`` seconds for all attempts together.  Time and chance are given, so that a test holds them."""

    request: httpx.Request
    retries: Retries
    deadline: float
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline: {self.deadline}; wanted a number of seconds above 0")
        self._ends = self.clock() + min(self.deadline, LONGEST_DEADLINE)

    def steps(self) -> Generator[httpx.Request | Sleep, Any, Any]:
        """Yields a request, takes its response or the error of httpx; yields a pause; returns the answer's JSON.

        Refused or Unanswered where no further attempt is left or would come in time.
        """
        for attempt in range(1, self.retries.attempts + 1):
            outcome = yield self._attempt()
            try:
                return answer(outcome)
            except AlbertError as error:
                pause = self._pause(error, attempt)
                if pause is None:
                    raise
                yield Sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def left(self) -> float:
        """Seconds until the deadline."""
        return self._ends - self.clock()

    def _attempt(self) -> httpx.Request:
        left = max(0.001, self.left())
        self.request.headers["X-Deadline-Ms"] = str(round(1000 * left, 1))
        self.request.extensions["timeout"] = httpx.Timeout(left + GRACE_SECONDS).as_dict()
        return self.request

    def _pause(self, error: AlbertError, attempt: int) -> float | None:
        """None where it is not worth another attempt."""
        if attempt == self.retries.attempts or not error.passing:
            return None
        asked = error.retry_after
        pause = self.chance() * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) if asked is None else asked
        return pause if self.clock() + pause < self._ends else None


def answer(outcome: httpx.Response | httpx.HTTPError) -> Any:
    """The JSON of a good answer.  Refused with the service's own words, Unanswered where nobody gave any."""
    if isinstance(outcome, httpx.TimeoutException):
        message = f"{_place(outcome.request)}: no answer in time; give it a later deadline"
        raise Unanswered(message, passing=True) from outcome
    if isinstance(outcome, httpx.HTTPError):
        raise Unanswered(
            f"{_place(outcome.request)}: no albert-serve answers there ({outcome}). Start one, or give another "
            "address.",
            passing=True,
        ) from outcome
    after = _seconds(outcome.headers.get("Retry-After"))
    try:
        found = outcome.json()
    except ValueError:
        found = None
    if outcome.is_success and isinstance(found, dict):
        return found
    error = found.get("error") if isinstance(found, dict) else None
    if not outcome.is_error or not isinstance(error, dict):
        raise strange(outcome.request, f"status {outcome.status_code}", outcome.status_code in AGAIN, after)
    raise Refused(
        str(error.get("message", error)),
        status=outcome.status_code,
        code=str(error.get("code", "")),
        request_id=error.get("request_id"),
        retry_after=after,
    )


def strange(request: httpx.Request, what: str, passing: bool = False, after: float | None = None) -> Unanswered:
    """Somebody answered that is not albert-serve, perhaps one that stands before it."""
    message = f"{_place(request)}: {what}, and no answer of albert-serve's. Is the address right?"
    return Unanswered(message, passing=passing, retry_after=after)


def _place(request: httpx.Request) -> str:
    return str(request.url.copy_with(path="/", query=None)).rstrip("/")


def _seconds(given: str | None) -> float | None:
    try:
        return max(0.0, float(given)) if given is not None else None
    except ValueError:  # a date, which albert-serve never sends
        return None
