"""POST /qa: spans of the caller's own text."""

import math
from typing import Any

import httpx
import pytest

from service.settings import Settings
from service.tasks.confidence import Confidence
from tests.conftest import serving

pytestmark = pytest.mark.anyio

TEXT = "The ferry leaves at half past six.  Who repaired the clock?  Clara repaired it in 1887."


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/qa", json={"question": "Who repaired the clock?"} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_an_answer_is_a_span_of_the_text(client: httpx.AsyncClient) -> None:
    body = await ask(client, context=TEXT)

    (answer,) = body["answers"]
    assert TEXT[answer["start"] : answer["end"]] == answer["text"] != ""
    assert 0 < answer["score"] <= 1
    assert answer["document"] == 0
    assert body["windows"] == 1


async def test_documents_are_named_by_id_or_by_place(client: httpx.AsyncClient) -> None:
    documents = [{"id": "a", "text": TEXT}, "Copper conducts electricity.", {"text": "The river changed."}]
    body = await ask(client, documents=documents, top_k=20)

    texts = {"a": TEXT, 1: "Copper conducts electricity.", 2: "The river changed."}
    assert {answer["document"] for answer in body["answers"]} <= {"a", 1, 2}
    assert len(body["answers"]) > 3
    for answer in body["answers"]:
        assert texts[answer["document"]][answer["start"] : answer["end"]] == answer["text"]
    scores = [answer["score"] for answer in body["answers"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-6
    asked = await ask(client, documents=documents, top_k=20, no_answer=True, no_answer_threshold=1)
    assert sum(answer["score"] for answer in asked["answers"]) + asked["no_answer_score"] <= 1 + 1e-6


async def test_a_long_text_costs_windows_and_its_end_is_still_read(client: httpx.AsyncClient) -> None:
    body = await ask(client, context="The ferry leaves at half past six. " * 60, top_k=100)

    assert body["windows"] > 10
    assert max(answer["start"] for answer in body["answers"]) > 1500


async def test_of_many_windows_those_are_read_that_share_most_with_the_question(client: httpx.AsyncClient) -> None:
    documents = [f"The river changed its course {number} times." for number in range(30)]
    documents[17] = "Clara repaired the clock."
    body = await ask(client, documents=documents, read=1, top_k=3)

    assert (body["windows"], body["unread"]) == (1, 29)
    assert {answer["document"] for answer in body["answers"]} == {17}
    whole = await ask(client, documents=documents, read=30)
    assert whole["windows"] == 30
    assert "unread" not in whole
    assert body["tokens"] < whole["tokens"] / 10


@pytest.mark.parametrize("read", [0, -1, 1.5, "all"])
async def test_read_is_a_number_of_windows(client: httpx.AsyncClient, read: Any) -> None:
    response = await client.post("/qa", json={"question": "who", "context": TEXT, "read": read})

    assert response.status_code == 422
    assert "read" in response.json()["error"]["message"]


async def test_the_service_says_how_much_is_read_where_the_request_does_not(settings: Settings) -> None:
    documents = [f"The river changed its course {number} times." for number in range(12)]
    async with serving(settings.model_copy(update={"read_windows": 4})) as client:
        body = await ask(client, documents=documents)
        whole = await ask(client, documents=documents, read=1000)

    assert (body["windows"], body["unread"]) == (4, 8)
    assert whole["windows"] == 12


async def test_offsets_count_code_points(client: httpx.AsyncClient) -> None:
    text = "🎉🎉 昨天下午三点,他们在图书馆门口见面。 e\u0301tude İstanbul ok"
    body = await ask(client, context=text, top_k=50, max_answer_tokens=3)

    assert len(body["answers"]) > 5
    for answer in body["answers"]:
        assert text[answer["start"] : answer["end"]] == answer["text"] == answer["text"].strip() != ""


async def test_no_answer_is_said_where_its_score_is_above_the_threshold(client: httpx.AsyncClient, app: Any) -> None:
    engine = app.state.service.registry.engines()[0]
    assert engine.ref.name == "qa"
    for shift in (-0.5, 0.5):
        object.__setattr__(engine.task, "confidence", Confidence(no_answer_scale=1e-6, no_answer_shift=shift))
        score = 1 / (1 + math.exp(-shift))
        for threshold in (None, 0, score - 0.01, score + 0.01, 1):
            chosen = {} if threshold is None else {"no_answer_threshold": threshold}
            body = await ask(client, context=TEXT, no_answer=True, **chosen)
            assert body["no_answer_score"] == pytest.approx(score, abs=1e-4)
            assert bool(body["answers"]) == (score <= (0.5 if threshold is None else threshold))
        assert len((await ask(client, context=TEXT, no_answer=False))["answers"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"question": "q"}, 422, "either context or documents"),
        ({"question": "q", "context": "a", "documents": ["b"]}, 422, "either context or documents"),
        ({"question": "q", "documents": []}, 422, "empty"),
        ({"question": "", "context": "ok"}, 422, "question"),
        ({"question": "ok", "context": "  \n "}, 422, "empty"),
        ({"question": "ok", "documents": ["", "  \n "]}, 422, "empty"),
        ({"question": "why " * 100, "context": "ok"}, 422, "question has"),
        ({"question": "ok", "context": "ok", "top_k": 0}, 422, "top_k"),
        ({"question": "ok", "context": "ok", "max_answer_tokens": 0}, 422, "max_answer_tokens"),
        ({"question": "ok", "context": "ok", "no_answer_threshold": 0.5}, 422, "no_answer: true"),
        (
            {"question": "ok", "context": "ok", "no_answer": True, "no_answer_threshold": 1.5},
            422,
            "no_answer_threshold",
        ),
        ({"question": "ok", "context": "ok", "no_answer": True, "no_answer_threshold": "half"}, 422, "threshold"),
        ({"question": "ok", "documents": ["ok"] * 513}, 413, "513"),
        ({"question": "ok", "context": "ok", "model": "sentiment"}, 409, "text-classification"),
    ],
)
async def test_what_cannot_be_answered_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, said: str
) -> None:
    response = await client.post("/qa", json=body)

    assert response.status_code == status
    assert said in response.json()["error"]["message"]


async def test_a_blank_document_is_skipped_and_said(client: httpx.AsyncClient) -> None:
    documents = [{"id": "empty", "text": " "}, TEXT, "", {"id": "b", "text": "Copper conducts electricity."}]
    body = await ask(client, documents=documents, top_k=20)

    assert [one["document"] for one in body["skipped"]] == ["empty", 2]
    assert {one["error"]["code"] for one in body["skipped"]} == {"invalid_request"}
    assert {answer["document"] for answer in body["answers"]} == {1, "b"}
    for answer in body["answers"]:
        text = TEXT if answer["document"] == 1 else "Copper conducts electricity."
        assert text[answer["start"] : answer["end"]] == answer["text"]
    others = await ask(client, documents=[documents[1], documents[3]], top_k=20)
    assert "skipped" not in others
    assert [one["score"] for one in others["answers"]] == pytest.approx([one["score"] for one in body["answers"]])


async def test_names_of_control_tokens_in_a_text_are_ordinary_text(client: httpx.AsyncClient) -> None:
    text = "[CLS] [SEP] <pad> [MASK] <unk> [PAD] [UNK]"
    body = await ask(client, question="[SEP] what? [CLS]", context=text, top_k=30)

    assert len(body["answers"]) > 5
    for answer in body["answers"]:
        assert text[answer["start"] : answer["end"]] == answer["text"] != ""
