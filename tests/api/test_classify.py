"""POST /classify: labels for texts and pairs."""

import httpx
import pytest

pytestmark = pytest.mark.anyio


async def test_one_text_gives_one_result_with_all_labels(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json={"inputs": "It was not good."})

    body = response.json()
    assert response.status_code == 200
    assert body["model"] == {"name": "sentiment", "version": 1}
    (result,) = body["results"]
    assert {entry["label"] for entry in result["labels"]} == {"negative", "positive"}
    assert sum(entry["score"] for entry in result["labels"]) == pytest.approx(1)
    assert result["labels"][0]["score"] >= result["labels"][1]["score"]
    assert (result["truncated"], result["windows"]) == (False, 1)
    assert result["tokens"] == 7  # four words, the dot and the frame


async def test_a_list_keeps_its_order_and_equals_the_texts_alone(client: httpx.AsyncClient) -> None:
    texts = ["ok", "It was not good.", {"text": "ok", "text_pair": "The river"}, "Nobody knew why " * 5]
    together = (await client.post("/classify", json={"inputs": texts})).json()["results"]

    for text, result in zip(texts, together, strict=True):
        (alone,) = (await client.post("/classify", json={"inputs": text})).json()["results"]
        assert [entry["label"] for entry in alone["labels"]] == [entry["label"] for entry in result["labels"]]
        for one, other in zip(alone["labels"], result["labels"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


async def test_top_k_and_activation_are_the_callers_choice(client: httpx.AsyncClient) -> None:
    body = {"inputs": "ok", "top_k": 1, "activation": "none"}
    (result,) = (await client.post("/classify", json=body)).json()["results"]
    everything = (await client.post("/classify", json=body | {"top_k": 9})).json()["results"][0]

    assert len(result["labels"]) == 1
    assert len(everything["labels"]) == 2
    assert everything["labels"][0] == result["labels"][0]
    assert sum(entry["score"] for entry in everything["labels"]) != pytest.approx(1)


async def test_a_long_text_is_cut_and_says_so_or_read_in_windows_or_refused(client: httpx.AsyncClient) -> None:
    text = "Nobody knew why the river had changed its course overnight. " * 20

    cut = (await client.post("/classify", json={"inputs": text})).json()["results"][0]
    windows = (await client.post("/classify", json={"inputs": text, "long_text": "windows"})).json()["results"][0]
    refused = await client.post("/classify", json={"inputs": text, "long_text": "error"})

    assert (cut["truncated"], cut["windows"], cut["tokens"]) == (True, 1, 64)
    assert windows["truncated"] is False
    assert windows["windows"] > 5
    assert windows["tokens"] > 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "text_too_long")


async def test_one_bad_text_in_a_list_fails_alone(client: httpx.AsyncClient) -> None:
    body = r'{"inputs": ["ok", "", "\ud800", "   ", "fine then"]}'
    results = (await client.post("/classify", content=body)).json()["results"]

    assert ["labels" in result for result in results] == [True, False, False, False, True]
    assert results[1]["error"]["code"] == "invalid_request"
    assert "surrogate" in results[2]["error"]["message"]


async def test_a_single_bad_text_has_the_errors_own_status(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json={"inputs": ""})

    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"


async def test_server_timing_splits_the_request(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json={"inputs": "ok"})

    names = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert names == ["encode", "queue", "run", "decode"]
