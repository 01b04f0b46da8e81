"""A Hugging Face ALBERT checkpoint, read safely: shape, weights, labels; or the reason why it cannot be converted."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from service.conversion.files import locate, read_json, read_weights
from service.conversion.tensorflow import is_tensorflow, read_config as read_google_config, read_tensors
from service.conversion.tokenizer_checks import check_tokenizer
from service.conversion.vocabulary import TokenizerFiles, tokenizer_json
from service.conversion.weight_checks import check_weights
from service.errors import CheckpointError

Task = Literal["text-classification", "question-answering"]
TASKS: dict[str, Task] = {
    "AlbertForSequenceClassification": "text-classification",
    "AlbertForQuestionAnswering": "question-answering",
    "AlbertForPreTraining": "text-classification",
}
EXACT_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate")  # one function, written in four ways
ACTIVATIONS = (*EXACT_GELU, *TANH_GELU, "relu", "silu", "swish")
PREFIXES = ("albert.", "bert.", "module.", "model.")
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
    config: dict[str, Any]  # config.json
    shape: Shape
    task: Task
    architecture: str
    labels: list[str]
    problem_type: str | None
    weights: dict[str, torch.Tensor]
    dtype: str  # of the file: float32 | float16
    tokenizer: str  # tokenizer.json
    special: dict[str, str]  # cls_token, sep_token

    @property
    def weight_bytes(self) -> int:
        """What the weights that serving needs take, in the stored precision."""
        size = 2 if self.dtype == "float16" else 4
        return size * sum(value.numel() for name, value in self.weights.items() if not name.startswith("predictions."))


def read_checkpoint(source: str, task: str | None = None) -> Checkpoint:
    """Read a folder, or fetch a hub id, and compare all that it says twice.

    CheckpointError says what is missing, what cannot be converted, or which file and field contradicts what.
    """
    folder = locate(source)
    foreign = is_tensorflow(folder)
    config = read_google_config(folder) if foreign else _config(folder)
    shape = _shape(folder, config)
    architecture = _architecture(folder, config, task)
    tensors = read_tensors(folder) if foreign else read_weights(folder)
    weights = {_name(name): value for name, value in tensors.items()}
    check_weights(folder, weights, shape, HEADS[architecture])
    labels, problem_type = _labels(folder, config, architecture, weights)
    files = TokenizerFiles.read(folder)
    tokenizer = tokenizer_json(files)
    check_tokenizer(files, tokenizer, shape.vocab_size)
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    if not dtypes <= DTYPES.keys():
        raise CheckpointError(
            f"{folder}: weights of type {dtypes - DTYPES.keys()}; wanted float32, float16 or bfloat16"
        )
    dtype = "float16" if dtypes == {torch.float16} else "float32"
    return Checkpoint(
        folder=folder,
        config=config,
        shape=shape,
        task=TASKS[architecture],
        architecture=architecture,
        labels=labels,
        problem_type=problem_type,
        weights=weights,
        dtype=dtype,
        tokenizer=tokenizer,
        special=dict(zip(("cls_token", "sep_token"), files.frame, strict=True)),
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(f"{folder}: no config.json in it, so it is not a Hugging Face checkpoint")
    config = read_json(path)
    if config.get("model_type") != "albert":
        raise CheckpointError(f"{path}: model_type is {config.get('model_type')!r}; only 'albert' can be converted")
    return config


def _shape(folder: Path, config: dict[str, Any]) -> Shape:
    from transformers import AlbertConfig

    path = folder / "config.json"
    try:
        full = AlbertConfig.from_dict(config)
        shape = Shape(**{field.name: getattr(full, field.name) for field in fields(Shape)})
    except Exception as error:
        raise CheckpointError(f"{path}: does not describe an ALBERT: {' '.join(str(error).split())}") from error
    for field in (field.name for field in fields(Shape) if field.type is int):
        value = getattr(shape, field)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{path}: {field} is {value!r}; wanted a whole number above 0")
    if shape.hidden_act not in ACTIVATIONS:
        raise CheckpointError(f"{path}: hidden_act is {shape.hidden_act!r}; can convert {', '.join(ACTIVATIONS)}")
    if shape.hidden_size % shape.num_attention_heads:
        raise CheckpointError(
            f"{path}: hidden_size is {shape.hidden_size}, which does not divide into num_attention_heads, "
            f"{shape.num_attention_heads} heads"
        )
    if shape.num_hidden_groups > shape.num_hidden_layers:
        raise CheckpointError(
            f"{path}: num_hidden_groups is {shape.num_hidden_groups} groups of layers, but num_hidden_layers only "
            f"{shape.num_hidden_layers}"
        )
    if shape.type_vocab_size < 2:
        raise CheckpointError(f"{path}: type_vocab_size is 1; texts in pairs and questions need 2 segment types")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(
            f"{path}: position_embedding_type is {config['position_embedding_type']!r}; wanted 'absolute'"
        )
    return shape


def _architecture(folder: Path, config: dict[str, Any], task: str | None) -> str:
    named = [name for name in config.get("architectures") or [] if name in TASKS]
    if task:
        fitting = [name for name in named if TASKS[name] == task]
        preferred = "AlbertForQuestionAnswering" if task == "question-answering" else "AlbertForSequenceClassification"
        return fitting[0] if fitting else preferred
    if named:
        first: str = named[0]
        return first
    raise CheckpointError(
        f"{folder / 'config.json'}: architectures is {config.get('architectures')!r}: can convert "
        f"{', '.join(TASKS)}. Fine-tune it for one of these first, or pass --task if the weights hold such a head."
    )


def _name(name: str) -> str:
    """Without what a wrapper put before it: DataParallel's ``module.``, another class's ``model.`` or ``bert.``."""
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    # Checkpoints made from TensorFlow's files call the layer norm's parameters gamma and beta.
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


HEADS = {
    "AlbertForSequenceClassification": "classifier",
    "AlbertForQuestionAnswering": "qa_outputs",
    "AlbertForPreTraining": "sop_classifier.classifier",
}


def _labels(
    folder: Path, config: dict[str, Any], architecture: str, weights: dict[str, torch.Tensor]
) -> tuple[list[str], str | None]:
    """Labels by index and the problem type; one output without a type is a yes or no, as transformers' pipeline has it.

    CheckpointError where the head, ``id2label``, ``label2id`` and ``num_labels`` do not agree.
    """
    if architecture == "AlbertForQuestionAnswering":
        return [], None
    if architecture == "AlbertForPreTraining":
        return ["in-order", "swapped"], "single_label_classification"
    path, count = folder / "config.json", len(weights["classifier.weight"])
    said = config.get("num_labels")
    if said is not None and said != count:
        raise CheckpointError(f"{path}: num_labels is {said!r}, but the head (classifier.weight) has {count} outputs")
    labels = _names(path, config, count)
    if len(set(labels)) != len(labels):
        raise CheckpointError(f"{path}: id2label names a label twice: {labels}")
    _check_numbers(path, config, labels)
    problem = config.get("problem_type") or "single_label_classification"
    if problem not in ("regression", "single_label_classification", "multi_label_classification"):
        raise CheckpointError(f"{path}: problem_type is {problem!r}, which transformers does not know either")
    return labels, problem


def _names(path: Path, config: dict[str, Any], count: int) -> list[str]:
    given = config.get("id2label")
    if not given:
        return [f"LABEL_{index}" for index in range(count)]
    try:
        names = {int(index): str(label) for index, label in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: id2label is not an object of numbers and labels") from error
    if sorted(names) != list(range(count)):
        raise CheckpointError(
            f"{path}: id2label names the outputs {sorted(names)}, but the head (classifier.weight) has {count}"
        )
    return [names[index] for index in range(count)]


def _check_numbers(path: Path, config: dict[str, Any], labels: list[str]) -> None:
    """``label2id`` is ``id2label`` turned round, or the names that transformers writes where nobody said any."""
    given = config.get("label2id") or {}
    if not isinstance(given, dict) or all(str(label) == f"LABEL_{number}" for label, number in given.items()):
        return
    for label, number in given.items():
        wanted = labels.index(label) if label in labels else None
        if str(number) != str(wanted):
            raise CheckpointError(f"{path}: label2id has {label!r} at {number}, but id2label has it at {wanted}")
