"""The process that holds the models and the device for several workers.  It speaks to nobody but them.

SIGTERM, SIGINT   ends once no worker is connected, or their time to drain is over; a second one ends it at once
SIGHUP            looks at the model repository at once
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import uvloop
from prometheus_client import CollectorRegistry

from ..background import background
from ..metrics import Metrics, resident_memory
from ..runtime.providers import Device
from ..serving.aside import Aside
from ..serving.device_loop import DeviceLoop
from ..serving.registry import Registry
from ..serving.watcher import watch
from ..settings import Settings
from ..sharing.host import Host
from .computing import SWITCH_SECONDS, Models, choose_device, models_here
from .keys import Keys, follow_keys
from .lifecycle import Lifecycle, State

log = logging.getLogger(__name__)
PULSE_SECONDS = 0.25
LAST_SECONDS = 5.0  # after the workers' own time is over


def run(settings: Settings, path: Path, on_ready: Callable[[], None]) -> NoReturn:
    """Hold the models for workers that connect at ``path`` until told to stop, and end the process."""
    life = Lifecycle()
    # The device's thread comes back from ONNX Runtime to an interpreter that the loop holds; 5 ms is a long wait then.
    sys.setswitchinterval(SWITCH_SECONDS)
    device = choose_device(settings, processes=1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as uvicorn does it in the workers
        runner.run(_hold(settings, device, path, life, on_ready))
    logging.shutdown()
    os._exit(life.exit_code)  # threads may still be in ONNX Runtime: the interpreter must not be taken from them


async def _hold(settings: Settings, device: Device, path: Path, life: Lifecycle, on_ready: Callable[[], None]) -> None:
    _follow_signals(life)
    async with holding(settings, device, path, life) as host:
        life.advance(State.SERVING)
        on_ready()
        await life.stopping.wait()
        await _until_left(host, settings, life)
        life.advance(State.DRAINING)
    life.advance(State.STOPPED)


@contextlib.asynccontextmanager
async def holding(settings: Settings, device: Device, path: Path, life: Lifecycle) -> AsyncIterator[Host]:
    """The models of ``settings`` on ``device``, for workers that connect at ``path``."""
    metrics = Metrics(CollectorRegistry())
    models, keys = models_here(settings, metrics, device, life), Keys(settings)
    assert isinstance(models.device, DeviceLoop)
    models.device.admission.share_of = keys.share
    aside = Aside(models.between_steps, lambda cause: metrics.refused.labels(cause).inc())
    host = Host(models.registry, models.device, aside, settings.max_queue_tokens)
    async with (
        models.running(),
        watch(models.registry, settings.watch_seconds, life.look_again),
        background(_pulse(models, metrics, life), "pulse"),
        background(follow_keys(keys), "keys"),
        host.listening(path),
    ):
        yield host
    models.registry.close()
    aside.close()


def _follow_signals(life: Lifecycle) -> None:
    def stop() -> None:
        (life.hurry.set if life.ending else life.stop)()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, life.look_again.set)


async def _until_left(host: Host, settings: Settings, life: Lifecycle) -> None:
    """Workers still answer what they have."""
    until = time.monotonic() + settings.shutdown_delay_seconds + settings.drain_seconds + LAST_SECONDS
    while host.workers and time.monotonic() < until and not (life.hurry.is_set() or life.exit_code):  # noqa: ASYNC110 - two causes, no event
        await asyncio.sleep(0.05)


async def _pulse(models: Models, metrics: Metrics, life: Lifecycle) -> None:
    registry: Registry = models.registry
    while True:
        metrics.ready.set(int(registry.synced and not models.device.down))
        metrics.memory.set(resident_memory())
        if registry.told_elsewhere():
            life.look_again.set()
        await asyncio.sleep(PULSE_SECONDS)
