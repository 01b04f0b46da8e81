"""Who is let in: a request is admitted only where every promise can still be kept, its own included.

A reservation is made when a request's headers are read, by what is known then, and corrected as more is known; it ends
with the request.  What is refused is told when to come back, each request at a time of its own, and who comes back
then goes before new requests.  Work that waits is shared out by client, so that one long list does not shut the others
out.
"""

import bisect
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from service.errors import DeadlineExceeded, QueueFull
from service.serving.demand import Demand

PROMISED = 0.95  # of the time until a deadline may be promised; the rest is for what the estimate does not know
OPEN = 0.9  # up to this share a new request is taken
HEAVY = 0.6  # a client with more work than this share before a deadline
LEFT_BY_HEAVY = 0.7  # is taken up to this share only: the rest is for the others
LIGHT = 0.1  # a client with less than this share
WHILE_SOME_RETURN = {"new": 0.5, "light": 0.8}  # while others were told to come back, new requests get so much
LATE = 3.0  # seconds that who comes back may be late; nobody can come before the time that it was told
BOOKED = 0.9  # of the device's time is given out to those who come back
MAX_BOOKINGS = 10_000
COUNTED = 256  # clients that are looked at one by one
LONGEST_RETRY = 300.0


@dataclass(slots=True, eq=False)
class Reservation:
    """``seconds`` of device time that are left of one request, promised for ``deadline``."""

    client: str
    deadline: float
    slot: float
    seconds: float
    open: bool = True


@dataclass(slots=True)
class Admission:
    """All reservations of one device.  Safe from any thread; times are on ``clock``."""

    clock: Callable[[], float]
    on_refusal: Callable[[str], None] = lambda cause: None
    step: float = 0.0  # seconds until the step that runs can be interrupted
    _demand: Demand = field(default_factory=Demand)
    _reservations: set[Reservation] = field(default_factory=set)
    _clients: dict[str, "_Client"] = field(default_factory=dict)
    _returns: "_Returns" = field(default_factory=lambda: _Returns())
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, client: str, seconds: float, deadline: float) -> Reservation:
        """QueueFull where a promise would break, DeadlineExceeded where no wait can help.

        A device with nothing to do is always tried: only what it runs can correct an estimate that is wrong.
        """
        now = self.clock()
        if deadline <= now:
            raise late()
        with self._lock:
            reservation = Reservation(client, deadline, Demand.slot(now, deadline), seconds)
            if self._reservations:
                self._check(reservation, now)
            self._returns.claim(client, now)
            self._reservations.add(reservation)
            self._demand.add(reservation.slot, seconds)
            own = self._clients.setdefault(client, _Client())
            own.requests += 1
            own.seconds += seconds
            return reservation

    def resize(self, reservation: Reservation, seconds: float, deadline: float | None = None) -> None:
        """More is known: it takes ``seconds``, perhaps until another ``deadline``.  Errors as ``reserve``."""
        now = self.clock()
        with self._lock:
            if deadline is not None and deadline != reservation.deadline:
                self._demand.remove(reservation.slot, reservation.seconds)
                reservation.deadline, reservation.slot = deadline, Demand.slot(now, deadline)
                self._demand.add(reservation.slot, reservation.seconds)
            more = seconds - reservation.seconds
            if more > 0 and len(self._reservations) > 1:
                excess = self._demand.excess(now, reservation.slot, more, 1.0, 1.0)  # it has its promise already
                if excess > 0:
                    self._refuse(reservation, seconds, excess, now)
            self._change(reservation, more)

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
            own = self._clients[reservation.client]
            own.requests -= 1
            own.seconds -= reservation.seconds
            if not own.requests:
                del self._clients[reservation.client]

    def slack(self, now: float) -> float:
        """Seconds that may be lost before a promise breaks."""
        with self._lock:
            return self._demand.slack(now)

    @property
    def alone(self) -> bool:
        """Is at most one request admitted?"""
        return len(self._reservations) <= 1

    @property
    def promised(self) -> float:
        """Seconds of device time that are reserved."""
        return self._demand.total

    def _change(self, reservation: Reservation, seconds: float) -> None:
        reservation.seconds += seconds
        self._demand.change(reservation.slot, seconds)
        self._clients[reservation.client].seconds += seconds

    def _check(self, asked: Reservation, now: float) -> None:
        share = self._share(asked, now)
        excess = self._demand.excess(now, asked.slot, asked.seconds, share, PROMISED)
        # What is not promised is for what is not known; a step that runs is known, and may use it.
        excess = max(excess, self._demand.excess(now, asked.slot, asked.seconds + self.step, 1.0, 1.0))
        if excess > 0:
            self._refuse(asked, asked.seconds, excess, now)

    def _share(self, asked: Reservation, now: float) -> float:
        """How much of the time until its deadline may be promised when ``asked`` is."""
        if self._returns.due(asked.client, now):
            return PROMISED
        reserved = self._clients[asked.client].seconds if asked.client in self._clients else 0.0
        own = (reserved + asked.seconds) / max(1e-9, asked.deadline - now)
        if self._returns.waiting(now):
            return WHILE_SOME_RETURN["light" if own <= LIGHT else "new"]
        return LEFT_BY_HEAVY if own > HEAVY else OPEN

    def _refuse(self, asked: Reservation, seconds: float, excess: float, now: float) -> None:
        if seconds > PROMISED * (asked.deadline - now):
            self.on_refusal("too_slow")
            raise DeadlineExceeded(
                f"this takes about {seconds:.1f} s here, longer than the deadline: send less, or a later X-Deadline-Ms"
            )
        self.on_refusal("queue")
        wait = self._returns.book(asked.client, seconds, excess, now)
        raise QueueFull("what waits already would make it miss its deadline; come back after Retry-After", wait)


@dataclass(slots=True)
class _Client:
    """What one client has reserved."""

    seconds: float = 0.0
    requests: int = 0


@dataclass(slots=True)
class _Bookings:
    """Of one client: when its requests are expected, each with its work in seconds."""

    times: list[tuple[float, float]] = field(default_factory=list)  # in order
    work: float = 0.0


class _Returns:
    """Who was told to come back, and when: one after the other, as the device can take them.

    The clients that are expected share its time: one that never does as it is told is told later and later times
    itself, and pushes nobody else back.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Bookings] = {}
        self._count = 0
        self._latest = 0.0

    def book(self, client: str, seconds: float, wait: float, now: float) -> float:
        """Whole seconds until ``client`` may come back with work of ``seconds``; before ``wait`` there is no room."""
        own = self._clients.get(client) or _Bookings()
        expected = max(wait, self._before(own.work + seconds, client) / BOOKED)
        if self._count >= MAX_BOOKINGS or expected > LONGEST_RETRY:
            return LONGEST_RETRY
        self._clients[client] = own
        after = float(max(1, math.ceil(expected)))  # the header has whole seconds
        bisect.insort(own.times, (now + after, seconds))
        own.work += seconds
        self._latest = max(self._latest, now + after)
        self._count += 1
        return after

    def _before(self, work: float, client: str) -> float:
        """Seconds of work until ``client`` has had ``work``, where all that are expected get equal shares."""
        if len(self._clients) > COUNTED:
            return work * (1 + len(self._clients))
        return work + sum(min(work, one.work) for name, one in self._clients.items() if name != client)

    def due(self, client: str, now: float) -> bool:
        """Is ``client`` expected by now?"""
        own = self._clients.get(client)
        if own is None:
            return False
        while own.times and own.times[0][0] < now - LATE:
            self._pop(client, own)
        return bool(own.times) and own.times[0][0] <= now

    def claim(self, client: str, now: float) -> None:
        """``client`` was let in; if it was expected by now, it has come."""
        if self.due(client, now):
            self._pop(client, self._clients[client])

    def waiting(self, now: float) -> bool:
        """Is anyone expected, now or later?"""
        if self._count and now > self._latest + LATE:  # they never came
            self._clients.clear()
            self._count = 0
        return self._count > 0

    def _pop(self, client: str, own: _Bookings) -> None:
        own.work -= own.times.pop(0)[1]
        self._count -= 1
        if not own.times:
            self._clients.pop(client, None)


def late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the answer was there; the work was dropped")
