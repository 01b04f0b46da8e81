"""An ALBERT with one shared layer, out of one with several groups: a student to distil into.

The shared layer begins as a copy of one of the groups' layers, which is a far better start than chance.  Narrower
embeddings begin as the best approximation of their width, by singular values.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AlbertConfig, AlbertModel

from ..errors import CheckpointError
from .loading import load
from .output import copy_tokenizer


@dataclass(frozen=True, slots=True)
class Form:
    """The student's form; None keeps what the source has.  ``group``: whose layer is copied, from 0."""

    group: int = 2
    layers: int | None = None
    embedding: int | None = None


def share_layer(source: Path, target: Path, form: Form) -> None:
    """Write ``source`` to ``target`` with one shared layer.  CheckpointError where the form does not fit it."""
    old = load(AlbertModel, source)
    config = old.config
    if config.inner_group_num != 1:
        raise CheckpointError(f"{source}: its groups have {config.inner_group_num} layers each; wanted one")
    group = form.group if config.num_hidden_groups > 1 else 0
    if not 0 <= group < config.num_hidden_groups:
        raise CheckpointError(f"{source} has groups 0 to {config.num_hidden_groups - 1}, no {group}")
    width = config.embedding_size if form.embedding is None else form.embedding
    if width > config.embedding_size:
        raise CheckpointError(f"{source}: embeddings are {config.embedding_size} wide and cannot grow to {width}")
    changes = {"num_hidden_groups": 1, "embedding_size": width}
    if form.layers is not None:
        changes["num_hidden_layers"] = form.layers
    state = _kept(old.state_dict(), group)
    if width < config.embedding_size:
        state |= narrowed(state, width)
    new = AlbertModel(AlbertConfig.from_dict(config.to_dict() | changes))
    new.load_state_dict(state)
    target.mkdir(parents=True, exist_ok=True)
    new.save_pretrained(target)
    copy_tokenizer(source, target)


def _kept(state: dict[str, torch.Tensor], group: int) -> dict[str, torch.Tensor]:
    theirs, ours = f"encoder.albert_layer_groups.{group}.", "encoder.albert_layer_groups.0."
    rest = {name: value for name, value in state.items() if "albert_layer_groups" not in name}
    chosen = {name: value for name, value in state.items() if name.startswith(theirs)}
    return rest | {ours + name.removeprefix(theirs): value for name, value in chosen.items()}


def narrowed(state: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """The tables of embeddings and the map to the hidden state, through ``width`` dimensions.

    The layer norm between them sees all dimensions, so the result is near the original and no more: it wants training.
    """
    word = state["embeddings.word_embeddings.weight"]
    _, _, axes = torch.linalg.svd(word - word.mean(0), full_matrices=False)
    axes = axes[:width]  # (width, embedding)
    names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    tables = {f"embeddings.{name}.weight": state[f"embeddings.{name}.weight"] @ axes.T for name in names}
    gain, shift = state["embeddings.LayerNorm.weight"], state["embeddings.LayerNorm.bias"]
    up, bias = state["encoder.embedding_hidden_mapping_in.weight"], state["encoder.embedding_hidden_mapping_in.bias"]
    # The norm of what is kept is less than the whole's; both are normalised to one a dimension.
    share = (width / len(gain)) ** 0.5
    return tables | {
        "embeddings.LayerNorm.weight": torch.ones(width),
        "embeddings.LayerNorm.bias": torch.zeros(width),
        "encoder.embedding_hidden_mapping_in.weight": (up * gain) @ axes.T * share,
        "encoder.embedding_hidden_mapping_in.bias": bias + up @ shift,
    }
