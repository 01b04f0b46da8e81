"""The application: builds the service's parts, ties their lives together, mounts the routes."""

import asyncio
import contextlib
import functools
import logging
import os
import platform
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from .. import __version__
from ..background import background
from ..documents.reader import DocumentReader
from ..metrics import Metrics, resident_memory
from ..runtime.providers import RUNTIME_VERSION, Device
from ..serving.aside import Aside
from ..serving.encoding import EncodingStage
from ..serving.reuse import Reuse
from ..serving.watcher import watch
from ..settings import Settings
from . import (
    choose,
    classify,
    embed,
    explain,
    failures,
    fill_mask,
    health,
    hugging_face,
    models,
    open_inference,
    open_inference_models,
    openapi,
    qa,
    summarize,
    text_embeddings,
    tokens,
)
from .access import Access
from .body import BodyLimits
from .computing import SWITCH_SECONDS, Models, choose_device, models_elsewhere, models_here
from .keys import Keys, follow_keys
from .lifecycle import Lifecycle, State
from .loop_lag import LoopLag
from .middleware import RequestMiddleware
from .page import add_page
from .service import Service

if TYPE_CHECKING:
    from ..tracing import Tracing

log = logging.getLogger(__name__)
PULSE_SECONDS = 0.25
PATIENCE_SECONDS = 30.0


def create_app(
    settings: Settings, device: Device | None = None, life: Lifecycle | None = None, models_at: Path | None = None
) -> FastAPI:
    """The app for ``settings``.  Nothing is loaded before it starts.

    ``device``: chosen at start where not given; none is where the models are in a process that listens at
    ``models_at``.
    """
    metrics = Metrics(CollectorRegistry())
    life = life or Lifecycle()
    app = FastAPIOffline(
        redoc_url=None, title="albert-serve", version=__version__,
        summary="Text classification and question answering with ALBERT", generate_unique_id_function=openapi.name,
        lifespan=functools.partial(_lifespan, settings, metrics, device, life, models_at),
    )  # fmt: skip
    for task in (classify, qa, tokens, fill_mask, embed, summarize, choose, explain):
        task.add_route(app)
    for protocol in (open_inference, open_inference_models, hugging_face, text_embeddings):
        protocol.add_routes(app)
    for part in (models, health):
        app.include_router(part.router)
    add_page(app)
    failures.install(app)
    app.state.lag = LoopLag(metrics, settings.root_path)
    tracing = app.state.tracing = _tracing(settings)
    keys = app.state.keys = Keys(settings)
    access = app.state.access = Access(settings, metrics, keys)
    app.add_middleware(RequestMiddleware, settings=settings, metrics=metrics, access=access, tracing=tracing)
    if settings.cors_origins:  # outermost: a browser asks beforehand, without a key
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "X-Deadline-Ms"],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After"],
        )  # fmt: skip
    openapi.complete(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(
    settings: Settings, metrics: Metrics, device: Device | None, life: Lifecycle, models_at: Path | None, app: FastAPI
) -> AsyncIterator[None]:
    if models_at is None:
        there = models_here(
            settings, metrics, device or choose_device(settings, settings.workers), life, settings.workers
        )
    else:
        there = models_elsewhere(settings, metrics, models_at, life)
    # The device's thread comes back from ONNX Runtime to an interpreter that the loop holds; 5 ms is a long wait then.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Texts are tokenized one by one: the library's own pool of threads would only stand by.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    service = app.state.service = _build(settings, metrics, there, life)
    metrics.build.labels(__version__, platform.python_version(), RUNTIME_VERSION).set(1)
    keys: Keys = app.state.keys
    service.device.admission.share_of = keys.share
    access: Access = app.state.access
    async with (
        there.running(),
        watch(service.registry, settings.watch_seconds, life.look_again),
        app.state.lag.measuring(),
        background(_pulse(service), "pulse"),
        background(follow_keys(keys), "keys"),
    ):
        if settings.workers > 1:
            # They share the ports.  A worker that is not ready must not take requests that a ready one could answer.
            await _first(_ready(service), life.stopping.wait())
        async with _grpc(service, access, app.state.tracing):
            life.advance(State.SERVING)
            yield
            life.advance(State.DRAINING)
    life.advance(State.STOPPED)
    service.registry.close()
    service.encoding.close()
    service.aside.close()
    await service.files.close()
    if app.state.tracing is not None:
        await asyncio.get_running_loop().run_in_executor(None, app.state.tracing.close)


def _tracing(settings: Settings) -> "Tracing | None":
    if not settings.tracing:
        return None
    from ..tracing import Tracing  # an extra: loaded only where it is asked for

    return Tracing()


def _grpc(service: Service, access: Access, tracing: "Tracing | None") -> AbstractAsyncContextManager[None]:
    if service.settings.grpc_port is None:
        return contextlib.nullcontext()
    from .grpc_server import grpc_serving  # an extra: loaded only where it is asked for

    chain, key = service.settings.tls_certificate, service.settings.tls_key
    return grpc_serving(service, access, tracing, (key.read_bytes(), chain.read_bytes()) if chain and key else None)


def _build(settings: Settings, metrics: Metrics, there: Models, life: Lifecycle) -> Service:
    def refused(why: str) -> None:
        metrics.refused.labels(why).inc()

    encoding = EncodingStage(max_chars=10 * settings.max_text_chars, clock=there.device.clock, on_refusal=refused)
    files = DocumentReader(
        seconds=settings.document_seconds, pages=settings.document_pages, chars=settings.max_text_chars,
        memory=settings.document_memory_mb, on_refusal=refused,
    )  # fmt: skip
    bodies = BodyLimits(settings.max_body_bytes, settings.max_body_memory, settings.body_seconds)
    reuse = Reuse(metrics, settings.cache_mb * 2**20, settings.cache_seconds)
    aside = Aside(there.between_steps, refused)
    return Service(
        settings, metrics, there.registry, there.device, there.submit, encoding, aside, files, life, bodies, reuse
    )  # fmt: skip


async def _ready(service: Service) -> None:
    """Until the service is ready, or has been not ready for so long that some answers are better than none."""
    await service.registry.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.not_ready_reason():  # noqa: ASYNC110 - it has many causes, and no one event
                await asyncio.sleep(PULSE_SECONDS)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _pulse(service: Service) -> None:
    """Now and then, write down what is a state and no event."""
    metrics = service.metrics
    while True:
        await asyncio.sleep(PULSE_SECONDS)
        metrics.ready.set(0 if service.not_ready_reason() else 1)
        metrics.memory.set(resident_memory())
        metrics.encoding_chars.set(service.encoding.waiting)
        if service.registry.told_elsewhere():
            service.life.look_again.set()
        service.reuse.purge()
