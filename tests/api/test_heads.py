"""The heads beside a classifier's and a reader's, served: answers as transformers has them, offsets of the own text."""

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
from fastapi import FastAPI
from httpx import ASGITransport

from service.api.app import create_app
from service.conversion.pipeline import Options, convert
from service.settings import Settings
from tests.checkpoints import save_checkpoint

pytestmark = pytest.mark.anyio
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "fill-mask": ("AlbertForMaskedLM", {}),
    "tokens": (
        "AlbertForTokenClassification",
        {"id2label": dict(enumerate(LABELS)), "label2id": {label: index for index, label in enumerate(LABELS)}},
    ),
    "embed": ("AlbertModel", {}),
    "choose": ("AlbertForMultipleChoice", {}),
}
TEXTS = ["Clara repaired the clock.", "größe 東京 😀", "it was not good " * 30, ""]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save_checkpoint(root / name, kind, **config) for name, (kind, config) in CLASSES.items()}


@pytest.fixture(scope="module")
def shelf(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    for name, folder in checkpoints.items():
        convert(str(folder), root, Options(name))
    return root


@pytest.fixture(scope="module")
async def app(shelf: Path) -> AsyncIterator[FastAPI]:
    app = create_app(Settings(model_repo=shelf, device="cpu"))
    async with app.router.lifespan_context(app):
        await app.state.service.registry.wait()
        yield app


@pytest.fixture(scope="module")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        yield client


async def ask(client: httpx.AsyncClient, route: str, **body: Any) -> Any:
    response = await client.post(route, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def original(folder: Path, kind: str) -> Any:
    return getattr(transformers, kind).from_pretrained(folder).eval()


def ids(folder: Path, *texts: str) -> list[int]:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
    found: list[int] = tokenizer(*texts)["input_ids"]
    return found


async def test_the_service_is_ready_with_models_of_any_task(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/ready")).status_code == 200
    tasks = {one["name"]: one["task"] for one in (await client.get("/models")).json()["models"]}
    assert tasks == {
        "fill-mask": "fill-mask", "tokens": "token-classification", "embed": "feature-extraction",
        "choose": "multiple-choice",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["the plot was [MASK] good", "[MASK] and [MASK].", "[MASK]"])
async def test_words_for_masks_are_those_of_the_pipeline(
    client: httpx.AsyncClient, checkpoints: dict[str, Path], text: str
) -> None:
    folder = checkpoints["fill-mask"]
    row = torch.tensor([ids(folder, text)])
    with torch.inference_mode():
        logits = original(folder, "AlbertForMaskedLM")(row).logits[0]
    chances = logits[(row[0] == 4).nonzero().flatten()].softmax(-1)

    (result,) = (await ask(client, "/fill-mask", inputs=text, top_k=3))["results"]
    assert len(result["masks"]) == len(chances) == text.count("[MASK]")
    for mask, chance in zip(result["masks"], chances, strict=True):
        assert text[mask["start"] : mask["end"]] == "[MASK]"
        best = chance.topk(3)
        assert [word["token"] for word in mask["words"]] == best.indices.tolist()
        np.testing.assert_allclose([word["score"] for word in mask["words"]], best.values, rtol=1e-3)
        for word in mask["words"]:
            assert word["text"].count("[MASK]") == text.count("[MASK]") - 1
            assert word["word"] in word["text"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("no mask here", "has no"), ("[MASK] " * 17, "at most 16"), ("good " * 100 + "[MASK]", "the model sees 64")],
)
async def test_a_text_that_cannot_be_filled_says_why(client: httpx.AsyncClient, text: str, said: str) -> None:
    response = await client.post("/fill-mask", json={"inputs": text})
    assert response.status_code == 422
    assert said in response.json()["error"]["message"]
    several = await ask(client, "/fill-mask", inputs=[text, "a [MASK]"])
    assert said in several["results"][0]["error"]["message"]
    assert several["results"][1]["masks"]


async def test_an_answer_of_filled_texts_is_bounded(client: httpx.AsyncClient) -> None:
    text = "[MASK]" + " " * 300_000 + "good [MASK]"
    assert (await client.post("/fill-mask", json={"inputs": text, "top_k": 1})).status_code == 200
    refused = await client.post("/fill-mask", json={"inputs": text, "top_k": 100})
    assert refused.status_code == 413
    assert "top_k" in refused.json()["error"]["message"]


async def test_control_tokens_other_than_the_mask_stay_ordinary_text(client: httpx.AsyncClient) -> None:
    plain, odd = (await ask(client, "/fill-mask", inputs=["a [MASK]", "a [SEP] [MASK]"]))["results"]
    assert odd["tokens"] > plain["tokens"] + 1


async def test_spans_have_the_labels_of_the_model_and_offsets_of_the_text(
    client: httpx.AsyncClient, checkpoints: dict[str, Path]
) -> None:
    folder = checkpoints["tokens"]
    text = "Clara repaired the clock in  Berlin."
    row = ids(folder, text)
    with torch.inference_mode():
        logits = original(folder, "AlbertForTokenClassification")(torch.tensor([row])).logits[0]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]

    (result,) = (await ask(client, "/tokens", inputs=text))["results"]
    for span in result["spans"]:
        assert text[span["start"] : span["end"]] == span["text"]
        assert span["label"] in ("PER", "LOC")
        (first,) = (i for i, (start, end) in enumerate(offsets) if start == span["start"] and end > start)
        assert LABELS[int(logits[first].argmax())].endswith(span["label"])
    covered = {i for span in result["spans"] for i in range(span["start"], span["end"])}
    for index, (start, end) in enumerate(offsets):
        begins_a_word = end > start and (start == 0 or not (text[start - 1].isalnum() and text[start].isalnum()))
        if begins_a_word:
            assert (start in covered) == (LABELS[int(logits[index].argmax())] != "O")


async def test_a_long_text_is_read_in_windows_and_spans_come_in_order(client: httpx.AsyncClient) -> None:
    text = "Clara repaired the clock in Berlin. " * 40
    (result,) = (await ask(client, "/tokens", inputs=text))["results"]
    assert result["windows"] > 3
    places = [(one["start"], one["end"]) for one in result["spans"]]
    assert places == sorted(places)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
    assert places[-1][1] > len(text) // 2


async def test_vectors_are_the_mean_of_the_tokens_and_of_length_one(
    client: httpx.AsyncClient, checkpoints: dict[str, Path]
) -> None:
    folder = checkpoints["embed"]
    with torch.inference_mode():
        states = original(folder, "AlbertModel")(torch.tensor([ids(folder, TEXTS[0])])).last_hidden_state[0]
    mean = states.mean(0)

    found = (await ask(client, "/embed", inputs=TEXTS))["results"]
    np.testing.assert_allclose(found[0]["embedding"], mean / mean.norm(), atol=1e-5)
    assert [one.get("truncated") for one in found] == [False, False, True, None]
    assert "empty" in found[3]["error"]["message"]
    (raw,) = (await ask(client, "/embed", inputs=TEXTS[0], normalize=False))["results"]
    np.testing.assert_allclose(raw["embedding"], mean, rtol=1e-3, atol=1e-4)
    (whole,) = (await ask(client, "/embed", inputs=TEXTS[2], long_text="windows"))["results"]
    assert whole["tokens"] > 64
    assert np.linalg.norm(whole["embedding"]) == pytest.approx(1)
    assert (await client.post("/embed", json={"inputs": TEXTS[2], "long_text": "error"})).status_code == 422


@pytest.mark.parametrize("inputs", [TEXTS[0], [TEXTS[0]] * 3, [f"{n} {TEXTS[2]}" for n in range(120)]])
async def test_the_time_of_every_stage_is_told_whatever_the_size(client: httpx.AsyncClient, inputs: Any) -> None:
    response = await client.post("/embed", json={"inputs": inputs})
    told = response.headers["server-timing"]
    assert [one.partition(";")[0] for one in told.split(", ")] == ["encode", "queue", "run", "decode"]


async def test_the_best_choice_is_that_of_the_model(client: httpx.AsyncClient, checkpoints: dict[str, Path]) -> None:
    folder, prompt = checkpoints["choose"], "Where is the clock?"
    choices = ["in Berlin", "it was not good", "Clara repaired it"]
    model = original(folder, "AlbertForMultipleChoice")
    logits = []
    for choice in choices:
        row = torch.tensor([[ids(folder, prompt, choice)]])
        types = torch.zeros_like(row)
        types[..., len(ids(folder, prompt)) :] = 1
        with torch.inference_mode():
            logits.append(float(model(row, token_type_ids=types).logits[0, 0]))
    chances = torch.tensor(logits).softmax(0).tolist()

    answer = await ask(client, "/choose", prompt=prompt, choices=choices)
    assert [one["index"] for one in answer["choices"]] == sorted(range(3), key=lambda i: -chances[i])
    for one in answer["choices"]:
        assert one["text"] == choices[one["index"]]
        assert one["score"] == pytest.approx(chances[one["index"]], abs=1e-4)


async def test_of_a_long_dialogue_the_end_is_read(client: httpx.AsyncClient) -> None:
    long = "it was good . " * 40
    asked = [await ask(client, "/choose", prompt=long + end, choices=["no", "yes"]) for end in ("a", "the clock")]
    assert all(one["truncated"] for one in asked)
    assert asked[0]["choices"][0]["score"] != asked[1]["choices"][0]["score"]
    refused = await client.post("/choose", json={"prompt": long, "choices": ["no", "yes"], "long_prompt": "error"})
    assert refused.status_code == 422
    for choices in (["one"], [], ["a", ""], ["x"] * 65):
        assert (await client.post("/choose", json={"prompt": "a", "choices": choices})).status_code == 422


async def test_a_summary_is_sentences_of_the_text_in_their_order(client: httpx.AsyncClient) -> None:
    text = "Clara repaired the clock.  It was not good! Was it? 東京は大きい。größe 😀.\n\nThe end"
    answer = await ask(client, "/summarize", text=text, sentences=3)
    assert answer["of"] == 6
    assert len(answer["sentences"]) == 3
    places = [one["start"] for one in answer["sentences"]]
    assert places == sorted(places)
    for one in answer["sentences"]:
        assert text[one["start"] : one["end"]] == one["text"] == one["text"].strip()
    part = await ask(client, "/summarize", text=text, share=0.5)
    assert 0 < sum(len(one["text"]) for one in part["sentences"]) <= 0.5 * len(text)
    everything = await ask(client, "/summarize", text=text, share=1.0)
    assert len(everything["sentences"]) == 6
    assert len((await ask(client, "/summarize", text=text))["sentences"]) == 3
    for wrong in ({"text": " "}, {"text": text, "sentences": 2, "share": 0.5}, {"text": "\ud800."}):
        assert (await client.post("/summarize", content=json.dumps(wrong))).status_code == 422


async def test_a_model_of_another_task_is_409(client: httpx.AsyncClient) -> None:
    asked = {"inputs": "a [MASK]", "model": "embed"}
    assert (await client.post("/fill-mask", json=asked)).status_code == 409
    assert (await client.post("/classify", json=asked)).status_code == 409
    assert (await client.post("/classify", json={"inputs": "a"})).status_code == 404
