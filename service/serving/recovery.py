"""Sees whether the device still works, and brings it back: new sessions in a new thread, or the end of the process.

A step that does not return cannot be stopped, only given up.  Time is counted in ticks of this watchdog: a process that
was stopped as a whole, or a machine that slept, is no step that hangs.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from ..errors import DeviceLost, RepositoryError
from .device_loop import DeviceLoop, Running
from .pending import Runner

log = logging.getLogger(__name__)
TICK = 0.1  # seconds
SLOW = 50.0  # times what a step should take
PAUSES = (0.0, 1.0, 3.0)  # before each try to bring the device back
REBUILD_SECONDS = 60.0


@dataclass(slots=True)
class Recovery:
    """``runners`` gives all models that are loaded; ``give_up`` is called where nothing brings the device back."""

    device: DeviceLoop
    runners: Callable[[], Iterable[Runner]]
    give_up: Callable[[str], None]
    step_timeout: float = 10.0
    pauses: tuple[float, ...] = PAUSES
    _at_work: "asyncio.Task[None] | None" = field(default=None)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        self.device.lost = self.begin
        task = asyncio.create_task(self._watch(), name="device watchdog")
        try:
            yield
        finally:
            for one in (task, self._at_work):
                if one is not None:
                    one.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await one

    def begin(self, why: str) -> None:
        """The device computes nothing any more: everyone who waits is told so, and it is brought back."""
        if self._at_work is None or self._at_work.done():
            log.error("the device failed (%s); who waits is told so, and its sessions are made anew", why)
            self._at_work = asyncio.create_task(self._recover(why), name="device recovery")
            self.device.stop(DeviceLost("the device failed and is being restarted"))
            self.device.metrics.device_failures.inc()  # last: a metric that fails must keep nobody waiting

    async def _watch(self) -> None:
        seen: Running | None = None
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            current = self.device.current
            ticks = ticks + 1 if current is not None and current is seen else 0
            seen = current
            if current is not None and ticks * TICK > max(self.step_timeout, SLOW * current.expected):
                self.begin(f"a step did not return for {ticks * TICK:.0f} s")
                ticks = 0

    async def _recover(self, why: str) -> None:
        for pause in self.pauses:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(REBUILD_SECONDS):
                    await in_daemon_thread(self._rebuild)
            except Exception as error:
                log.error("the device does not come back: %s", error or type(error).__name__)
                continue
            self.device.start()
            log.warning("the device works again, with new sessions")
            return
        self.give_up(f"the device failed ({why}) and does not come back")

    def _rebuild(self) -> None:
        for runner in self.runners():
            try:
                runner.rebuild()
            except RepositoryError as error:  # its files changed since; the sessions that there are may still do
                log.error("%s keeps its old sessions: %s", runner.ref, error)
            runner.probe()


async def in_daemon_thread(work: Callable[[], None]) -> None:
    """``work`` in a thread that may hang: unlike an executor's, it keeps no process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, daemon=True).start()
    await done
