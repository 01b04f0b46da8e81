"""How late the event loop is: the one sign of a process that has more to do than its processor.

Where it is late, a request is refused by its head alone, before anything of it is parsed, counted or queued: a refusal
must cost far less than the request, or refusing is what keeps the loop busy.
"""

import asyncio
import json
import secrets
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from ..background import background
from ..metrics import Metrics
from .access import is_public

TICK = 0.02  # seconds
TOO_LATE = 0.1  # seconds
IN_A_ROW = 3  # ticks that must be late: one alone is a stall that is over, and says nothing of what is to come
RETURNING = 100  # of those who were refused in one second come back in the same second


@dataclass(slots=True)
class LoopLag:
    """Measures; and answers, as an ASGI app, those whom a loop that is late has no time for."""

    metrics: Metrics
    root_path: str = ""
    _late: int = 0  # ticks in a row that were too late
    _second: int = 0
    _refused: int = field(default=0)

    def measuring(self) -> AbstractAsyncContextManager[None]:
        return background(self._measure(), "loop lag")

    async def _measure(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            lag = max(0.0, time.monotonic() - due)
            self._late = self._late + 1 if lag > TOO_LATE else 0
            self.metrics.loop_lag.observe(lag)

    def refuses(self, method: str, path: str) -> bool:
        return self._late >= IN_A_ROW and not is_public(path.removeprefix(self.root_path), method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """429, and each of those who are refused now is sent back at another time."""
        now = int(time.monotonic())
        self._refused = self._refused + 1 if now == self._second else 0
        self._second = now
        self.metrics.refused.labels("busy").inc()
        self.metrics.requests.labels("refused", 429).inc()
        request_id = secrets.token_hex(16)
        message = "the service has more to do than its processor can; come back after Retry-After, or add workers"
        error = {"code": "queue_full", "message": message, "request_id": request_id}
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(1 + self._refused // RETURNING).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})
