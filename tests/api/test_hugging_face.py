"""Hugging Face's and TEI's shapes of requests: what they take, what they answer, how they say that it is wrong."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.errors import InferenceFailed
from service.settings import Settings
from tests.conftest import serving

pytestmark = pytest.mark.anyio
TEXT, PAIR = "It was not good.", {"text": "It was not good.", "text_pair": "It was."}


async def labels(client: httpx.AsyncClient, *inputs: Any, **more: Any) -> list[Any]:
    """As ``/classify`` has them."""
    results = (await client.post("/classify", json={"inputs": list(inputs)} | more)).json()["results"]
    return [result["labels"] for result in results]


@pytest.mark.parametrize("path", ["/", "/models/sentiment"])
@pytest.mark.parametrize("inputs", [TEXT, [TEXT, "x"], PAIR, [PAIR, TEXT]])
async def test_labels_are_nested_for_one_text_and_for_several(
    client: httpx.AsyncClient, path: str, inputs: Any
) -> None:
    found = (await client.post(path, json={"inputs": inputs})).json()

    assert found == await labels(client, *(inputs if isinstance(inputs, list) else [inputs]))


async def test_parameters_of_labels(client: httpx.AsyncClient) -> None:
    content = {"inputs": TEXT, "parameters": {"top_k": 1, "function_to_apply": "none"}, "options": {"use_cache": True}}
    found = (await client.post("/", json=content)).json()

    assert found == await labels(client, TEXT, top_k=1, activation="none")


async def test_an_answer_alone_or_several(client: httpx.AsyncClient) -> None:
    question = {"question": "Where?", "context": "It lies in Köln."}
    (native,) = (await client.post("/qa", json=question)).json()["answers"]
    found = (await client.post("/models/qa", json={"inputs": question})).json()
    several = (await client.post("/", json={"inputs": question, "parameters": {"top_k": 2}})).json()

    assert found == {"answer": native["text"], "score": native["score"], "start": native["start"], "end": native["end"]}
    assert len(several) == 2
    assert several[0] == found


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/", {"inputs": ""}, 422),
        ("/", {"inputs": []}, 422),
        ("/", {"inputs": ["fine", ""]}, 422),
        ("/", {"inputs": [1]}, 422),
        ("/", {"inputs": {"question": "x"}}, 422),
        ("/", {"inputs": TEXT, "parameters": {"topk": 1}}, 422),
        ("/", {"inputs": TEXT, "more": 1}, 422),
        ("/", {"text": TEXT}, 422),
        ("/models/none", {"inputs": TEXT}, 404),
        ("/models/qa", {"inputs": TEXT}, 409),
        ("/models/sentiment", {"inputs": {"question": "x", "context": "y"}}, 409),
    ],
)
async def test_what_is_wrong_is_a_text(client: httpx.AsyncClient, path: str, content: Any, status: int) -> None:
    response = await client.post(path, json=content)

    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)


async def test_lists_are_bounded(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_inputs": 2})) as client:
        assert (await client.post("/", json={"inputs": ["a"] * 3})).status_code == 413
        assert (await client.post("/predict", json={"inputs": [["a"]] * 3})).status_code == 413
        assert (await client.post("/predict", json={"inputs": [["a"]] * 2})).status_code == 200


async def test_the_page_is_still_at_its_place(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).headers["content-type"].startswith("text/html")
    assert (await client.get("/models/qa")).json()["name"] == "qa"


@pytest.mark.parametrize(
    ("inputs", "native", "batch"),
    [
        (TEXT, [TEXT], False),
        ([TEXT], [TEXT], False),
        ([TEXT, "It was."], [PAIR], False),
        ([[TEXT], [TEXT, "It was."]], [TEXT, PAIR], True),
    ],
)
async def test_tei_predicts(client: httpx.AsyncClient, inputs: Any, native: list[Any], batch: bool) -> None:
    content = {"inputs": inputs, "truncate": None, "truncation_direction": "Right", "raw_scores": False}
    found = (await client.post("/predict", json=content)).json()
    raw = (await client.post("/predict", json={"inputs": inputs, "raw_scores": True})).json()

    expected = await labels(client, *native)
    assert found == (expected if batch else expected[0])
    logits = await labels(client, *native, activation="none")
    assert raw == (logits if batch else logits[0])


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        ({"inputs": ""}, 422, "Validation"),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation"),
        ({"inputs": [["a"], "b"]}, 422, "Validation"),
        ({"inputs": "word " * 200, "truncate": False}, 422, "Validation"),
        ({"inputs": "x", "truncation_direction": "Left"}, 422, "Validation"),
    ],
)
async def test_tei_errors_have_a_type(client: httpx.AsyncClient, content: Any, status: int, kind: str) -> None:
    response = await client.post("/predict", json=content)

    assert response.status_code == status
    assert response.json()["error_type"] == kind
    assert isinstance(response.json()["error"], str)


async def test_tei_cuts_unless_it_may_not(client: httpx.AsyncClient) -> None:
    assert (await client.post("/predict", json={"inputs": "word " * 200})).status_code == 200


async def test_tei_health_and_info(client: httpx.AsyncClient) -> None:
    healthy = await client.get("/health")
    facts = (await client.get("/info")).json()

    assert (healthy.status_code, healthy.content) == (200, b"")
    assert facts["model_id"] == "sentiment"
    assert facts["model_type"]["classifier"]["label2id"] == {"negative": 0, "positive": 1}
    assert facts["max_client_batch_size"] == 1024
    assert facts["max_input_length"] > 0


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/models/sentiment", {"inputs": [TEXT, "x"]}),
        ("/predict", {"inputs": [[TEXT], ["x"]]}),
        (
            "/v2/models/sentiment/infer",
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": [TEXT, "x"]}]},
        ),
    ],
)
async def test_a_device_that_fails_is_not_the_clients_fault(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, path: str, content: Any
) -> None:
    """One text of a list fails on the device: these shapes have no place for its error, and a client may try again."""
    (engine,) = app.state.models.named("sentiment")

    embed, short = engine.model.embed, len(engine.task.encode("x").sequences[0])

    def fails(pack: Any) -> Any:
        if short in pack.lengths:
            raise InferenceFailed("embed: no")
        return embed(pack)

    monkeypatch.setattr(engine.model, "embed", fails)
    response = await client.post(path, json=content)

    assert response.status_code == 500, response.text
