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
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from ..errors import ServiceError, Unavailable
from ..runtime.providers import Device
from ..settings import Settings
from .app import create_app
from .lifecycle import Lifecycle, State
from .protocol import ConnectionLimits, bounded

log = logging.getLogger(__name__)
IDLE_SECONDS = 0.5  # for a request that is on its way on an idle connection when the service ends
READY_SECONDS = 0.1  # how often it is looked at until the service is ready
LAST_SECONDS = 2  # for the 503 of those whose time is over to reach them
OTHER_DESCRIPTORS = 64  # files of models, the event loop's own, logs
BACKLOG = 2048


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
        self._settings, self._app, self._life, self._on_ready = settings, app, life, on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._follow_life())
        try:
            await super()._serve(sockets)
        finally:
            watching.cancel()
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
        for one in sockets:
            here = address(one) + self._settings.root_path
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
        for one in sockets:
            one.close()
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
                signal.signal(number, handler)

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


def run(settings: Settings, device: Device, listener: socket.socket, on_ready: Callable[[], None]) -> NoReturn:
    """Serve on ``listener`` until told to stop, and end the process."""
    life = Lifecycle()
    app = create_app(settings, device, life)
    server = Server(settings, app, life, on_ready)
    server.run(sockets=[listener])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends already
    logging.shutdown()
    # Threads may still be in ONNX Runtime, loading, running or hanging: the interpreter must not be taken from them.
    os._exit(life.exit_code or (0 if server.started or life.ending else 1))


def listen(settings: Settings) -> socket.socket:
    """The socket that all workers share.  ServiceError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. Is another service there? Give "
            "another --port, or 0 for a free one."
        ) from error
    listener.set_inheritable(True)
    log.info("listening on %s", address(listener))
    return listener


def address(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
