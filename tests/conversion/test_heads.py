"""The heads beside a classifier's and a reader's: converted, compared, given back as they came, or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from service.cli import main
from service.conversion.checkpoint import read_checkpoint
from service.conversion.export import export_version
from service.conversion.formats import export_as
from service.conversion.pipeline import Options, convert, verify_published
from service.errors import CheckpointError
from service.repository.store import read_manifest
from service.runtime.providers import choose
from service.serving.loading import LoadOptions, load
from tests.checkpoints import save_checkpoint

CLASSES = {
    "fill-mask": "AlbertForMaskedLM",
    "token-classification": "AlbertForTokenClassification",
    "feature-extraction": "AlbertModel",
    "multiple-choice": "AlbertForMultipleChoice",
}


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("task", "kind"), CLASSES.items())
def test_every_head_answers_as_the_original_and_comes_back_as_it_went(
    task: str, kind: str, half: bool, groups: int, tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "source", kind, half=half, num_hidden_groups=groups)
    version = convert(str(source), tmp_path / "repository", Options("model"))
    manifest = read_manifest(version)
    assert manifest.task == task
    assert manifest.parity["different_answers"] == 0

    export_version(version, tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "back"))
    plain = {name.removeprefix("albert."): value for name, value in before.items()}
    given = {name.removeprefix("albert."): value for name, value in after.items()}
    assert given.keys() <= plain.keys()
    assert {name.partition(".")[0] for name in plain.keys() - given.keys()} <= {"pooler", "predictions"}
    for name, value in given.items():
        assert torch.equal(value, plain[name]), name
    again = convert(str(tmp_path / "back"), tmp_path / "repository", Options("again"))
    assert (again / "weights.bin").read_bytes() == (version / "weights.bin").read_bytes()
    assert verify_published(again, str(source))["different_answers"] == 0


@pytest.mark.parametrize("task", ["fill-mask", "token-classification", "feature-extraction"])
def test_every_head_as_one_padded_graph(task: str, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", CLASSES[task], num_hidden_layers=2)
    export_as(source, "onnx", tmp_path / "out", "mine")
    (output,) = onnx.load(tmp_path / "out" / "model.onnx").graph.output
    assert [one.dim_param for one in output.type.tensor_type.shape.dim][:2] == ["batch", "sequence"]


def test_choices_are_exported_as_a_checkpoint_only(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertForMultipleChoice")
    with pytest.raises(CheckpointError, match="checkpoint only"):
        export_as(source, "onnx", tmp_path / "out", "mine")


def test_a_pretrained_checkpoint_fills_masks_where_that_is_asked_for(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertForPreTraining")
    assert read_checkpoint(str(source)).task == "text-classification"  # the order of sentences
    version = convert(str(source), tmp_path / "repository", Options("words", task="fill-mask"))
    assert read_manifest(version).tokenizer.mask_token == "[MASK]"


def test_any_checkpoint_gives_vectors_where_that_is_asked_for(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertForSequenceClassification")
    version = convert(str(source), tmp_path / "repository", Options("vectors", task="feature-extraction"))
    engine = load(version, LoadOptions(choose("cpu")))
    encoded = engine.task.encode("it was not good")
    (states,) = engine.run(encoded.sequences)
    assert engine.task.decode(encoded, [states]).shape == (48,)


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [({"cls_token": True}, "cls"), ({"mean_tokens": True, "cls_token": False}, "mean"), ({"max_tokens": True}, None)],
)
def test_vectors_are_pooled_as_sentence_transformers_files_say(
    modes: dict[str, bool], pooling: str | None, tmp_path: Path
) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertModel")
    (source / "1_Pooling").mkdir()
    said = {f"pooling_mode_{name}": on for name, on in modes.items()}
    (source / "1_Pooling" / "config.json").write_text(json.dumps(said))
    if pooling is None:
        with pytest.raises(CheckpointError, match="pooled by mean or by cls"):
            convert(str(source), tmp_path / "repository", Options("vectors"))
        return
    version = convert(str(source), tmp_path / "repository", Options("vectors"))
    assert read_manifest(version).pooling == pooling
    export_version(version, tmp_path / "back")
    assert read_checkpoint(str(tmp_path / "back")).pooling == pooling


def test_a_module_after_the_model_that_is_not_served_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "source", "AlbertModel")
    kinds = ["Transformer", "Pooling", "Normalize"]
    (source / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{one}"} for one in kinds]))
    assert read_checkpoint(str(source)).pooling == "mean"
    (source / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(CheckpointError, match="'Dense'"):
        convert(str(source), tmp_path / "repository", Options("vectors"))


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def without_mask(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("[MASK]", "[OTHER]"))


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a decoder of its own": (
        "AlbertForMaskedLM",
        changed(lambda t: t.update({"predictions.decoder.weight": t["albert.embeddings.word_embeddings.weight"] + 1})),
        "ALBERT has one of both",
    ),
    "no bias of the vocabulary": (
        "AlbertForMaskedLM", changed(lambda t: t.pop("predictions.bias")), "hold no predictions.bias",
    ),
    "NaN in the head": (
        "AlbertForMaskedLM", changed(lambda t: t["predictions.dense.weight"].fill_(float("nan"))), "holds nan",
    ),
    "no mask": ("AlbertForMaskedLM", without_mask, "which masks a word"),
    "two outputs a choice": (
        "AlbertForMultipleChoice",
        changed(lambda t: t.update({"classifier.weight": torch.ones(2, 48), "classifier.bias": torch.ones(2)})),
        "the multiple-choice head has 2 outputs",
    ),
    "fewer labels than outputs": (
        "AlbertForTokenClassification",
        changed(lambda t: t.update({"classifier.weight": torch.ones(3, 48), "classifier.bias": torch.ones(3)})),
        "the head (classifier.weight) has 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_head_that_is_none_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, change, said = REFUSED[case]
    config: dict[str, Any] = {"num_labels": 4} if "Token" in kind else {}
    source = save_checkpoint(tmp_path / "source", kind, **config)
    change(source)
    command = ["convert", str(source), "--name", "m", "--model-repo", str(tmp_path / "repository")]
    assert main(command) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in last
