"""Work that was promised, by the time that it was promised for.

One device can keep all its promises exactly when, for every deadline, the work due by then takes less than the time
until then (the demand bound of earliest-deadline-first scheduling; Baruah, Rosier and Howell 1990).  Deadlines are
rounded down to a grid that is the coarser the further away they are, so that there are few of them whatever waits.
"""

import bisect
import math
from collections.abc import Iterator

GRID = 64  # steps from now to a deadline: rounding takes a sixty-fourth of it at most


class Demand:
    """Seconds of device time by slot, a slot being a deadline on the grid, on the caller's clock."""

    def __init__(self) -> None:
        self._seconds: dict[float, float] = {}
        self._entries: dict[float, int] = {}
        self._slots: list[float] = []  # in order
        self.total = 0.0

    @staticmethod
    def slot(now: float, deadline: float) -> float:
        """``deadline`` on the grid: not later, and earlier by a sixty-fourth of what is left at most."""
        left = deadline - now
        if left <= 0:
            return deadline
        width = 2.0 ** math.floor(math.log2(left / GRID))
        return math.floor(deadline / width) * width

    def slots(self) -> list[tuple[float, float]]:
        """Each with its seconds, in order."""
        return [(slot, self._seconds[slot]) for slot in self._slots]

    def add(self, slot: float, seconds: float) -> None:
        if slot not in self._seconds:
            bisect.insort(self._slots, slot)
            self._seconds[slot], self._entries[slot] = 0.0, 0
        self._entries[slot] += 1
        self.change(slot, seconds)

    def change(self, slot: float, seconds: float) -> None:
        """Of an entry that was added: it takes ``seconds`` more, or less where that is below zero."""
        self._seconds[slot] += seconds
        self.total += seconds

    def remove(self, slot: float, seconds: float) -> None:
        """An entry that was added, with the ``seconds`` that are left of it."""
        self.change(slot, -seconds)
        self._entries[slot] -= 1
        if not self._entries[slot]:
            self.total -= self._seconds.pop(slot)  # rounding errors go with the last of a slot
            del self._entries[slot], self._slots[bisect.bisect_left(self._slots, slot)]
        if not self._slots:
            self.total = 0.0

    def excess(self, now: float, slot: float, seconds: float, share: float, others: float) -> float:
        """Seconds by which there would be too much work with ``seconds`` more for ``slot``; zero or less: it fits.

        The work due by ``slot`` may take ``share`` of the time until then, that of later ones ``others``.
        """
        due = seconds + sum(self._seconds[one] for one in self._slots[: bisect.bisect_right(self._slots, slot)])
        worst = due - share * (slot - now)
        for later, work in self._after(slot):
            due += work
            worst = max(worst, due - others * (later - now))
        return worst

    def slack(self, now: float) -> float:
        """Seconds that the device could stand still and keep every promise; infinite where it made none."""
        due, least = 0.0, math.inf
        for slot in self._slots:
            due += self._seconds[slot]
            least = min(least, slot - now - due)
        return least

    def _after(self, slot: float) -> Iterator[tuple[float, float]]:
        for later in self._slots[bisect.bisect_right(self._slots, slot) :]:
            yield later, self._seconds[later]
