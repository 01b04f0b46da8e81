"""Checkpoints to begin with, and changes to their files, each a function of the folder."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import save_checkpoint
from tests.odd_checkpoints.outcomes import LABELS, Build

Tensors = dict[str, torch.Tensor]
CLASSIFIER, READER, PRETRAINED = "AlbertForSequenceClassification", "AlbertForQuestionAnswering", "AlbertForPreTraining"
MODEL, BIN = "model.safetensors", "pytorch_model.bin"
NAMED: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
    "problem_type": "single_label_classification",
}


def base(architecture: str = CLASSIFIER, **config: Any) -> Build:
    """A checkpoint with word pieces in ``tokenizer.json``; a classifier has the two labels where nothing is said."""
    named = NAMED if architecture == CLASSIFIER and not {"num_labels", "id2label"} & config.keys() else {}

    def build(folder: Path) -> None:
        save_checkpoint(folder, architecture, **(named | config))

    return build


def then(*steps: Build) -> Build:
    def build(folder: Path) -> None:
        for step in steps:
            step(folder)

    return build


def config(**values: Any) -> Build:
    """Set values of ``config.json``; None takes one away."""

    def build(folder: Path) -> None:
        whole = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))

    return build


def file(name: str, content: bytes | str | Any) -> Build:
    """Write a file: bytes and text as they are, anything else as JSON."""

    def build(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, bytes | str) else json.dumps(content)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return build


def without(*names: str) -> Build:
    def build(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return build


def tensors(change: Callable[[Tensors], Tensors]) -> Build:
    """Change what is in ``model.safetensors``."""

    def build(folder: Path) -> None:
        changed = change(load_file(folder / "model.safetensors"))
        save_file({name: value.contiguous() for name, value in changed.items()}, folder / "model.safetensors")

    return build


def named(change: Callable[[str], str]) -> Build:
    return tensors(lambda old: {change(name): value for name, value in old.items()})


def cast(kind: torch.dtype) -> Build:
    return tensors(lambda old: {name: value.to(kind) for name, value in old.items()})


def lost(name: str) -> Build:
    """Take the tensor away whose name ends so."""
    return tensors(lambda old: {key: value for key, value in old.items() if not key.endswith(name)})


def spoiled(name: str, value: float) -> Build:
    """Set one number of the tensor whose name ends so."""

    def change(old: Tensors) -> Tensors:
        (key,) = [key for key in old if key.endswith(name)]
        old[key].view(-1)[7 % old[key].numel()] = value
        return old

    return tensors(change)


def more_rows(count: int) -> Build:
    """``count`` rows more in the table of words, and in ``vocab_size``."""

    def build(folder: Path) -> None:
        def grow(old: Tensors) -> Tensors:
            table = old["albert.embeddings.word_embeddings.weight"]
            added = torch.cat([table, torch.ones(count, table.shape[1]) * 0.1])
            return old | {"albert.embeddings.word_embeddings.weight": added}

        tensors(grow)(folder)
        config(vocab_size=json.loads((folder / "config.json").read_text())["vocab_size"] + count)(folder)

    return build


def pickled(folder: Path) -> None:
    """The weights as ``pytorch_model.bin``."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(file_name: str) -> Build:
    """The weights in two shards and an index, under the names that Hugging Face gives them."""
    stem, suffix = file_name.split(".")

    def build(folder: Path) -> None:
        whole = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        places = {name: f"{stem}-0000{1 + index % 2}-of-00002.{suffix}" for index, name in enumerate(sorted(whole))}
        for place in set(places.values()):
            part = {name: value for name, value in whole.items() if places[name] == place}
            (save_file if suffix == "safetensors" else torch.save)(part, folder / place)
        file(f"{file_name}.index.json", {"metadata": {"total_size": 1}, "weight_map": places})(folder)

    return build


def pickle_with_code(folder: Path) -> None:
    """A ``pytorch_model.bin`` that makes the file ``touched`` when it is read as any pickle."""

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (folder / "touched",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.weight": Code()}))


def truncated(name: str) -> Build:
    def build(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return build
