"""The client in asyncio, before the real app: typed results that are those of the routes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from albert_client import Answers, AsyncClient, Classification, Failure, Refused, Retries, Unanswered
from fastapi import FastAPI

from tests.documents.made import LINES, pdf

pytestmark = pytest.mark.anyio
TEXT = "The ferry leaves at half past six.  Clara repaired the clock in 1887."


@pytest.fixture
async def albert(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as http,
        AsyncClient("http://test", http=http, at_once=3) as client,
    ):
        yield client
        assert not http.is_closed


async def test_a_text_gets_its_labels(albert: AsyncClient, client: httpx.AsyncClient) -> None:
    found = await albert.classify("It was not good.")
    plain = (await client.post("/classify", json={"inputs": "It was not good."})).json()["results"][0]

    assert found.label == plain["labels"][0]["label"]
    assert found.scores == {one["label"]: one["score"] for one in plain["labels"]}
    assert (found.tokens, found.truncated, found.windows) == (plain["tokens"], False, 1)
    pair = await albert.classify(("It was", "not good."), top_k=1)
    assert pair.tokens > found.tokens
    assert len(pair.labels) == 1


async def test_many_texts_keep_their_order_and_a_bad_one_its_place(albert: AsyncClient) -> None:
    texts = [f"text number {number}" for number in range(23)]
    alone = [await albert.classify(text) for text in texts]
    texts[11] = ""
    steps: list[tuple[int, int]] = []
    found = await albert.classify_many(texts, part=4, progress=lambda done, total: steps.append((done, total)))

    assert isinstance(found[11], Failure)
    assert "empty" in found[11].message
    for one, other in zip(found[:11] + found[12:], alone[:11] + alone[12:], strict=True):
        assert isinstance(one, Classification)
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert steps[-1] == (23, 23)
    assert len(steps) == 6
    assert await albert.classify_many([]) == []


async def test_a_question_gets_its_answers(albert: AsyncClient) -> None:
    found = await albert.ask("Who?", {"town": TEXT, "empty": " ", "river": "It is cold."}, top_k=3)

    for answer in found:
        assert {"town": TEXT, "river": "It is cold."}[str(answer.document)][answer.start : answer.end] == answer.text
    assert found.best is found[0]
    assert [one.document for one in found.skipped] == ["empty"]
    assert found.model.name == "qa"
    assert (await albert.ask("Who?", TEXT)).answers[0].document == 0
    assert (await albert.ask("Who?", [TEXT, ("second", TEXT)])).windows == 2
    none = await albert.ask("Who?", TEXT, no_answer=True, no_answer_threshold=0.0)
    assert none.best is None
    assert len(none) == 0


async def test_files_are_sent_and_come_back_with_places(albert: AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "town.pdf"
    path.write_bytes(pdf([LINES]))
    found = await albert.ask("When?", [path, LINES[0].encode()], top_k=9, texts=True, pictures=True)

    assert {answer.document for answer in found} == {"town.pdf", 1}
    for answer in found:
        assert found.texts[answer.document][answer.start : answer.end] == answer.text
        assert (answer.page, bool(answer.boxes)) == ((1, True) if answer.document == "town.pdf" else (None, False))
    assert [(one.document, one.page) for one in found.pages] == [("town.pdf", 1)]
    assert (await albert.ask("When?", path)).answers[0].page == 1


async def test_many_questions(albert: AsyncClient) -> None:
    found = await albert.ask_many([("Who?", TEXT), ("", TEXT), ("When?", TEXT)])

    assert [type(one) for one in found] == [Answers, Failure, Answers]


async def test_what_is_wrong_for_all_is_raised(albert: AsyncClient) -> None:
    with pytest.raises(Refused, match="nothing") as refused:
        await albert.ask_many([("Who?", TEXT)] * 5, model="nothing")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    assert refused.value.request_id


async def test_explanations(albert: AsyncClient) -> None:
    words = await albert.explain("It was not good.", phrases=True)
    seen = await albert.explain("It was not good.", method="attention", layers=[1])
    deep = await albert.explain(question="Who?", context=TEXT, method="depth")

    assert [word.text for word in words.words] == ["It", "was", "not", "good", "."]
    assert words.phrases[0].interaction is not None
    assert words.score is not None
    assert len(seen.pieces) == seen.tokens == len(seen.attention[0].weights[0])
    assert [one.depth for one in deep.depths] == [1, 2, 3]
    assert deep.depths[-1].answers


async def test_models(albert: AsyncClient) -> None:
    assert {(one.name, one.task) for one in await albert.models()} == {
        ("qa", "question-answering"), ("sentiment", "text-classification")
    }  # fmt: skip


async def test_so_many_requests_at_once_and_the_first_error_ends_the_rest() -> None:
    inside = most = asked = 0

    async def respond(request: httpx.Request) -> httpx.Response:
        nonlocal inside, most, asked
        inside, asked = inside + 1, asked + 1
        most = max(most, inside)
        try:
            await asyncio.sleep(0.01)
        finally:
            inside -= 1
        failing = asked > 5
        return (
            httpx.Response(500, json={"error": {"code": "x", "message": "y"}})
            if failing
            else httpx.Response(200, json=found)
        )

    found = {"results": [{"labels": [{"label": "a", "score": 1}], "tokens": 3, "truncated": False, "windows": 1}]}
    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http:
        albert = AsyncClient("http://test", http=http, at_once=2, retries=Retries(1))
        with pytest.raises(Refused):
            await albert.classify_many(["a"] * 50, part=1)
        assert most == 2
        assert asked < 10
        await asyncio.sleep(0.05)
        assert inside == 0


async def test_a_newer_service_may_say_more() -> None:
    labels = [{"label": "a", "score": 1.0, "colour": "red"}]
    found = {"results": [{"labels": labels, "tokens": 3, "truncated": False, "windows": 1, "mood": "good"}], "new": 1}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=found))
    async with httpx.AsyncClient(transport=transport) as http:
        assert (await AsyncClient("http://test", http=http).classify("x")).scores == {"a": 1.0}


@pytest.mark.parametrize(
    "found", [{"status": "ok"}, {"results": []}, {"results": [3]}, {"results": [{"labels": 1}]}, {"results": None}]
)
async def test_json_that_is_not_the_services_is_no_answer(found: dict[str, Any]) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=found))) as http:
        albert = AsyncClient("http://test", http=http)
        for asking in (albert.classify("x"), albert.classify_many(["x"]), albert.ask("x", "y"), albert.models()):
            with pytest.raises(Unanswered, match="JSON without what was asked for"):
                await asking


async def test_texts_that_would_be_lost_are_a_mistake(albert: AsyncClient) -> None:
    with pytest.raises(TypeError, match="_many takes several"):
        await albert.classify(["good", "awful"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a tuple of two"):
        await albert.classify(("a", "b", "c"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one"):
        await albert.classify_many("abc")


async def test_half_a_character_fails_in_its_place(albert: AsyncClient) -> None:
    found = await albert.classify_many(["It was", "\ud800", "good"])

    assert [type(one) for one in found] == [Classification, Failure, Classification]


async def test_a_deadline_of_any_length_is_one(albert: AsyncClient) -> None:
    assert (await albert.classify("ok", deadline=1e300)).tokens


async def test_layers_may_be_a_range(albert: AsyncClient) -> None:
    found = await albert.explain("ok", method="attention", layers=range(1, 3), heads=(1,))

    assert [one.layer for one in found.attention] == [1, 2]
