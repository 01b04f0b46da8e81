"""A Hugging Face ALBERT checkpoint, read safely: shape, weights, labels; or the reason why it cannot be converted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..heads import TASKS, Head
from . import tensorflow
from .files import locate, read_json, read_weights, weights_file
from .shape import Shape, read_shape
from .tokenizer_checks import check_tokenizer
from .vocabulary import FRAME, TokenizerFiles, mask_token, read_pooling, tokenizer_json
from .weight_checks import check_weights

CLASSES = {  # task and the head's own module by class; the first of a task is that of weights that name no class
    "AlbertForSequenceClassification": ("text-classification", "classifier"),
    "AlbertForQuestionAnswering": ("question-answering", "qa_outputs"),
    "AlbertForPreTraining": ("text-classification", "sop_classifier.classifier"),
    "AlbertForTokenClassification": ("token-classification", "classifier"),
    "AlbertForMaskedLM": ("fill-mask", "predictions"),
    "AlbertForMultipleChoice": ("multiple-choice", "classifier"),
    "AlbertModel": ("feature-extraction", None),
}
HEADS = {name: head for name, (_, head) in CLASSES.items()}
PREFIXES = ("albert.", "bert.", "module.", "model.")
DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "float32"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``weights`` are under their names without the ``albert.`` prefix, in the precision they were stored in."""

    folder: Path
    shape: Shape
    task: str
    architecture: str
    labels: list[str]
    problem_type: str | None
    weights: dict[str, torch.Tensor]
    dtype: str  # of the file: float32 | float16
    files: TokenizerFiles
    tokenizer: str  # tokenizer.json

    @property
    def head(self) -> Head:
        return TASKS[self.task].head

    @property
    def pooling(self) -> str | None:
        """Of a model of vectors: as sentence-transformers' files say, else the mean of the tokens."""
        return read_pooling(self.folder) if self.head is Head.STATES else None

    @property
    def special(self) -> dict[str, str]:
        frame = dict(zip(FRAME, self.files.frame, strict=True))
        return frame | ({"mask_token": mask_token(self.files)} if self.head is Head.MASKS else {})

    @property
    def weight_bytes(self) -> int:
        """What the weights that serving needs take, in the stored precision."""
        size = 2 if self.dtype == "float16" else 4
        unused = () if self.head is Head.MASKS else ("predictions.",)
        return size * sum(value.numel() for name, value in self.weights.items() if not name.startswith(unused))


def read_checkpoint(source: str, task: str | None = None) -> Checkpoint:
    """Read a folder, or fetch a hub id, and compare all that it says twice.

    CheckpointError says what is missing, what cannot be converted, or which file and field contradicts what.
    """
    folder = locate(source)
    path, config = read_config(folder)
    shape = read_shape(path, config)
    architecture = _architecture(path, config, task)
    file, weights = read_named_weights(folder)
    check_weights(file, path, weights, shape, CLASSES[architecture])
    labels, problem_type = _labels(path, architecture, config, weights)
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
        shape=shape,
        task=CLASSES[architecture][0],
        architecture=architecture,
        labels=labels,
        problem_type=problem_type,
        weights=weights,
        dtype=dtype,
        files=files,
        tokenizer=tokenizer,
    )


def read_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of the configuration, and what it says in transformers' terms.  CheckpointError if it is no ALBERT."""
    if tensorflow.is_tensorflow(folder):
        return tensorflow.config_file(folder), tensorflow.read_config(folder)
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(f"{folder}: no config.json in it, so it is not a Hugging Face checkpoint")
    config = read_json(path)
    if config.get("model_type") != "albert":
        raise CheckpointError(f"{path}: model_type is {config.get('model_type')!r}; only 'albert' can be converted")
    return path, config


def read_named_weights(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """The file of the weights, and all of them by their names without prefix, as they are stored."""
    google = tensorflow.is_tensorflow(folder)
    stored = tensorflow.read_tensors(folder) if google else read_weights(folder)
    file = tensorflow.weights_file(folder) if google else weights_file(folder)
    return file, {_name(name): value for name, value in stored.items()}


def _architecture(path: Path, config: dict[str, Any], task: str | None) -> str:
    named: list[str] = [name for name in config.get("architectures") or [] if name in CLASSES]
    if task:
        return next(name for name in (*named, *CLASSES) if CLASSES[name][0] == task)
    if named:
        first: str = named[0]
        return first
    raise CheckpointError(
        f"{path}: architectures is {config.get('architectures')!r}: can convert "
        f"{', '.join(CLASSES)}. Fine-tune it for one of these first, or pass --task if the weights hold such a head."
    )


def _name(name: str) -> str:
    """Without what a wrapper put before it: DataParallel's ``module.``, another class's ``model.`` or ``bert.``."""
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    # Checkpoints made from TensorFlow's files call the layer norm's parameters gamma and beta.
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _labels(
    path: Path, architecture: str, config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[list[str], str | None]:
    """Labels by index and the problem type; one output without a type is a yes or no, as transformers' pipeline has it.

    CheckpointError where the head, ``id2label``, ``label2id`` and ``num_labels`` do not agree.
    """
    if not TASKS[CLASSES[architecture][0]].labelled:
        return [], None
    if architecture == "AlbertForPreTraining":
        return ["in-order", "swapped"], "single_label_classification"
    count = len(weights["classifier.weight"])
    said = config.get("num_labels")
    if said is not None and said != count:
        raise CheckpointError(f"{path}: num_labels is {said!r}, but the head (classifier.weight) has {count} outputs")
    labels = _names(path, config, count)
    if len(set(labels)) != len(labels):
        raise CheckpointError(f"{path}: id2label names a label twice: {labels}")
    _check_numbers(path, config, labels)
    if CLASSES[architecture][0] == "token-classification":
        return labels, None
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
