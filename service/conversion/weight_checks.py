"""Every tensor that serving reads, compared with the numbers of config.json, and looked through for NaN."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from .shape import Shape

GROUPS = "encoder.albert_layer_groups."


def check_weights(
    file: Path, config: Path, weights: Mapping[str, torch.Tensor], shape: Shape, head: str | None
) -> None:
    """``weights`` were read from ``file``, the shape from ``config``.  ``head`` None asks for the body alone.

    CheckpointError names the tensor, and the field that it contradicts.
    """
    wanted = dict(expected_tensors(shape, head))
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
    outputs = len(weights[f"{head}.weight"]) if head else 0
    if head == "qa_outputs" and outputs != 2:
        raise CheckpointError(
            f"{file}: the question answering head has {outputs} outputs; wanted 2, first and last token"
        )
    for name in wanted:
        _check_finite(file, name, weights[name])


def expected_tensors(shape: Shape, head: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
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
    if head and head != "qa_outputs":
        yield from _pair("pooler", "hidden_size", "hidden_size")
    if head:
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
