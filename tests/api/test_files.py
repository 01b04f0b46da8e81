"""/qa over files: the answer comes back with its page and box, and what is wrong with a file harms no other."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.documents.made import LINES, bomb, pdf, png

pytestmark = pytest.mark.anyio


def file(data: bytes, name: str | None = None) -> dict[str, str]:
    return {"file": base64.b64encode(data).decode()} | ({"id": name} if name else {})


async def ask(client: httpx.AsyncClient, *documents: Any, status: int = 200, **more: Any) -> dict[str, Any]:
    response = await client.post("/qa", json={"question": "When?", "documents": list(documents), **more}, timeout=60)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("data", [pdf([LINES, LINES]), png(LINES)], ids=["pdf", "picture"])
async def test_an_answer_has_its_page_and_box(client: httpx.AsyncClient, data: bytes) -> None:
    found = await ask(client, file(data, "town"), top_k=3, texts=True, pictures=True)
    (text,) = found["texts"]

    assert text["document"] == "town"
    for answer in found["answers"]:
        assert text["text"][answer["start"] : answer["end"]] == answer["text"]
        assert answer["page"] in (1, 2)
        for left, top, right, bottom in answer["boxes"]:
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
    pages = {(answer["document"], answer["page"]) for answer in found["answers"]}
    assert {(one["document"], one["page"]) for one in found["pages"]} == pages
    assert all(one["picture"].startswith("data:image/png;base64,iVBOR") for one in found["pages"])


async def test_a_file_of_text_answers_as_the_text_does(client: httpx.AsyncClient) -> None:
    text = "🎉 " + " ".join(LINES)
    (of_file,) = (await ask(client, file(text.encode())))["answers"]
    (of_text,) = (await ask(client, text))["answers"]

    assert of_file == of_text
    assert "page" not in of_text


async def test_files_and_texts_stand_side_by_side(client: httpx.AsyncClient) -> None:
    found = await ask(client, "It is 1904.", file(pdf([LINES]), "a.pdf"), {"text": "Now.", "id": "b"}, top_k=20)

    assert {answer["document"] for answer in found["answers"]} == {0, "a.pdf", "b"}
    assert all(("page" in answer) == (answer["document"] == "a.pdf") for answer in found["answers"])


async def test_a_bad_file_is_skipped_and_says_why(client: httpx.AsyncClient) -> None:
    found = await ask(client, file(pdf([LINES], password="x"), "secret.pdf"), "It is 1904.", file(bomb(), "bomb.png"))

    assert [(one["document"], one["error"]["code"]) for one in found["skipped"]] == [
        ("secret.pdf", "invalid_request"), ("bomb.png", "too_large")
    ]  # fmt: skip
    assert "encrypted" in found["skipped"][0]["error"]["message"]
    assert [answer["document"] for answer in found["answers"]] == [1]


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        (file(pdf([LINES], password="x")), 422, "encrypted"),
        (file(pdf([LINES])[:100]), 422, "damaged"),
        (file(bomb()), 413, "30000 x 30000 pixels"),
        (file(pdf([["a"]] * 201)), 413, "201 pages; at most 200"),
        ({"file": "%%%"}, 422, "documents.0.file: it is not base64"),
        ({"file": ""}, 422, "the documents are empty"),
        ({}, 422, "give either text or file"),
        ({"file": "", "text": "a"}, 422, "give either text or file"),
        ({"file": 3}, 422, "documents.0"),
    ],
)
async def test_a_bad_file_alone_is_an_error(client: httpx.AsyncClient, document: Any, status: int, said: str) -> None:
    assert said in (await ask(client, document, status=status))["error"]["message"]


async def test_without_the_extra_the_message_says_what_to_install(client: httpx.AsyncClient, app: FastAPI) -> None:
    async def missing(*_: object) -> tuple[dict[str, str], bytes]:
        return {"missing": "pypdfium2"}, b""

    app.state.service.files._exchange = missing
    found = await ask(client, file(pdf([LINES])), status=422)
    assert "the extra 'documents'" in found["error"]["message"]


async def test_a_file_that_is_read_keeps_nobody_out(client: httpx.AsyncClient, app: FastAPI) -> None:
    """Its bytes say nothing of its tokens."""
    entered, release = asyncio.Event(), asyncio.Event()

    async def reading(*_: object) -> tuple[dict[str, Any], bytes]:
        entered.set()
        await release.wait()
        return {"text": "It is 1904.", "starts": []}, b""

    app.state.service.files._exchange = reading
    waiting = asyncio.create_task(ask(client, file(b"x" * 5_000_000)))
    await asyncio.wait_for(entered.wait(), 10)
    for route, body in (
        ("/classify", {"inputs": "ok"}),
        ("/explain", {"text": "ok"}),
        ("/qa", {"question": "a", "context": "b"}),
    ):
        assert (await client.post(route, json=body)).status_code == 200
    assert app.state.service.device.admission.promised < 0.1
    release.set()
    assert (await waiting)["answers"][0]["document"] == 0
    assert (await client.post("/qa", json={"question": "a", "context": "b"})).status_code == 200


async def test_the_time_for_reading_is_told(client: httpx.AsyncClient) -> None:
    body = {"question": "When?", "documents": [file(pdf([LINES]))]}
    timing = (await client.post("/qa", json=body)).headers["Server-Timing"]

    assert timing.startswith("read;dur=")
    assert "read" not in (await client.post("/qa", json={"question": "When?", "context": "a"})).headers["Server-Timing"]
