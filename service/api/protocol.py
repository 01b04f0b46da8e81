"""HTTP/1.1 connections with limits: uvicorn's protocol over httptools, and what it leaves open.

- heads are bounded in bytes, number and time, connections in number; an idle one makes room for a new one
- an upgrade that is not spoken here is ignored and the request answered (RFC 9110, 7.8); httptools takes such a
  request's body for another protocol, so its head is read a second time without the upgrade
- a client that is answered before it sent its whole body can read the answer: what comes is read on and thrown away
  for a bounded time (as nginx's lingering close does), instead of a reset
- every answer is JSON, those to a request that cannot be parsed too
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..errors import HeadersTooLarge
from ..logs import LimitedLog
from .lingering import LINGER_PAUSE, LingeringTransport
from .loop_lag import LoopLag

often = LimitedLog(logging.getLogger(__name__))
SHORT_BODY = 2**20  # bytes; the rest of such a body is thrown away, and the connection goes on
HOP_HEADERS = (b"upgrade", b"http2-settings")  # with their connection token they ask for another protocol


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Of one process: see the settings of these names."""

    connections: int
    header_bytes: int
    headers: int
    header_seconds: float


class BoundedProtocol(HttpToolsProtocol):
    """One connection.  ``limits`` is set on a subclass: see ``bounded``."""

    limits: ConnectionLimits
    ending: Callable[[], bool] = lambda: False
    busy: LoopLag | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering = LingeringTransport(transport, self)
        super().connection_made(self._lingering)  # type: ignore[arg-type]
        self._in_head, self._head_bytes, self._refused, self._without_upgrade = False, 0, 0, False
        self._last_used = self.loop.time()
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)
        if len(self.connections) > self.limits.connections and not self._make_room():
            self._refuse(503, "too_many_connections", "too many connections are open (max_connections)")

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    @property
    def idle(self) -> bool:
        """Between two requests, or before the first."""
        return not self._in_head and (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    @property
    def still_sending(self) -> bool:
        """Is there more of a request to come that was answered already, or that cannot be read?"""
        return self._refused > 0 or (self.cycle is not None and self.cycle.more_body)

    def data_received(self, data: bytes) -> None:
        if self._lingering.lingering or self._refused:
            self._lingering.discard(data)
            return
        self._unset_keepalive_if_required()
        self._last_used = self.loop.time()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse_unreadable()
        if self.idle and self.cycle is not None and not self.transport.is_closing():
            # Bytes that begin no request do not keep a connection.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > 2 * self.limits.header_bytes + 2**18:  # one header that does not end
                self._refuse(HeadersTooLarge.status, HeadersTooLarge.code, self._too_large())

    def eof_received(self) -> None:
        if self._lingering.lingering:
            self._lingering.abandon()
        return super().eof_received()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._without_upgrade:  # else it is the same head again
            self._began = time.monotonic()
        self.scope["state"]["began"] = self._began
        self._in_head, self._head_bytes, self._size = True, 0, 0
        self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= self.limits.headers:
            self._refused = HeadersTooLarge.status
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_timer.cancel()
        if not self.parser.should_upgrade():
            method, path = self.parser.get_method().decode("ascii"), self.url.partition(b"?")[0].decode("latin-1")
            late = self.busy is not None and self.busy.refuses(method, path)
            self.app = self.busy if late else self.config.loaded_app
            super().on_headers_complete()
            if type(self).ending():
                self.cycle.keep_alive = False  # the client is told to come again on another connection

    def on_body(self, body: bytes) -> None:
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self.cycle.more_body = False  # uvicorn leaves it where the answer was first

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._last_used = self.loop.time()
        if self.cycle.response_complete and self.cycle.more_body and not self.pipeline:
            self._let_body_end()

    def _let_body_end(self) -> None:
        """Nobody reads the rest of the body.  A short one may come yet, for the next request follows it."""
        lengths = [int(value) for name, value in self.headers if name == b"content-length" and value.isdigit()]
        if not lengths or lengths[0] > SHORT_BODY:
            self.transport.close()
            return
        self._head_timer.cancel()
        self._head_timer = self.loop.call_later(LINGER_PAUSE, self._body_is_late, self.cycle)

    def _body_is_late(self, cycle: object) -> None:
        if self.cycle is cycle and self.cycle.more_body:
            self.transport.close()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.limits.header_bytes:
            self._refused = HeadersTooLarge.status
            raise ValueError("the head is too large")

    def _feed(self, data: bytes) -> None:
        """HttpParserError where it cannot be read."""
        while data and not self._refused:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._read_head_again()

    def _read_head_again(self) -> None:
        """Without the wish for another protocol: what follows is the body then."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(405, "method_not_allowed", "this is no proxy")
            return
        lines = [method + b" " + self.url + b" HTTP/" + version.encode()]
        lines += [name + b": " + value for name, value in _spoken(self.headers)]
        self.parser = httptools.HttpRequestParser(self)
        self._without_upgrade = True
        try:
            self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))
        finally:
            self._without_upgrade = False

    def _head_is_late(self) -> None:
        if self._in_head:
            self._refuse(408, "request_timeout", "the head of the request did not come in time (header_seconds)")
        elif self.idle:
            self.transport.close()

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False where none is."""
        others = [one for one in self.connections if one is not self and isinstance(one, BoundedProtocol)]
        idle = [one for one in others if one.idle and not one.transport.is_closing()]
        if not idle:
            return len(self.connections) - sum(one.transport.is_closing() for one in others) <= self.limits.connections
        min(idle, key=lambda one: one._last_used).transport.close()
        return True

    def _refuse_unreadable(self) -> None:
        if self._refused == HeadersTooLarge.status:
            self._refuse(HeadersTooLarge.status, HeadersTooLarge.code, self._too_large())
        else:
            self._refuse(400, "bad_request", "this is no HTTP/1.1 request that can be read")

    def _too_large(self) -> str:
        return (
            f"the head of the request is above {self.limits.header_bytes} bytes or {self.limits.headers} headers "
            "(max_header_bytes, max_headers)"
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer here what never becomes a request, and close."""
        if self.transport.is_closing():
            return
        self._refused, self._in_head = status, False
        often.warning(code, "answered %d: %s", status, message)
        going = self.cycle is not None and not self.cycle.response_complete
        if going and not self.cycle.more_body:
            self.cycle.keep_alive = False  # the answer before it is on its way, and is the last one
            return
        if going:  # what cannot be read is the body of the request that is in work: it will never be whole
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not going or not self.cycle.response_started:
            request_id = secrets.token_hex(16)
            body = json.dumps({"error": {"code": code, "message": message, "request_id": request_id}}).encode()
            head = [
                STATUS_LINE[status].rstrip(),
                b"content-type: application/json",
                b"content-length: " + str(len(body)).encode(),
                b"x-request-id: " + request_id.encode(),
                b"connection: close",
            ]
            self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()


def _spoken(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``headers`` without those that ask for another protocol."""
    kept = []
    for name, value in headers:
        if name in HOP_HEADERS:
            continue
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token.lower() not in HOP_HEADERS)
            if not value:
                continue
        kept.append((name, value))
    return kept


def bounded(
    limits: ConnectionLimits, ending: Callable[[], bool] = lambda: False, busy: LoopLag | None = None
) -> type[BoundedProtocol]:
    """The protocol with ``limits``; uvicorn makes one a connection and hands nothing more over.

    From when ``ending`` is true, each answer is the last one on its connection.  ``busy`` answers in the app's place
    while the event loop is late.
    """
    facts = {"limits": limits, "ending": staticmethod(ending), "busy": busy}
    return type("LimitedProtocol", (BoundedProtocol,), facts)
