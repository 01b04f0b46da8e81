"""The one file of weights that the graphs of all devices share: each tensor once, in the stored precision."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from ..heads import Head
from .checkpoint import HEADS, Checkpoint

FILE = "weights.bin"
ALIGNMENT = 64  # bytes: lets the runtime map the file and use the tensors where they lie
Array = npt.NDArray[np.float32] | npt.NDArray[np.float16]
LINEAR = {"attention.dense": "out", "ffn": "up", "ffn_output": "down"}
NORM = {"attention.LayerNorm": "attention_norm", "full_layer_layer_norm": "norm"}


def serving_arrays(checkpoint: Checkpoint) -> dict[str, Array]:
    """The tensors under the names that the graphs use: matrices as (in, out), the three projections side by side."""
    source = {name: value.detach() for name, value in checkpoint.weights.items()}
    arrays = {
        "embed.word": source["embeddings.word_embeddings.weight"],
        "embed.position": source["embeddings.position_embeddings.weight"],
        "embed.type": source["embeddings.token_type_embeddings.weight"],
        "embed.norm.weight": source["embeddings.LayerNorm.weight"],
        "embed.norm.bias": source["embeddings.LayerNorm.bias"],
        "embed.up.weight": source["encoder.embedding_hidden_mapping_in.weight"].T,
        "embed.up.bias": source["encoder.embedding_hidden_mapping_in.bias"],
    }
    shape = checkpoint.shape
    for group in range(shape.num_hidden_groups):
        for inner in range(shape.inner_group_num):
            theirs = f"encoder.albert_layer_groups.{group}.albert_layers.{inner}."
            layer = {name.removeprefix(theirs): value for name, value in source.items() if name.startswith(theirs)}
            arrays |= {f"layer.{group}.{inner}.{name}": value for name, value in _layer(layer).items()}
    arrays |= _head(checkpoint.head, HEADS[checkpoint.architecture], source)
    kind = torch.float16 if checkpoint.dtype == "float16" else torch.float32
    return {name: value.to(kind).contiguous().numpy() for name, value in arrays.items()}


def _head(kind: Head, name: str | None, source: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``name``: of the head's own module in ``source``."""
    arrays: dict[str, torch.Tensor] = {}
    if kind is Head.POOLED:
        arrays |= {"head.pool.weight": source["pooler.weight"].T, "head.pool.bias": source["pooler.bias"]}
    if kind is Head.MASKS:
        arrays |= {
            "head.dense.weight": source[f"{name}.dense.weight"].T,
            "head.dense.bias": source[f"{name}.dense.bias"],
        }
        arrays |= {f"head.norm.{part}": source[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias")}
        arrays["head.out.bias"] = source[f"{name}.bias"]
    elif name is not None:
        arrays |= {"head.out.weight": source[f"{name}.weight"].T, "head.out.bias": source[f"{name}.bias"]}
    return arrays


def _layer(source: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    projections = ("attention.query", "attention.key", "attention.value")
    arrays = {
        "qkv.weight": torch.cat([source[f"{name}.weight"].T for name in projections], dim=1),  # (hidden, 3 hidden)
        "qkv.bias": torch.cat([source[f"{name}.bias"] for name in projections]),
    }
    for theirs, ours in LINEAR.items():
        arrays |= {f"{ours}.weight": source[f"{theirs}.weight"].T, f"{ours}.bias": source[f"{theirs}.bias"]}
    for theirs, ours in NORM.items():
        arrays |= {f"{ours}.weight": source[f"{theirs}.weight"], f"{ours}.bias": source[f"{theirs}.bias"]}
    return arrays


class WeightFile:
    """Hands out tensors that point into ``weights.bin``, which it writes."""

    def __init__(self, folder: Path, arrays: Mapping[str, Array]) -> None:
        self.path = folder / FILE
        self._tensors: dict[str, onnx.TensorProto] = {}
        with self.path.open("wb") as file:
            for name, array in arrays.items():
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                self._tensors[name] = _pointer(name, array, file.tell())
                file.write(np.ascontiguousarray(array).tobytes())

    @classmethod
    def of(cls, folder: Path, tensors: Mapping[str, onnx.TensorProto]) -> "WeightFile":
        """The file that is there already, by the tensors that point into it."""
        there = cls.__new__(cls)
        there.path, there._tensors = folder / FILE, dict(tensors)
        return there

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self._tensors if name.startswith(prefix))

    def tensor(self, name: str) -> onnx.TensorProto:
        """The initializer ``name``, its data left in the file (ONNX external data)."""
        tensor = onnx.TensorProto()
        tensor.CopyFrom(self._tensors[name])
        return tensor


def _pointer(name: str, array: Array, offset: int) -> onnx.TensorProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=array.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", FILE), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
