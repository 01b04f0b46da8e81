"""Closing a connection whose client still sends: half of it first, so that the client can read its answer.

A connection that is closed with bytes unread is reset, and most clients then never see what they were told.  So what
comes is read on and thrown away, for a bounded time and size, as nginx's lingering close does.
"""

import asyncio
from typing import Any, Protocol

LINGER_SECONDS = 10.0  # at most, for a client to stop sending what nobody reads
LINGER_PAUSE = 2.0  # without a byte, and it is not waited for any more
LINGER_BYTES = 64 * 2**20


class Sending(Protocol):
    """The connection's protocol: is there more of a request to come that was answered already?"""

    loop: asyncio.AbstractEventLoop

    @property
    def still_sending(self) -> bool: ...


class LingeringTransport:
    """A connection whose ``close`` lets the other side read the last answer."""

    def __init__(self, transport: asyncio.Transport, protocol: "Sending") -> None:
        self._transport, self._protocol = transport, protocol
        self._closing = False
        self.discarded = 0
        self._timers: list[asyncio.TimerHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._protocol.still_sending or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._closing = True
        self._transport.write_eof()
        self._transport.resume_reading()
        loop = self._protocol.loop
        self._timers = [loop.call_later(LINGER_SECONDS, self.abandon), loop.call_later(LINGER_PAUSE, self.abandon)]

    @property
    def lingering(self) -> bool:
        return self._closing

    def discard(self, data: bytes) -> None:
        """Bytes that came after the answer."""
        self.discarded += len(data)
        if self.discarded > LINGER_BYTES:
            self.abandon()
        if not self._closing or self._transport.is_closing():
            return
        self._timers[1].cancel()
        self._timers[1] = self._protocol.loop.call_later(LINGER_PAUSE, self.abandon)

    def abandon(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._transport.close()
