"""A list of inputs, each answered in its own place: one that cannot be read, or fails, is an error there alone."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence as Seq
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from ..errors import ServiceError, error_of
from ..serving.engine import Engine, Task
from ..serving.pending import Outcome
from ..types import Floats, Sequence
from .schemas import PRIORITIES, Request
from .work import RequestWork

K = TypeVar("K", bound=Task)
T = TypeVar("T")
Result = dict[str, Any]
Respond = Callable[[Engine, list[Result]], T]  # makes the answer of a list's results


class Encoded(Protocol):
    """One input on its way: the rows of the model that it became."""

    @property
    def sequences(self) -> list[Sequence]: ...


E = TypeVar("E", bound=Encoded)


@asynccontextmanager
async def leased(work: RequestWork, body: Request, task: type[K]) -> AsyncIterator[tuple[Engine, K]]:
    """The engine that ``body`` asks for and its task, for as long as the client is there."""
    service = work.service
    name = body.model or service.default_model(task)
    async with service.registry.lease(name, body.version, task) as engine, work.connected():
        assert isinstance(engine.task, task)
        yield engine, engine.task


async def answer_each(
    work: RequestWork, body: Any, task: type[K], respond: Respond[T], *, chars: Callable[[Any], int],
    encode: Callable[[K, Any], E], decode: Callable[[K, E, list[Floats]], Result],
    check: Callable[[list[E]], None] = lambda encoded: None,
) -> T:  # fmt: skip
    """What ``respond`` makes of a result for each of ``body.inputs``, or ``{"error": ...}``; of one input that is no
    list the error is raised.

    ``chars``: the code points of an input.  ``encode`` and ``decode`` may raise ServiceError; ``check`` too, of all
    that were read, and then nothing is run.
    """
    single = not isinstance(body.inputs, list)
    inputs = [body.inputs] if single else body.inputs
    async with leased(work, body, task) as (engine, own):
        encoded = await work.encode(sum(map(chars, inputs)), lambda: [_try(encode, own, item) for item in inputs])
        if single and isinstance(encoded[0], ServiceError):
            raise encoded[0]
        read = [item for item in encoded if not isinstance(item, ServiceError)]
        check(read)
        rows = [row for item in read for row in item.sequences]
        priority = PRIORITIES[body.priority]
        outcomes = iter(await work.run(engine, rows, priority, early_exit=body.early_exit) if rows else [])
        size = sum(map(len, rows))
        results = await work.decode(size, lambda: [_result(own, item, outcomes, decode) for item in encoded])
        if single and isinstance(results[0], ServiceError):
            raise results[0]
        cut = sum(bool(one.get("truncated")) for one in results if not isinstance(one, ServiceError))
        work.service.metrics.truncated.labels(engine.ref.name, engine.ref.version).inc(cut)
        # Megabytes of JSON, of a thousand vectors say, are written beside the loop, too.
        return await work.beside(size, lambda: respond(engine, [_shown(result) for result in results]))


def _try(act: Callable[..., T], *given: Any) -> T | ServiceError:
    try:
        return act(*given)
    except ServiceError as error:
        return error


def _result(
    task: K, item: E | ServiceError, outcomes: Iterator[Outcome], decode: Callable[[K, E, list[Floats]], Result]
) -> Result | ServiceError:
    if isinstance(item, ServiceError):
        return item
    logits: list[Floats] = []
    # All of this item's outcomes are taken before any is judged, or the next item would get its rest.
    for outcome in [next(outcomes) for _ in item.sequences]:
        if isinstance(outcome, ServiceError):
            return outcome
        logits.append(outcome)
    return _try(decode, task, item, logits)


def check_whole(results: Seq[Mapping[str, Any]], place: str = "inputs.") -> None:
    """For shapes of answers that have no place for the error of one input: the first is raised, as what it is.

    ``place`` and its number say which it was.
    """
    for index, result in enumerate(results):
        if "error" in result:
            raise error_of(result["error"]["code"], f"{place}{index}: {result['error']['message']}")


def _shown(result: Result | ServiceError) -> Result:
    if isinstance(result, ServiceError):
        return {"error": {"code": result.code, "message": result.message}}
    return result
