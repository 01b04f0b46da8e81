"""A request's body: read within limits of size, time and memory, then taken for JSON of bounded complexity."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request

from ..errors import Cancelled, InvalidRequest, MalformedBody, RequestTimeout, TooLarge, Unavailable
from .lifecycle import Lifecycle

LOOK_SECONDS = 0.25  # how often a body that is slow is seen to be still wanted
LONG_BODY = 65_536  # bytes; a shorter one is parsed in no time, whatever it holds
MOST_VALUES = 20_000  # numbers, strings, lists and objects in one body
MOST_DIGITS = 400  # of an integer in a long body
PIECE = 131_072  # bytes
QUOTE, BACKSLASH, MARKS = ord('"'), ord("\\"), b"[{,:"


@dataclass(slots=True)
class BodyLimits:
    """``largest`` and ``memory`` in bytes, of one body and of all together; ``seconds`` for one to come."""

    largest: int
    memory: int
    seconds: float
    held: int = 0

    def hold(self, size: int) -> None:
        """Unavailable where the bodies that have come so far hold too much already."""
        if self.held and self.held + size > self.memory:
            raise Unavailable("too many bodies are on their way (max_body_memory); try again in a moment")
        self.held += size


async def read_body(request: Request, limits: BodyLimits, life: Lifecycle, until: float) -> bytes:
    """The whole body.  TooLarge, RequestTimeout (at ``until`` by time.monotonic, or ``limits.seconds`` from now),
    Unavailable when the service ends, Cancelled when the client leaves."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() else 0
    if announced > limits.largest:
        raise too_large(limits)
    until = min(until, time.monotonic() + limits.seconds)
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        while more:
            message = await _receive(request, life, until, first=not chunks)
            if message["type"] == "http.disconnect":
                raise Cancelled("the client left before its request was there")
            chunk = message.get("body", b"")
            limits.hold(len(chunk))
            chunks.append(chunk)
            size += len(chunk)
            more = message.get("more_body", False)
            if size > limits.largest:
                raise too_large(limits)
        return b"".join(chunks)
    finally:
        limits.held -= size


async def _receive(request: Request, life: Lifecycle, until: float, *, first: bool) -> dict[str, Any]:
    """The next part.  The ``first`` may be there already, and is taken whatever the service does."""
    while True:
        if not first:
            _check_time(life, until)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return dict(await request.receive())
        first = False


def _check_time(life: Lifecycle, until: float) -> None:
    if life.draining:
        raise Unavailable("the service is stopping; the body did not come in time")
    if time.monotonic() > until:
        raise RequestTimeout("the body did not come in time (body_seconds, or the deadline): send it faster")


def too_large(limits: BodyLimits) -> TooLarge:
    return TooLarge(f"the body is above {limits.largest} bytes: send it in parts, or raise max_body_bytes")


async def parse_json(body: bytes, most_values: int = MOST_VALUES) -> Any:
    """MalformedBody where ``body`` is not JSON in UTF-8, InvalidRequest where it is empty, TooLarge where it holds too
    many values."""
    if not body:
        raise InvalidRequest("body: empty; wanted a JSON object")
    long = len(body) > LONG_BODY
    # Only a long body that may hold many values is counted exactly, beside the event loop.
    many = long and sum(body.count(bytes([mark])) for mark in MARKS) > most_values
    if many and await asyncio.get_running_loop().run_in_executor(None, has_more_values, body, most_values):
        raise TooLarge(f"the body holds more than {most_values} JSON values")
    try:
        # Not by Pydantic's own parser: it refuses a whole body for one lone surrogate in one of its texts.
        return json.loads(body.decode("utf-8-sig"), parse_int=_short_int if long else None)
    except UnicodeDecodeError:
        raise MalformedBody("the body is not JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {str(error)[:100]}") from None


def _short_int(digits: str) -> int:
    """The time to read an integer grows with the square of its digits, and no field has as many."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def has_more_values(body: bytes, most: int) -> bool:
    """Are there more than ``most`` opening brackets, commas and colons in ``body`` outside of strings?

    Piece by piece in NumPy, so that the interpreter is free for the event loop in between.  A character is escaped
    that follows an odd run of backslashes; ``run`` is that before a piece, ``inside`` whether it begins in a string.
    """
    values, run, inside = 0, 0, False
    for start in range(0, len(body), PIECE):
        text = np.frombuffer(body, np.uint8, min(PIECE, len(body) - start), start)
        places = np.arange(len(text))
        last_plain = np.maximum.accumulate(np.where(text != BACKSLASH, places, -1))
        before = np.concatenate(([-1], last_plain[:-1]))  # the last that is no backslash before each place
        runs = places - 1 - before + np.where(before < 0, run, 0)
        quotes = (text == QUOTE) & (runs % 2 == 0)
        within = (np.cumsum(quotes) + inside) % 2 == 1
        marks = (text == MARKS[0]) | (text == MARKS[1]) | (text == MARKS[2]) | (text == MARKS[3])
        values += int(np.count_nonzero(marks & ~within))
        if values > most:
            return True
        inside = bool(within[-1])
        tail = len(text) - 1 - int(last_plain[-1])
        run = tail + (run if last_plain[-1] < 0 else 0)
    return False
