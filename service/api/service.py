"""What the routes share: the service's parts, and how a request's work is reserved, run, timed and dropped."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence as Seq
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response

from ..documents.reader import DocumentReader
from ..errors import Cancelled, DeadlineExceeded, InvalidRequest, ServiceError, TooLarge
from ..metrics import Metrics
from ..serving.admission import Reservation
from ..serving.aside import Aside
from ..serving.cost import quantile
from ..serving.depths import InDeviceThread
from ..serving.device_loop import DeviceLoop
from ..serving.encoding import EncodingStage
from ..serving.engine import Engine, Task
from ..serving.pending import Outcome
from ..serving.queue import estimate
from ..serving.registry import Registry
from ..serving.submission import submit
from ..settings import Settings
from ..tasks.classification import Classification
from ..tasks.question_answering import QuestionAnswering
from ..types import Floats, Priority, Sequence
from .body import BodyLimits
from .lifecycle import Lifecycle

T = TypeVar("T")
LONGEST_DEADLINE_MS = 3_600_000.0
WATCH_SECONDS = 0.01  # a request that is answered by then needs nobody to see whether its client is still there
LONG_DECODING = 4_000  # tokens; more take longer than a hop to a thread
DEFAULTS: dict[type[Task], str] = {Classification: "classify_model", QuestionAnswering: "qa_model"}
PRICED = ("/classify", "/qa")
BYTES_A_TOKEN = 4  # of JSON with English text, rather less than more: the first burst must not be promised too much
REMEMBERED = 64  # requests that say what a size costs


@dataclass(slots=True)
class SizePrice:
    """Seconds of device time by the size of a body, from a route's last requests: what a head tells of a request."""

    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def observe(self, size: int, seconds: float) -> None:
        self._recent.append((size, seconds))

    def seconds(self, size: int) -> float | None:
        """None before the first.

        What bodies of about that size took; of one that is larger than all, what the largest took and no more: a text
        may be cut, and then costs what its model can see.
        """
        alike = [seconds for other, seconds in self._recent if size <= 2 * other <= 4 * size]
        smaller = [seconds for other, seconds in self._recent if other < size]
        return quantile(alike, 0.5) if alike else max(smaller, default=None)


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    metrics: Metrics
    registry: Registry
    device: DeviceLoop
    encoding: EncodingStage
    aside: Aside
    files: DocumentReader
    life: Lifecycle
    bodies: BodyLimits
    prices: dict[str, SizePrice] = field(default_factory=dict)

    def check_text(self, text: str) -> None:
        if len(text) > self.settings.max_text_chars:
            raise TooLarge(
                f"a text of {len(text)} code points; at most {self.settings.max_text_chars} are taken "
                "(max_text_chars): send it in parts"
            )

    def not_ready_reason(self) -> str:
        """Why the service is not ready; empty where it is."""
        if self.life.ending:
            return f"the service is {self.life.state}"
        if self.device.down:
            return self.device.down
        if not self.registry.synced:
            return "the models are being loaded"
        loaded = {engine.ref.name for engine in self.registry.engines()}
        missing = [name for name in self._required() if name not in loaded]
        if missing:
            return f"required models are not loaded: {', '.join(missing)} (required_models)"
        return ""

    def may_be_files(self, route: str, seconds: float, deadline: float) -> bool:
        """Text of this size could never be answered in time: it is files, or is refused once it is seen."""
        return route == "/qa" and seconds > deadline - time.monotonic() > 0

    def default_model(self, task: type[Task]) -> str:
        """The model of a request that names none: the one in the settings, or the only one that does ``task``."""
        setting = DEFAULTS[task]
        name: str = getattr(self.settings, setting)
        if setting in self.settings.model_fields_set or self.registry.knows(name):
            return name
        others = {engine.ref.name for engine in self.registry.engines() if isinstance(engine.task, task)}
        return others.pop() if len(others) == 1 else name

    def _required(self) -> list[str]:
        """The models without which the service is not ready."""
        if self.settings.required_models is not None:
            return self.settings.required_models
        names = {self.default_model(task): setting for task, setting in DEFAULTS.items()}
        wanted = [n for n, s in names.items() if s in self.settings.model_fields_set or self.registry.knows(n)]
        # A repository of other models alone is ready with these, one that has none never is.
        return wanted or ([] if self.registry.engines() else list(names))

    def begin(self, request: Request, route: str) -> "RequestWork":
        """Whether there is room for a request, by its head.  DeadlineExceeded, QueueFull or InvalidRequest at once."""
        began = request.scope.get("state", {}).get("began", time.monotonic())
        given = request.headers.get("x-deadline-ms")
        deadline = began + _milliseconds(given, self.settings.deadline_ms) / 1000
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdigit() else 0
        client, seconds = self._client(request), self.guess(route, size)
        if not self.may_be_files(route, seconds, deadline):
            self.device.admission.check(client, seconds, deadline)
        return RequestWork(self, route, client, began, deadline, given is not None)

    def guess(self, route: str, size: int) -> float:
        """Seconds of device time for a body of ``size`` bytes; before there was one, by the route's default model.

        0 where a size says nothing: what an explanation costs its method decides.
        """
        if route not in PRICED:
            return 0.0
        seconds = self.prices.setdefault(route, SizePrice()).seconds(size)
        if seconds is not None:
            return seconds
        tokens = size / BYTES_A_TOKEN
        default = self.default_model(QuestionAnswering if route == "/qa" else Classification)
        engines = [engine for engine in self.registry.engines() if engine.ref.name == default]
        return max((engine.cost.marginal(tokens, engine.budget) for engine in engines), default=0.0)

    def _client(self, request: Request) -> str:
        """Who asks, for a fair share: by key where there are keys, else by address."""
        if self.settings.api_keys:
            return request.headers.get("authorization", "")
        return request.client.host if request.client else ""


def _milliseconds(given: str | None, default: int) -> float:
    try:
        milliseconds = float(given) if given is not None else float(default)
    except ValueError:
        milliseconds = math.nan
    if math.isnan(milliseconds):
        raise InvalidRequest("X-Deadline-Ms: wanted a number of milliseconds from now")
    if milliseconds <= 0:
        raise DeadlineExceeded("X-Deadline-Ms is not in the future: the deadline has passed already")
    return min(milliseconds, LONGEST_DEADLINE_MS)


@dataclass(slots=True)
class RequestWork:
    """One request's work, with its stages timed in seconds."""

    service: Service
    route: str
    client: str
    began: float
    deadline: float
    own_deadline: bool
    size: int = 0
    reservation: Reservation | None = None
    stages: dict[str, float] = field(default_factory=dict)

    def reserve(self, size: int) -> None:
        """The body is there, of ``size`` bytes.  QueueFull where there is no room any more."""
        self.size = size
        seconds = self.service.guess(self.route, size)
        seconds = 0.0 if self.service.may_be_files(self.route, seconds, self.deadline) else seconds
        self.reservation = self.service.device.admission.reserve(self.client, seconds, self.deadline, guess=True)

    def holds_files(self, size: int) -> None:
        """But for ``size`` bytes the body is files, whose bytes say nothing of the device's time."""
        self.size = size
        if self.reservation is not None:
            self.service.device.admission.resize(self.reservation, self.service.guess(self.route, size))

    def until(self, priority: Priority) -> float:
        """The deadline; bulk work has a later one, where the request gave none."""
        if priority is Priority.BULK and not self.own_deadline:
            return self.began + self.service.settings.bulk_deadline_ms / 1000
        return self.deadline

    def release(self) -> None:
        if self.reservation is not None:
            self.service.device.admission.release(self.reservation)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - began)

    def _add(self, name: str, seconds: float) -> None:
        """A stage may come twice: an explanation runs what it explains first."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    async def encode(self, size: int, work: Callable[[], T], until: float | None = None) -> T:
        """``work`` on ``size`` code points, in its turn, which must come by ``until``, or the deadline."""
        with self.stage("encode"):
            return await self.service.encoding.run(size, self.deadline if until is None else until, work)

    async def run(self, engine: Engine, rows: Seq[Sequence], priority: Priority, *, early_exit: bool) -> list[Outcome]:
        """The outcome of each row."""
        if self.route in PRICED:
            self.service.prices[self.route].observe(self.size, estimate(engine, rows, early_exit))
        outcomes, timings = await submit(
            self.service.device, engine, rows, deadline=self.until(priority), reservation=self.reservation,
            priority=priority, early_exit=early_exit, max_queue_tokens=self.service.settings.max_queue_tokens,
        )  # fmt: skip
        self._add("queue", timings.queue)
        self._add("run", timings.run)
        return outcomes

    async def run_whole(
        self, engine: Engine, rows: Seq[Sequence], priority: Priority, *, early_exit: bool
    ) -> list[Floats]:
        """The logits of every row; the first error is the request's, for an answer without that row could be wrong."""
        logits: list[Floats] = []
        for outcome in await self.run(engine, rows, priority, early_exit=early_exit):
            if isinstance(outcome, ServiceError):
                raise outcome
            logits.append(outcome)
        return logits

    async def run_aside(self, work: Callable[[InDeviceThread], T]) -> T:
        """``work`` in a thread beside the loop, which goes to the device piece by piece until the deadline."""
        with self.stage("run"):
            return await self.service.aside.run(self.deadline, work)

    async def decode(self, size: int, work: Callable[[], T]) -> T:
        """``work`` on the answers to ``size`` tokens: here where that is quick, beside the loop where it is not."""
        with self.stage("decode"):
            if size <= LONG_DECODING:
                return work()
            return await asyncio.get_running_loop().run_in_executor(None, work)

    def respond(self, engine: Engine, body: dict[str, object]) -> Response:
        """The answer, with the time by stage in ``Server-Timing`` and in the metrics."""
        ref = engine.ref
        for name, seconds in self.stages.items():
            self.service.metrics.stage_seconds.labels(ref.name, ref.version, name).observe(seconds)
        timing = ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.stages.items())
        model = {"model": {"name": ref.name, "version": ref.version}}
        content = to_json(model | body, inf_nan_mode="null")
        return Response(content, media_type="application/json", headers={"Server-Timing": timing})


@contextlib.asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels its body when the client goes: the work is then dropped wherever it waits.  Raises Cancelled."""
    task = asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        assert task is not None
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not gone:
            raise
        assert task is not None
        task.uncancel()
        raise Cancelled("the client left before the answer was there") from None
    finally:
        timer.cancel()
        if watcher:
            watcher.cancel()
