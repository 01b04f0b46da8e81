"""The short way of one JSON body: documented and guarded as every other route."""

import httpx
import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("route", ["/classify", "/qa"])
async def test_another_method_is_405_and_says_which_is_allowed(client: httpx.AsyncClient, route: str) -> None:
    response = await client.get(route)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
async def test_a_body_is_json_whatever_the_client_calls_it(client: httpx.AsyncClient, kind: str) -> None:
    """curl -d says that it is a form."""
    response = await client.post("/classify", content=b'{"inputs": "It was not good."}', headers={"Content-Type": kind})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


async def test_texts_in_any_script_come_back_as_they_were(client: httpx.AsyncClient) -> None:
    context = "Das Café \U0001f600 liegt in Köln. 東京"
    response = await client.post("/qa", json={"question": "Where?", "context": context, "top_k": 3})
    answers = response.json()["answers"]
    assert answers
    assert all(context[answer["start"] : answer["end"]] == answer["text"] for answer in answers)


async def test_the_documents_name_the_body_and_its_answer(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/classify"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("ClassifyRequest")
    assert answer["$ref"].endswith("ClassifyResponse")
