"""The client for programs in asyncio."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, cast

import httpx

from albert_client import parsing
from albert_client.bodies import (
    PART,
    Documents,
    Text,
    ask_body,
    body_options,
    inputs_body,
    one_failed,
    one_text,
    parts,
    several,
)
from albert_client.connection import DEADLINE, RETRIES, URL, Connection
from albert_client.errors import Refused
from albert_client.options import (
    AskOptions,
    ChooseOptions,
    ClassifyOptions,
    EmbedOptions,
    ExplainOptions,
    FillMaskOptions,
    ListOptions,
    SummarizeOptions,
)
from albert_client.progress import Progress, reporting
from albert_client.results import (
    Answers,
    Choices,
    Classification,
    Embedding,
    Explanation,
    Failure,
    FilledMasks,
    Model,
    Spans,
    Summary,
)
from albert_client.retries import GRACE_SECONDS, Retries, Sleep

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8  # requests of a long list


class AsyncClient:
    """As ``Client``, with methods to await; a long list goes as ``at_once`` requests at a time."""

    def __init__(
        self, url: str = URL, *, api_key: str | None = None, deadline: float = DEADLINE, retries: Retries = RETRIES,
        at_once: int = AT_ONCE, http: httpx.AsyncClient | None = None,
    ) -> None:  # fmt: skip
        if at_once < 1:
            raise ValueError("at_once: wanted 1 or more")
        self._connection = Connection(url, api_key, deadline, retries)
        self._at_once = at_once
        self._own = http is None
        # The caller bounds what is asked at once, not a pool of connections with a time limit of its own.
        self._http = http or httpx.AsyncClient(limits=httpx.Limits(max_connections=None))

    async def classify(self, text: Text, **options: Unpack[ClassifyOptions]) -> Classification:
        """The labels of one text, or of a pair of texts."""
        return await self._one("classify", parsing.classification, text, options)

    async def classify_many(
        self, texts: Iterable[Text], *, part: int = PART, progress: Progress = False, **options: Unpack[ClassifyOptions]
    ) -> list[Classification | Failure]:
        """The labels of each text, in order, ``part`` of them a request, as bulk work unless said.

        A text that cannot be read is a Failure.  ``progress``: True for a bar, or a function of (done, total).
        """
        return await self._many("classify", parsing.classification, texts, part, progress, options)

    async def ask(self, question: str, documents: Documents, **options: Unpack[AskOptions]) -> Answers:
        """Answers from one document, from several, or from ``{id: text}``; their scores compare."""
        body = ask_body(question, documents, options)
        found: Answers = await self._call("qa", parsing.answered, body, options)
        return found

    async def ask_many(
        self, questions: Iterable[tuple[str, Documents]], *, progress: Progress = False, **options: Unpack[AskOptions]
    ) -> list[Answers | Failure]:
        """The answers to each (question, documents), in order, as bulk work unless said.

        A question that cannot be read is a Failure.
        """
        given = list(questions)
        options = {"priority": "bulk"} | options
        with reporting(progress, len(given)) as advance:

            async def one(item: tuple[str, Documents]) -> Answers | Failure:
                try:
                    return await self.ask(*item, **options)
                except Refused as error:
                    return one_failed(error)
                finally:
                    advance(1)

            return await self._all(given, one)

    async def tokens(self, text: str, **options: Unpack[ListOptions]) -> Spans:
        """The labelled spans of one text, such as its names."""
        return await self._one("tokens", parsing.spans, text, options)

    async def tokens_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[ListOptions]
    ) -> list[Spans | Failure]:
        """As ``classify_many``."""
        return await self._many("tokens", parsing.spans, texts, part, progress, options)

    async def fill_mask(self, text: str, **options: Unpack[FillMaskOptions]) -> FilledMasks:
        """What may stand in the place of each ``[MASK]`` of one text."""
        return await self._one("fill-mask", parsing.filled, text, options)

    async def fill_mask_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[FillMaskOptions]
    ) -> list[FilledMasks | Failure]:
        """As ``classify_many``."""
        return await self._many("fill-mask", parsing.filled, texts, part, progress, options)

    async def embed(self, text: str, **options: Unpack[EmbedOptions]) -> Embedding:
        """The vector of one text."""
        return await self._one("embed", parsing.embedding, text, options)

    async def embed_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[EmbedOptions]
    ) -> list[Embedding | Failure]:
        """As ``classify_many``."""
        return await self._many("embed", parsing.embedding, texts, part, progress, options)

    async def choose(self, prompt: str, choices: Sequence[str], **options: Unpack[ChooseOptions]) -> Choices:
        """Which of ``choices`` goes on best from ``prompt``, such as the reply to a dialogue."""
        body = {"prompt": prompt, "choices": list(choices)} | body_options(options)
        found: Choices = await self._call("choose", parsing.choices, body, options)
        return found

    async def summarize(self, text: str, **options: Unpack[SummarizeOptions]) -> Summary:
        """The sentences that carry a text."""
        found: Summary = await self._call("summarize", parsing.summary, {"text": text} | body_options(options), options)
        return found

    async def explain(self, text: str | None = None, **options: Unpack[ExplainOptions]) -> Explanation:
        """Why a text, a pair (``text_pair``), or a ``question`` with a ``context`` is answered so."""
        body = body_options({"text": text} | options)
        found: Explanation = await self._call("explain", parsing.explanation, body, options)
        return found

    async def models(self, *, deadline: float | None = None) -> list[Model]:
        """What is loaded."""
        found: list[Model] = await self._call("models", parsing.models, options={"deadline": deadline})
        return found

    async def aclose(self) -> None:
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _one(self, path: str, parse: Callable[[Any], T], text: Text, options: Mapping[str, Any]) -> T:
        body = inputs_body(one_text(text), options)
        (result,) = await self._call(path, parsing.results(1, parse), body, options)
        assert not isinstance(result, Failure)  # a text alone that fails is an error of its own
        return cast(T, result)

    async def _many(
        self, path: str, parse: Callable[[Any], T], texts: Iterable[Text], part: int, progress: Progress,
        options: Mapping[str, Any],
    ) -> list[T | Failure]:  # fmt: skip
        given = several(texts)
        options = {"priority": "bulk", **options}
        with reporting(progress, len(given)) as advance:

            async def one(some: list[Text]) -> list[T | Failure]:
                body = inputs_body(some, options)
                found: list[T | Failure] = await self._call(path, parsing.results(len(some), parse), body, options)
                advance(len(some))
                return found

            return [result for results in await self._all(list(parts(given, part)), one) for result in results]

    async def _all(self, items: list[T], one: Callable[[T], Awaitable[R]]) -> list[R]:
        """Each item's result, in order, ``at_once`` at a time.  The first error ends the others and is raised."""
        waiting, results = iter(range(len(items))), dict[int, R]()

        async def worker() -> None:
            for index in waiting:
                results[index] = await one(items[index])

        workers = [asyncio.create_task(worker()) for _ in range(min(self._at_once, len(items)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results[index] for index in range(len(items))]

    async def _call(
        self, path: str, parse: Callable[[Any], Any], body: Any = None, options: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        call = self._connection.call(self._http, path, body, (options or {}).get("deadline"))
        steps = call.steps()
        given: httpx.Response | httpx.HTTPError | None = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as end:
                return parsing.parsed(parse, end.value, call.request)
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                given = None
            else:
                given = await self._attempt(step, call.left())

    async def _attempt(self, request: httpx.Request, left: float) -> httpx.Response | httpx.HTTPError:
        """httpx's own limits are of each read: who sends byte by byte is cut off by the clock."""
        try:
            async with asyncio.timeout(left + GRACE_SECONDS):
                return await self._http.send(request)
        except httpx.HTTPError as error:
            return error
        except TimeoutError:
            return httpx.ReadTimeout("the answer comes too slowly", request=request)
