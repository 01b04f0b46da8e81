"""In the model process: answers the workers that are connected, each request of theirs in a task of its own."""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..background import background
from ..errors import RepositoryError, ServiceError, Unavailable
from ..logs import request_id
from ..serving.aside import Aside
from ..serving.cost import CostModel
from ..serving.device_loop import DeviceLoop
from ..serving.engine import Engine
from ..serving.queue import estimate
from ..serving.registry import Registry
from ..serving.submission import submit
from ..types import ModelRef
from .messages import (
    Answer,
    Ask,
    Cancel,
    Close,
    Cost,
    Depths,
    Failure,
    Look,
    Open,
    Opened,
    Outcomes,
    Ran,
    Run,
    State,
    read,
    write,
)

log = logging.getLogger(__name__)
PULSE = 0.05  # seconds between two looks at the state that workers are told
UNREAD = 2**16  # bytes that a worker has not read yet, and it is told nothing new
LONGEST_SILENCE = 20  # pulses: they are told even if nothing changed, to see that this process lives


@dataclass(slots=True)
class Host:
    """What the model process has to give."""

    registry: Registry
    device: DeviceLoop
    aside: Aside
    max_queue_tokens: int = 2**62
    workers: set["Connection"] = field(default_factory=set)
    _servers: list[asyncio.Server] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        """On a Unix socket at ``path``; one that a dead process left there is removed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        await self._listen(path)
        try:
            async with background(self._pulse(path), "telling workers"):
                yield
        finally:
            for server in self._servers:
                server.close()
            for worker in list(self.workers):
                worker.writer.close()

    async def _listen(self, path: Path) -> None:
        self._servers.append(await asyncio.start_unix_server(self._serve, path))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = Connection(self, reader, writer)
        write(writer, self._state())
        self.workers.add(worker)
        try:
            await worker.serve()
        except EOFError:
            log.info("a worker is gone; what it waited for is dropped")
        except Exception:
            log.exception("a worker said what cannot be understood, which is a bug; it connects again")
        finally:
            self.workers.discard(worker)
            await worker.end()

    def _state(self) -> State:
        return State(self.device.down, self.device.admission.owed())

    async def _pulse(self, path: Path) -> None:
        told = State("", [])
        for number in itertools.count(1):
            await asyncio.sleep(PULSE)
            try:
                state = self._state()
                if state != told or number % LONGEST_SILENCE == 0:
                    self._tell(state)
                    told = state
                if number % LONGEST_SILENCE == 0 and not _exists(path):
                    log.warning("%s was removed; it is made again", path)  # such as by who cleans a folder up
                    await self._listen(path)
            except Exception:
                log.exception("workers are not told how the device is, which is a bug; they are told again")

    def _tell(self, state: State) -> None:
        for worker in self.workers:
            if worker.writer.transport.get_write_buffer_size() < UNREAD:  # it may be stopped
                write(worker.writer, state)


@dataclass(slots=True, eq=False)
class Connection:
    """One worker's.  What it has open ends with it."""

    host: Host
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _leases: dict[int, tuple[Engine, AsyncExitStack]] = field(default_factory=dict)
    _asked: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)

    async def serve(self) -> None:
        """Until the worker is gone, which raises EOFError."""
        while True:
            message = await read(self.reader)
            if isinstance(message, Ask):
                self._start(message)
            elif isinstance(message, Cancel):
                if asked := self._asked.get(message.number):
                    asked.cancel()
            elif isinstance(message, Close):
                await self._release(message.lease)

    def _start(self, ask: Ask) -> None:
        task = self._asked[ask.number] = asyncio.create_task(self._answer(ask))
        task.add_done_callback(lambda done: self._asked.pop(ask.number, None))  # begun or not

    async def end(self) -> None:
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        for lease in list(self._leases):
            await self._release(lease)
        self.writer.close()

    async def _answer(self, ask: Ask) -> None:
        try:
            result = await self._done(ask.what)
        except ServiceError as error:
            result = Failure.of(error)
        except Exception:
            log.exception("a request of a worker failed, which is a bug")
            result = Failure("internal", "an internal error; the log of the model process says more")
        write(self.writer, Answer(ask.number, result))

    async def _done(self, what: Open | Run | Depths | Look) -> Any:
        match what:
            case Open():
                return await self._open(what)
            case Run():
                return await self._run(what)
            case Depths(lease, rows, deadline):
                engine, found = self._engine(lease), rows.sequences()
                return await self.host.aside.run(
                    deadline, lambda piece: engine.logits_by_depth(found, deadline, piece)
                )  # fmt: skip
            case Look(lease, rows, layers, heads, deadline):
                engine, (row,) = self._engine(lease), rows.sequences()
                return await self.host.aside.run(
                    deadline, lambda piece: engine.attention_of(row, layers, heads, deadline, piece)
                )  # fmt: skip

    async def _open(self, what: Open) -> Opened:
        registry, ref = self.host.registry, ModelRef(what.name, what.version)
        await registry.wait()
        if registry.told_elsewhere() or not registry.holds(ref, what.files):
            await asyncio.shield(asyncio.ensure_future(registry.sync()))  # who asks may leave
        if not registry.holds(ref, what.files):
            why = registry.failures.get(ref, "its files differ from those that are loaded; they are being changed")
            raise RepositoryError(why)
        stack = AsyncExitStack()
        engine = await stack.enter_async_context(registry.lease(ref.name, ref.version, object))
        lease = secrets.randbits(62)  # so that one of a process that is gone means nothing here
        self._leases[lease] = engine, stack
        return Opened(
            lease, engine.device, engine.budget, engine.precision, engine.padding, engine.stepping, _cost(engine.cost)
        )

    async def _run(self, what: Run) -> Ran:
        request_id.set(what.request_id)
        engine, rows, device = self._engine(what.lease), what.rows.sequences(), self.host.device
        if device.down:
            raise Unavailable(f"{device.down}; try again in a moment")
        seconds = estimate(engine, rows, what.early_exit)
        reservation = device.admission.reserve(what.client, seconds, what.deadline)
        steps: list[Any] | None = [] if what.traced else None
        try:
            outcomes, timings = await submit(
                device, engine, rows, deadline=what.deadline, reservation=reservation, priority=what.priority,
                early_exit=what.early_exit, max_queue_tokens=self.host.max_queue_tokens, steps=steps,
            )  # fmt: skip
        finally:
            device.admission.release(reservation)
        return Ran(Outcomes.of(outcomes), timings, steps or [], _cost(engine.cost), self._stale(engine))

    def _stale(self, engine: Engine) -> bool:
        current = [one for one in self.host.registry.named(engine.ref.name) if one.ref == engine.ref]
        return bool(current) and current[0] is not engine

    def _engine(self, lease: int) -> Engine:
        if lease not in self._leases:
            raise Unavailable("the model is being opened again; try again in a moment")
        return self._leases[lease][0]

    async def _release(self, lease: int) -> None:
        if lease in self._leases:
            _, stack = self._leases.pop(lease)
            await stack.aclose()


def _exists(path: Path) -> bool:
    return path.exists()


def _cost(cost: CostModel) -> Cost:
    return Cost(*cost.coefficients, cost.pace)
