"""The process that reads files: one after the other, from stdin to stdout, until stdin ends.

It has limits of memory and time that the kernel keeps, and goes behind the service for the processor.
"""

import contextlib
import os
import resource
import signal
import sys
from typing import Any

from ..errors import ServiceError, TooLarge
from .frames import HEAD, packed, unpacked
from .reading import Limits, picture, read

NICE = 10
MOST_KEPT = 900 * 1024  # KiB of memory at the peak: OCR of usual pages takes some 600 MiB


def main() -> None:
    """``argv``: MiB of address space."""
    memory = int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever stops the service lets it finish; it ends this process
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to stderr
    while head := stdin.read(HEAD.size):
        facts, data = unpacked(head, stdin.read(sum(HEAD.unpack(head))))
        signal.alarm(facts["seconds"])  # ends the process where nobody is there any more to do it
        stdout.write(_answer(facts, data))
        stdout.flush()
        signal.alarm(0)


def peak_memory() -> int:
    """KiB, of this program alone."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)


def _answer(facts: dict[str, Any], data: bytes) -> bytes:
    try:
        if facts["do"] == "picture":
            return packed({}, picture(data, facts["page"]))
        found = read(data, Limits(facts["pages"], facts["chars"]))
        last = peak_memory() > MOST_KEPT  # what one large file took would be held for all that follow
        return packed({"text": found.text, "starts": found.starts, "last": last}, found.boxes.tobytes())
    except ServiceError as error:
        return packed({"error": error.message, "large": isinstance(error, TooLarge)})
    except ImportError as error:
        return packed({"missing": error.name or str(error)})
    except MemoryError:
        return packed({"error": "reading the file takes more memory than document_memory_mb", "large": True})
    except Exception as error:  # a file that no library of ours foresaw is the file's fault
        return packed({"error": f"the file cannot be read ({type(error).__name__})", "large": False})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
