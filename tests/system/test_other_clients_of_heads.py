"""Hugging Face's and Triton's clients before models of other heads than a classifier's and a reader's."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient.utils import InferenceServerException

from service.conversion.pipeline import Options, convert
from tests.api.test_heads import CLASSES
from tests.checkpoints import save_checkpoint
from tests.system.conftest import Server, Start
from tests.system.test_other_clients import native, tensor

TEXTS = ["Clara repaired the clock in Berlin.", "it was not good"]


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    root = tmp_path_factory.mktemp("heads")
    for name, (kind, config) in CLASSES.items():
        convert(str(save_checkpoint(root / "source" / name, kind, **config)), root / "repository", Options(name))
    return start(root / "repository")


@pytest.fixture(autouse=True)
def hub_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def test_hugging_faces_client_gets_vectors(server: Server) -> None:
    client = InferenceClient(base_url=f"{server.url}/models/embed")
    found = client.feature_extraction(TEXTS[0])
    (result,) = native(server, "/embed", {"inputs": TEXTS[0]})["results"]
    np.testing.assert_allclose(np.ravel(found), result["embedding"], rtol=1e-5)


def test_hugging_faces_client_says_what_vectors_it_wants(server: Server) -> None:
    client = InferenceClient(base_url=f"{server.url}/models/embed")
    plain = native(server, "/embed", {"inputs": TEXTS[0], "normalize": False})["results"][0]["embedding"]
    np.testing.assert_allclose(np.ravel(client.feature_extraction(TEXTS[0], normalize=False)), plain, rtol=1e-5)
    client.feature_extraction("long " * 200, truncate=True)
    with pytest.raises(HfHubHTTPError, match="tokens"):
        client.feature_extraction("long " * 200, truncate=False)


def test_hugging_faces_client_fills_masks(server: Server) -> None:
    client = InferenceClient(base_url=f"{server.url}/models/fill-mask")
    found = client.fill_mask("it was [MASK] good", top_k=2)
    (result,) = native(server, "/fill-mask", {"inputs": "it was [MASK] good", "top_k": 2})["results"]
    assert [(one.token_str, one.sequence) for one in found] == [
        (one["word"], one["text"]) for one in result["masks"][0]["words"]
    ]


def test_hugging_faces_client_tags(server: Server) -> None:
    client = InferenceClient(base_url=f"{server.url}/models/tokens")
    found = client.token_classification(TEXTS[0])
    (result,) = native(server, "/tokens", {"inputs": TEXTS[0]})["results"]
    assert [(one.entity_group, one.word, one.start, one.end) for one in found] == [
        (one["label"], one["text"], one["start"], one["end"]) for one in result["spans"]
    ]


def test_hugging_faces_client_says_which_spans_it_wants(server: Server) -> None:
    client = InferenceClient(base_url=f"{server.url}/models/tokens")
    every = client.token_classification(TEXTS[0], aggregation_strategy="simple")
    assert every == client.token_classification(TEXTS[0])
    label = every[0].entity_group
    some = client.token_classification(TEXTS[0], ignore_labels=[label])
    assert [one for one in every if one.entity_group != label] == some
    with pytest.raises(HfHubHTTPError, match="aggregation_strategy"):
        client.token_classification(TEXTS[0], aggregation_strategy="none")


def test_a_list_is_answered_as_a_list_and_a_failure_is_the_requests(server: Server) -> None:
    url = f"{server.url}/models"
    assert len(httpx.post(f"{url}/tokens", json={"inputs": TEXTS}).json()) == 2
    assert len(httpx.post(f"{url}/fill-mask", json={"inputs": ["a [MASK]", "[MASK] and [MASK]"]}).json()[1]) == 2
    wrong = httpx.post(f"{url}/embed", json={"inputs": ["a", ""]})
    assert wrong.status_code == 422
    assert "inputs.1" in wrong.text


def test_triton_gets_vectors_and_is_told_of_tasks_without_tensors(client: Any, server: Server) -> None:
    found = client.infer("embed", [tensor("text", TEXTS)])
    wanted = [one["embedding"] for one in native(server, "/embed", {"inputs": TEXTS})["results"]]
    np.testing.assert_allclose(found.as_numpy("embedding"), wanted, rtol=1e-5)
    assert client.get_model_metadata("embed")["outputs"][0]["name"] == "embedding"
    assert client.get_model_metadata("tokens")["inputs"] == []
    with pytest.raises(InferenceServerException, match="ask /tokens"):
        client.infer("tokens", [tensor("text", TEXTS)])
