"""In a worker: models that run in the model process, behind what the models of this process would offer."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence as Seq
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from ..background import background
from ..errors import DeviceLost, RepositoryError, ServiceError, Unavailable
from ..logs import request_id
from ..repository.manifest import Manifest
from ..repository.store import Fingerprint, fingerprint, read_file, read_manifest
from ..runtime.providers import Device
from ..runtime.session import Model
from ..serving.admission import Admission, Reservation, late
from ..serving.depths import InDeviceThread
from ..serving.engine import Engine, Task
from ..serving.loading import make_task
from ..serving.pending import Outcome
from ..tasks.attention import Attention
from ..types import Floats, Priority, Sequence, StepRun, Timings
from .link import Link
from .messages import Cost, Depths, Look, Open, Opened, Ran, Rows, Run, State

log = logging.getLogger(__name__)
T = TypeVar("T")
AGAIN, LONGEST_PAUSE = 1.0, 30.0  # seconds until a version that could not be opened again is tried once more
GRACE = 0.25  # seconds after a deadline in which the model process says so itself
POLL = 0.05  # seconds after which a thread that waits sees whether anyone waits for it


def nothing() -> None:
    pass


@dataclass(slots=True)
class RemoteEngine(Engine):
    """Has what tokenizes and decodes; its layers run in the model process, where ``lease`` names it."""

    files: Fingerprint = ()
    lease: int | None = None
    remote: "RemoteDevice | None" = None
    stale: bool = False  # the model process has loaded the version again
    pause: float = 0.0  # before it is opened again where it could not be
    retry_at: float = 0.0
    at: Device = field(default_factory=lambda: Device("cpu"))

    @property
    def device(self) -> Device:
        return self.at

    @property
    def available(self) -> bool:
        return self.lease is not None

    def learn(self, opened: Opened) -> None:
        self.pause = 0.0
        self.lease, self.at, self.precision = opened.lease, opened.device, opened.precision
        self.padding, self.stepping = opened.padding, opened.stepping
        self.set_budget(opened.budget)
        self.learn_cost(opened.cost)

    def learn_cost(self, cost: Cost) -> None:
        self.cost.coefficients, self.cost.pace = (cost.per_step, cost.per_token), cost.pace

    def logits_by_depth(self, rows: Seq[Sequence], deadline: float, piece: InDeviceThread) -> list[list[Floats]]:
        found: list[list[Floats]] = self._ask(lambda lease: Depths(lease, Rows.of(rows), deadline), piece)
        return found

    def attention_of(
        self, row: Sequence, layers: Seq[int] | None, heads: Seq[int] | None, deadline: float, piece: InDeviceThread
    ) -> Attention:
        found: Attention = self._ask(lambda lease: Look(lease, Rows.of([row]), layers, heads, deadline), piece)
        return found

    def _ask(self, what: Any, piece: InDeviceThread) -> Any:
        """In a thread: blocks until the answer is there, or ``piece`` says that nobody waits for it."""
        assert self.remote is not None
        return self.remote.wait(self.remote.ask(self, what), lambda: piece(nothing))

    def close(self) -> None:
        assert self.remote is not None
        self.remote.forget(self)


@dataclass(slots=True)
class RemoteDevice:
    """``path`` is the socket of the model process.

    ``admission`` knows what the device owes as of the last word from there, and decides by it before a request is
    read; the model process decides again once there is something to run.
    """

    path: Path
    admission: Admission = field(default_factory=Admission)
    clock: Callable[[], float] = time.monotonic
    on_stale: Callable[[str], None] = lambda name: None
    _link: Link = field(init=False)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _engines: dict[int, RemoteEngine] = field(default_factory=dict)  # by serial
    _state: State = field(default_factory=lambda: State("", []))
    _loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        self._link = Link(self.path, self._learn, self._open_again)

    @property
    def down(self) -> str:
        """Why it answers nothing; empty: it does."""
        return self._link.down or self._state.down

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        async with self._link.running(), background(self._keep_open(), "reopening"):
            yield

    def stop(self, why: ServiceError) -> None:
        """Answer everyone who waits with ``why``, and take no one more."""
        self._link.end(why)

    async def submit(
        self, engine: Engine, rows: Seq[Sequence], *, deadline: float, reservation: Reservation | None = None,
        priority: Priority = Priority.INTERACTIVE, early_exit: bool = True, steps: list[StepRun] | None = None,
    ) -> tuple[list[Outcome], Timings]:  # fmt: skip
        """As ``serving/submission.py``."""
        assert isinstance(engine, RemoteEngine)
        if reservation is not None:
            self.admission.spend(reservation, reservation.seconds)  # from here on the model process counts it
        client = reservation.client if reservation is not None else ""
        try:
            async with asyncio.timeout(max(0.0, deadline - self.clock()) + GRACE):
                ran: Ran = await self.ask(
                    engine,
                    lambda lease: Run(lease, Rows.of(rows), deadline, priority, early_exit, client, request_id.get(),
                                      steps is not None),
                )  # fmt: skip
        except TimeoutError:
            raise late() from None
        engine.learn_cost(ran.cost)
        if ran.stale and not engine.stale:
            engine.stale = True
            self.on_stale(engine.ref.name)
        if steps is not None:
            steps += ran.steps
        return ran.outcomes.apart(), ran.timings

    async def ask(self, engine: RemoteEngine, what: Any) -> Any:
        """``what`` makes the question from the lease."""
        if self.down:
            raise Unavailable(f"{self.down}; try again in a moment")
        if engine.lease is None:
            raise Unavailable(f"{engine.ref} is being opened again; try again in a moment")
        return await self._link.ask(what(engine.lease))

    def wait(self, work: Coroutine[Any, Any, T], check: Callable[[], object] = nothing) -> T:
        """``work`` on the loop, waited for in another thread for as long as ``check`` raises nothing."""
        assert self._loop is not None
        future: Future[T] | None = None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        while future is None or not wait([future], POLL).done:
            if future is None or self._loop.is_closed():
                work.close()
                raise Unavailable("the service has stopped")
            try:
                check()
            except Exception:
                future.cancel()
                raise
        return future.result()

    def load(self, folder: Path) -> Engine:
        """The version in ``folder``, once the model process has it.  Blocks; RepositoryError says what is wrong."""
        files = fingerprint(folder)
        manifest = read_manifest(folder)
        name = manifest.tokenizer.file
        task = make_task({name: read_file(folder, manifest, name)}, manifest)
        if fingerprint(folder) != files:
            raise RepositoryError(f"the files of {manifest.name}/{manifest.version} change while they are read")
        return self.wait(self._opened(manifest, task, files))

    async def _opened(self, manifest: Manifest, task: Task, files: Fingerprint) -> RemoteEngine:
        opened = await self._open(Open(manifest.name, manifest.version, files))
        engine = RemoteEngine(
            manifest, task, cast(Model, None), opened.budget, opened.stepping, files=files, remote=self
        )  # fmt: skip
        engine.learn(opened)
        self._engines[engine.serial] = engine
        return engine

    async def _open(self, what: Open) -> Opened:
        """A process that ends meanwhile says nothing of the version: another is asked."""
        while True:
            try:
                opened: Opened = await self._link.ask(what)
                return opened
            except DeviceLost:
                if self._link.ended:
                    raise

    def forget(self, engine: RemoteEngine) -> None:
        self._engines.pop(engine.serial, None)
        if engine.lease is not None:
            self._link.close(engine.lease)
            engine.lease = None

    def _learn(self, state: State) -> None:
        self._state = state
        self.admission.set_others(state.owed)

    async def _open_again(self) -> None:
        """The model process is a new one: what was open in the last is opened in it."""
        for engine in self._engines.values():
            engine.lease, engine.retry_at = None, 0.0
        await self._open_rest()

    async def _keep_open(self) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            if not self._link.down:
                await self._open_rest()

    async def _open_rest(self) -> None:
        async with self._opening:
            for engine in list(self._engines.values()):
                if engine.lease is None and engine.retry_at <= self.clock():
                    await self._try_to_open(engine)

    async def _try_to_open(self, engine: RemoteEngine) -> None:
        try:
            engine.learn(await self._link.ask(Open(engine.ref.name, engine.ref.version, engine.files)))
        except ServiceError as error:
            engine.pause = min(LONGEST_PAUSE, 2 * engine.pause or AGAIN)
            engine.retry_at = self.clock() + engine.pause
            log.error("%s cannot be opened again: %s. Tried once more in %.0f s", engine.ref, error, engine.pause)
        if engine.serial not in self._engines:  # it was closed meanwhile
            self.forget(engine)
