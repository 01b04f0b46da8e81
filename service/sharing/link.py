"""In a worker: the connection to the model process, made again when it breaks; who waits then is told at once."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..background import background
from ..errors import DeviceLost, ServiceError, Unavailable
from .messages import Answer, Ask, Cancel, Close, Depths, Failure, Look, Open, Opened, Run, State, read, write

log = logging.getLogger(__name__)
AGAIN = 0.1  # seconds between two tries to connect
TICK, SILENT_TICKS = 0.5, 10  # so many without a word, and the model process hangs
GONE = "the process that holds the models is not there; it is being started"
HANGS = "the process that holds the models does not answer"


@dataclass(slots=True)
class Link:
    """``on_state`` is called with each state; ``on_open`` awaited when there is a connection again, before ``down``
    is empty.
    """

    path: Path
    on_state: Callable[[State], None]
    on_open: Callable[[], Awaitable[None]]
    down: str = GONE
    _writer: asyncio.StreamWriter | None = None
    _waiting: dict[int, "asyncio.Future[Any]"] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _connected: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: ServiceError | None = None
    _heard: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background(self._connect(), "link"), background(self._listen(), "link watchdog"):
            try:
                yield
            finally:
                self.end(Unavailable("the service has stopped"))

    def end(self, why: ServiceError) -> None:
        """Answer everyone who waits with ``why``, and take no one more."""
        self.down, self._ended = why.message, why
        self._connected.set()  # who waits for a connection hears that there will be none
        self._fail(why)

    async def ask(self, what: Open | Run | Depths | Look) -> Any:
        """Its answer, or the error that is the answer.  Waits for a connection; cancelling it drops the work."""
        await self._connected.wait()
        if self._ended is not None or self._writer is None:
            raise self._ended or DeviceLost(GONE)
        number, writer = next(self._numbers), self._writer
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            write(writer, Ask(number, what))
            result = await future
        except asyncio.CancelledError:
            write(writer, Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)
        if isinstance(result, Failure):
            raise result.error()
        return result

    def close(self, lease: int) -> None:
        if self._writer is not None:
            write(self._writer, Close(lease))

    async def _connect(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self.path)
                await self._follow(reader, self._writer)
            except OSError:  # it is not there yet, or any more
                pass
            except Exception:
                log.exception("what the model process said cannot be understood, which is a bug; connecting again")
            await asyncio.sleep(AGAIN)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the connection breaks.  A process that stands still may be connected to: it counts once it speaks."""
        opening: asyncio.Task[None] | None = None
        try:
            while True:
                message = await read(reader)
                self._heard = True
                if opening is None:
                    self._connected.set()
                    opening = asyncio.create_task(self._open())
                if isinstance(message, Answer):
                    self._settle(message)
                elif isinstance(message, State):
                    self.on_state(message)
        except EOFError:
            log.error("the model process is gone; who waits for it is told so")
        finally:
            self._writer = None
            if opening is not None:
                opening.cancel()
            writer.close()
            self.on_state(State("", []))  # what it owed, it owes no more
            if self._ended is None:
                self.down = self.down if self.down == HANGS else GONE
                self._connected.clear()
                self._fail(DeviceLost("the process that holds the models ended; it is being started again"))

    @property
    def ended(self) -> bool:
        return self._ended is not None

    async def _open(self) -> None:
        await self.on_open()
        if self._ended is None:
            self.down = ""

    def _settle(self, answer: Answer) -> None:
        future = self._waiting.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer.result)
        elif isinstance(answer.result, Opened):  # for who has left
            self.close(answer.result.lease)

    def _fail(self, why: ServiceError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(why)

    async def _listen(self) -> None:
        """Time is counted in ticks: a worker that was stopped itself heard nothing either.

        One that hangs is let go of, so that it drops what it was asked if it ever goes on.
        """
        silent = 0
        while True:
            await asyncio.sleep(TICK)
            silent = 0 if self._heard or self._writer is None else silent + 1
            self._heard = False
            if silent >= SILENT_TICKS and self._writer is not None and self._ended is None:
                if self.down != HANGS:
                    log.error("%s", HANGS)
                self.down, silent = HANGS, 0
                self._fail(DeviceLost(HANGS))
                self._writer.transport.abort()
