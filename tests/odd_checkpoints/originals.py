"""The original that an odd checkpoint's logits are compared with, read by code of the tests' own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from service.conversion.precision import staged_engine
from service.repository.store import read_manifest
from service.serving.engine import Engine
from service.tasks.classification import Classification
from service.types import Sequence as Row
from tests.odd_checkpoints.changes import Tensors

PREFIXES = ("module.", "model.", "albert.", "bert.")


def original(folder: Path, architecture: str) -> torch.nn.Module:
    """transformers' model with the weights of ``folder`` in float32, whatever their files and names are."""
    state = {_canonical(name): value.float() for name, value in _stored(folder).items()}
    said = json.loads((folder / "config.json").read_text())
    # What the config says of the head is left out: transformers refuses some of it, and the logits do not need it.
    shape = {name: value for name, value in said.items() if name not in ("id2label", "label2id", "problem_type")}
    head = state.get("classifier.bias")
    labels = {} if head is None else {"num_labels": len(head)}
    named = transformers.AlbertConfig.from_dict(shape | labels)
    model: torch.nn.Module = getattr(transformers, architecture)(named)
    missing, _ = model.load_state_dict({_placed(model, name): value for name, value in state.items()}, strict=False)
    lost = [name for name in missing if not name.startswith("predictions.")]  # tied, and not compared
    assert not lost, f"the test's own reader found no {lost}"
    return model.eval()


def _stored(folder: Path) -> Tensors:
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    for path in sorted(folder.glob("*.bin")):
        found |= torch.load(path, weights_only=True)
    return found


def _canonical(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _placed(model: torch.nn.Module, name: str) -> str:
    return f"albert.{name}" if f"albert.{name}" in model.state_dict() else name


def reference(model: torch.nn.Module, ids: Sequence[int], types: Sequence[int]) -> np.ndarray[Any, Any]:
    """Logits of one row: (labels,), or (tokens, 2)."""
    row, kinds = (torch.tensor([part]) for part in (ids, types))
    with torch.inference_mode():
        out = model(row, attention_mask=torch.ones_like(row), token_type_ids=kinds, return_dict=True)
    if "start_logits" in out:
        return np.asarray(torch.stack([out.start_logits[0], out.end_logits[0]], dim=-1))
    return np.asarray((out.sop_logits if "sop_logits" in out else out.logits)[0])


TEXT, PAIR = "The ferry leaves at half past six.", "We should be on the quay by six: 外卖 café"
LONG = " ".join([TEXT, PAIR] * 30)  # several windows, whatever the model's length


def rows(engine: Engine) -> list[Row]:
    """A text alone, a pair, and all windows of a long text; of a reader the second and third are documents."""
    task = engine.task
    if isinstance(task, Classification):
        encoded = [task.encode(TEXT), task.encode(TEXT, PAIR), task.encode(LONG, long_text="windows")]
        return [row for one in encoded for row in one.sequences]
    return [row for document in (TEXT, PAIR, LONG) for row in task.encode("Who?", [document]).sequences]


def largest_difference(checkpoint: Path, version: Path) -> float:
    """Of a logit that the version gives from the original's, as a share of the row's largest (or of 1)."""
    manifest = read_manifest(version)
    engine = staged_engine(version, manifest, exact=True)
    pytorch = original(checkpoint, manifest.architecture["class"])
    worst = 0.0
    for row in rows(engine):
        wanted = reference(pytorch, row.ids.tolist(), row.types.tolist())
        worst = max(worst, float(np.abs(engine.run([row])[0] - wanted).max() / max(1.0, np.abs(wanted).max())))
    return worst
