"""Our labels and scores against those of today's text classification pipeline, on the same weights, in float32."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast, pipeline

from service.conversion.pipeline import Options, convert
from service.conversion.precision import staged_engine
from service.conversion.texts import SENTENCES
from service.errors import InvalidRequest
from service.repository.store import read_manifest
from service.tasks.classification import Activation, Classification, EncodedText
from service.types import Floats
from tests.checkpoints import save_checkpoint

SCORES = 1e-4  # how far a score may be off: float32 sums in another order
NAMES = {"id2label": dict(enumerate(["red", "green", "blue"])), "label2id": {"red": 0, "green": 1, "blue": 2}}
HEADS: dict[str, dict[str, Any]] = {
    "labels": NAMES,
    "single label": NAMES | {"problem_type": "single_label_classification"},
    "multi label": NAMES | {"problem_type": "multi_label_classification"},
    "values": NAMES | {"problem_type": "regression"},
    "one output": {"num_labels": 1},
    "one output, multi label": {"num_labels": 1, "problem_type": "multi_label_classification"},
    "one value": {"num_labels": 1, "problem_type": "regression"},
}
TEXTS: list[str | dict[str, str]] = [SENTENCES[0], SENTENCES[2], "ok", "?", "Wrocław, São Paulo!", SENTENCES[3]]
PAIRS: list[str | dict[str, str]] = [
    {"text": "ok", "text_pair": SENTENCES[2]},
    {"text": SENTENCES[2], "text_pair": "It was not good."},
    {"text": "?", "text_pair": "?"},
]
FUNCTIONS: list[Activation | None] = [None, "softmax", "sigmoid", "none"]


@dataclasses.dataclass(frozen=True)
class Classifiers:
    """One checkpoint twice: as the pipeline, and as our task with the logits of every text."""

    theirs: Any
    task: Classification
    logits: Mapping[int, Floats]

    def ours(self, number: int, top_k: int | None, activation: Activation | None) -> list[tuple[str, float]]:
        encoded = encode(self.task, (TEXTS + PAIRS)[number])
        return self.task.decode(encoded, [self.logits[number]], top_k=top_k, activation=activation).labels


def encode(task: Classification, text: str | dict[str, str]) -> EncodedText:
    return task.encode(text) if isinstance(text, str) else task.encode(text["text"], text["text_pair"])


def their_tokenizer(checkpoint: Path) -> PreTrainedTokenizerFast:
    """With segment ids, which the class leaves out unless told."""
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint / "tokenizer.json"), model_input_names=names, **special
    )


@pytest.fixture(scope="module", params=HEADS)
def classifiers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifiers:
    folder = tmp_path_factory.mktemp("classifier")
    checkpoint = save_checkpoint(folder / "checkpoint", **HEADS[request.param])
    version = convert(str(checkpoint), folder / "repository", Options("m", precision="fp32"))
    engine = staged_engine(version, read_manifest(version), exact=True)
    assert isinstance(engine.task, Classification)
    rows = [encode(engine.task, text).sequences[0] for text in TEXTS + PAIRS]
    theirs = pipeline("text-classification", model=str(checkpoint), tokenizer=their_tokenizer(checkpoint), device="cpu")
    return Classifiers(theirs, engine.task, dict(enumerate(engine.run(rows))))


@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_labels_and_scores_are_todays_pipelines(
    classifiers: Classifiers, function: Activation | None, top_k: int | None
) -> None:
    for number, text in enumerate(TEXTS + PAIRS):
        theirs = classifiers.theirs(text, top_k=top_k, function_to_apply=function)
        ours = classifiers.ours(number, top_k, function)

        assert [label for label, _ in ours] == [one["label"] for one in theirs]
        assert [score for _, score in ours] == pytest.approx([one["score"] for one in theirs], abs=SCORES)


def test_a_long_text_is_cut_where_the_pipeline_cuts_it(classifiers: Classifiers) -> None:
    task, tokenizer, few, many = classifiers.task, classifiers.theirs.tokenizer, "ok " * 40, "ok " * 90

    for first, second in ((many, None), (few, many), ("ok", many), (many, "ok"), (many, many), (many, few)):
        cut = tokenizer(first, second, truncation=True, max_length=task.max_length)["input_ids"]
        encoded = task.encode(first, second)

        assert encoded.sequences[0].ids.tolist() == cut
        assert encoded.truncated


def test_an_empty_text_is_refused(classifiers: Classifiers) -> None:
    """The pipeline gives labels to [CLS] [SEP]."""
    assert classifiers.theirs("")[0]["score"]
    with pytest.raises(InvalidRequest, match="empty"):
        classifiers.task.encode("")
