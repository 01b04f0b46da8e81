"""What every request goes through: an id, a key, a count, a clock.

Plain ASGI: it sees a request before anything reads its body, and costs a few microseconds.
"""

import hmac
import logging
import random
import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import QueueFull, ServiceError, Unauthorized
from ..logs import request_id
from ..metrics import Metrics
from ..settings import Settings
from .failures import answer, error_response

log = logging.getLogger(__name__)
GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")
PUBLIC_PATHS = (
    "/health/",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/static/",
    "/static-offline-docs/",
)  # probes and scrapers carry no key
SPREAD_SECONDS = 5  # over which those are sent back that came above max_requests


@dataclass(slots=True)
class RequestMiddleware:
    """Wraps the app.  Answers by itself what must not reach it: a missing key, a request too many."""

    app: ASGIApp
    settings: Settings
    metrics: Metrics
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
        self._in_work += 1
        self.metrics.in_flight.inc()
        try:
            await self._guarded(scope, headers, receive, recorder)
        finally:
            self._in_work -= 1
            self.metrics.in_flight.dec()
            route, seconds = _route(scope), time.perf_counter() - began
            self.metrics.requests.labels(route, recorder.status or 500).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            if self.settings.access_log:
                method, path = "HEAD" if recorder.head else scope["method"], scope["path"][:100]
                log.info("%s %s %d %.1f ms", method, path, recorder.status or 500, 1000 * seconds)
            request_id.reset(token)

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, recorder: "ResponseRecorder") -> None:
        try:
            if not is_public(scope["path"].removeprefix(self.settings.root_path)):
                self._check_key(headers)
                self._check_count()
            await self.app(scope, receive, recorder)
        except ServiceError as error:
            await error_response(error)(scope, receive, recorder)
        except Exception:
            log.exception("%s %s failed, which is a bug", scope["method"], scope["path"][:100])
            if not recorder.status:
                message = "something failed that should not; the log has it under this request id"
                await answer(500, "internal", message)(scope, receive, recorder)

    def _check_key(self, headers: Headers) -> None:
        if not self.settings.api_keys:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
        # Compared in constant time, all of them: how long it takes tells nothing of the key.
        matches = [hmac.compare_digest(key, one.encode()) for one in self.settings.api_keys]
        if not any(matches):
            raise Unauthorized("this service wants the header 'Authorization: Bearer KEY' with one of its keys")

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

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.get().encode())]
        elif self.head:
            message = {**message, "body": b""}
        await self.send(message)


def is_public(path: str) -> bool:
    """Answered without a key, and whatever there is to do."""
    return path == "/" or path.startswith(PUBLIC_PATHS)


def _under(root: str, scope: Scope) -> Scope:
    """As ASGI has a path below ``root``: with it, whether the proxy took it off or not."""
    path = str(scope["path"])
    return dict(scope) | {"root_path": root, "path": path if path.startswith(f"{root}/") else root + path}


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: labels must stay few."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
