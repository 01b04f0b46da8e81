"""Who is let in: a request is admitted only where every promise can still be kept, its own included.

A reservation is made when a request's headers are read, by what is known then, and corrected as more is known; it ends
with the request.  What is refused is told when to come back, each request at a time of its own, and who comes back
then goes before new requests.  Work that waits is shared out by client, so that one long list does not shut the others
out.
"""

import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import DeadlineExceeded, QueueFull
from .demand import Demand
from .returns import Returns

TRUST_LOST, TRUST_GAINED, LEAST_TRUST = 0.85, 0.02, 0.5  # what a broken promise takes, what a second gives back
CUT_SECONDS = 3.0  # between two cuts: one slow moment breaks many promises
PROMISED = 0.95  # of the time until a deadline may be promised; the rest is for what the estimate does not know
OPEN = 0.85  # up to this share a new request is taken
HEAVY = 0.6  # a client with more work than this share before a deadline
LEFT_BY_HEAVY = 0.7  # is taken up to this share only: the rest is for the others
LIGHT = 0.1  # a client with less than this share
WHILE_SOME_RETURN = {"new": 0.5, "light": 0.8}  # while others were told to come back, new requests get so much


@dataclass(slots=True, eq=False)
class Reservation:
    """``seconds`` of device time that are left of one request, promised for ``deadline``.

    ``request`` is what the device has of it, once it has.  ``trial``: taken though its promise seems to break, because
    the device has nothing to do.
    """

    client: str
    deadline: float
    slot: float
    seconds: float
    request: Any = None
    trial: bool = False
    open: bool = True


@dataclass(slots=True)
class Admission:
    """All reservations of one device.  Safe from any thread; times are on ``clock``."""

    clock: Callable[[], float] = time.monotonic
    on_refusal: Callable[[str], None] = lambda cause: None
    share_of: Callable[[str], float] = lambda client: math.inf  # of the time until a deadline, for one client at most
    step: float = 0.0  # seconds until the step that runs can be interrupted
    _demand: Demand = field(default_factory=Demand)
    _others: list[tuple[float, float]] = field(default_factory=list)
    _reservations: set[Reservation] = field(default_factory=set)
    _clients: dict[str, "_Client"] = field(default_factory=dict)
    _returns: Returns = field(default_factory=Returns)
    _submitted: int = 0
    _trust: float = 1.0  # in the estimate, as of _cut
    _cut: float = -math.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, client: str, seconds: float, deadline: float) -> None:
        """By a guess of what a request takes: QueueFull where there would be no room.  Nothing is reserved."""
        with self._lock:
            self._admitted(client, seconds, deadline, self.clock(), guess=True)

    def reserve(self, client: str, seconds: float, deadline: float, *, guess: bool = False) -> Reservation:
        """QueueFull where a promise would break; DeadlineExceeded where no wait can help and ``seconds`` is no guess.

        Where nothing else is reserved it is always tried: only what runs can correct an estimate that is wrong.
        """
        now = self.clock()
        with self._lock:
            asked = self._admitted(client, seconds, deadline, now, guess=guess)
            self._returns.claim(client, now)
            self._reservations.add(asked)
            self._demand.add(asked.slot, seconds)
            own = self._clients.setdefault(client, _Client())
            own.requests += 1
            own.seconds += seconds
            return asked

    def resize(self, reservation: Reservation, seconds: float, deadline: float | None = None) -> None:
        """More is known: it takes ``seconds``, perhaps until another ``deadline``.  Errors as ``reserve``."""
        now = self.clock()
        with self._lock:
            if deadline is not None and deadline != reservation.deadline:
                self._demand.remove(reservation.slot, reservation.seconds)
                reservation.deadline, reservation.slot = deadline, Demand.slot(now, deadline)
                self._demand.add(reservation.slot, reservation.seconds)
            more = seconds - reservation.seconds
            if more > 0 and len(self._reservations) > 1 and not reservation.trial:
                excess = self._demand.excess(now, reservation.slot, more, 1.0, 1.0)  # it has its promise already
                if excess > 0 and not self._submitted:  # the device has nothing to do
                    reservation.trial = True
                elif excess > 0:
                    reservation_now = Reservation(reservation.client, reservation.deadline, reservation.slot, seconds)
                    self._refuse(reservation_now, excess, now)
            self._change(reservation, more)

    def submitted(self, reservation: Reservation, request: Any) -> None:
        """The device has it now, as ``request``."""
        with self._lock:
            self._submitted += reservation.request is None
            reservation.request = request

    def spend(self, reservation: Reservation, seconds: float) -> None:
        """The device has done ``seconds`` of it."""
        with self._lock:
            if reservation.open:
                self._change(reservation, -min(seconds, reservation.seconds))

    def release(self, reservation: Reservation) -> None:
        """The request is over, however it ended."""
        with self._lock:
            if not reservation.open:
                return
            reservation.open = False
            self._demand.remove(reservation.slot, reservation.seconds)
            self._reservations.discard(reservation)
            self._submitted -= reservation.request is not None
            own = self._clients[reservation.client]
            own.requests -= 1
            own.seconds -= reservation.seconds
            if not own.requests:
                del self._clients[reservation.client]

    def owed(self) -> list[tuple[float, float]]:
        """Seconds of device time that are reserved, by slot."""
        with self._lock:
            return self._demand.slots()

    def set_others(self, owed: list[tuple[float, float]]) -> None:
        """What the device owes besides, by slot, to requests that are reserved elsewhere.  Replaces what it was."""
        with self._lock:
            for slot, seconds in self._others:
                self._demand.remove(slot, seconds)
            for slot, seconds in owed:
                self._demand.add(slot, seconds)
            self._others = owed

    def slack(self, now: float) -> float:
        """Seconds that may be lost before a promise breaks."""
        with self._lock:
            return self._demand.slack(now)

    def broken(self, now: float) -> list[Any]:
        """The requests to give up so that all others can be kept, where the machine became slower than was promised.

        The largest of those that are due goes first, which keeps as many as can be kept (Moore 1968); and for a while
        less is promised.
        """
        with self._lock:
            if len(self._reservations) <= 1 or self._demand.slack(now) >= 0:
                return []
            lost: list[Any] = []
            due, largest = 0.0, list[tuple[float, int, Any]]()
            for number, one in enumerate(sorted(self._reservations, key=lambda one: one.slot)):
                if one.trial:
                    continue
                due += one.seconds
                if one.request is not None:
                    heapq.heappush(largest, (-one.seconds, number, one.request))
                while due > one.slot - now and largest:
                    seconds, _, request = heapq.heappop(largest)
                    due += seconds
                    lost.append(request)
            if lost and now - self._cut > CUT_SECONDS:
                self._trust, self._cut = max(LEAST_TRUST, TRUST_LOST * self._trust_at(now)), now
            return lost

    @property
    def promised(self) -> float:
        """Seconds of device time that are reserved."""
        return self._demand.total

    def _trust_at(self, now: float) -> float:
        return min(1.0, self._trust + TRUST_GAINED * (now - self._cut)) if self._cut > -math.inf else 1.0

    def _admitted(self, client: str, seconds: float, deadline: float, now: float, *, guess: bool) -> Reservation:
        """A reservation that is not made yet.  Errors as ``reserve``."""
        if deadline <= now:
            raise late()
        asked = Reservation(client, deadline, Demand.slot(now, deadline), seconds)
        excess = self._excess(asked, now)
        if excess > 0:
            self._refuse(asked, excess, now, guess=guess)
        return asked

    def _change(self, reservation: Reservation, seconds: float) -> None:
        reservation.seconds += seconds
        self._demand.change(reservation.slot, seconds)
        self._clients[reservation.client].seconds += seconds

    def _excess(self, asked: Reservation, now: float) -> float:
        """Seconds by which it would be too much; zero or less: there is room."""
        if not (self._reservations or self._others):
            return 0.0
        own_excess = self._own_seconds(asked) - self.share_of(asked.client) * (asked.deadline - now)
        share, trust = self._share(asked, now), self._trust_at(now)
        excess = self._demand.excess(now, asked.slot, asked.seconds, trust * share, trust * PROMISED)
        # What is not promised is for what is not known; a step that runs is known, and may use it.
        return max(own_excess, excess, self._demand.excess(now, asked.slot, asked.seconds + self.step, 1.0, 1.0))

    def _share(self, asked: Reservation, now: float) -> float:
        """How much of the time until its deadline may be promised when ``asked`` is."""
        if self._returns.due(asked.client, now):
            return PROMISED
        own = self._own_seconds(asked) / max(1e-9, asked.deadline - now)
        if self._returns.expected(now, asked.deadline):
            return WHILE_SOME_RETURN["light" if own <= LIGHT else "new"]
        return LEFT_BY_HEAVY if own > HEAVY else OPEN

    def _own_seconds(self, asked: Reservation) -> float:
        """What its client would have reserved with ``asked``."""
        own = self._clients.get(asked.client)
        return asked.seconds + (own.seconds if own else 0.0)

    def _refuse(self, asked: Reservation, excess: float, now: float, *, guess: bool = False) -> None:
        if not guess and asked.seconds > PROMISED * (asked.deadline - now):
            self.on_refusal("too_slow")
            raise DeadlineExceeded(
                f"this takes about {asked.seconds:.1f} s here, longer than the deadline: send less, or a later "
                "X-Deadline-Ms"
            )
        self.on_refusal("queue")
        room = self._trust_at(now) * WHILE_SOME_RETURN["new"]  # what is free above it is theirs who come back
        wait = max(excess, self._demand.excess(now, asked.slot, asked.seconds, room, PROMISED))
        wait = self._returns.book(asked.client, asked.seconds, wait, now)
        raise QueueFull("what waits already would make it miss its deadline; come back after Retry-After", wait)


@dataclass(slots=True)
class _Client:
    """What one client has reserved."""

    seconds: float = 0.0
    requests: int = 0


def late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there; the work was dropped")
