"""Checkpoints are read safely, and what cannot be converted is refused with the reason."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.conversion.checkpoint import read_checkpoint
from service.conversion.vocabulary import tokenizer_json
from service.errors import CheckpointError
from tests.checkpoints import save_checkpoint


def changed(folder: Path, **values: Any) -> Path:
    """Its config with some values set; None takes one away."""
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bert"}, "'bert'"),
        ({"model_type": None}, "only 'albert'"),
        ({"hidden_act": "silu"}, "silu"),
        ({"num_attention_heads": 7}, "heads"),
        ({"num_hidden_groups": 9}, "9 groups"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"architectures": ["AlbertForMaskedLM"]}, "AlbertForMaskedLM"),
        ({"architectures": None}, "None"),
        ({"architectures": ["AlbertForQuestionAnswering"]}, "qa_outputs"),
        ({"architectures": ["AlbertForPreTraining"]}, "sop_classifier"),
        ({"vocab_size": 31}, "31"),
        ({"problem_type": "ranking"}, "ranking"),
        ({"inner_group_num": 2}, "albert_layers.1"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    checkpoint: Path, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(str(changed(checkpoint, **values)))


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", "AlbertForQuestionAnswering", num_labels=3)

    with pytest.raises(CheckpointError, match="3 outputs"):
        read_checkpoint(str(folder))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint: Path, missing: str) -> None:
    (checkpoint / missing).unlink()

    with pytest.raises(CheckpointError, match=missing):
        read_checkpoint(str(checkpoint))


def test_a_missing_tokenizer_is_named(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()

    with pytest.raises(CheckpointError, match=r"no tokenizer\.json, no spiece\.model and no vocab\.txt"):
        tokenizer_json(checkpoint)


def test_broken_files_are_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        read_checkpoint(str(checkpoint))

    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_checkpoint(str(checkpoint))


def test_a_hub_id_that_cannot_be_fetched_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="Give the path of a folder"):
        read_checkpoint("nobody/no-such-albert")


def test_pytorch_bin_is_read_as_safetensors_is(checkpoint: Path) -> None:
    before = read_checkpoint(str(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    after = read_checkpoint(str(checkpoint))

    assert before.weights.keys() == after.weights.keys()
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)


def test_code_in_pytorch_bin_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))

    with pytest.raises(CheckpointError):
        read_checkpoint(str(checkpoint))
    assert not (tmp_path / "touched").exists()


def test_shards_are_put_together(checkpoint: Path) -> None:
    before = read_checkpoint(str(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: weights[name] for name in chosen}, checkpoint / file)
    index = {"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))

    assert read_checkpoint(str(checkpoint)).weights.keys() == before.weights.keys()


def test_the_old_names_of_layer_norms_are_understood(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
    }
    save_file(old, checkpoint / "model.safetensors")

    assert "embeddings.LayerNorm.weight" in read_checkpoint(str(checkpoint)).weights


def test_labels_come_from_the_config(tmp_path: Path) -> None:
    named = save_checkpoint(tmp_path / "named", id2label={0: "ham", 1: "spam"}, label2id={"ham": 0, "spam": 1})

    assert read_checkpoint(str(named)).labels == ["ham", "spam"]


def test_a_label_named_twice_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="twice"):
        read_checkpoint(str(changed(checkpoint, id2label={"0": "same", "1": "same"})))


def test_the_sentence_order_head_becomes_a_classifier_of_pairs(tmp_path: Path) -> None:
    read = read_checkpoint(str(save_checkpoint(tmp_path / "checkpoint", "AlbertForPreTraining")))

    assert (read.task, read.labels) == ("text-classification", ["in-order", "swapped"])
