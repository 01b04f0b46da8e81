"""Checkpoints are read safely, and what cannot be converted is refused with the reason."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.conversion.checkpoint import read_checkpoint
from service.conversion.export import export_version
from service.conversion.pipeline import Options, convert
from service.conversion.shape import ACTIVATIONS
from service.conversion.vocabulary import TokenizerFiles
from service.errors import CheckpointError
from service.repository.store import read_manifest
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
        ({"hidden_act": "mish"}, "config.json: hidden_act is 'mish'"),
        ({"num_attention_heads": 7}, "heads"),
        ({"num_hidden_groups": 9}, "9 groups"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"architectures": ["AlbertForMaskedLM"]}, "no predictions.dense.weight"),
        ({"architectures": ["AlbertForNextSentencePrediction"]}, "AlbertForNextSentencePrediction"),
        ({"architectures": None}, "None"),
        ({"architectures": ["AlbertForQuestionAnswering"]}, "qa_outputs"),
        ({"architectures": ["AlbertForPreTraining"]}, "sop_classifier"),
        ({"vocab_size": 31}, "31"),
        ({"problem_type": "ranking"}, "ranking"),
        ({"inner_group_num": 2}, "albert_layers.1"),
        ({"type_vocab_size": 1}, "type_vocab_size"),
        ({"type_vocab_size": 3}, "type_vocab_size is 3, but .* has 2"),
        ({"max_position_embeddings": 128}, "max_position_embeddings is 128, but .* has 64"),
        ({"intermediate_size": 100}, "intermediate_size is 100"),
        ({"hidden_size": "48"}, "hidden_size"),
        ({"id2label": {"0": "one"}}, r"id2label names the outputs \[0\], but .* has 2"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "label2id"),
        ({"num_labels": 3}, "num_labels is 3"),
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
        TokenizerFiles.read(checkpoint)


def test_broken_files_are_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "pooler.bias"])
def test_a_weight_that_is_no_number_is_refused(checkpoint: Path, name: str, value: float) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights[f"albert.{name}"].view(-1)[7] = value
    save_file(weights, checkpoint / "model.safetensors")

    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(str(checkpoint))


@pytest.mark.parametrize("prefix", ["bert.", "module.", "model.", "module.albert."])
def test_what_a_wrapper_put_before_the_names_is_taken_away(checkpoint: Path, prefix: str) -> None:
    before = read_checkpoint(str(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    wrapped = {prefix + name.removeprefix("albert."): value for name, value in weights.items()}
    save_file(wrapped, checkpoint / "model.safetensors")

    assert read_checkpoint(str(checkpoint)).weights.keys() == before.weights.keys()


def test_shards_of_pytorch_bin_are_put_together_and_a_missing_one_is_named(checkpoint: Path) -> None:
    before = read_checkpoint(str(checkpoint))
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    parts = {"pytorch_model-1.bin": sorted(weights)[::2], "pytorch_model-2.bin": sorted(weights)[1::2]}
    for file, names in parts.items():
        torch.save({name: weights[name] for name in names}, checkpoint / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    assert read_checkpoint(str(checkpoint)).weights.keys() == before.weights.keys()

    (checkpoint / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model-2\.bin: not there"):
        read_checkpoint(str(checkpoint))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(checkpoint: Path, file: str) -> None:
    (checkpoint / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")

    with pytest.raises(CheckpointError, match=f"{file}: a git-lfs pointer"):
        read_checkpoint(str(checkpoint))


@pytest.mark.parametrize("file", ["config.json", "special_tokens_map.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("content", "said"), [("\ufeff{}", "byte order mark"), ("[]", "list"), ("{", "not JSON")])
def test_json_that_is_none_is_named(checkpoint: Path, file: str, content: str, said: str) -> None:
    (checkpoint / file).write_text(content, encoding="utf-8")

    with pytest.raises(CheckpointError, match=f"{file}.*{said}"):
        read_checkpoint(str(checkpoint))


def test_a_tokenizer_with_more_pieces_than_rows_is_refused(checkpoint: Path) -> None:
    (checkpoint / "added_tokens.json").write_text("{}")
    definition = json.loads((checkpoint / "tokenizer.json").read_text())
    definition["model"]["vocab"]["toomuch"] = max(definition["model"]["vocab"].values()) + 1
    (checkpoint / "tokenizer.json").write_text(json.dumps(definition))

    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the piece 'toomuch'.*vocab_size"):
        read_checkpoint(str(checkpoint))


@pytest.mark.parametrize("field", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_a_tokenizer_config_that_contradicts_the_tokenizer_is_refused(checkpoint: Path, field: str) -> None:
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps({field: True}))
    read_checkpoint(str(checkpoint))

    path.write_text(json.dumps({field: False}))
    with pytest.raises(CheckpointError, match=f"tokenizer_config.json: {field} is false"):
        read_checkpoint(str(checkpoint))


def test_frames_that_two_files_name_otherwise_are_refused(checkpoint: Path) -> None:
    (checkpoint / "special_tokens_map.json").write_text(json.dumps({"cls_token": {"content": "[SEP]"}}))
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"cls_token": "[CLS]"}))

    with pytest.raises(CheckpointError, match=r"special_tokens_map\.json: cls_token"):
        read_checkpoint(str(checkpoint))


def test_one_output_without_a_type_is_a_yes_or_no(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", num_labels=1)

    assert read_checkpoint(str(changed(folder, problem_type=None))).problem_type == "single_label_classification"


@pytest.mark.parametrize("act", [name for name in ACTIVATIONS if name not in ("gelu", "gelu_new", "relu")])
def test_every_activation_that_is_taken_answers_as_the_original(tmp_path: Path, act: str) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", hidden_act=act)

    assert read_manifest(convert(str(folder), tmp_path / "repo", Options("act"))).parity["different_answers"] == 0


@pytest.mark.parametrize(
    "values", [{"return_dict": False}, {"output_attentions": True}, {"torchscript": True}], ids=str
)
def test_what_the_config_says_of_outputs_changes_nothing(
    checkpoint: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    folder = changed(checkpoint, **values)

    assert read_manifest(convert(str(folder), tmp_path / "repo", Options("odd"))).parity["different_answers"] == 0


def test_wrapped_names_answer_as_the_original(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    save_file({f"module.{name}": value for name, value in weights.items()}, checkpoint / "model.safetensors")

    assert read_manifest(convert(str(checkpoint), tmp_path / "repo", Options("x"))).parity["different_answers"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options("x", window=4), "--window 4"),
        (Options("x", window=600), "--window 600"),
        (Options("x", window=32, overlap=32), "--overlap 32"),
        (Options("x", overlap=-1), "--overlap -1"),
    ],
)
def test_windows_that_cannot_be_are_refused(checkpoint: Path, tmp_path: Path, options: Options, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        convert(str(checkpoint), tmp_path / "repo", options)


def test_a_reader_without_room_for_a_question_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", "AlbertForQuestionAnswering", max_position_embeddings=16)

    with pytest.raises(CheckpointError, match="max_position_embeddings is 16"):
        convert(str(folder), tmp_path / "repo", Options("x"))


def test_one_label_is_taken_with_any_type_and_comes_back_from_an_export(tmp_path: Path) -> None:
    """transformers itself refuses to make the first of these configurations."""
    folder = changed(save_checkpoint(tmp_path / "one", num_labels=1), problem_type="single_label_classification")
    published = convert(str(folder), tmp_path / "repo", Options("one"))
    export_version(published, tmp_path / "back")

    back = read_checkpoint(str(tmp_path / "back"))
    assert (back.labels, back.problem_type) == (["LABEL_0"], "single_label_classification")
    assert "problem_type" not in json.loads((tmp_path / "back" / "config.json").read_text())


@pytest.mark.parametrize(
    "values", [{"id2label": {"0": "one"}}, {"id2label": {"a": "one", "b": "two"}}, {"num_labels": 3}], ids=str
)
def test_labels_that_contradict_the_head_are_named_by_their_field(
    checkpoint: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {next(iter(values))} "):
        read_checkpoint(str(changed(checkpoint, **values)))
    assert capsys.readouterr().err == ""  # transformers has nothing to say beside it


def test_a_weight_is_named_with_its_file(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["albert.pooler.bias"]
    save_file(weights, checkpoint / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"model\.safetensors: the weights hold no pooler\.bias"):
        read_checkpoint(str(checkpoint))


@pytest.mark.parametrize(
    "change",
    [
        {"single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]},
        {"types": 0},
    ],
    ids=["no end", "one type"],
)
def test_another_frame_is_refused(checkpoint: Path, change: dict[str, Any]) -> None:
    """Of a single text, and in the types of a pair's tokens."""
    definition = json.loads((checkpoint / "tokenizer.json").read_text())
    second = change.pop("types", 1)
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("[CLS]", 2), ("[SEP]", 3))}
    start, end = ({"SpecialToken": {"id": name, "type_id": 0}} for name in tokens)
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tail = [{"Sequence": {"id": "B", "type_id": second}}, {"SpecialToken": {"id": "[SEP]", "type_id": second}}]
    frame = {"type": "TemplateProcessing", "single": [start, text, end], "special_tokens": tokens}
    definition["post_processor"] = frame | {"pair": [start, text, end, *tail]} | change
    (checkpoint / "tokenizer.json").write_text(json.dumps(definition))

    with pytest.raises(CheckpointError, match=r"tokenizer\.json: post_processor"):
        read_checkpoint(str(checkpoint))


def test_a_token_that_is_not_there_is_named_with_the_file_that_asks_for_it(checkpoint: Path) -> None:
    (checkpoint / "special_tokens_map.json").write_text(json.dumps({"cls_token": "<begin>"}))

    with pytest.raises(CheckpointError, match=r"special_tokens_map\.json: cls_token is '<begin>'"):
        read_checkpoint(str(checkpoint))
