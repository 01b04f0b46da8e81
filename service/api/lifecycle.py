"""The life of one serving process: starting, serving, stopping, draining, stopped.  Readiness and exit code follow it.

starting   models are being loaded
serving    may be ready
stopping   was told to stop: not ready, and still answering, so that load balancers can look away
draining   listens no more; requests in work end, those whose body is still on its way get 503
stopped
"""

import asyncio
import logging
from dataclasses import dataclass, field
from enum import StrEnum

log = logging.getLogger(__name__)
FAILED = 70  # the exit code of a process whose device is lost: its supervisor starts a new one (EX_SOFTWARE)


class State(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    DRAINING = "draining"
    STOPPED = "stopped"


ORDER = list(State)


@dataclass(slots=True)
class Lifecycle:
    """Goes forward only.  ``stopping`` is set when the process is told to stop, by a signal or by a failure."""

    state: State = State.STARTING
    exit_code: int = 0
    reason: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)  # told a second time: skip all waits
    look_again: asyncio.Event = field(default_factory=asyncio.Event)  # at the model repository, at once

    def advance(self, state: State) -> None:
        if ORDER.index(state) > ORDER.index(self.state):
            self.state = state
            log.info("%s", state)

    def stop(self) -> None:
        """Told to stop."""
        self.advance(State.STOPPING)
        self.stopping.set()

    def fail(self, why: str) -> None:
        """Nothing here can go on: stop at once, with an exit code that makes a supervisor start another process."""
        log.critical("%s; this process ends with %d, for its supervisor to start a new one", why, FAILED)
        self.exit_code, self.reason = FAILED, why
        self.stop()

    @property
    def ending(self) -> bool:
        return self.stopping.is_set()

    @property
    def draining(self) -> bool:
        return ORDER.index(self.state) >= ORDER.index(State.DRAINING)
