"""Every tensor that serving reads, compared with the numbers of config.json, and looked through for NaN."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..heads import TASKS, Head
from .shape import Shape

OUTPUTS = {"question-answering": (2, "2, first and last token"), "multiple-choice": (1, "1, how well a choice fits")}
TIED = {
    "predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
}
GROUPS = "encoder.albert_layer_groups."


def check_weights(
    file: Path, config: Path, weights: Mapping[str, torch.Tensor], shape: Shape, kind: tuple[str, str | None] | None
) -> None:
    """``weights`` were read from ``file``, the shape from ``config``.  ``kind``: the task, and its head's own module;
    None asks for the body alone.

    CheckpointError names the tensor, and the field that it contradicts.
    """
    wanted = dict(expected_tensors(shape, kind))
    for name, sizes in wanted.items():
        if name not in weights:
            raise CheckpointError(f"{file}: the weights hold no {name}, which {config.name} asks for")
        _check_sizes(file, config, name, weights[name], sizes, shape)
    extra = [name for name in weights if name.startswith(GROUPS) and name not in wanted]
    if extra:
        raise CheckpointError(
            f"{config}: num_hidden_groups is {shape.num_hidden_groups} and inner_group_num "
            f"{shape.inner_group_num}, but the weights hold {extra[0]} too"
        )
    task, head = kind or ("", None)
    outputs = len(weights[f"{head}.weight"]) if task in OUTPUTS else 0
    if task in OUTPUTS and outputs != OUTPUTS[task][0]:
        raise CheckpointError(f"{file}: the {task} head has {outputs} outputs; wanted {OUTPUTS[task][1]}")
    if task == "fill-mask":
        _check_tied(file, weights)
    for name in wanted:
        _check_finite(file, name, weights[name])


def _check_tied(file: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """ALBERT's last matrix over the vocabulary is its table of word embeddings, and its bias stands there once."""
    for own, other in TIED.items():
        if own in weights and not torch.equal(weights[own], weights[other]):
            raise CheckpointError(f"{file}: {own} is another than {other}: ALBERT has one of both")


def expected_tensors(shape: Shape, kind: tuple[str, str | None] | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names with the fields of config.json that give their sizes; "" is any size."""
    tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    for table, rows in tables.items():
        yield f"embeddings.{table}_embeddings.weight", (rows, "embedding_size")
    yield from _pair("embeddings.LayerNorm", "embedding_size")
    yield from _pair("encoder.embedding_hidden_mapping_in", "hidden_size", "embedding_size")
    for group in range(shape.num_hidden_groups):
        for inner in range(shape.inner_group_num):
            layer = f"{GROUPS}{group}.albert_layers.{inner}"
            for part in ("query", "key", "value", "dense"):
                yield from _pair(f"{layer}.attention.{part}", "hidden_size", "hidden_size")
            yield from _pair(f"{layer}.attention.LayerNorm", "hidden_size")
            yield from _pair(f"{layer}.ffn", "intermediate_size", "hidden_size")
            yield from _pair(f"{layer}.ffn_output", "hidden_size", "intermediate_size")
            yield from _pair(f"{layer}.full_layer_layer_norm", "hidden_size")
    if kind is None or kind[1] is None:
        return
    task, head = kind[0], kind[1]
    if TASKS[task].head is Head.POOLED:
        yield from _pair("pooler", "hidden_size", "hidden_size")
    if TASKS[task].head is Head.MASKS:
        yield from _pair(f"{head}.dense", "embedding_size", "hidden_size")
        yield from _pair(f"{head}.LayerNorm", "embedding_size")
        yield f"{head}.bias", ("vocab_size",)
    else:
        yield from _pair(head, "", "hidden_size")


def _pair(name: str, *sizes: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{name}.weight", sizes
    yield f"{name}.bias", sizes[:1]


def _check_sizes(
    file: Path, config: Path, name: str, tensor: torch.Tensor, sizes: tuple[str, ...], shape: Shape
) -> None:
    found = tuple(tensor.shape)
    if len(found) != len(sizes):
        raise CheckpointError(f"{file}: {name} has the shape {found}; wanted {len(sizes)} dimensions")
    for field, size in zip(sizes, found, strict=True):
        if field and getattr(shape, field) != size:
            raise CheckpointError(f"{config}: {field} is {getattr(shape, field)}, but {name} in the weights has {size}")


def _check_finite(file: Path, name: str, tensor: torch.Tensor) -> None:
    if not bool(torch.isfinite(tensor).all()):
        place = (~torch.isfinite(tensor)).nonzero()[0].tolist()
        raise CheckpointError(
            f"{file}: {name} holds {float(tensor[tuple(place)])} at {place}: the training diverged, or the file is "
            "damaged"
        )
