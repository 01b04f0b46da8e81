"""The client before models of other heads than a classifier's and a reader's: the same results in both its kinds."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from albert_client import AlbertError, AsyncClient, Client, Failure, Refused

from tests.conftest import ROOT
from tests.system.conftest import Server, start
from tests.system.documented import PYTHON
from tests.system.test_other_clients_of_heads import server

__all__ = ["server", "start"]  # fixtures
TEXT = "Clara repaired the clock in Berlin.  It had stood still.  Nobody knew why."
README = ROOT / "client" / "README.md"
Ask = Callable[[Any], Any]


@pytest.fixture(params=["waiting", "asyncio"])
def ask(server: Server, request: pytest.FixtureRequest) -> Iterator[Ask]:
    """What a call of the client gives, by either of its kinds."""
    if request.param == "waiting":
        with Client(server.url) as client:
            yield lambda call: call(client)
        return

    async def one(call: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async with AsyncClient(server.url, at_once=2) as client:
            return await call(client)

    yield lambda call: asyncio.run(one(call))


def plain(server: Server, route: str, **body: Any) -> Any:
    response = httpx.post(f"{server.url}{route}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_spans_are_the_texts_own(server: Server, ask: Ask) -> None:
    found = ask(lambda albert: albert.tokens(TEXT))
    wanted = plain(server, "/tokens", inputs=TEXT)["results"][0]

    assert len(found) == len(wanted["spans"]) > 0
    assert [(one.label, one.start, one.end) for one in found] == [
        (one["label"], one["start"], one["end"]) for one in wanted["spans"]
    ]
    assert all(one.text == TEXT[one.start : one.end] for one in found)
    assert (found.tokens, found.windows) == (wanted["tokens"], wanted["windows"])


def test_masks_are_filled(server: Server, ask: Ask) -> None:
    text = "Clara [MASK] the clock in [MASK]."
    found = ask(lambda albert: albert.fill_mask(text, top_k=3))
    wanted = plain(server, "/fill-mask", inputs=text, top_k=3)["results"][0]

    assert [text[mask.start : mask.end] for mask in found] == ["[MASK]", "[MASK]"]
    assert [[word.word for word in mask.words] for mask in found] == [
        [word["word"] for word in mask["words"]] for mask in wanted["masks"]
    ]
    assert found[0].words[0].text == wanted["masks"][0]["words"][0]["text"]
    with pytest.raises(Refused, match="MASK"):
        ask(lambda albert: albert.fill_mask("nothing is hidden"))


def test_vectors_of_many_texts_keep_their_order(server: Server, ask: Ask) -> None:
    texts = [f"text number {number}" for number in range(11)]
    texts[4] = ""
    found = ask(lambda albert: albert.embed_many(texts, part=3, normalize=True))

    assert isinstance(found[4], Failure)
    alone = ask(lambda albert: albert.embed(texts[7]))
    assert found[7].embedding == pytest.approx(alone.embedding, abs=1e-5)
    assert sum(value**2 for value in alone.embedding) == pytest.approx(1, abs=1e-4)
    assert not alone.truncated
    assert ask(lambda albert: albert.embed("long " * 200)).truncated


@pytest.mark.parametrize("name", ["tokens_many", "fill_mask_many"])
def test_lists_give_what_each_text_gives_alone(ask: Ask, name: str) -> None:
    texts = ["Clara [MASK] the clock.", "Nobody knew [MASK]."]
    together = ask(lambda albert: getattr(albert, name)(texts, part=1))
    alone = [ask(lambda albert, text=text: getattr(albert, name.removesuffix("_many"))(text)) for text in texts]

    assert [len(one) for one in together] == [len(one) for one in alone]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_a_reply_is_chosen(server: Server, ask: Ask) -> None:
    choices = ["It was good.", "At seven o'clock.", "Nobody knew."]
    found = ask(lambda albert: albert.choose("How was the film?", choices))
    wanted = plain(server, "/choose", prompt="How was the film?", choices=choices)

    assert [one.index for one in found] == [one["index"] for one in wanted["choices"]]
    assert found.best.text == choices[found.best.index]
    assert sum(one.score for one in found) == pytest.approx(1, abs=1e-4)
    assert found.model.name == "choose"


def test_a_text_is_summarized(server: Server, ask: Ask) -> None:
    found = ask(lambda albert: albert.summarize(TEXT, sentences=2))

    assert (found.of, len(found.sentences)) == (3, 2)
    assert [TEXT[one.start : one.end] for one in found.sentences] == [one.text for one in found.sentences]
    assert found.summary == plain(server, "/summarize", text=TEXT, sentences=2)["summary"]


def test_what_the_readme_says_of_heads_runs(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = [text for text in PYTHON.findall(README.read_text(encoding="utf-8")) if "albert.tokens(" in text]
    exec(program.replace("http://localhost:8000", server.url), {"Client": Client})
    *spans, width, reply = capsys.readouterr().out.splitlines()
    assert len(spans) == len(plain(server, "/tokens", inputs="Clara moved from Berlin to Oslo.")["results"][0]["spans"])
    assert int(width) == len(plain(server, "/embed", inputs="a text")["results"][0]["embedding"])
    choices = ["It was good.", "At seven o'clock."]
    assert reply == plain(server, "/choose", prompt="How was the film?", choices=choices)["choices"][0]["text"]


@pytest.mark.parametrize("name", ["tokens", "fill_mask", "embed", "summarize"])
def test_what_is_no_answer_is_told(name: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"results": [{"tokens": 3}], "model": {}}))
    with Client("http://test", http=httpx.Client(transport=transport)) as albert, pytest.raises(AlbertError):
        getattr(albert, name)("x")
