"""Files to texts, in a process of their own that is killed where one takes too long, and started when one comes."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DeadlineExceeded, InvalidRequest, QueueFull, ServiceError, TooLarge, Unavailable
from .frames import HEAD, Frame, packed, unpacked
from .places import ReadDocument

log = logging.getLogger(__name__)
MOST_WAITING = 16  # files, the one that is read included
ENDING_SECONDS = 2.0  # for a process that closed its pipes to be gone
IDLE_SECONDS = 120.0  # then the process goes: with its models for OCR it holds some hundred MiB
MISSING = (
    "this service reads no PDF files and no pictures: its host can have it with the extra 'documents' of albert-serve"
)


class DocumentReader:
    """``seconds`` a file may take, ``pages`` and ``chars`` it may have, ``memory`` in MiB for reading it."""

    def __init__(
        self,
        *,
        seconds: float,
        pages: int,
        chars: int,
        memory: int,
        on_refusal: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._seconds, self._pages, self._chars, self._memory = seconds, pages, chars, memory
        self._on_refusal = on_refusal
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._inside = 0
        self._typical = 1.0  # seconds a file, of the last ones
        self._ending: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def read(self, data: bytes, deadline: float) -> ReadDocument:
        """InvalidRequest or TooLarge by the file; QueueFull where too many wait; DeadlineExceeded at ``deadline``."""
        facts, boxes = await self._ask({"do": "read", "pages": self._pages, "chars": self._chars}, data, deadline)
        places = np.frombuffer(boxes, dtype=np.float32).reshape(-1, 4)
        return ReadDocument(facts["text"], places, facts["starts"])

    async def picture(self, data: bytes, page: int, deadline: float) -> bytes:
        """A page, from 1, of a file that was read, as PNG."""
        _, png = await self._ask({"do": "picture", "page": page}, data, deadline)
        return png

    def stop(self) -> None:
        """Kill the process; the next file starts another."""
        if self._idle:
            self._idle.cancel()
        process, self._process = self._process, None
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._ending = process

    async def close(self) -> None:
        self.stop()
        if self._ending:
            await self._ending.wait()

    async def _ask(self, facts: dict[str, Any], data: bytes, deadline: float) -> Frame:
        if self._inside >= MOST_WAITING:
            self._on_refusal("documents")
            wait = max(1.0, self._inside * self._typical)
            raise QueueFull("too many files wait to be read; come back after Retry-After", wait)
        self._inside += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                async with self._turn:
                    found, payload = await self._exchange(packed(facts | {"seconds": round(self._seconds) + 5}, data))
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the files were read; send fewer, or allow more time"
            ) from None
        finally:
            self._inside -= 1
        if "missing" in found:
            log.warning("a file was refused: the module %s is missing (the extra documents)", found["missing"])
            raise InvalidRequest(MISSING)
        if "error" in found:
            raise (TooLarge if found["large"] else InvalidRequest)(found["error"])
        return found, payload

    async def _exchange(self, frame: bytes) -> Frame:
        """The process is killed where it takes too long, or where the caller is gone: it must not go on alone."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                process = await self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(frame)
                await process.stdin.drain()
                head = await process.stdout.readexactly(HEAD.size)
                found = unpacked(head, await process.stdout.readexactly(sum(HEAD.unpack(head))))
        except TimeoutError:
            self.stop()
            raise TooLarge(
                f"reading the file takes more than {self._seconds:g} s (document_seconds): send fewer pages at once"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._ended() from None
        except OSError as error:
            raise Unavailable(f"no process to read files with: {error.strerror}") from error
        except BaseException:
            self.stop()
            raise
        self._typical = 0.7 * self._typical + 0.3 * (time.monotonic() - began)
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.stop)
        if found[0].get("last"):
            self.stop()
        return found

    async def _ended(self) -> ServiceError:
        """Why the process is gone in the middle of a file."""
        process, status = self._process, 0
        if process:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), ENDING_SECONDS)
            status = process.returncode or 0
        self.stop()
        if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return Unavailable("the process that reads files was stopped from outside; try again in a moment")
        if -status in (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL):
            return TooLarge("reading the file takes more memory than document_memory_mb, or it is damaged")
        return InvalidRequest("the file cannot be read: it ended the process that reads files")

    async def _running(self) -> asyncio.subprocess.Process:
        if self._idle:
            self._idle.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"{__package__}.worker", str(self._memory),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20, start_new_session=True,
            )  # fmt: skip
        return self._process
