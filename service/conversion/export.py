"""The other way round: a Hugging Face checkpoint out of a published version, to convert it again or to train it on.

Nothing is lost: a version stores the weights as the checkpoint had them, and the graphs only name them.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from safetensors.torch import save_file

from service.conversion.weights import FILE, LINEAR, NORM
from service.errors import CheckpointError
from service.repository.manifest import Manifest
from service.repository.store import check_files, read_manifest

Array = npt.NDArray[Any]
CLASSES = {
    "text-classification": ("AlbertForSequenceClassification", "classifier"),
    "question-answering": ("AlbertForQuestionAnswering", "qa_outputs"),
}


def export(folder: Path, out: Path) -> None:
    """Write the version in ``folder`` to ``out``.  RepositoryError where it is damaged; CheckpointError where ``out``
    holds something already."""
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty: give another --out")
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    out.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint_tensors(read_arrays(folder, manifest), manifest)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folder / manifest.tokenizer.file, out / "tokenizer.json")
    special = {"cls_token": manifest.tokenizer.cls_token, "sep_token": manifest.tokenizer.sep_token}
    _write(out / "special_tokens_map.json", special)
    if "training" in manifest.provenance:
        _write(out / "training.json", manifest.provenance["training"])
    _write(out / "config.json", _config(manifest))  # last: nothing takes the folder for a checkpoint before


def read_arrays(folder: Path, manifest: Manifest) -> dict[str, Array]:
    """Every weight by its serving name, as it is stored."""
    stored = np.fromfile(folder / FILE, dtype=np.uint8)
    arrays: dict[str, Array] = {}
    for graphs in manifest.graphs.values():
        for name in graphs.files():
            graph = onnx.load(folder / name, load_external_data=False).graph
            for tensor in graph.initializer:
                place = {entry.key: entry.value for entry in tensor.external_data}
                if place.get("location") == FILE:
                    start = int(place["offset"])
                    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                    values = stored[start : start + int(place["length"])].view(kind)
                    arrays[tensor.name] = values.reshape(tuple(tensor.dims))
    return arrays


def checkpoint_tensors(arrays: Mapping[str, Array], manifest: Manifest) -> dict[str, torch.Tensor]:
    """The inverse of ``weights.serving_arrays``: matrices as (out, in), the three projections apart."""
    _, head = CLASSES[manifest.task]
    found = {
        "albert.embeddings.word_embeddings.weight": arrays["embed.word"],
        "albert.embeddings.position_embeddings.weight": arrays["embed.position"],
        "albert.embeddings.token_type_embeddings.weight": arrays["embed.type"],
        "albert.embeddings.LayerNorm.weight": arrays["embed.norm.weight"],
        "albert.embeddings.LayerNorm.bias": arrays["embed.norm.bias"],
        "albert.encoder.embedding_hidden_mapping_in.weight": arrays["embed.up.weight"].T,
        "albert.encoder.embedding_hidden_mapping_in.bias": arrays["embed.up.bias"],
        f"{head}.weight": arrays["head.out.weight"].T,
        f"{head}.bias": arrays["head.out.bias"],
    }
    if "head.pool.weight" in arrays:
        found |= {"albert.pooler.weight": arrays["head.pool.weight"].T, "albert.pooler.bias": arrays["head.pool.bias"]}
    shape = manifest.architecture
    for group in range(int(shape["num_hidden_groups"])):
        for inner in range(int(shape["inner_group_num"])):
            theirs = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}."
            layer = _layer({name: arrays[f"layer.{group}.{inner}.{name}"] for name in _layer_names()})
            found |= {theirs + name: value for name, value in layer.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def _layer_names() -> list[str]:
    return [f"{name}.{kind}" for name in ("qkv", *LINEAR.values(), *NORM.values()) for kind in ("weight", "bias")]


def _layer(arrays: Mapping[str, Array]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    weights, biases = np.split(arrays["qkv.weight"], 3, axis=1), np.split(arrays["qkv.bias"], 3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        found |= {f"attention.{name}.weight": weight.T, f"attention.{name}.bias": bias}
    for theirs, ours in LINEAR.items():
        found |= {f"{theirs}.weight": arrays[f"{ours}.weight"].T, f"{theirs}.bias": arrays[f"{ours}.bias"]}
    for theirs, ours in NORM.items():
        found |= {f"{theirs}.weight": arrays[f"{ours}.weight"], f"{theirs}.bias": arrays[f"{ours}.bias"]}
    return found


def _config(manifest: Manifest) -> dict[str, Any]:
    name, _ = CLASSES[manifest.task]
    shape = {key: value for key, value in manifest.architecture.items() if key != "class"}
    config = {"model_type": "albert", "architectures": [name]} | shape
    if manifest.task == "text-classification":
        labels = {str(index): label for index, label in enumerate(manifest.labels)}
        numbers = {label: index for index, label in enumerate(manifest.labels)}
        config |= {"id2label": labels, "label2id": numbers}
        # transformers refuses this type for one label alone; without one it is read as it is served.
        if len(labels) > 1 or manifest.problem_type != "single_label_classification":
            config["problem_type"] = manifest.problem_type
    return config


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
