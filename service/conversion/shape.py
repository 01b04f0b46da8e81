"""The numbers of config.json that shape the graphs, read, and refused where no graph can have them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

EXACT_GELU = ("gelu", "gelu_python")
TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate")  # one function, written in four ways
OTHERS = ("relu", "relu6", "leaky_relu", "silu", "swish", "quick_gelu", "tanh", "sigmoid", "linear")
ACTIVATIONS = (*EXACT_GELU, *TANH_GELU, *OTHERS)


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


def read_shape(path: Path, config: dict[str, Any]) -> Shape:
    """The shape that ``config``, read from ``path``, describes.  CheckpointError names the field that cannot be."""
    from transformers import AlbertConfig

    names = [field.name for field in fields(Shape)]
    try:
        # Its shape alone: labels are compared with the head, and some that can be served transformers refuses.
        full = AlbertConfig(**{name: config[name] for name in names if name in config})
        shape = Shape(**{name: getattr(full, name) for name in names})
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
