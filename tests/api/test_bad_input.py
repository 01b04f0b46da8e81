"""Whatever comes in, the answer is a clear error of the right status, and nobody else's request suffers."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.settings import Settings
from tests.conftest import serving

pytestmark = pytest.mark.anyio

OK = {"inputs": "It was not good."}


def check_error(response: httpx.Response, status: int, code: str) -> str:
    """Every error has the one shape; returns its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"]
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b'{"inputs": "x"', b"\xff\xfe", b'{"inputs": NaN,}', b"[" * 20_000, b"9" * 5000]
)
async def test_what_is_not_json_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    for route in ("/classify", "/qa", "/explain"):
        response = await client.post(route, content=content)
        if content:
            check_error(response, 400, "malformed_body")
        else:
            check_error(response, 422, "invalid_request")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("text", "body"),
        ({}, "inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["ok", 5]}, "inputs.1"),
        ({"inputs": [["ok"]]}, "inputs.0"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {"text_pair": "x"}}, "inputs.text"),
        ({"inputs": "x", "top_k": 0}, "top_k"),
        ({"inputs": "x", "top_k": "2"}, "top_k"),
        ({"inputs": "x", "top_k": True}, "top_k"),
        ({"inputs": "x", "activation": "relu"}, "activation"),
        ({"inputs": "x", "long_text": "chop"}, "long_text"),
        ({"inputs": "x", "priority": "high"}, "priority"),
        ({"inputs": "x", "version": 0}, "version"),
        ({"inputs": "x", "modle": "sentiment"}, "modle"),
    ],
)
async def test_a_wrong_shape_is_422_and_names_the_field(client: httpx.AsyncClient, body: Any, field: str) -> None:
    message = check_error(await client.post("/classify", json=body), 422, "invalid_request")

    assert message.startswith(f"{field}: ")
    assert "function-plain" not in message


@pytest.mark.parametrize("text", ["", " ", "\n\t \r\n", "\u200b", "\x00", "\x00\x00"])
async def test_a_text_with_nothing_in_it_is_422(client: httpx.AsyncClient, text: str) -> None:
    check_error(await client.post("/classify", json={"inputs": text}), 422, "invalid_request")


async def test_nul_bytes_inside_a_text_are_harmless(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json={"inputs": "not\x00good"})

    assert response.status_code == 200


SURROGATES = [
    ("/classify", r'{"inputs": "a \ud800 b"}', "the text"),
    ("/classify", r'{"inputs": {"text": "a", "text_pair": "\udfff"}}', "the text"),
    ("/classify", r'{"inputs": "a", "model": "x\ud800"}', "model"),
    ("/classify", r'{"inputs": "a", "activation": "\ud800"}', "activation"),
    ("/classify", r'{"inputs": "a", "priority": "\ud800"}', "priority"),
    ("/classify", r'{"inputs": "a", "\ud800": 1}', "body"),
    ("/classify", r'{"\ud800": {"\udfff": 1}}', "body"),
    ("/classify", '{"\\ud800": {' + ",".join(f'"{n}": 1' for n in range(50)) + "}}", "50 fields"),
    ("/classify", r'"\ud800"', "body"),
    ("/qa", r'{"question": "a \ud800", "context": "b"}', "surrogate"),
    ("/qa", r'{"question": "a", "context": "b \udfff"}', "surrogate"),
    ("/qa", r'{"question": "a", "documents": ["fine", "\ud800"]}', "surrogate"),
    ("/qa", r'{"question": "a", "documents": [{"text": "\ud800"}]}', "surrogate"),
    ("/qa", r'{"question": "a", "documents": ["b", {"id": "x\ud800", "text": "b"}]}', "documents.1.id"),
    ("/qa", r'{"question": "a", "context": "b", "model": "\udfff"}', "model"),
    ("/qa", r'{"question": "a", "documents": [{"file": "\ud800"}]}', "documents.0.file"),
    ("/explain", r'{"text": "a \ud800"}', "surrogate"),
    ("/explain", r'{"text": "a \ud800", "method": "attention"}', "surrogate"),
    ("/explain", r'{"text": "a \ud800", "method": "depth"}', "surrogate"),
    ("/explain", r'{"question": "a", "context": "\udfff"}', "surrogate"),
    ("/explain", r'{"text": "a", "label": "\ud800"}', "label"),
    ("/explain", r'{"text": "a", "\ud800": 1}', "body"),
]


@pytest.mark.parametrize(("route", "content", "said"), SURROGATES)
async def test_a_lone_surrogate_is_422_and_says_where(
    client: httpx.AsyncClient, route: str, content: str, said: str
) -> None:
    message = check_error(await client.post(route, content=content.encode()), 422, "invalid_request")

    assert said in message


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/classify", {"inputs": "x", "topK": 1}, "topK"),
        ("/classify", {"inputs": "x", "x" * 5000: 1}, "x" * 80),
        ("/classify", {"inputs": "x", "model": "y" * 5000}, "model"),
        ("/classify", {"inputs": "x", "model": "../etc/passwd"}, "model"),
        ("/classify", {"inputs": "x", "model": ""}, "model"),
        ("/classify", {"inputs": "x", "model": "a b"}, "model"),
        ("/classify", {"inputs": "x", "model": "a\n"}, "model"),
        ("/classify", {"inputs": "x", "version": 10**30}, "version"),
        ("/classify", {"inputs": [{"text": "x", "z" * 5000: 1}]}, "inputs.0.z"),
        ("/classify", {"inputs": "x", "activation": "secret" * 1000}, "activation"),
        ("/qa", {"question": "x", "documents": [{"text": "x", "id": "w" * 5000}]}, "documents.0.id"),
        ("/qa", {"question": "x", "documents": [{"text": "x", "id": 5}]}, "documents.0.id"),
        ("/qa", {"question": "x", "documents": [{"file": "x" * 5001}]}, "documents.0.file"),
        ("/explain", {"text": "x", "label": "l" * 900}, "label"),
        ("/explain", {"text": "x", "label": "l" * 5000}, "label"),
        ("/explain", {"text": "x", "method": "m" * 5000}, "method"),
        ("/explain", {"text": "x", "method": "attention", "layers": [0] * 2000}, "layers"),
        ("/explain", {"text": "x", "method": "attention", "layers": [10**30]}, "layers"),
        ("/explain", {"text": "x", "method": "attention", "layers": [10**3000]}, "layers"),
        ("/explain", {"text": "x", "method": "attention", "heads": ["1"]}, "heads"),
        ("/explain", {"text": "x", "e" * 5000: 1}, "e" * 80),
        ("/qa", {"question": "x", "context": "x", "q" * 5000: {str(n): 1 for n in range(40)}}, "q" * 80),
    ],
)
async def test_the_field_is_named_and_nothing_long_is_echoed(
    client: httpx.AsyncClient, route: str, body: Any, field: str
) -> None:
    response = await client.post(route, json=body)
    message = check_error(response, 422, "invalid_request")

    assert message.startswith(field)
    assert "secret" not in message
    assert all(letter * 101 not in response.text for letter in "xyzwq")
    assert len(message) < 400


@pytest.mark.parametrize("path", ["/models/" + "m" * 3000, "/" + "m" * 3000, "/models/%ED%A0%80", "/models/a%0Ab"])
async def test_a_path_is_not_echoed_at_length(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)

    assert response.status_code == 404
    assert "m" * 101 not in response.text
    assert set(response.json()["error"]) == {"code", "message", "request_id"}


async def test_a_megabyte_of_text_is_413_before_it_is_tokenized(client: httpx.AsyncClient) -> None:
    message = check_error(await client.post("/classify", json={"inputs": "x" * 1_000_000}), 413, "too_large")
    assert "1000000" in message

    check_error(await client.post("/qa", json={"question": "who", "context": "x " * 500_000}), 413, "too_large")


async def test_a_body_above_the_limit_is_413_announced_or_not(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 1_000_000

    check_error(await client.post("/classify", content=b" " * 9_000_000), 413, "too_large")
    check_error(await client.post("/classify", content=chunks()), 413, "too_large")


async def test_a_hundred_thousand_inputs_are_413(client: httpx.AsyncClient) -> None:
    message = check_error(await client.post("/classify", json={"inputs": ["a"] * 100_000}), 413, "too_large")

    assert "20000" in message
    message = check_error(await client.post("/classify", json={"inputs": ["a"] * 5_000}), 413, "too_large")
    assert "inputs: 5000" in message
    assert "1024" in message


async def test_more_tokens_than_may_ever_wait_are_413(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"max_queue_tokens": 20})) as client:
        check_error(
            await client.post("/classify", json={"inputs": [f"It was not good{end}" for end in ".!?"]}),
            413,
            "too_large",
        )
        assert (await client.post("/classify", json=OK)).status_code == 200


async def test_an_unknown_model_or_version_is_404_and_lists_what_there_is(client: httpx.AsyncClient) -> None:
    unknown = check_error(await client.post("/classify", json=OK | {"model": "nope"}), 404, "model_not_found")
    version = check_error(await client.post("/classify", json=OK | {"version": 7}), 404, "model_not_found")

    assert "sentiment/1" in unknown
    assert "version 7" in version


async def test_a_model_of_another_task_is_409(client: httpx.AsyncClient) -> None:
    message = check_error(await client.post("/classify", json=OK | {"model": "qa"}), 409, "wrong_task")

    assert "question-answering" in message


@pytest.mark.parametrize("given", ["0", "-5", "-inf"])
async def test_a_deadline_of_now_or_in_the_past_is_504(client: httpx.AsyncClient, given: str) -> None:
    response = await client.post("/classify", json=OK, headers={"X-Deadline-Ms": given})

    check_error(response, 504, "deadline_exceeded")


@pytest.mark.parametrize("given", ["soon", "", "nan", "1e"])
async def test_a_deadline_that_is_no_number_is_422(client: httpx.AsyncClient, given: str) -> None:
    response = await client.post("/classify", json=OK, headers={"X-Deadline-Ms": given})

    check_error(response, 422, "invalid_request")


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json=OK, headers={"X-Deadline-Ms": "0.001"})

    check_error(response, 504, "deadline_exceeded")


async def test_unknown_routes_and_methods_have_the_same_shape(client: httpx.AsyncClient) -> None:
    check_error(await client.get("/nope"), 404, "not_found")
    check_error(await client.get("/classify"), 405, "method_not_allowed")
    check_error(await client.post("/metrics"), 405, "method_not_allowed")


async def test_a_bug_is_500_without_its_cause(client: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.service = None  # nothing like this happens; that is the point

    message = check_error(await client.post("/classify", json=OK), 500, "internal")

    assert "NoneType" not in message


async def test_good_requests_among_bad_ones_are_all_answered(client: httpx.AsyncClient) -> None:
    bad: list[Any] = [{"inputs": ""}, {"inputs": 5}, OK | {"model": "qa"}, {"inputs": "x" * 500_000}]
    bodies = [OK if index % 2 else bad[index // 2 % len(bad)] for index in range(40)]

    responses = await asyncio.gather(*(client.post("/classify", json=body) for body in bodies))

    assert [response.status_code == 200 for response in responses] == [body is OK for body in bodies]
    scores = {response.json()["results"][0]["labels"][0]["label"] for response in responses[1::2]}
    assert len(scores) == 1
