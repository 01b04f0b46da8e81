"""What every request goes through: an id, a size limit, a key, a clock.

Plain ASGI: it sees the body before anything parses it, and costs a few microseconds.
"""

import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.failures import answer, error_response
from service.errors import Cancelled, ServiceError, TooLarge, Unauthorized
from service.logs import request_id
from service.metrics import Metrics
from service.settings import Settings

log = logging.getLogger(__name__)
GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")
OPEN = ("/health/", "/metrics", "/docs", "/openapi.json")  # probes and scrapers carry no key


@dataclass(slots=True)
class Gate:
    """Wraps the app.  Answers by itself what must not reach it: a missing key, a body above the limit."""

    app: ASGIApp
    settings: Settings
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers, reply = Headers(scope=scope), _Reply(send)
        wished = headers.get("x-request-id", "")
        token = request_id.set(wished if GOOD_ID.fullmatch(wished) else secrets.token_hex(16))
        self.metrics.in_flight.inc()
        try:
            await self._guarded(scope, headers, receive, reply)
        finally:
            self.metrics.in_flight.dec()
            route = _route(scope)
            self.metrics.requests.labels(route, reply.status or 500).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - began)
            request_id.reset(token)

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, reply: "_Reply") -> None:
        try:
            self._check_key(scope, headers)
            await self.app(scope, await self._body(scope, headers, receive), reply)
        except ServiceError as error:
            await error_response(error)(scope, receive, reply)
        except Exception:
            log.exception("%s %s failed, which is a bug", scope["method"], scope["path"])
            if not reply.status:
                message = "something failed that should not; the log has it under this request id"
                await answer(500, "internal", message)(scope, receive, reply)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self.settings.api_keys or scope["path"].startswith(OPEN):
            return
        given = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        # Compared in constant time, all of them: how long it takes tells nothing of the key.
        matches = [hmac.compare_digest(given, key.encode()) for key in self.settings.api_keys]
        if not any(matches):
            raise Unauthorized("this service wants the header 'Authorization: Bearer KEY' with one of its keys")

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Read the body up to the limit, and give it again to whoever asks."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        limit = self.settings.max_body_bytes
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Cancelled("the client left before its request was there")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
            if size > limit:
                raise _too_large(limit)
        return _replay({"type": "http.request", "body": b"".join(chunks), "more_body": False}, receive)


@dataclass(slots=True)
class _Reply:
    """The answer on its way out, with the request's id.  ``status`` is 0 until it has begun."""

    send: Send
    status: int = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.get().encode())]
        await self.send(message)


def _replay(first: Message, receive: Receive) -> Receive:
    pending = [first]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is above {limit} bytes: send it in parts, or raise max_body_bytes")


def _route(scope: Scope) -> str:
    """The route's pattern, not the path: labels must stay few."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
