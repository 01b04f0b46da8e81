"""A checkpoint to train from: whatever ``convert`` reads, with any head or none, in the form that training loads."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .checkpoint import read_config, read_named_weights
from .export import write_json, write_tokenizer
from .files import locate
from .shape import read_shape
from .tokenizer_checks import check_tokenizer
from .vocabulary import FRAME, TokenizerFiles, tokenizer_json
from .weight_checks import check_weights

BODY = ("embeddings.", "encoder.", "pooler.")
# What transformers would return, and a type of problem that it refuses for one label: training says its own.
LEFT_OUT = ("return_dict", "output_attentions", "output_hidden_states", "torchscript", "problem_type")


def prepare(source: str, folder: Path) -> Path:
    """Write the checkpoint that ``source`` (a folder or a hub id) names to a folder of its name in ``folder``.

    ``config.json``, ``model.safetensors`` under the names of a class with a head, ``tokenizer.json``.  CheckpointError
    as ``read_checkpoint``, except that no head is asked for.
    """
    found = locate(source)
    path, config = read_config(found)
    shape = read_shape(path, config)
    file, weights = read_named_weights(found)
    check_weights(file, path, weights, shape, kind=None)
    files = TokenizerFiles.read(found)
    definition = tokenizer_json(files)
    check_tokenizer(files, definition, shape.vocab_size)
    out = folder / found.resolve().name
    out.mkdir(parents=True)
    save_file({_placed(name): _own(value) for name, value in sorted(weights.items())}, out / "model.safetensors")
    special = dict(zip(FRAME, files.frame, strict=True))
    write_tokenizer(definition, special, shape.max_position_embeddings, out)
    kept: dict[str, Any] = {name: value for name, value in config.items() if name not in LEFT_OUT}
    write_json(out / "config.json", kept | {"model_type": "albert"} | asdict(shape))
    return out


def _placed(name: str) -> str:
    return f"albert.{name}" if name.startswith(BODY) else name


def _own(value: torch.Tensor) -> torch.Tensor:
    """In memory of its own: tied weights share one, which safetensors does not store."""
    return value.detach().clone().contiguous()
