"""The client for programs that wait."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
DECODED = ("content-encoding", "content-length", "transfer-encoding")  # what no longer holds of the bytes


class Client:
    """Asks the service at ``url``; use it with ``with``, or close it.  Safe to share between threads.

    ``deadline`` in seconds is for each call with all its attempts, and told to the service, which drops what it cannot
    do by then.  ``http`` takes a client of your own, for proxies and certificates; it is not closed here.

    Every call raises Refused or Unanswered (``errors.py``); ``options.py`` has what a call may say.
    """

    def __init__(
        self, url: str = URL, *, api_key: str | None = None, deadline: float = DEADLINE, retries: Retries = RETRIES,
        http: httpx.Client | None = None,
    ) -> None:  # fmt: skip
        self._connection = Connection(url, api_key, deadline, retries)
        self._own = http is None
        self._http = http or httpx.Client()

    def classify(self, text: Text, **options: Unpack[ClassifyOptions]) -> Classification:
        """The labels of one text, or of a pair of texts."""
        return self._one("classify", parsing.classification, text, options)

    def classify_many(
        self, texts: Iterable[Text], *, part: int = PART, progress: Progress = False, **options: Unpack[ClassifyOptions]
    ) -> list[Classification | Failure]:
        """The labels of each text, in order, ``part`` of them a request, as bulk work unless said.

        A text that cannot be read is a Failure.  ``progress``: True for a bar, or a function of (done, total).
        """
        return self._many("classify", parsing.classification, texts, part, progress, options)

    def ask(self, question: str, documents: Documents, **options: Unpack[AskOptions]) -> Answers:
        """Answers from one document, from several, or from ``{id: text}``; their scores compare."""
        body = ask_body(question, documents, options)
        found: Answers = self._call("qa", parsing.answered, body, options)
        return found

    def ask_many(
        self, questions: Iterable[tuple[str, Documents]], *, progress: Progress = False, **options: Unpack[AskOptions]
    ) -> list[Answers | Failure]:
        """The answers to each (question, documents), in order, as bulk work unless said.

        A question that cannot be read is a Failure.
        """
        given, results = list(questions), list[Answers | Failure]()
        options = {"priority": "bulk"} | options
        with reporting(progress, len(given)) as advance:
            for question, documents in given:
                try:
                    results.append(self.ask(question, documents, **options))
                except Refused as error:
                    results.append(one_failed(error))
                advance(1)
        return results

    def tokens(self, text: str, **options: Unpack[ListOptions]) -> Spans:
        """The labelled spans of one text, such as its names."""
        return self._one("tokens", parsing.spans, text, options)

    def tokens_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[ListOptions]
    ) -> list[Spans | Failure]:
        """As ``classify_many``."""
        return self._many("tokens", parsing.spans, texts, part, progress, options)

    def fill_mask(self, text: str, **options: Unpack[FillMaskOptions]) -> FilledMasks:
        """What may stand in the place of each ``[MASK]`` of one text."""
        return self._one("fill-mask", parsing.filled, text, options)

    def fill_mask_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[FillMaskOptions]
    ) -> list[FilledMasks | Failure]:
        """As ``classify_many``."""
        return self._many("fill-mask", parsing.filled, texts, part, progress, options)

    def embed(self, text: str, **options: Unpack[EmbedOptions]) -> Embedding:
        """The vector of one text."""
        return self._one("embed", parsing.embedding, text, options)

    def embed_many(
        self, texts: Iterable[str], *, part: int = PART, progress: Progress = False, **options: Unpack[EmbedOptions]
    ) -> list[Embedding | Failure]:
        """As ``classify_many``."""
        return self._many("embed", parsing.embedding, texts, part, progress, options)

    def choose(self, prompt: str, choices: Sequence[str], **options: Unpack[ChooseOptions]) -> Choices:
        """Which of ``choices`` goes on best from ``prompt``, such as the reply to a dialogue."""
        body = {"prompt": prompt, "choices": list(choices)} | body_options(options)
        found: Choices = self._call("choose", parsing.choices, body, options)
        return found

    def summarize(self, text: str, **options: Unpack[SummarizeOptions]) -> Summary:
        """The sentences that carry a text."""
        found: Summary = self._call("summarize", parsing.summary, {"text": text} | body_options(options), options)
        return found

    def explain(self, text: str | None = None, **options: Unpack[ExplainOptions]) -> Explanation:
        """Why a text, a pair (``text_pair``), or a ``question`` with a ``context`` is answered so."""
        body = body_options({"text": text} | options)
        found: Explanation = self._call("explain", parsing.explanation, body, options)
        return found

    def models(self, *, deadline: float | None = None) -> list[Model]:
        """What is loaded."""
        found: list[Model] = self._call("models", parsing.models, options={"deadline": deadline})
        return found

    def close(self) -> None:
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _one(self, path: str, parse: Callable[[Any], T], text: Text, options: Mapping[str, Any]) -> T:
        body = inputs_body(one_text(text), options)
        (result,) = self._call(path, parsing.results(1, parse), body, options)
        assert not isinstance(result, Failure)  # a text alone that fails is an error of its own
        return cast(T, result)

    def _many(
        self, path: str, parse: Callable[[Any], T], texts: Iterable[Text], part: int, progress: Progress,
        options: Mapping[str, Any],
    ) -> list[T | Failure]:  # fmt: skip
        given, results = several(texts), list[T | Failure]()
        options = {"priority": "bulk", **options}
        with reporting(progress, len(given)) as advance:
            for some in parts(given, part):
                body = inputs_body(some, options)
                results += self._call(path, parsing.results(len(some), parse), body, options)
                advance(len(some))
        return results

    def _call(
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
                time.sleep(step.seconds)
                given = None
            else:
                given = self._attempt(step, call.left())

    def _attempt(self, request: httpx.Request, left: float) -> httpx.Response | httpx.HTTPError:
        """httpx's own limits are of each read: who sends byte by byte is cut off by the clock."""
        ends = time.monotonic() + left + GRACE_SECONDS
        try:
            response = self._http.send(request, stream=True)
            try:
                parts = []
                for part in response.iter_bytes():
                    parts.append(part)
                    if time.monotonic() > ends:
                        raise httpx.ReadTimeout("the answer comes too slowly", request=request)
            finally:
                response.close()
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in DECODED]
            return httpx.Response(response.status_code, headers=headers, content=b"".join(parts), request=request)
        except httpx.HTTPError as error:
            return error
