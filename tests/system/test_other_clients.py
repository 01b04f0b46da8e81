"""Clients of other makers, as they are installed, against a real server: Triton's, KServe's, Hugging Face's."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT
from tests.system.conftest import Server, Start

TEXTS = ["It was not good.", "größe 東京 😀"]
CONTEXT = "Das Café \U0001f600 liegt in Köln."
ROOT_KEY = {"Authorization": "Bearer root"}


@pytest.fixture(scope="module")
def server(start: Start, repository: Path) -> Server:
    return start(repository, "--admin-keys", "root")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def tensor(name: str, texts: list[str], *, binary: bool = True, shape: tuple[int, ...] | None = None) -> Any:
    given = triton.InferInput(name, list(shape or (len(texts),)), "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=np.object_).reshape(shape or len(texts)), binary_data=binary)
    return given


def strings(found: Any) -> Any:
    return np.vectorize(lambda one: one.decode() if isinstance(one, bytes) else one, otypes=[object])(found)


def native(server: Server, route: str, body: dict[str, Any]) -> Any:
    return httpx.post(f"{server.url}{route}", json=body).raise_for_status().json()


def test_triton_finds_the_server_and_its_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sentiment")
    assert client.is_model_ready("sentiment", "1")
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    facts = client.get_model_metadata("qa", "1")
    assert [one["name"] for one in facts["inputs"]] == ["question", "context"]
    assert facts["versions"] == ["1"]
    assert client.get_model_config("sentiment")["input"][0]["data_type"] == "TYPE_STRING"
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        client.get_model_metadata("none")


@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_triton_classifies_as_the_service_does(
    client: Any, server: Server, binary_in: bool, binary_out: bool | None, packed: str | None
) -> None:
    names = ("score", "label")
    outputs = binary_out is not None and [triton.InferRequestedOutput(n, binary_data=binary_out) for n in names]
    found = client.infer(
        "sentiment", [tensor("text", TEXTS, binary=binary_in)], outputs=outputs or None, request_id="seven",
        request_compression_algorithm=packed, response_compression_algorithm=packed, parameters={"top_k": 1},
    )  # fmt: skip

    results = native(server, "/classify", {"inputs": TEXTS, "top_k": 1})["results"]
    assert strings(found.as_numpy("label")).tolist() == [[one["labels"][0]["label"]] for one in results]
    expected = [[one["labels"][0]["score"]] for one in results]
    np.testing.assert_allclose(found.as_numpy("score"), expected, rtol=1e-5)
    assert found.get_response()["id"] == "seven"
    assert found.get_response()["model_name"] == "sentiment"


def test_triton_classifies_pairs_of_any_shape_at_once_and_later(client: Any) -> None:
    inputs = [tensor("text", TEXTS, shape=(2, 1)), tensor("text_pair", TEXTS, shape=(2, 1))]
    later = client.async_infer("sentiment", inputs, model_version="1", priority=1, timeout=1000)

    assert later.get_result().as_numpy("score").shape == (2, 2)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_asks_and_offsets_are_of_its_own_text(client: Any, binary: bool) -> None:
    inputs = [tensor("question", ["Where?"], binary=binary), tensor("context", ["Nothing.", CONTEXT], binary=binary)]
    found = client.infer("qa", inputs, parameters={"top_k": 3})

    answers = strings(found.as_numpy("answer")).tolist()
    assert answers
    for answer, start, end, document in zip(
        answers, *(found.as_numpy(name) for name in ("start", "end", "document")), strict=True
    ):
        assert ["Nothing.", CONTEXT][document][start:end] == answer
    assert found.as_numpy("no_answer_score").shape == (1,)


def test_tritons_asyncio_client_too(server: Server) -> None:
    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_model_ready("qa")
            with pytest.raises(InferenceServerException, match="no model"):
                await client.get_model_metadata("none")
            return await client.infer("sentiment", [tensor("text", TEXTS)])

    assert asyncio.run(ask()).as_numpy("score").shape == (2, 2)


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ([tensor("words", TEXTS)], {}, "takes text"),
        ([tensor("text", TEXTS), tensor("text", TEXTS)], {}, "twice"),
        ([tensor("text", TEXTS), tensor("text_pair", TEXTS[:1])], {}, "same number"),
        ([tensor("text", [""])], {}, "text 0"),
        ([tensor("text", TEXTS)], {"parameters": {"topk": 1}}, "topk"),
        ([tensor("text", TEXTS)], {"parameters": {"model": "qa"}}, "given by the path"),
        ([tensor("text", TEXTS)], {"outputs": [triton.InferRequestedOutput("logits")]}, "there is label, score"),
        ([tensor("text", TEXTS)], {"outputs": [triton.InferRequestedOutput("label", class_count=2)]}, "classification"),
        ([tensor("text", TEXTS)], {"model_version": "9"}, "no version 9"),
    ],
)
def test_triton_is_told_what_is_wrong(client: Any, inputs: list[Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InferenceServerException, match=said):
        client.infer("sentiment", inputs, **options)


def test_triton_unloads_and_loads_with_the_admin_key(client: Any, server: Server) -> None:
    with pytest.raises(InferenceServerException, match="admin key"):
        client.unload_model("sentiment")
    client.unload_model("sentiment", headers=ROOT_KEY)
    try:
        assert not client.is_model_ready("sentiment")
        states = {(one["name"], one["state"]) for one in client.get_model_repository_index()}
        assert states == {("qa", "READY"), ("sentiment", "UNAVAILABLE")}
        ready = httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}).json()
        assert {one["name"] for one in ready} == {"qa"}
        wrong = httpx.post(f"{server.url}/v2/repository/index", json={"ready": "perhaps"})
        assert wrong.status_code == 422
        assert httpx.get(f"{server.url}/health/ready").status_code == 503  # it is required
    finally:
        client.load_model("sentiment", headers=ROOT_KEY)
    assert client.is_model_ready("sentiment")
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        client.load_model("none", headers=ROOT_KEY)


def test_kserves_client_too(server: Server) -> None:
    python = ROOT / ".venv-kserve" / "bin" / "python"
    if not python.exists():
        pytest.skip("KServe's client has an environment of its own, which make test makes")
    script = Path(__file__).with_name("kserve_client.py")
    ended = subprocess.run([python, script, server.url], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["seen"] == [True, True, True]
    results = native(server, "/classify", {"inputs": TEXTS, "top_k": 1})["results"]
    assert found["labels"] == [[one["labels"][0]["label"] for one in results]] * 2


@pytest.fixture(autouse=True)
def hub_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests keep Hugging Face's library off the network; here it speaks to this machine only."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("path", ["", "/models/sentiment"])
def test_hugging_faces_client_classifies(server: Server, path: str) -> None:
    client = InferenceClient(base_url=f"{server.url}{path}")
    found = client.text_classification(TEXTS[0])

    (result,) = native(server, "/classify", {"inputs": TEXTS[0]})["results"]
    assert [(one.label, pytest.approx(one.score)) for one in found] == [
        (one["label"], one["score"]) for one in result["labels"]
    ]
    (first,) = client.text_classification(TEXTS[0], top_k=1, function_to_apply="sigmoid")
    assert 0 < first.score < 1


@pytest.mark.parametrize("path", ["", "/models/qa"])
def test_hugging_faces_client_asks(server: Server, path: str) -> None:
    client = InferenceClient(base_url=f"{server.url}{path}")
    found: Any = client.question_answering(question="Where?", context=CONTEXT)
    several: Any = client.question_answering(
        question="Where?", context=CONTEXT, top_k=3, max_answer_len=5, align_to_words=True, doc_stride=10
    )

    assert CONTEXT[found.start : found.end] == found.answer
    assert len(several) == 3
    none: Any = client.question_answering(question="Where?", context=CONTEXT, handle_impossible_answer=True)
    assert none.answer == CONTEXT[none.start : none.end]


def test_hugging_faces_client_is_told_what_is_wrong(server: Server) -> None:
    with pytest.raises(HfHubHTTPError, match="no model 'none'"):
        InferenceClient(base_url=f"{server.url}/models/none").text_classification("x")
    with pytest.raises(HfHubHTTPError, match="does question-answering"):
        InferenceClient(base_url=f"{server.url}/models/qa").text_classification("x")
