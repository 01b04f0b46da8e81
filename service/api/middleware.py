"""What every request goes through: an id, a key, a count, a clock.

Plain ASGI: it sees a request before anything reads its body, and costs a few microseconds.
"""

import logging
import random
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import QueueFull, ServiceError
from ..logs import request_id, trace_id
from ..metrics import Metrics
from ..settings import Settings
from .access import Access, is_public
from .failures import answer, error_response

if TYPE_CHECKING:
    from ..tracing import Trace, Tracing

log = logging.getLogger(__name__)
GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")
SPREAD_SECONDS = 5  # over which those are sent back that came above max_requests


@dataclass(slots=True)
class RequestMiddleware:
    """Wraps the app.  Answers by itself what must not reach it: a missing key, a request too many."""

    app: ASGIApp
    settings: Settings
    metrics: Metrics
    access: Access
    tracing: "Tracing | None" = None
    _in_work: int = field(default=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers, recorder = Headers(scope=scope), ResponseRecorder(send, head=scope["method"] == "HEAD")
        if recorder.head:
            scope = dict(scope) | {"method": "GET"}
        if self.settings.root_path:
            scope = _under(self.settings.root_path, scope)
        requested_id = headers.get("x-request-id", "")
        token = request_id.set(requested_id if GOOD_ID.fullmatch(requested_id) else secrets.token_hex(16))
        trace = self._traced(scope, headers, recorder)
        self._in_work += 1
        self.metrics.in_flight.inc()
        try:
            await self._guarded(scope, headers, receive, recorder)
        finally:
            self._in_work -= 1
            self.metrics.in_flight.dec()
            route, seconds = _route(scope), time.perf_counter() - began
            exemplar = {"trace_id": trace.id} if trace is not None and trace.recorded else None
            self.metrics.requests.labels(route, recorder.status or 500).inc(exemplar=exemplar)
            self.metrics.request_seconds.labels(route).observe(seconds, exemplar)
            if trace is not None:
                trace.end(scope["method"], route, recorder.status or 500)
            if self.settings.access_log:
                method, path = "HEAD" if recorder.head else scope["method"], scope["path"][:100]
                log.info("%s %s %d %.1f ms", method, path, recorder.status or 500, 1000 * seconds)
            request_id.reset(token)
            trace_id.set("")

    def _traced(self, scope: Scope, headers: Headers, recorder: "ResponseRecorder") -> "Trace | None":
        """Probes and scrapes are not: they would be most of all traces."""
        if self.tracing is None or is_public(scope["path"].removeprefix(self.settings.root_path), scope["method"]):
            return None
        trace = self.tracing.begin(headers)
        scope.setdefault("state", {})["trace"] = trace
        recorder.more = [(name.encode(), value.encode()) for name, value in trace.headers().items()]
        trace_id.set(trace.id)
        return trace

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, recorder: "ResponseRecorder") -> None:
        try:
            path = scope["path"].removeprefix(self.settings.root_path)
            scope.setdefault("state", {})["client"] = self.access.check(path, scope, headers)
            if not is_public(path, scope["method"]):
                self._check_count()
            await self.app(scope, receive, recorder)
        except ServiceError as error:
            await error_response(error, scope)(scope, receive, recorder)
        except Exception:
            log.exception("%s %s failed, which is a bug", scope["method"], scope["path"][:100])
            if not recorder.status:
                message = "something failed that should not; the log has it under this request id"
                await answer(scope, 500, "internal", message)(scope, receive, recorder)

    def _check_count(self) -> None:
        if self._in_work > self.settings.max_requests:
            self.metrics.refused.labels("requests").inc()
            wait = float(random.randint(1, SPREAD_SECONDS))
            raise QueueFull("too many requests are in work (max_requests); come back after Retry-After", wait)


@dataclass(slots=True)
class ResponseRecorder:
    """The answer on its way out, with the request's id; to a HEAD without its body.

    ``status`` is 0 until it has begun.
    """

    send: Send
    head: bool = False
    status: int = 0
    more: list[tuple[bytes, bytes]] = field(default_factory=list)  # headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (b"x-request-id", request_id.get().encode())
            message["headers"] = [*message.get("headers", ()), own, *self.more]
        elif self.head:
            message = {**message, "body": b""}
        await self.send(message)


def _under(root: str, scope: Scope) -> Scope:
    """As ASGI has a path below ``root``: with it, whether the proxy took it off or not."""
    path = str(scope["path"])
    return dict(scope) | {"root_path": root, "path": path if path.startswith(f"{root}/") else root + path}


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: labels must stay few."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
