"""What is loaded: name -> version -> engine.  A lease keeps a version alive until its answer is made."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import ModelNotFound, RepositoryError, ServiceError, Unavailable, WrongTask
from service.metrics import Metrics
from service.repository.store import versions
from service.serving.engine import Engine
from service.types import ModelRef

log = logging.getLogger(__name__)
Loader = Callable[[Path], Engine]


@dataclass(slots=True)
class _Loaded:
    engine: Engine
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()


@dataclass(slots=True)
class Registry:
    """Keeps the newest ``keep`` versions of each model of ``root`` loaded.

    ``loader`` blocks and runs in ``executor``, the device's own thread: a model is never warmed up while another one
    is timed.  ``failures`` says of each version that did not load why.
    """

    root: Path
    loader: Loader
    executor: Executor
    metrics: Metrics
    keep: int = 1
    failures: dict[ModelRef, str] = field(default_factory=dict)
    _synced: asyncio.Event = field(default_factory=asyncio.Event)
    _models: dict[str, dict[int, _Loaded]] = field(default_factory=dict)
    _closing: set["asyncio.Task[None]"] = field(default_factory=set)

    async def sync(self) -> None:
        """Load what the repository has and this has not; let go what it no longer has.  The old serve meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, versions, self.root)
        except RepositoryError as error:
            log.error("%s", error)
            return
        self.failures = {ref: why for ref, why in self.failures.items() if ref.version in found.get(ref.name, [])}
        for name, numbers in found.items():
            await self._sync_model(name, numbers)
        for name in self._models.keys() - found.keys():
            self._retire(name, set())
        self._synced.set()

    @property
    def synced(self) -> bool:
        """True once everything that can be loaded was loaded a first time."""
        return self._synced.is_set()

    async def wait(self) -> None:
        await self._synced.wait()

    async def _sync_model(self, name: str, numbers: list[int]) -> None:
        wanted: list[int] = []
        for number in reversed(numbers):
            if len(wanted) == self.keep:
                break
            if await self._have(ModelRef(name, number)):
                wanted.append(number)
        self._retire(name, set(wanted))

    async def _have(self, ref: ModelRef) -> bool:
        if ref.version in self._models.get(ref.name, {}):
            return True
        if ref in self.failures:  # versions are immutable: what failed once fails again
            return False
        began = time.monotonic()
        folder = self.root / ref.name / str(ref.version)
        try:
            engine = await asyncio.get_running_loop().run_in_executor(self.executor, self.loader, folder)
        except Exception as error:
            self.failures[ref] = str(error)
            expected = isinstance(error, ServiceError)
            log.error("%s does not load and is left out: %s", ref, error, exc_info=None if expected else error)
            return False
        seconds = time.monotonic() - began
        self._models.setdefault(ref.name, {})[ref.version] = _Loaded(engine)
        self.metrics.load_seconds.labels(ref.name, ref.version).set(seconds)
        self.metrics.token_budget.labels(ref.name, ref.version).set(engine.budget)
        log.info("%s loaded and warm in %.2f s, %d tokens a step", ref, seconds, engine.budget)
        return True

    def _retire(self, name: str, wanted: set[int]) -> None:
        loaded = self._models.get(name, {})
        for number in loaded.keys() - wanted:
            task = asyncio.create_task(self._close(loaded.pop(number)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        if not loaded:
            self._models.pop(name, None)

    @staticmethod
    async def _close(loaded: _Loaded) -> None:
        await loaded.idle.wait()
        loaded.engine.close()
        log.info("%s drained and closed", loaded.engine.ref)

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

    def _find(self, name: str, version: int | None) -> _Loaded:
        loaded = self._models.get(name)
        if loaded and (version is None or version in loaded):
            return loaded[max(loaded) if version is None else version]
        if not self.synced:
            raise Unavailable("the models are still being loaded; try again in a moment")
        what = f"model {name!r}" if version is None else f"version {version} of model {name!r}"
        failed = [f"{ref}: {why}" for ref, why in self.failures.items() if ref.name == name]
        raise ModelNotFound(
            f"no {what}; {self._listing()}" + (f" (failed to load: {'; '.join(failed)})" if failed else "")
        )

    def _listing(self) -> str:
        names = ", ".join(f"{e.ref} ({e.manifest.task})" for e in self.engines())
        return f"there is {names}" if names else "no model is loaded"

    def engines(self) -> list[Engine]:
        """All that is loaded, by name, oldest version first."""
        return [
            self._models[name][number].engine for name in sorted(self._models) for number in sorted(self._models[name])
        ]

    def close(self) -> None:
        for engine in self.engines():
            engine.close()
        self._models.clear()
