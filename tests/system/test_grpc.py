"""The Open Inference Protocol over gRPC, with Triton's client against a real server."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT
from tests.system.conftest import Server, Start, free_port
from tests.system.test_other_clients import CONTEXT, TEXTS, strings

KEY, ADMIN = {"authorization": "Bearer user"}, {"authorization": "Bearer root"}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(start: Start, repository: Path, port: int) -> Server:
    server = start(repository, "--grpc-port", str(port), "--api-keys", "user", "--admin-keys", "root")
    server.wait_for("gRPC on")
    return server


@pytest.fixture(scope="module")
def client(server: Server, port: int) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    yield client
    client.close()


def tensor(name: str, texts: list[str]) -> Any:
    given = triton.InferInput(name, [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=np.object_))
    return given


def test_the_description_is_what_the_protocols_text_says(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    folder = ROOT / "service" / "api"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), "--descriptor_set_out", str(made)]
    subprocess.run([*command, "open_inference.proto"], check=True)

    assert made.read_bytes() == (folder / "open_inference.binpb").read_bytes()


def test_the_server_and_its_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("qa", headers=KEY)
    assert client.is_model_ready("qa", "1", headers=KEY)
    facts = client.get_server_metadata(headers=KEY)
    assert facts.name == "albert-serve"
    assert "model_configuration" not in facts.extensions  # over HTTP only
    facts = client.get_model_metadata("qa", headers=KEY)
    assert [one.name for one in facts.inputs] == ["question", "context"]
    assert {one.name for one in client.get_model_repository_index(headers=KEY).models} == {"qa", "sentiment"}


def test_labels_are_those_of_the_service(client: Any, server: Server) -> None:
    found = client.infer("sentiment", [tensor("text", TEXTS)], request_id="x", parameters={"top_k": 1}, headers=KEY)

    headers = {"Authorization": "Bearer user"}
    response = httpx.post(f"{server.url}/classify", json={"inputs": TEXTS, "top_k": 1}, headers=headers)
    results = [result["labels"][0] for result in response.json()["results"]]
    assert strings(found.as_numpy("label")).tolist() == [[one["label"]] for one in results]
    np.testing.assert_allclose(found.as_numpy("score"), [[one["score"]] for one in results], rtol=1e-5)
    assert found.get_response().id == "x"


def test_answers_with_offsets(client: Any) -> None:
    inputs = [tensor("question", ["Where?"]), tensor("context", [CONTEXT])]
    outputs = [triton.InferRequestedOutput(name) for name in ("start", "end", "answer")]
    found = client.infer("qa", inputs, outputs=outputs, headers=KEY)

    ((start,), (end,)) = found.as_numpy("start"), found.as_numpy("end")
    assert strings(found.as_numpy("answer")).tolist() == [CONTEXT[start:end]]
    assert found.as_numpy("score") is None


def test_values_in_the_message_are_answered_in_the_message(server: Server, port: int) -> None:
    """As KServe's own stubs send them; with classes of the client's, which has the same numbers."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="sentiment")
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"fine")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, metadata=[("authorization", "Bearer user")])

    label, score = answer.outputs
    assert set(label.contents.bytes_contents) == {b"negative", b"positive"}
    assert sum(score.contents.fp32_contents) == pytest.approx(1)


@pytest.mark.parametrize(
    ("model", "inputs", "options", "code", "said"),
    [
        ("sentiment", ["text"], {}, "UNAUTHENTICATED", "Authorization"),
        ("none", ["text"], {"headers": KEY}, "NOT_FOUND", "no model 'none'"),
        ("sentiment", ["text"], {"headers": KEY, "model_version": "9"}, "NOT_FOUND", "no version 9"),
        ("sentiment", ["text"], {"headers": KEY, "model_version": "x"}, "INVALID_ARGUMENT", "no version"),
        ("qa", ["text"], {"headers": KEY}, "INVALID_ARGUMENT", "takes question and context"),
        ("sentiment", ["text", "text"], {"headers": KEY}, "INVALID_ARGUMENT", "twice"),
        ("sentiment", ["text"], {"headers": KEY, "parameters": {"topk": 1}}, "INVALID_ARGUMENT", "topk"),
        ("sentiment", ["text"], {"headers": KEY, "client_timeout": 0.0001}, "DEADLINE_EXCEEDED", "Deadline"),
    ],
)
def test_errors_have_grpcs_codes(
    client: Any, model: str, inputs: list[str], options: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said) as told:
        client.infer(model, [tensor(name, TEXTS) for name in inputs], **options)
    assert told.value.status() == f"StatusCode.{code}"


def test_models_are_unloaded_with_an_admin_key(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="admin key"):
        client.unload_model("qa", headers=KEY)
    client.unload_model("qa", headers=ADMIN)
    try:
        assert not client.is_model_ready("qa", headers=KEY)
    finally:
        client.load_model("qa", headers=ADMIN)
    assert client.is_model_ready("qa", headers=KEY)


def test_a_message_above_the_limit_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("sentiment", [tensor("text", ["x" * (9 * 2**20)])], headers=KEY)
    assert told.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_millions_of_empty_tensors_are_refused_at_once(server: Server, port: int) -> None:
    message = b"\x0a\x09sentiment" + b"\x2a\x00" * 2_000_000
    began = time.monotonic()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match="more inputs"):
            infer(message, timeout=20, metadata=[("authorization", "Bearer user")])
    assert time.monotonic() - began < 5


def test_a_wrong_key_has_nothing_unpacked_and_a_probe_is_answered_above_the_limit(
    start: Start, repository: Path
) -> None:
    port = free_port()
    options = ("--grpc-port", str(port), "--api-keys", "user", "--max-requests", "1", "--max-body-memory", "1000000")
    start(repository, *options).wait_for("gRPC on")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for key, code in (("wrong", "UNAUTHENTICATED"), ("user", "INVALID_ARGUMENT")):
            with pytest.raises(grpc.RpcError) as told:
                infer(b"\xff" * 1000, metadata=[("authorization", f"Bearer {key}"), ("x-request-id", "seven")])
            assert told.value.code().name == code
            assert ("x-request-id", "seven") in told.value.trailing_metadata()

        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        message = b"\x0a\x02qa" + b"\x2a\x00" * 50_000
        many = [infer.future(message, metadata=[("authorization", "Bearer user")]) for _ in range(40)]
        assert live(b"", timeout=5) == b"\x08\x01"
        codes = {one.exception().code().name for one in many}
    assert codes <= {"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNAVAILABLE"}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_another_service_has_is_one_line(start: Start, repository: Path, workers: str) -> None:
    port = free_port()
    start(repository, "--grpc-port", str(port)).wait_for("gRPC on")
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--device", "cpu", "--workers", workers]
    command += ["--model-repo", str(repository), "--grpc-port", str(port)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_calls_are_counted_and_what_is_cancelled_is_dropped(server: Server, port: int) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{port}") as client:
            inputs = [tensor("question", ["Where?"]), tensor("context", [CONTEXT * 50])]
            many = [asyncio.create_task(client.infer("qa", inputs, headers=KEY)) for _ in range(8)]
            await asyncio.sleep(0.01)
            for one in many:
                one.cancel()
            await asyncio.gather(*many, return_exceptions=True)

    asyncio.run(ask())
    page = ""
    for _ in range(100):
        page = httpx.get(f"{server.url}/metrics").text
        if "albert_promised_seconds 0.0" in page and "albert_requests_in_flight 1.0" in page:
            break
        time.sleep(0.1)
    assert 'albert_requests_total{route="grpc ModelInfer",status="200"}' in page
    assert 'albert_requests_total{route="grpc ModelInfer",status="401"}' in page
    assert "albert_promised_seconds 0.0" in page


def test_it_ends_with_the_service(start: Start, repository: Path) -> None:
    port = free_port()
    server = start(repository, "--grpc-port", str(port))
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.infer("sentiment", [tensor("text", TEXTS)]).as_numpy("score").shape == (2, 2)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    client.close()
