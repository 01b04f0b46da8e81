"""One serving process: uvicorn with connections that have limits, and signals that follow the lifecycle.

SIGTERM, SIGINT   not ready at once; still answers for ``shutdown_delay_seconds``; then listens no more and ends
                  what runs, within ``drain_seconds``; what is left then gets 503.  A second one skips the waits.
SIGHUP            looks at the model repository at once
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from ..errors import Unavailable
from ..runtime.providers import Device
from ..settings import Settings
from .app import create_app
from .certificate import Certificate, Stamp
from .lifecycle import Lifecycle, State
from .listeners import BACKLOG, address, close
from .protocol import ConnectionLimits, bounded

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.5  # for a request that is on its way on an idle connection when the service ends
READY_SECONDS = 0.1  # how often it is looked at until the service is ready
LAST_SECONDS = 2  # for the 503 of those whose time is over to reach them
OTHER_DESCRIPTORS = 64  # files of models, the event loop's own, logs


class Server(uvicorn.Server):
    """Runs ``app`` on sockets that are bound already."""

    def __init__(self, settings: Settings, app: FastAPI, life: Lifecycle, on_ready: Callable[[], None]) -> None:
        limits = ConnectionLimits(
            connection_limit(settings.max_connections), settings.max_header_bytes, settings.max_headers,
            settings.header_seconds,
        )  # fmt: skip
        protocol = bounded(limits, lambda: life.ending, app.state.lag)
        config = uvicorn.Config(
            app, http=protocol, ws="none", log_config=None, server_header=False, access_log=False,
            timeout_keep_alive=max(1, round(settings.keep_alive_seconds)), backlog=BACKLOG,
            timeout_graceful_shutdown=settings.drain_seconds + 2 * LAST_SECONDS,
        )  # fmt: skip
        super().__init__(config)
        self._certificate: Certificate | None = None
        self._loaded: Stamp = ()
        if settings.tls_certificate is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_certificate, settings.tls_key)
            config.load()
            config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            config.ssl.set_alpn_protocols(["http/1.1"])
            self._loaded = self._certificate.load(config.ssl)
        self._settings, self._app, self._life, self._on_ready = settings, app, life, on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        watching = [asyncio.create_task(self._follow_life())]
        if self._certificate is not None and self.config.ssl is not None:
            watching.append(asyncio.create_task(self._certificate.follow(self.config.ssl, self._loaded)))
        try:
            await super()._serve(sockets)
        finally:
            for one in watching:
                one.cancel()
            if self._telling:
                self._telling.cancel()

    async def _follow_life(self) -> None:
        """Stop listening when the lifecycle says so, after the delay that load balancers need."""
        await self._life.stopping.wait()
        await self._wait(self._settings.shutdown_delay_seconds if self.started else 0)
        self.should_exit = True

    async def _wait(self, seconds: float) -> None:
        """So long, or until there is a reason to hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._life.exit_code else seconds):
                await self._life.hurry.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()
            self._telling = asyncio.create_task(self._tell_when_ready(sockets or []))

    async def _tell_when_ready(self, sockets: list[socket.socket]) -> None:
        """The last line of a start says where to go."""
        service = self._app.state.service
        while service.not_ready_reason():  # noqa: ASYNC110 - it has many causes, and no one event
            await asyncio.sleep(READY_SECONDS)
        here = address(sockets[0], tls=self._certificate is not None) + self._settings.root_path
        log.info("ready: %s  docs: %s/docs", here, here)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._life.advance(State.DRAINING)
        await self._let_clients_go(sockets or [])
        ending = asyncio.create_task(self._end_what_is_left())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _let_clients_go(self, sockets: list[socket.socket]) -> None:
        """Listen no more; connections that are idle may send one request more, for a client may just be doing so."""
        for server in self.servers:
            server.close()
        if self._settings.workers > 1:  # the supervisor's file, on which other workers may listen
            for one in sockets:
                one.close()
        else:
            close(sockets, self._settings)
        if self.server_state.connections:
            await self._wait(min(IDLE_SECONDS, self._settings.drain_seconds))

    async def _end_what_is_left(self) -> None:
        """Whoever waits longer than the time to drain gets an answer, too."""
        await self._wait(self._settings.drain_seconds)
        service = getattr(self._app.state, "service", None)
        if service is not None:
            service.device.stop(Unavailable("the service is stopping; this did not end in time"))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the lifecycle's, and none is raised again afterwards: a stop that was asked for is no failure."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # What comes while the process ends changes nothing.
                signal.signal(number, signal.SIG_IGN if self._life.ending else handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            # In a context of its own: the handler interrupts some request's task, and the lines are not about that one.
            self._loop.call_soon_threadsafe(self._signalled, sig, context=contextvars.Context())

    def _signalled(self, sig: int) -> None:
        if sig == signal.SIGHUP:
            log.info("SIGHUP: looking at the model repository")
            self._life.look_again.set()
        elif self._life.ending:
            log.warning("told to stop a second time: what runs is ended now")
            self._life.hurry.set()
        else:
            self._life.stop()


def run(
    settings: Settings, device: Device | None, listeners: list[socket.socket], on_ready: Callable[[], None],
    models_at: Path | None = None,
) -> NoReturn:  # fmt: skip
    """Serve on ``listeners`` until told to stop, and end the process.

    ``device`` and ``models_at`` as in ``create_app``.
    """
    life = Lifecycle()
    app = create_app(settings, device, life, models_at)
    server = Server(settings, app, life, on_ready)
    server.run(sockets=listeners)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends already
    logging.shutdown()
    # Threads may still be in ONNX Runtime, loading, running or hanging: the interpreter must not be taken from them.
    os._exit(life.exit_code or (0 if server.started or life.ending else 1))


def connection_limit(wanted: int) -> int:
    """``wanted``, or what the descriptors of this process allow; their limit is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = needed if soft == resource.RLIM_INFINITY else soft
    limit = max(8, min(wanted, allowed - OTHER_DESCRIPTORS))
    if limit < wanted:
        log.warning("at most %d connections, not %d: raise the limit of open files (ulimit -n)", limit, wanted)
    return limit
