"""The other way round: a Hugging Face checkpoint out of a published version, to convert it again or to train it on.

Nothing is lost: a version stores the weights as the checkpoint had them, and the graphs only name them.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tokenizers
import torch
from safetensors.torch import save_file

from ..errors import CheckpointError
from ..repository.manifest import Manifest
from ..repository.store import check_files, read_manifest, staging
from .checkpoint import CLASSES
from .weights import FILE, LINEAR, NORM

Array = npt.NDArray[Any]
COMMON = {"pad_token": ("<pad>", "[PAD]"), "unk_token": ("<unk>", "[UNK]"), "mask_token": ("[MASK]",)}


def export_version(version: Path, out: Path) -> dict[str, Any]:
    """Write the checkpoint of the version in the folder ``version`` to ``out``, and report.

    RepositoryError where the version is damaged; CheckpointError where ``out`` holds something already.
    """
    manifest = read_manifest(version)
    check_files(version, manifest)
    with placed(out) as folder:
        tensors = checkpoint_tensors(read_arrays(version, manifest), manifest)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        facts = manifest.tokenizer
        special = {"cls_token": facts.cls_token, "sep_token": facts.sep_token}
        special |= {"mask_token": facts.mask_token} if facts.mask_token is not None else {}
        tokenizer = (version / facts.file).read_text(encoding="utf-8")
        write_tokenizer(tokenizer, special, manifest.max_length, folder)
        if "training" in manifest.provenance:
            write_json(folder / "training.json", manifest.provenance["training"])
        shape = {key: value for key, value in manifest.architecture.items() if key != "class"}
        if manifest.pooling is not None:
            write_pooling(manifest.pooling, manifest.architecture["hidden_size"], folder)
        write_config(class_of(manifest.task), shape, manifest.labels, manifest.problem_type, folder)
        return {"bytes": bytes_of(folder), "compared_with": "itself: a version holds the weights of its checkpoint"}


@contextlib.contextmanager
def placed(out: Path) -> Iterator[Path]:
    """A folder to write in, whose files go to ``out`` if all went well; CheckpointError where ``out`` is not empty.

    It lies in ``out``, which may be a disk of its own.
    """
    existed = out.exists()
    if existed and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty: give another --out")
    try:
        with staging(out) as folder:
            yield folder
            # config.json last: nothing takes the folder for a whole one before.
            for path in sorted(folder.iterdir(), key=lambda path: path.name == "config.json"):
                path.rename(out / path.name)
    except BaseException:  # an interrupt leaves nothing either
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
    found = {
        "albert.embeddings.word_embeddings.weight": arrays["embed.word"],
        "albert.embeddings.position_embeddings.weight": arrays["embed.position"],
        "albert.embeddings.token_type_embeddings.weight": arrays["embed.type"],
        "albert.embeddings.LayerNorm.weight": arrays["embed.norm.weight"],
        "albert.embeddings.LayerNorm.bias": arrays["embed.norm.bias"],
        "albert.encoder.embedding_hidden_mapping_in.weight": arrays["embed.up.weight"].T,
        "albert.encoder.embedding_hidden_mapping_in.bias": arrays["embed.up.bias"],
    } | _head(CLASSES[class_of(manifest.task)][1], arrays)
    if "head.pool.weight" in arrays:
        found |= {"albert.pooler.weight": arrays["head.pool.weight"].T, "albert.pooler.bias": arrays["head.pool.bias"]}
    shape = manifest.architecture
    for group in range(int(shape["num_hidden_groups"])):
        for inner in range(int(shape["inner_group_num"])):
            theirs = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}."
            layer = _layer({name: arrays[f"layer.{group}.{inner}.{name}"] for name in _layer_names()})
            found |= {theirs + name: value for name, value in layer.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def class_of(task: str) -> str:
    """The class of transformers that has a head for ``task``."""
    return next(name for name, (other, _) in CLASSES.items() if other == task)


def _head(name: str | None, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """``name``: of the head's own module; None where there is none."""
    if name is None:
        return {}
    if "head.dense.weight" in arrays:  # of masked language modelling, whose last matrix is that of the embeddings
        found = {f"{name}.dense.weight": arrays["head.dense.weight"].T, f"{name}.dense.bias": arrays["head.dense.bias"]}
        found |= {f"{name}.LayerNorm.{part}": arrays[f"head.norm.{part}"] for part in ("weight", "bias")}
        return found | {f"{name}.bias": arrays["head.out.bias"]}
    return {f"{name}.weight": arrays["head.out.weight"].T, f"{name}.bias": arrays["head.out.bias"]}


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


def write_tokenizer(content: str, special: Mapping[str, str], longest: int, folder: Path) -> None:
    """``tokenizer.json`` and the file that lets ``AutoTokenizer`` read it as it is, whatever kind it is of."""
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    write_json(folder / "special_tokens_map.json", special)
    vocabulary = tokenizers.Tokenizer.from_str(content).get_vocab()
    named = {
        field: token for field, tokens in COMMON.items() for token in tokens if token in vocabulary
    }  # what a batch is padded with, among others
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", facts | named | dict(special))


def write_pooling(pooling: str, size: int, folder: Path) -> None:
    """As sentence-transformers has it."""
    (folder / "1_Pooling").mkdir()
    modes = {
        f"pooling_mode_{'cls_token' if one == 'cls' else 'mean_tokens'}": one == pooling for one in ("cls", "mean")
    }
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size} | modes)


def write_config(
    architecture: str, facts: Mapping[str, Any], labels: Sequence[str], problem_type: str | None, folder: Path
) -> None:
    """``config.json`` with the numbers of the model, and the labels by index."""
    config = {"model_type": "albert", "architectures": [architecture]} | dict(facts)
    if labels:
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
        # transformers refuses this type for one label alone; without one it is read as it is served.
        if len(labels) > 1 or problem_type != "single_label_classification":
            config["problem_type"] = problem_type
    write_json(folder / "config.json", config)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
