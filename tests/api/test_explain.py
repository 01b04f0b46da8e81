"""POST /explain: what each word is worth, and how a decision forms."""

import asyncio
import re
import time
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from service.api import explain_attention
from service.serving.loading import make_attention
from tests.conftest import hold_device
from tests.fakes import until

pytestmark = pytest.mark.anyio

TEXT = "The ferry leaves at half past six.  Who repaired the clock?  Clara repaired it in 1887."
LABELS = {"negative", "positive"}


async def ask(client: httpx.AsyncClient, route: str = "/explain", status: int = 200, **body: Any) -> dict[str, Any]:
    response = await client.post(route, json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def score(client: httpx.AsyncClient, label: str, text: Any) -> float:
    found = await ask(client, "/classify", inputs=text, early_exit=False)
    return float(next(one["score"] for one in found["results"][0]["labels"] if one["label"] == label))


async def test_a_words_score_is_what_the_label_loses_without_it(client: httpx.AsyncClient) -> None:
    body = await ask(client, text="It was not good.")

    assert [word["text"] for word in body["words"]] == ["It", "was", "not", "good", "."]
    assert body["score"] == pytest.approx(await score(client, body["label"], "It was not good."), abs=1e-5)
    for word in body["words"]:
        left = "It was not good."[: word["start"]].rstrip() + "It was not good."[word["end"] :]
        assert word["score"] == pytest.approx(body["score"] - await score(client, body["label"], left), abs=1e-5)
    assert body["variants"] == 6


async def test_the_other_label_may_be_asked_for(client: httpx.AsyncClient) -> None:
    best = await ask(client, text="It was not good.")
    (other,) = LABELS - {best["label"]}
    body = await ask(client, text="It was not good.", label=other)

    assert body["label"] == other
    assert body["score"] == pytest.approx(1 - best["score"], abs=1e-5)
    for one, two in zip(best["words"], body["words"], strict=True):
        assert one["score"] == pytest.approx(-two["score"], abs=1e-5)


async def test_a_phrase_is_worth_its_words_and_their_interaction(client: httpx.AsyncClient) -> None:
    body = await ask(client, text="It was not good", phrases=True)
    worth = {word["text"]: word["score"] for word in body["words"]}

    assert [phrase["text"] for phrase in body["phrases"]] == ["It was", "was not", "not good"]
    for phrase in body["phrases"]:
        first, second = phrase["text"].split()
        left = "It was not good".replace(phrase["text"], "").strip()
        together = body["score"] - await score(client, body["label"], left)
        assert phrase["score"] == pytest.approx(together, abs=1e-5)
        assert phrase["interaction"] == pytest.approx(together - worth[first] - worth[second], abs=1e-5)


async def test_words_of_a_pair_are_named_by_their_field(client: httpx.AsyncClient) -> None:
    body = await ask(client, text="ok", text_pair="It was")

    assert [(word["field"], word["text"]) for word in body["words"]] == [
        ("text", "ok"), ("text_pair", "It"), ("text_pair", "was")
    ]  # fmt: skip
    assert body["words"][0]["score"] is None  # nothing is left of the text without it


async def test_an_answers_own_words_explain_nothing(client: httpx.AsyncClient) -> None:
    body = await ask(client, question="Who repaired the clock?", context=TEXT)
    plain = await ask(client, "/qa", question="Who repaired the clock?", context=TEXT)

    assert body["answer"]["text"] == plain["answers"][0]["text"]
    assert body["score"] == pytest.approx(plain["answers"][0]["score"], abs=1e-5)
    span = range(body["answer"]["start"], body["answer"]["end"])
    for word in body["words"]:
        inside = word["field"] == "context" and (word["start"] in span or word["end"] - 1 in span)
        assert (word["score"] is None) == inside
        assert {"question": "Who repaired the clock?", "context": TEXT}[word["field"]][
            word["start"] : word["end"]
        ] == word["text"]
    assert {word["field"] for word in body["words"]} == {"question", "context"}


async def test_the_cost_is_told_before_and_kept(client: httpx.AsyncClient) -> None:
    told = await ask(client, text=TEXT, phrases=True, max_variants=12, dry_run=True)
    paid = await ask(client, text=TEXT, phrases=True, max_variants=12)

    assert set(told) == {"model", "method", "variants", "tokens"}
    assert told["variants"] == paid["variants"] <= 12
    assert told["tokens"] == paid["tokens"]


async def test_what_would_cost_too_much_is_refused_before_it_is_tokenized(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"text": "It was not good. " * 4000, "max_variants": 1024, "dry_run": True}
    began = time.monotonic()
    refused = await ask(client, status=413, **body)
    seconds = time.monotonic() - began
    advice = re.search(r"lower max_variants to (\d+)$", refused["error"]["message"])

    assert seconds < 2
    assert advice
    told = await ask(client, **body | {"max_variants": int(advice[1])})
    assert told["tokens"] <= 262_144


async def test_the_deadline_and_the_client_end_the_tokenizing(client: httpx.AsyncClient, app: FastAPI) -> None:
    body = {"text": "It was not good. " * 500, "max_variants": 100, "dry_run": True}
    response = await client.post("/explain", json=body, headers={"X-Deadline-Ms": "30"})
    assert response.status_code == 504
    asked = asyncio.create_task(client.post("/explain", json=body))
    await asyncio.sleep(0.05)
    asked.cancel()
    await until(lambda: app.state.service.encoding.waiting == 0)
    began = time.monotonic()
    assert (await client.post("/classify", json={"inputs": "ok " * 30_000})).status_code == 200
    assert time.monotonic() - began < 5


async def test_an_explanation_that_costs_much_keeps_no_later_one_out(client: httpx.AsyncClient, app: FastAPI) -> None:
    await ask(client, text="It was not good. " * 60)
    held, release = await hold_device(app)
    waiting = asyncio.create_task(client.post("/classify", json={"inputs": "ok"}))
    await asyncio.sleep(0.05)
    assert (await client.post("/explain", json={"text": "It was not good. " * 60, "dry_run": True})).status_code == 200
    release.set()
    await held
    assert (await waiting).status_code == 200


async def test_of_a_long_text_neighbours_are_taken_together(client: httpx.AsyncClient) -> None:
    long = " ".join(["It was not good."] * 60)
    body = await ask(client, text=long, max_variants=20)

    assert 10 <= len(body["words"]) <= 19
    assert body["words"][0]["text"].startswith("It was not good")


@pytest.mark.parametrize("body", [{"text": "It was not good."}, {"question": "Who?", "context": TEXT}])
async def test_depth_tells_every_turn_and_ends_with_the_answer(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    found = await ask(client, method="depth", **body)

    assert [one["depth"] for one in found["depths"]] == [1, 2, 3]
    assert found["leaves_at"] == 3  # this model has no early exit
    last = found["depths"][-1]
    if "text" in body:
        for one in last["labels"]:
            assert one["score"] == pytest.approx(await score(client, one["label"], body["text"]), abs=1e-5)
        assert all({one["label"] for one in depth["labels"]} == LABELS for depth in found["depths"])
    else:
        plain = await ask(client, "/qa", **body)
        assert last["answers"][0]["text"] == plain["answers"][0]["text"]
        assert last["no_answer_score"] == pytest.approx(plain["no_answer_score"], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "give text"),
        ({"text": "a", "context": "b"}, 422, "give text"),
        ({"text_pair": "a"}, 422, "give text"),
        ({"question": "a"}, 422, "give text"),
        ({"text": ""}, 422, "empty"),
        ({"text": "ok", "label": "nice"}, 422, "label: 'nice' is none of the model's: negative, positive"),
        ({"question": "a", "context": "ok", "label": "positive"}, 422, "label"),
        ({"text": "ok", "method": "magic"}, 422, "method"),
        ({"text": "ok", "max_variants": 1}, 422, "max_variants"),
        ({"text": "ok", "model": "qa"}, 409, "question-answering"),
        ({"question": "a", "context": "ok", "model": "sentiment"}, 409, "text-classification"),
        ({"text": "ok " * 9000, "method": "depth"}, 413, "depth explains at most 4096"),
        ({"text": "x" * 1_000_000}, 413, "code points"),
    ],
)
async def test_what_cannot_be_explained_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, said: str
) -> None:
    assert said in (await ask(client, status=status, **body))["error"]["message"]


async def test_attention_tells_where_each_token_looked(client: httpx.AsyncClient) -> None:
    body = await ask(client, text="It was not good.", method="attention")
    pieces, tokens = body["pieces"], body["tokens"]

    assert len(pieces) == tokens
    assert [one["field"] for one in pieces] == [None, *["text"] * (tokens - 2), None]
    for one in pieces[1:-1]:
        assert "It was not good."[one["start"] : one["end"]] == one["text"]
    assert [one["layer"] for one in body["attention"]] == [1, 2, 3]
    for layer in body["attention"]:
        assert layer["heads"] == [1, 2, 3, 4]
        weights = np.array(layer["weights"])
        assert weights.shape == (4, tokens, tokens)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-3)
    assert sum(one["rollout"] for one in pieces) == pytest.approx(1, abs=1e-5)
    inside = sum(one["rollout"] for one in pieces[1:-1])
    assert sum(word["score"] for word in body["words"]) == pytest.approx(inside, abs=1e-5)
    assert [word["text"] for word in body["words"]] == ["It", "was", "not", "good", "."]
    assert body["score"] == pytest.approx(await score(client, body["label"], "It was not good."), abs=1e-5)


async def test_each_stage_is_timed_once(client: httpx.AsyncClient) -> None:
    for method in ("occlusion", "attention", "depth"):
        response = await client.post("/explain", json={"text": TEXT, "method": method})
        stages = re.findall(r"(\w+);dur=", response.headers["Server-Timing"])
        assert len(stages) == len(set(stages))
        assert {"encode", "run"} <= set(stages), method


async def test_layers_and_heads_can_be_chosen(client: httpx.AsyncClient) -> None:
    whole = await ask(client, text=TEXT, text_pair="It was", method="attention")
    part = await ask(client, text=TEXT, text_pair="It was", method="attention", layers=[3], heads=[2, 4])
    none = await ask(client, text=TEXT, text_pair="It was", method="attention", layers=[])

    assert [(one["layer"], one["heads"]) for one in part["attention"]] == [(3, [2, 4])]
    assert part["attention"][0]["weights"] == [whole["attention"][2]["weights"][head] for head in (1, 3)]
    assert none["attention"] == []
    assert none["words"] == part["words"] == whole["words"]
    assert {one["field"] for one in whole["pieces"]} == {None, "text", "text_pair"}


async def test_attention_of_an_answer_is_read_from_its_own_tokens(client: httpx.AsyncClient) -> None:
    body = await ask(client, question="Who?", context="Clara repaired it.", method="attention")
    plain = await ask(client, "/qa", question="Who?", context="Clara repaired it.")

    assert body["answer"]["text"] == plain["answers"][0]["text"]
    assert sum(one["rollout"] for one in body["pieces"]) == pytest.approx(1, abs=1e-5)
    assert {word["field"] for word in body["words"]} == {"question", "context"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"text": "ok", "layers": [4]}, 422, "layers: there is no 4; the model has 1 to 3"),
        ({"text": "ok", "heads": [5]}, 422, "heads: there is no 5"),
        ({"text": "ok", "heads": []}, 422, "heads"),
        ({"text": "ok", "layers": [0]}, 422, "layers"),
        ({"text": TEXT * 10}, 422, "attention is shown of a text that fits one"),
        ({"question": "Who?", "context": TEXT * 10}, 422, "attention is shown of a text that fits one"),
    ],
)
async def test_attention_that_cannot_be_shown_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, said: str
) -> None:
    found = await ask(client, method="attention", status=status, **body)

    assert said in found["error"]["message"]


async def test_an_answer_holds_so_many_weights(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_attention, "MOST_WEIGHTS", 3 * 4 * 49)
    assert (await ask(client, text="It was", method="attention", layers=[1]))["attention"]
    refused = await ask(client, text=TEXT, method="attention", status=413)
    assert "choose layers and heads, or layers [] for the words alone" in refused["error"]["message"]
    assert (await ask(client, text=TEXT, method="attention", layers=[]))["words"]


async def test_a_version_without_its_graph_says_so_and_one_with_it_loads_it_when_asked(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    (engine,) = [one for one in app.state.models.engines() if one.ref.name == "sentiment"]
    assert engine._attention is None
    await ask(client, text="ok", method="attention")
    first = engine._attention
    await ask(client, text="ok", method="attention")
    assert engine._attention is first is not None

    older = engine.manifest.model_copy(update={"attention": None})
    engine._attention, engine.open_attention = None, lambda: make_attention({}, older)
    refused = await ask(client, text="ok", method="attention", status=422)
    assert "has no graph that gives attention out: convert its checkpoint again" in refused["error"]["message"]
