"""What is loaded: name -> version -> engine.  A lease keeps a version alive until its answer is made."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelNotFound, RepositoryError, ServiceError, Unavailable, WrongTask
from ..metrics import Metrics
from ..repository.store import Fingerprint, Listing, fingerprint, look
from ..runtime.memory import give_back
from ..types import ModelRef
from .engine import Engine
from .loaded import Failure, Loaded
from .unloaded import Unloaded

log = logging.getLogger(__name__)
Loader = Callable[[Path], Engine]
# A mount may be away for a moment: so many looks in a row, and so long, must a version be missing to be retired.
ABSENT_LOOKS, ABSENT_SECONDS = 3, 10.0
FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0  # seconds after a version failed to load, doubled each time


@dataclass(slots=True)
class Registry:
    """Keeps the newest ``keep`` versions of each model of ``root`` loaded.

    ``loader`` blocks and runs in a thread of its own.  What is loaded stays until something newer is, or until the
    version has been missing for some time; a version whose files changed is loaded again.
    """

    root: Path
    loader: Loader
    metrics: Metrics
    keep: int = 1
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="loader"))
    clock: Callable[[], float] = time.monotonic
    absent_seconds: float = ABSENT_SECONDS
    unloaded: Unloaded = field(default_factory=Unloaded)
    counted: bool = True  # False where another process counts what is loaded and what is not
    _syncing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _failures: dict[ModelRef, Failure] = field(default_factory=dict)
    _synced: asyncio.Event = field(default_factory=asyncio.Event)
    _models: dict[str, dict[int, Loaded]] = field(default_factory=dict)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _again: int = 0  # how often something was to be loaded again
    _names: set[str] = field(default_factory=set)  # of all that the repository ever had

    async def load(self, name: str) -> None:
        """Look at the repository at once, and load ``name`` again where it was unloaded.

        ModelNotFound where that does not load, saying why.
        """
        self.unloaded.remove(name)
        for ref in [ref for ref in self._failures if ref.name == name]:
            del self._failures[ref]  # tried at once
        # Who asked may leave: what is being loaded is kept all the same.
        await asyncio.shield(self._start(self.sync()))
        if not self.named(name):
            raise self.missing(name)

    def told_elsewhere(self) -> bool:
        """Has another process been asked to load or unload something?  What failed is then tried at the next look."""
        changed = self.unloaded.changed()
        if changed:
            self._failures.clear()
        return changed

    def load_again(self, name: str = "") -> None:
        """At the next look, ``name``, or all that is loaded or being loaded; what runs answers until then."""
        self._again += 1
        for loaded in self._models.get(name, {}).values() if name else self._all():
            loaded.files = ()

    async def unload(self, name: str) -> None:
        """Let ``name`` go once its requests are answered, until it is loaded again.  ModelNotFound."""
        if not self.named(name):
            raise self.missing(name)
        self.unloaded.add(name)
        async with self._syncing:
            self._retire(name, set())
        self.metrics.loaded.set(len(self.engines()) if self.counted else 0)

    async def sync(self) -> None:
        """Load what the repository has and this has not; let go what it no longer has.  The old serve meanwhile."""
        async with self._syncing:
            await self._sync()

    async def _sync(self) -> None:
        listing = await self._look()
        if listing is None:
            self._synced.set()
            return
        self._failures = {ref: one for ref, one in self._failures.items() if ref.version in listing.of(ref.name)}
        self._names |= listing.models.keys()
        unloaded = self.unloaded.names()
        for name in sorted(self._models.keys() | listing.models.keys()):
            if name in unloaded:
                self._retire(name, set())
            else:
                await self._sync_model(name, listing)
        self.metrics.loaded.set(len(self.engines()) if self.counted else 0)
        self._synced.set()

    @property
    def failures(self) -> dict[ModelRef, str]:
        """Why each version that did not load did not."""
        return {ref: failure.reason for ref, failure in self._failures.items()}

    @property
    def synced(self) -> bool:
        """True once everything that can be loaded was loaded a first time."""
        return self._synced.is_set()

    def knows(self, name: str) -> bool:
        """Whether the repository has, or had, a model of this name; true of all until it was looked at."""
        return not self.synced or name in self._names

    async def wait(self) -> None:
        await self._synced.wait()

    def holds(self, ref: ModelRef, files: Fingerprint) -> bool:
        """Is this version loaded, from files that look so?"""
        loaded = self._models.get(ref.name, {}).get(ref.version)
        return loaded is not None and loaded.files == files

    async def _look(self) -> Listing | None:
        """What the repository holds; None where it cannot be read, which changes nothing."""
        try:
            listing = await asyncio.get_running_loop().run_in_executor(self.executor, look, self.root)
        except RepositoryError as error:
            self.metrics.repository_failures.inc()
            log.error("%s", error)
            return None
        for name, why in listing.unreadable.items():
            self.metrics.repository_failures.inc()
            log.error("%s of the model repository cannot be read, what is loaded of it stays: %s", name, why)
        return listing

    async def _sync_model(self, name: str, listing: Listing) -> None:
        loaded, there = self._models.get(name, {}), listing.of(name)
        for number, one in loaded.items():
            if number in there or name in listing.unreadable:
                one.missing, one.seen = 0, self.clock()
            else:
                one.missing += 1
        candidates = set(there) | {number for number, one in loaded.items() if not self._gone(one)}
        wanted: set[int] = set()
        for number in sorted(candidates, reverse=True):
            if len(wanted) < self.keep and await self._have(ModelRef(name, number), there=number in there):
                wanted.add(number)
        self._retire(name, wanted)

    def _gone(self, one: Loaded) -> bool:
        return one.missing >= ABSENT_LOOKS and self.clock() - one.seen >= self.absent_seconds

    async def _have(self, ref: ModelRef, *, there: bool) -> bool:
        """Is ``ref`` loaded, from the files that lie ``there`` now, or can it be?"""
        loaded = self._models.get(ref.name, {}).get(ref.version)
        if not there:
            return loaded is not None
        folder = self.root / ref.name / str(ref.version)
        files = await asyncio.get_running_loop().run_in_executor(self.executor, fingerprint, folder)
        if loaded is not None and loaded.files == files:
            self._failures.pop(ref, None)
            return True
        failure = self._failures.get(ref)
        if failure is not None and failure.files == files and self.clock() < failure.retry_at:
            return loaded is not None
        return await self._load(ref, folder, files) or loaded is not None

    async def _load(self, ref: ModelRef, folder: Path, files: Fingerprint) -> bool:
        began, again = self.clock(), self._again
        try:
            engine = await asyncio.get_running_loop().run_in_executor(self.executor, self.loader, folder)
        except Exception as error:
            self._failed(ref, files, error)
            return False
        self._failures.pop(ref, None)
        versions = self._models.setdefault(ref.name, {})
        if ref.version in versions:
            log.info("%s is loaded again and replaces what ran", ref)
            self._close_later(versions[ref.version])
        versions[ref.version] = Loaded(engine, files if again == self._again else (), seen=self.clock())
        seconds = self.clock() - began
        self.metrics.load_seconds.labels(ref.name, ref.version).set(seconds)
        self.metrics.token_budget.labels(ref.name, ref.version).set(engine.budget)
        self.metrics.forget(ref, self.metrics.precision)
        self.metrics.precision.labels(ref.name, ref.version, engine.precision).set(1)
        log.info("%s loaded and warm in %.2f s: %s, %d tokens a step", ref, seconds, engine.precision, engine.budget)
        return True

    def _failed(self, ref: ModelRef, files: Fingerprint, error: Exception) -> None:
        """It is tried again when a file of it changes, and now and then: it may be half copied, or a disk was away."""
        before = self._failures.get(ref)
        tries = before.tries + 1 if before is not None and before.files == files else 1
        pause = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (tries - 1))
        self._failures[ref] = Failure(str(error), files, tries, self.clock() + pause)
        self.metrics.load_failures.labels(ref.name).inc(int(self.counted))
        expected = isinstance(error, ServiceError)
        log.error(
            "%s does not load: %s. Tried again when its files change, or in %.0f s", ref, error, pause,
            exc_info=None if expected else error,
        )  # fmt: skip

    def _retire(self, name: str, wanted: set[int]) -> None:
        loaded = self._models.get(name, {})
        for number in loaded.keys() - wanted:
            self._close_later(loaded.pop(number))
        if not loaded:
            self._models.pop(name, None)

    def _close_later(self, loaded: Loaded) -> None:
        self._start(self._close(loaded))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """``work`` in a task that ends whoever waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _close(self, loaded: Loaded) -> None:
        await loaded.idle.wait()
        loaded.engine.close()
        ref = loaded.engine.ref
        if ref.version not in self._models.get(ref.name, {}):
            self.metrics.forget(ref)
        log.info("%s drained and closed", ref)
        del loaded  # the last that holds it
        with contextlib.suppress(RuntimeError):  # the executor has been shut down: the process ends anyway
            await asyncio.get_running_loop().run_in_executor(self.executor, give_back)

    @contextlib.asynccontextmanager
    async def lease(self, name: str, version: int | None, task: type) -> AsyncIterator[Engine]:
        """The engine of a model, newest version where none is named.

        ModelNotFound lists what there is; WrongTask where the model does another ``task``; Unavailable while starting.
        """
        loaded = self._find(name, version)
        if not isinstance(loaded.engine.task, task):
            raise WrongTask(f"model {name!r} does {loaded.engine.manifest.task}; {self._listing()}")
        loaded.leases += 1
        loaded.idle.clear()
        try:
            yield loaded.engine
        finally:
            loaded.leases -= 1
            if not loaded.leases:
                loaded.idle.set()

    def _find(self, name: str, version: int | None) -> Loaded:
        loaded = self._models.get(name)
        if loaded and (version is None or version in loaded):
            return loaded[max(loaded) if version is None else version]
        raise self.missing(name, version)

    def missing(self, name: str, version: int | None = None) -> Unavailable | ModelNotFound:
        """The one error for a model that is not there: what there is, and why this one is not.

        Unavailable while models are loaded for the first time, for it may be among them.
        """
        if not self.synced:
            return Unavailable("the models are still being loaded; try again in a moment")
        what = f"model {name[:100]!r}" if version is None else f"version {version} of model {name[:100]!r}"
        failed = [f"{ref}: {why}" for ref, why in self.failures.items() if ref.name == name]
        return ModelNotFound(
            f"no {what}; {self._listing()}" + (f" (failed to load: {'; '.join(failed)})" if failed else "")
        )

    def _listing(self) -> str:
        names = ", ".join(f"{e.ref} ({e.manifest.task})" for e in self.engines())
        return f"there is {names}" if names else "no model is loaded"

    def named(self, name: str) -> list[Engine]:
        """The loaded versions of one model, oldest first."""
        return [one.engine for _, one in sorted(self._models.get(name, {}).items())]

    def engines(self) -> list[Engine]:
        """All that is loaded, by name, oldest version first."""
        return [loaded.engine for loaded in self._all()]

    def _all(self) -> list[Loaded]:
        return [self._models[name][number] for name in sorted(self._models) for number in sorted(self._models[name])]

    def close(self) -> None:
        for engine in self.engines():
            engine.close()
        self._models.clear()
        self.executor.shutdown(wait=False, cancel_futures=True)
