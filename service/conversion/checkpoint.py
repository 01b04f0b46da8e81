"""A Hugging Face ALBERT checkpoint, read safely: shape, weights, labels; or the reason why it cannot be converted."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from service.errors import CheckpointError

Task = Literal["text-classification", "question-answering"]
TASKS: dict[str, Task] = {
    "AlbertForSequenceClassification": "text-classification",
    "AlbertForQuestionAnswering": "question-answering",
    "AlbertForPreTraining": "text-classification",
}
ACTIVATIONS = ("gelu", "gelu_new", "relu")
DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "float32"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of ``AlbertConfig`` that shape the graphs, under its own names."""

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    num_hidden_groups: int
    inner_group_num: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``weights`` are under their names without the ``albert.`` prefix, in the precision they were stored in."""

    folder: Path
    shape: Shape
    task: Task
    architecture: str
    labels: list[str]
    problem_type: str | None
    weights: dict[str, torch.Tensor]
    dtype: str  # of the file: float32 | float16
    special: dict[str, str]  # cls_token, sep_token

    @property
    def weight_bytes(self) -> int:
        """What the weights that serving needs take, in the stored precision."""
        size = 2 if self.dtype == "float16" else 4
        return size * sum(value.numel() for name, value in self.weights.items() if not name.startswith("predictions."))


def read_checkpoint(source: str, task: str | None = None) -> Checkpoint:
    """Read a folder, or fetch a hub id.  CheckpointError says what is missing or what cannot be converted."""
    folder = locate(source)
    config = _config(folder)
    shape = _shape(config)
    architecture = _architecture(config, task)
    weights = {_name(name): value for name, value in read_weights(folder).items()}
    labels, problem_type = _labels(config, architecture, weights)
    _check_weights(weights, shape, architecture)
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    if not dtypes <= DTYPES.keys():
        raise CheckpointError(
            f"{folder}: weights of type {dtypes - DTYPES.keys()}; wanted float32, float16 or bfloat16"
        )
    dtype = "float16" if dtypes == {torch.float16} else "float32"
    return Checkpoint(
        folder, shape, TASKS[architecture], architecture, labels, problem_type, weights, dtype, _special(folder)
    )


def locate(source: str) -> Path:
    """``source`` itself where it is a folder; else the hub's copy, fetched without running any of its code."""
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download

        wanted = ["*.json", "*.safetensors", "pytorch_model.bin", "*.model", "vocab.txt"]
        return Path(snapshot_download(source, allow_patterns=wanted))
    except Exception as error:  # the hub client has a dozen kinds; each means the same here
        raise CheckpointError(
            f"{source!r} is neither a folder here nor a checkpoint that the hub gave ({type(error).__name__}: "
            f"{error}). "
            "Give the path of a folder with config.json, the weights and the tokenizer's files."
        ) from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """``model.safetensors`` (or its shards), else ``pytorch_model.bin`` read as tensors only, never as code."""
    shards = folder / "model.safetensors.index.json"
    try:
        if shards.exists():
            files = sorted(set(json.loads(shards.read_text())["weight_map"].values()))
            return {name: value for file in files for name, value in load_file(folder / file).items()}
        if (folder / "model.safetensors").exists():
            whole: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
            return whole
        if (folder / "pytorch_model.bin").exists():
            loaded: dict[str, torch.Tensor] = torch.load(
                folder / "pytorch_model.bin", map_location="cpu", weights_only=True
            )
            return loaded
    except Exception as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin in it")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no config.json in it, so it is not a Hugging Face checkpoint") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if config.get("model_type") != "albert":
        raise CheckpointError(f"{path}: model_type is {config.get('model_type')!r}; only 'albert' can be converted")
    return config


def _shape(config: dict[str, Any]) -> Shape:
    from transformers import AlbertConfig

    try:
        full = AlbertConfig.from_dict(config)
        shape = Shape(**{field.name: getattr(full, field.name) for field in fields(Shape)})
    except Exception as error:
        raise CheckpointError(f"config.json does not describe an ALBERT: {error}") from error
    if shape.hidden_act not in ACTIVATIONS:
        raise CheckpointError(f"hidden_act is {shape.hidden_act!r}; can convert {', '.join(ACTIVATIONS)}")
    if shape.hidden_size % shape.num_attention_heads:
        raise CheckpointError(f"{shape.hidden_size} hidden units do not divide into {shape.num_attention_heads} heads")
    if shape.num_hidden_groups > shape.num_hidden_layers:
        raise CheckpointError(f"{shape.num_hidden_groups} groups of layers, but only {shape.num_hidden_layers} layers")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"position_embedding_type is {config['position_embedding_type']!r}; wanted 'absolute'")
    return shape


def _architecture(config: dict[str, Any], task: str | None) -> str:
    named = [name for name in config.get("architectures") or [] if name in TASKS]
    if task:
        fitting = [name for name in named if TASKS[name] == task]
        preferred = "AlbertForQuestionAnswering" if task == "question-answering" else "AlbertForSequenceClassification"
        return fitting[0] if fitting else preferred
    if named:
        first: str = named[0]
        return first
    raise CheckpointError(
        f"architectures is {config.get('architectures')!r}: can convert {', '.join(TASKS)}. Fine-tune it for one of "
        "these first, or pass --task if the weights hold such a head."
    )


def _name(name: str) -> str:
    # Checkpoints made from TensorFlow's files call the layer norm's parameters gamma and beta.
    return name.removeprefix("albert.").replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )  # fmt: skip


HEADS = {
    "AlbertForSequenceClassification": "classifier",
    "AlbertForQuestionAnswering": "qa_outputs",
    "AlbertForPreTraining": "sop_classifier.classifier",
}


def _labels(
    config: dict[str, Any], architecture: str, weights: dict[str, torch.Tensor]
) -> tuple[list[str], str | None]:
    """Labels by index and the problem type; as transformers decides it where the config does not say."""
    if architecture == "AlbertForQuestionAnswering":
        return [], None
    if architecture == "AlbertForPreTraining":
        return ["in-order", "swapped"], "single_label_classification"
    head = weights.get("classifier.weight")
    count = len(head) if head is not None else 0
    names = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    labels = [names.get(index, f"LABEL_{index}") for index in range(count)]
    if len(set(labels)) != len(labels):
        raise CheckpointError(f"id2label names a label twice: {labels}")
    problem = config.get("problem_type") or ("regression" if count == 1 else "single_label_classification")
    if problem not in ("regression", "single_label_classification", "multi_label_classification"):
        raise CheckpointError(f"problem_type is {problem!r}, which transformers does not know either")
    return labels, problem


def _check_weights(weights: dict[str, torch.Tensor], shape: Shape, architecture: str) -> None:
    wanted = ["embeddings.word_embeddings.weight", "encoder.embedding_hidden_mapping_in.weight"]
    groups = [(g, i) for g in range(shape.num_hidden_groups) for i in range(shape.inner_group_num)]
    wanted += [f"encoder.albert_layer_groups.{g}.albert_layers.{i}.ffn.weight" for g, i in groups]
    wanted += [f"{HEADS[architecture]}.weight", f"{HEADS[architecture]}.bias"]
    if architecture != "AlbertForQuestionAnswering":
        wanted.append("pooler.weight")
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise CheckpointError(f"the weights hold no {missing[0]}: they are not those of {architecture}")
    rows = tuple(weights["embeddings.word_embeddings.weight"].shape)
    if rows != (shape.vocab_size, shape.embedding_size):
        raise CheckpointError(f"word embeddings are {rows}, config.json says {shape.vocab_size, shape.embedding_size}")
    outputs = len(weights[f"{HEADS[architecture]}.weight"])
    if architecture == "AlbertForQuestionAnswering" and outputs != 2:
        raise CheckpointError(f"the question answering head has {outputs} outputs; wanted 2, first and last token")


def _special(folder: Path) -> dict[str, str]:
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        named = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for name in special:
            value = named.get(name)
            special[name] = (value["content"] if isinstance(value, dict) else value) or special[name]
    return special
