"""The Open Inference Protocol: tensors in JSON and in bytes, bounded as every body is, wrong ones told in its words."""

import json
import struct
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings as hypothesis_settings, strategies as st

from service.api.tensors import InputTensor, Tensor, texts
from service.errors import InvalidRequest
from service.settings import Settings
from tests.conftest import hold_device, serving, speaking_to, started
from tests.fakes import until

pytestmark = pytest.mark.anyio
INFER = "/v2/models/sentiment/infer"


def body(*elements: Any, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    text = {"name": "text", "shape": shape or [len(elements)], "datatype": "BYTES", "data": list(elements)}
    return {"inputs": [text]} | more


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


async def send(client: httpx.AsyncClient, part: bytes, size: Any, count: int, length: str | None = None) -> Any:
    """A binary body: what its JSON says of ``part``, then that."""
    tensor = {"name": "text", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)) if length is None else length}
    return await client.post(INFER, content=head + part, headers=headers)


async def test_the_answer_is_what_classify_answers(client: httpx.AsyncClient) -> None:
    native = (await client.post("/classify", json={"inputs": ["a", "größe"]})).json()["results"]
    found = (await client.post(INFER, json=body("a", "größe", id="x"))).json()
    binary = await send(client, packed(b"a", "größe".encode()), 16, 2)

    label, score = found["outputs"]
    assert (found["id"], found["model_name"], found["model_version"]) == ("x", "sentiment", "1")
    assert label["shape"] == score["shape"] == [2, 2]
    assert label["data"] == [one["label"] for result in native for one in result["labels"]]
    assert score["data"] == pytest.approx([one["score"] for result in native for one in result["labels"]])
    assert binary.json()["outputs"] == found["outputs"]
    assert "run;dur=" in binary.headers["server-timing"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"inputs": []},
        {"inputs": "x"},
        {"inputs": [{}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1.0]}]},
        body("a", shape=[2]),
        body("a", shape=[-1]),
        body("a", shape=[2**31, 2**31, 2**31]),
        body("a", shape=[1] * 9),
        body(1),
        body(None),
        body([[[[[[[[[["a"]]]]]]]]]], shape=[1]),
        body("a", outputs=[{"name": "none"}]),
        body("a", outputs=[{"name": "none"}] * 17),
        body("a", parameters={"top_k": 0}),
        body("a", parameters={"inputs": "b"}),
        body("a", parameters={"unknown": 1}),
        body("a", parameters={f"p{number}": 1 for number in range(3000)}),
        body(),
        body("\ud800"),
    ],
)
async def test_what_is_wrong_is_told_in_the_protocols_words(client: httpx.AsyncClient, content: Any) -> None:
    response = await client.post(INFER, content=json.dumps(content))

    assert response.status_code in (413, 422), response.text
    assert set(response.json()) == {"error"}
    assert 0 < len(response.json()["error"]) < 400


@pytest.mark.parametrize(
    ("part", "size", "count", "length"),
    [
        (packed(b"a"), 5, 2, None),
        (packed(b"a", b"b"), 10, 1, None),
        (packed(b"a")[:-1], 4, 1, None),
        (packed(b"\xff"), 5, 1, None),
        (b"\xff\xff\xff\xff", 4, 1, None),
        (packed(b"a"), 6, 1, None),
        (packed(b"a"), 4, 1, None),
        (packed(b"a"), -5, 1, None),
        (packed(b"a"), "5", 1, None),
        (packed(b"a"), True, 1, None),
        (packed(b"a"), 2**63, 1, None),
        (packed(b"a"), 5, 1, "99999"),
        (packed(b"a"), 5, 1, "-1"),
        (packed(b"a"), 5, 1, "1" * 5000),
        (packed(b"a"), 5, 1, "0"),
        (packed(b"a"), 5, 1, "²"),
        (b"", 0, 1, None),
    ],
)
async def test_a_binary_part_that_is_not_what_it_says(
    client: httpx.AsyncClient, part: bytes, size: Any, count: int, length: str | None
) -> None:
    if length == "²":
        head = [(b"Inference-Header-Content-Length", "²".encode("latin-1"))]
        response = await client.post(INFER, content=part, headers=head)
    else:
        response = await send(client, part, size, count, length)

    assert response.status_code in (400, 422), response.text
    assert set(response.json()) == {"error"}


async def test_elements_beyond_the_limit_are_413_before_any_is_looked_at(settings: Settings) -> None:
    few = settings.model_copy(update={"max_inputs": 3, "max_documents": 3})
    async with serving(few) as client:
        assert (await client.post(INFER, json=body(*"abcd"))).status_code == 413
        began = time.perf_counter()
        empty = await send(client, bytes(4 * 2_000_000), 8_000_000, 2_000_000)
        assert empty.status_code == 413
        assert time.perf_counter() - began < 0.5
        assert (await client.post(INFER, json=body(*"abc"))).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/sentiment/versions/9/infer", 404),
        ("POST", "/v2/models/sentiment/versions/x/infer", 404),
        ("POST", "/v2/models/qa/infer", 422),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/sentiment/versions/9/ready", 404),
        ("GET", "/v2/models/none/config", 404),
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/a%0Ab", 404),
        ("GET", INFER, 405),
    ],
)
async def test_errors_have_the_protocols_shape(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path, json=body("a") if method == "POST" else None)

    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)


async def test_one_text_that_cannot_be_read_fails_the_tensor(client: httpx.AsyncClient) -> None:
    response = await client.post(INFER, json=body("fine", ""))

    assert response.status_code == 422
    assert "text 1" in response.json()["error"]


async def test_a_question_that_has_no_answer_has_tensors_without_elements(client: httpx.AsyncClient) -> None:
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": ["Where?"]} for name in ("question", "context")]
    options = {"no_answer": True, "no_answer_threshold": 0.0}
    found = (await client.post("/v2/models/qa/infer", json={"inputs": inputs, "parameters": options})).json()

    shapes = {one["name"]: one["shape"] for one in found["outputs"]}
    assert shapes.pop("no_answer_score") == shapes.pop("unread") == [1]
    assert set(map(tuple, shapes.values())) == {(0,)}


async def test_the_device_is_promised_as_for_the_services_own_routes(settings: Settings) -> None:
    """Its work is reserved, its deadline kept, and it is dropped when that passes."""
    async with started(settings) as app, speaking_to(app) as client:
        held, release = await hold_device(app)
        response = await client.post(INFER, json=body("a"), headers={"X-Deadline-Ms": "200"})
        release.set()
        await held
        assert response.status_code == 504
        assert "deadline" in response.json()["error"]
        await until(lambda: app.state.service.device.admission.promised == pytest.approx(0.0))
        page = (await client.get("/metrics")).text
        assert 'albert_requests_total{route="/v2/models/{name}/infer",status="504"} 1.0' in page


async def test_not_ready_is_503_with_the_reason(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    app.state.loop.down = "the device is away"
    await until(lambda: app.state.service.device.down)
    response = await client.get("/v2/health/ready")
    assert (response.status_code, response.json()["reason"]) == (503, "the device is away")
    assert (await client.get("/v2/models/sentiment/ready")).status_code == 503
    app.state.loop.down = ""


@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
@hypothesis_settings(deadline=None)
def test_texts_survive_the_bytes(values: list[str]) -> None:
    facts, part = Tensor("text", "BYTES", (len(values),), values).in_binary()
    tensor = InputTensor.model_validate({**facts, "shape": list(facts["shape"])})
    assert texts(tensor, part, most=100) == values
    assert facts["parameters"] == {"binary_data_size": len(part)}


@given(part=st.binary(max_size=60), count=st.integers(0, 9))
@hypothesis_settings(deadline=None)
def test_no_bytes_are_anything_but_texts_or_an_error(part: bytes, count: int) -> None:
    tensor = InputTensor(name="text", shape=[count], datatype="BYTES")
    try:
        found = texts(tensor, part, most=100)
    except InvalidRequest:
        return
    assert len(found) == count
    assert Tensor("text", "BYTES", (count,), found).in_binary()[1] == part
