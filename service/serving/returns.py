"""Who was told to come back, and when: an appointment for each request that was refused.

The clients that are expected share the device's time: one that never does as it is told is told later and later times
itself, and pushes nobody else back.  Room is kept only for clients that come when they are expected.
"""

import bisect
import math
import random
from dataclasses import dataclass, field

LATE = 3.0  # seconds that who comes back may be late; nobody can come before the time that it was told
BOOKED = 0.9  # of the device's time is given out to those who come back
MAX_BOOKINGS = 10_000
COUNTED = 256  # clients that are looked at one by one
LONGEST_RETRY = 300.0
RELIABLE = 0.5  # of a client's last appointments were kept, and room is kept for it
REMEMBERED = 1024  # clients of which that is known


@dataclass(slots=True)
class _Bookings:
    """Of one client: when its requests are expected, each with its work in seconds."""

    times: list[tuple[float, float]] = field(default_factory=list)  # in order
    work: float = 0.0


class Returns:
    """Not safe for several threads: admission holds its lock."""

    def __init__(self) -> None:
        self._clients: dict[str, _Bookings] = {}
        self._kept: dict[str, float] = {}  # the share of its appointments that a client kept
        self._count = 0

    def book(self, client: str, seconds: float, wait: float, now: float) -> float:
        """Whole seconds until ``client`` may come back with work of ``seconds``; for ``wait`` there is no room."""
        own = self._clients.get(client) or _Bookings()
        # Of what is booked already, as much counts as the client usually comes for.
        booked = self._before(own.work * self._kept.get(client, 1.0) + seconds, client)
        expected = wait + booked / BOOKED
        if self._count >= MAX_BOOKINGS or expected > LONGEST_RETRY:
            return float(round(LONGEST_RETRY * random.uniform(0.5, 1.0)))  # not all at once
        self._clients[client] = own
        after = float(max(1, math.ceil(expected)))  # the header has whole seconds
        bisect.insort(own.times, (now + after, seconds))
        own.work += seconds
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
        if own is not None:
            self._forget(client, own, now)
        return own is not None and bool(own.times) and own.times[0][0] <= now

    def claim(self, client: str, now: float) -> None:
        """``client`` was let in; if it was expected by now, it has come."""
        if self.due(client, now):
            self._pop(client, self._clients[client], kept=True)

    def expected(self, now: float, until: float) -> bool:
        """Is a client that keeps its appointments expected before ``until``?"""
        if len(self._clients) > COUNTED:
            return True
        for client, own in list(self._clients.items()):
            self._forget(client, own, now)
            if own.times and own.times[0][0] <= until and self._kept.get(client, 1.0) > RELIABLE:
                return True
        return False

    def _forget(self, client: str, own: _Bookings, now: float) -> None:
        while own.times and own.times[0][0] < now - LATE:
            self._pop(client, own, kept=False)

    def _pop(self, client: str, own: _Bookings, *, kept: bool) -> None:
        own.work -= own.times.pop(0)[1]
        self._count -= 1
        share = self._kept.pop(client, 1.0)
        if len(self._kept) >= REMEMBERED:
            self._kept.pop(next(iter(self._kept)))
        self._kept[client] = share + 0.1 * (kept - share)
        if not own.times:
            self._clients.pop(client, None)
