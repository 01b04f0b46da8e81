"""A request's body: read within limits of size, time and memory, then taken for JSON of bounded complexity."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request

from service.api.lifecycle import Lifecycle
from service.errors import Cancelled, InvalidRequest, MalformedBody, RequestTimeout, TooLarge, Unavailable

LOOK_SECONDS = 0.25  # how often a body that is slow is seen to be still wanted
LONG_BODY = 65_536  # bytes; a shorter one is parsed in no time, whatever it holds
MOST_VALUES = 20_000  # numbers, strings, lists and objects in one body
QUOTE, BACKSLASH, OPENING = ord('"'), ord("\\"), b"[{,:"


@dataclass(slots=True)
class BodyLimits:
    """``largest`` and ``memory`` in bytes, of one body and of all together; ``seconds`` for one to come."""

    largest: int
    memory: int
    seconds: float
    held: int = 0

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Unavailable where the bodies that are being read hold too much already."""
        if self.held and self.held + size > self.memory:
            raise Unavailable("too many bodies are on their way (max_body_memory); try again in a moment")
        self.held += size
        try:
            yield
        finally:
            self.held -= size


async def read_body(request: Request, limits: BodyLimits, life: Lifecycle, until: float) -> bytes:
    """The whole body.  TooLarge, RequestTimeout (at ``until`` by time.monotonic, or ``limits.seconds`` from now),
    Unavailable when the service ends, Cancelled when the client leaves."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() else 0
    if announced > limits.largest:
        raise too_large(limits)
    with limits.holding(announced or LONG_BODY):
        return await _read(request, limits, life, min(until, time.monotonic() + limits.seconds))


async def _read(request: Request, limits: BodyLimits, life: Lifecycle, until: float) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await _receive(request, life, until)
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left before its request was there")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > limits.largest:
            raise too_large(limits)
    return b"".join(chunks)


async def _receive(request: Request, life: Lifecycle, until: float) -> dict[str, Any]:
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return dict(await request.receive())
        if life.draining:
            raise Unavailable("the service is stopping; the body did not come in time")
        if time.monotonic() > until:
            raise RequestTimeout("the body did not come in time (body_seconds, or the deadline): send it faster")


def too_large(limits: BodyLimits) -> TooLarge:
    return TooLarge(f"the body is above {limits.largest} bytes: send it in parts, or raise max_body_bytes")


async def parse_json(body: bytes) -> Any:
    """MalformedBody where ``body`` is not JSON, InvalidRequest where it is empty or holds too many values."""
    if not body:
        raise InvalidRequest("body: empty; wanted a JSON object")
    if len(body) > LONG_BODY and _at_most(body) > MOST_VALUES:
        # Only a long body that may hold many values is counted exactly, beside the event loop.
        values = await asyncio.get_running_loop().run_in_executor(None, count_values, body)
        if values > MOST_VALUES:
            raise TooLarge(f"the body holds {values} JSON values; at most {MOST_VALUES} are taken")
    try:
        # Not by Pydantic's own parser: it refuses a whole body for one lone surrogate in one of its texts.
        return json.loads(body)
    except UnicodeDecodeError:
        raise MalformedBody("the body is not JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {str(error)[:100]}") from None


def _at_most(body: bytes) -> int:
    """No body has more values than this: characters in strings count too."""
    return sum(body.count(bytes([mark])) for mark in OPENING)


def count_values(body: bytes) -> int:
    """The opening brackets, commas and colons of ``body`` that stand outside of strings.

    In NumPy, for it lets go of the interpreter: a character is escaped that follows an odd run of backslashes.
    """
    text = np.frombuffer(body, np.uint8)
    places = np.arange(len(text), dtype=np.int64)
    plain = text != BACKSLASH
    run_before = places - 1 - np.maximum.accumulate(np.where(plain, places, -1)).take(places - 1, mode="clip")
    run_before[0] = 0
    quotes = (text == QUOTE) & (run_before % 2 == 0)
    outside = np.cumsum(quotes) % 2 == 0
    marks = np.isin(text, np.frombuffer(OPENING, np.uint8))
    return int(np.count_nonzero(marks & outside))
