"""A list of inputs, each answered in its own place: one that cannot be read, or fails, is an error there alone."""

from collections.abc import Callable, Iterator, Sequence as Seq
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from ..errors import ServiceError
from ..serving.engine import Engine, Task
from ..serving.pending import Outcome
from ..types import Floats, Sequence
from .schemas import PRIORITIES, Request
from .work import RequestWork

I = TypeVar("I")  # noqa: E741 - an input
K = TypeVar("K", bound=Task)
T = TypeVar("T")
Result = dict[str, Any]
Respond = Callable[[Engine, list[Result]], T]  # makes the answer of a list's results


class Encoded(Protocol):
    """One input on its way: the rows of the model that it became."""

    @property
    def sequences(self) -> list[Sequence]: ...


E = TypeVar("E", bound=Encoded)


def leased(work: RequestWork, body: Request, task: type[K]) -> AbstractAsyncContextManager[tuple[Engine, K]]:
    """The engine that ``body`` asks for and its task, for as long as the client is there."""

    @asynccontextmanager
    async def found() -> Any:
        service = work.service
        name = body.model or service.default_model(task)
        async with service.registry.lease(name, body.version, task) as engine, work.connected():
            assert isinstance(engine.task, task)
            yield engine, engine.task

    return found()


async def answer_each(
    work: RequestWork, body: Request, engine: Engine, inputs: Seq[I], *, chars: Callable[[I], int],
    encode: Callable[[I], E], decode: Callable[[E, list[Floats]], Result], single: bool,
) -> list[Result]:  # fmt: skip
    """A result for each of ``inputs``, or ``{"error": ...}``; where ``single``, the error is raised.

    ``chars``: the code points of an input.  ``encode`` and ``decode`` may raise ServiceError.
    """

    def read(item: I) -> E | ServiceError:
        try:
            return encode(item)
        except ServiceError as error:
            return error

    encoded = await work.encode(sum(map(chars, inputs)), lambda: [read(item) for item in inputs])
    if single and isinstance(encoded[0], ServiceError):
        raise encoded[0]
    rows = [row for item in encoded if not isinstance(item, ServiceError) for row in item.sequences]
    priority = PRIORITIES[body.priority]
    outcomes = iter(await work.run(engine, rows, priority, early_exit=body.early_exit) if rows else [])
    results = await work.decode(sum(map(len, rows)), lambda: [_result(item, outcomes, decode) for item in encoded])
    if single and isinstance(results[0], ServiceError):
        raise results[0]
    return [_shown(result) for result in results]


def _result(
    item: E | ServiceError, outcomes: Iterator[Outcome], decode: Callable[[E, list[Floats]], Result]
) -> Result | ServiceError:
    if isinstance(item, ServiceError):
        return item
    logits: list[Floats] = []
    # All of this item's outcomes are taken before any is judged, or the next item would get its rest.
    for outcome in [next(outcomes) for _ in item.sequences]:
        if isinstance(outcome, ServiceError):
            return outcome
        logits.append(outcome)
    return decode(item, logits)


def _shown(result: Result | ServiceError) -> Result:
    if isinstance(result, ServiceError):
        return {"error": {"code": result.code, "message": result.message}}
    return result
