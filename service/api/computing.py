"""Where the models are: in this process, with its device, or in the model process that several workers share."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence as Seq
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ..background import background
from ..errors import ServiceError
from ..metrics import Metrics
from ..runtime import processor
from ..runtime.providers import Device, choose as choose_provider
from ..serving.admission import Admission, Reservation
from ..serving.depths import InDeviceThread
from ..serving.device_loop import DeviceLoop
from ..serving.engine import Engine
from ..serving.loading import LoadOptions, at_once, load
from ..serving.pending import Outcome
from ..serving.recovery import Recovery
from ..serving.registry import Loader, Registry
from ..serving.scheduler import Policy
from ..serving.submission import submit
from ..serving.unloaded import Unloaded
from ..settings import Settings
from ..sharing.remote import RemoteDevice
from ..types import Priority, Sequence, StepRun, Timings
from .lifecycle import Lifecycle

log = logging.getLogger(__name__)
CORES_SECONDS = 5.0  # between two looks at how many cores may be used
SWITCH_SECONDS = 0.0005  # see sys.setswitchinterval


class Submit(Protocol):
    """``serving/submission.py``, for the device that there is."""

    def __call__(
        self, engine: Engine, rows: Seq[Sequence], /, *, deadline: float, reservation: Reservation | None,
        priority: Priority, early_exit: bool, steps: list[StepRun] | None,
    ) -> Awaitable[tuple[list[Outcome], Timings]]: ...  # fmt: skip


class ComputingDevice(Protocol):
    """What routes need of a device.  ``down`` says why it answers nothing; empty: it does."""

    @property
    def admission(self) -> Admission: ...

    @property
    def clock(self) -> Callable[[], float]: ...

    @property
    def down(self) -> str: ...

    def stop(self, why: ServiceError) -> None:
        """Answer everyone who waits with ``why``, and take no one more."""


@dataclass(frozen=True, slots=True)
class Models:
    """``running()`` starts and stops what computes."""

    registry: Registry
    device: ComputingDevice
    submit: Submit
    between_steps: InDeviceThread
    running: Callable[[], AbstractAsyncContextManager[None]]


def choose_device(settings: Settings, processes: int) -> Device:
    """For one of so many ``processes`` that hold models.  DeviceError where the one asked for does not work."""
    if settings.cpu_features != "auto":
        processor.assume(settings.cpu_features)
    threads = settings.threads or _share_of(processor.current().cores, processes)
    memory = settings.cuda_memory_mb * 2**20
    device = choose_provider(settings.device, threads=threads, spin=settings.spin, memory_limit=memory)
    if device.kind == "cuda" and processes > 1:
        log.warning(
            "%d workers on one card: each holds a CUDA context and all models, and their steps take turns. "
            "share_models=yes has one process hold them for all", processes,
        )  # fmt: skip
    log.info("inference on %s (%s), %d CPU threads, %s", device, device.reason, threads, processor.current())
    return device


def _share_of(cores: int, processes: int) -> int:
    return max(1, cores // processes)


def models_here(settings: Settings, metrics: Metrics, device: Device, life: Lifecycle, processes: int = 1) -> Models:
    """One of so many ``processes`` that hold models on this machine."""
    loop = DeviceLoop(metrics, Policy(settings.ageing, settings.bulk_delay_seconds))
    options = LoadOptions(
        device, settings.token_budget, settings.layers_per_step, settings.early_exit, settings.precision
    )

    def loader(folder: Path) -> Engine:
        return load(folder, options, loop.between_steps)

    async def follow_cores() -> None:
        """The quota of a container may change while it runs, and so may its affinity."""
        nonlocal options
        while settings.threads == 0 and device.kind == "cpu":
            await asyncio.sleep(CORES_SECONDS)
            cores = processor.usable_cores()
            threads = _share_of(cores, processes)
            if threads != options.device.threads:
                log.warning("%d cores may be used now: models are loaded again, for %d threads", cores, threads)
                options = replace(options, device=replace(options.device, threads=threads))
                registry.load_again()
                life.look_again.set()

    registry = _registry(settings, metrics, loader)
    recovery = Recovery(loop, registry.engines, life.fail, settings.step_timeout_seconds)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with loop.running(), recovery.watching(), background(follow_cores(), "cores"):
            yield

    own = partial(submit, loop, max_queue_tokens=settings.max_queue_tokens)
    return Models(registry, loop, own, loop.between_steps, running)


def models_elsewhere(settings: Settings, metrics: Metrics, path: Path, life: Lifecycle) -> Models:
    """In the model process that listens at ``path``."""
    device = RemoteDevice(path, Admission(on_refusal=lambda cause: metrics.refused.labels(cause).inc()))
    registry = _registry(settings, metrics, device.load)
    registry.counted = False

    def stale(name: str) -> None:
        registry.load_again(name)
        life.look_again.set()

    device.on_stale = stale
    return Models(registry, device, device.submit, at_once, device.running)


def _registry(settings: Settings, metrics: Metrics, loader: Loader) -> Registry:
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # what the processes of one service have in common
    unloaded = Unloaded(Path(shared) if shared else None)
    return Registry(settings.model_repo, loader, metrics, settings.versions, unloaded=unloaded)
