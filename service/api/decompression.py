"""A compressed request body, unpacked within the limits of bodies: what a client may send is what it may send unpacked.

Content-Encoding: gzip, deflate (with zlib's frame, as RFC 9110 has it, or without, as some clients send it), identity.
"""

import asyncio
import zlib

from ..errors import MalformedBody, UnsupportedEncoding
from .body import LONG_BODY, BodyLimits, too_large

ACCEPTED = "gzip, deflate"
MOST_MEMBERS = 32
GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


async def decompress(body: bytes, encoding: str, limits: BodyLimits) -> bytes:
    """``body`` without its ``encoding``.  UnsupportedEncoding names what is taken; TooLarge as soon as it is;
    MalformedBody where it is damaged or cut off."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding(
            f"Content-Encoding: {encoding[:100]!r}; taken are {ACCEPTED}, or none", {"Accept-Encoding": ACCEPTED}
        )
    windows = (ZLIB, RAW) if name == "deflate" else (GZIP,)
    if len(body) <= LONG_BODY // 64:  # it cannot become a long one
        return _unpacked(body, windows, limits)
    return await asyncio.get_running_loop().run_in_executor(None, _unpacked, body, windows, limits)


def _unpacked(body: bytes, windows: tuple[int, ...], limits: BodyLimits) -> bytes:
    for window in windows:
        try:
            return _members(body, window, limits)
        except zlib.error:
            continue
    raise MalformedBody("the body is not what its Content-Encoding says, or damaged, or cut off")


def _members(body: bytes, window: int, limits: BodyLimits) -> bytes:
    """All members, for gzip may have several.  No more is unpacked than may be there."""
    parts: list[bytes] = []
    room = limits.largest
    while body:
        if len(parts) == MOST_MEMBERS:  # each costs a copy of what follows it
            raise zlib.error("too many members")
        unpacker = zlib.decompressobj(window)
        parts.append(unpacker.decompress(body, room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise too_large(limits)
        if not unpacker.eof:
            raise zlib.error("cut off")
        body = unpacker.unused_data
        if body and window != GZIP:
            raise zlib.error("more behind the end")
    return b"".join(parts)
