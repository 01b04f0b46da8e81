"""The files of a checkpoint's folder: found, and read safely, or refused in a line that names the file."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..errors import CheckpointError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"  # behind the name of weights that lie in shards
POINTER = b"version https://git-lfs"
BOM = b"\xef\xbb\xbf"
WANTED = [
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "*.model",
    "vocab*.txt",
    "*.ckpt*",
    "checkpoint",
    "tf_model.h5",
]


def locate(source: str) -> Path:
    """``source`` itself where it is a folder; else the hub's copy, fetched without running any of its code."""
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(source, allow_patterns=WANTED))
    except Exception as error:  # the hub client has a dozen kinds; each means the same here
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{source!r} is neither a folder here nor a checkpoint that the hub gave ({type(error).__name__}: "
            f"{reason}). Give the path of a folder with config.json, the weights and the tokenizer's files."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.  CheckpointError says what the file is instead."""
    content = read_bytes(path)
    if content.startswith(BOM):
        raise CheckpointError(f"{path}: begins with a byte order mark, which JSON forbids: save it as plain UTF-8")
    try:
        found = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; wanted an object, {{...}}")
    return found


def read_bytes(path: Path) -> bytes:
    """A whole file that is no git-lfs pointer and not empty."""
    check_whole(path)
    return path.read_bytes()


def check_whole(path: Path) -> None:
    """CheckpointError where ``path`` is empty, or the pointer that git leaves where git-lfs is not installed."""
    with path.open("rb") as file:
        begin = file.read(len(POINTER))
    if begin == POINTER:
        raise CheckpointError(f"{path}: a git-lfs pointer, not the file itself: run `git lfs pull` in its folder")
    if not begin:
        raise CheckpointError(f"{path}: the file is empty")


def weights_file(folder: Path) -> Path:
    """The file of the weights, or the index of its shards.  CheckpointError where there is none."""
    for name in WEIGHTS:
        for path in (folder / f"{name}{INDEX}", folder / name):
            if path.exists():
                return path
    raise CheckpointError(f"{folder}: no {WEIGHTS[0]} and no {WEIGHTS[1]} in it")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """``model.safetensors`` or ``pytorch_model.bin``, or the shards of one of them; read as tensors, never as code."""
    path = weights_file(folder)
    read = _safetensors if path.name.startswith(WEIGHTS[0]) else _pickled
    found: dict[str, torch.Tensor] = {}
    for file in _shards(path) if path.name.endswith(INDEX) else [path]:
        check_whole(file)
        found |= read(file)
    return found


def _shards(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: no weight_map in it, which says what tensor lies in which file")
    outside = [name for name in places.values() if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index}: weight_map names {outside[0]!r}, which is not a file of the same folder")
    files = [index.parent / name for name in sorted(set(places.values()))]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{missing[0]}: not there, and {index.name} names it in weight_map")
    return files


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from error
    return found


def _pickled(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: cannot be read as tensors alone: it is damaged, or holds Python objects, which may run code when "
            "they are read. Save the weights as model.safetensors."
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as tensors alone: {first_line(error)}") from error
    tensors = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path}: holds no state dict (names with tensors)")
    return dict(tensors)


def first_line(error: Exception) -> str:
    """The first sentence or line of a message: those of torch fill a page."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
