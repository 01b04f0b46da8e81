"""The application: builds the service's parts, ties their lives together, mounts the routes."""

import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import mark_process_dead

from service import __version__
from service.api import classify, failures, health, models, qa
from service.api.middleware import Gate
from service.api.service import Service
from service.logs import configure
from service.metrics import Metrics
from service.runtime.providers import choose
from service.serving import engine
from service.serving.device import Worker
from service.serving.registry import Registry
from service.serving.scheduler import Policy
from service.serving.watcher import following
from service.settings import Settings

log = logging.getLogger(__name__)
LAG_SECONDS = 0.25
SWITCH_SECONDS = 0.0005


def create_app(settings: Settings) -> FastAPI:
    """The app for ``settings``.  Nothing is loaded before it starts."""
    metrics = Metrics(CollectorRegistry())
    app = FastAPI(
        title="albert-serve", version=__version__, summary="Text classification and question answering with ALBERT",
        lifespan=functools.partial(_lifespan, settings, metrics),
    )  # fmt: skip
    app.router.routes[:0] = [*classify.router.routes, *qa.router.routes]  # first in line, and by the shortest way
    for part in (models, health):
        app.include_router(part.router)
    failures.install(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    return app


def from_environment() -> FastAPI:
    """What each worker process of ``--workers N`` builds: the settings come through the environment."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    return create_app(settings)


@contextlib.asynccontextmanager
async def _lifespan(settings: Settings, metrics: Metrics, app: FastAPI) -> AsyncIterator[None]:
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
    device = choose(settings.device, threads=threads, memory_limit=settings.cuda_memory_mb * 2**20)
    log.info("inference on %s (%s), %d CPU threads", device, device.reason, threads)
    executor = ThreadPoolExecutor(1, thread_name_prefix="device")
    # The device's thread comes back from ONNX Runtime to an interpreter that the loop holds; 5 ms is a long wait then.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Texts are tokenized one by one: the library's own pool of threads would only stand by.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    policy = Policy(settings.ageing, settings.bulk_delay_seconds)
    loader = functools.partial(
        engine.load,
        device=device,
        budget=settings.token_budget,
        layers_per_step=settings.layers_per_step,
        early_exit=settings.early_exit,
    )
    registry = Registry(settings.model_repo, loader, executor, metrics, settings.versions)
    worker = Worker(metrics, policy, settings.max_queue_tokens, executor=executor)
    app.state.service = Service(settings, metrics, registry, worker)
    async with worker.running(), following(registry, settings.watch_seconds), _lag(metrics):
        if settings.workers > 1:
            # They share one port.  A worker that is not warm must not take requests that a warm one could answer.
            await registry.wait()
        yield
        log.info("draining: no new requests, %d models to close", len(registry.engines()))
    registry.close()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def _lag(metrics: Metrics) -> AsyncIterator[None]:
    """Measure how late the loop wakes: the one number that shows blocking work on it."""

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            metrics.loop_lag.observe(max(0.0, loop.time() - due))

    task = asyncio.create_task(measure(), name="loop lag")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
