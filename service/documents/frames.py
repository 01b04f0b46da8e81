"""What goes between the service and the process that reads files: JSON and bytes, each with its length before it.

No pickles: what comes back from a process that parsed a stranger's file is data and no more.
"""

import json
import struct
from typing import Any

HEAD = struct.Struct(">II")  # bytes of the JSON, bytes of the data
Frame = tuple[dict[str, Any], bytes]


def packed(facts: dict[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps(facts).encode()
    return HEAD.pack(len(head), len(data)) + head + data


def unpacked(head: bytes, rest: bytes) -> Frame:
    """``rest`` follows ``head`` and is as long as it says."""
    size, _ = HEAD.unpack(head)
    facts: dict[str, Any] = json.loads(rest[:size])
    return facts, rest[size:]
