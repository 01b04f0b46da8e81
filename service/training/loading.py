"""Checkpoints to train or to be taught by, loaded whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AlbertConfig

from ..errors import CheckpointError

# Checkpoints may lie in half precision; they are trained in single, and only multiplied in half.
SETTINGS: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa"}
HEADS = ("classifier.", "qa_outputs.", "albert.pooler.", "pooler.", "predictions.", "sop_classifier.")


def load(kind: Any, folder: Path, config: Mapping[str, Any] | None = None, *, new_head: bool = True) -> Any:
    """The ``kind`` of transformers in ``folder``, with changes to its ``config``.

    CheckpointError where weights are missing.  With ``new_head`` those of the head may be: they begin at chance.
    Without it the head of the sentence order is read as the classifier that it is.
    """
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}: no checkpoint with config.json and tokenizer.json in it")
    try:
        model, found = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=new_head,
            key_mapping=None if new_head else {r"^sop_classifier\.classifier": "classifier"},
            **SETTINGS,
            **(config or {}),
        )
    except Exception as error:  # whatever the folder lacks, transformers has an exception of its own for it
        raise CheckpointError(f"{folder}: cannot be read as an ALBERT: {error}") from error
    chance = {*found["missing_keys"], *(name[0] for name in found["mismatched_keys"])}
    lost = sorted(name for name in chance if not (new_head and name.startswith(HEADS)))
    if model.config.model_type != "albert" or lost:
        raise CheckpointError(f"{folder} is not an ALBERT of this kind: it has no fitting {lost[:1] or 'weights'}")
    return model


def positions_of(folder: Path) -> int:
    """How many tokens the checkpoint in ``folder`` can see."""
    return int(AlbertConfig.from_pretrained(folder).max_position_embeddings)
