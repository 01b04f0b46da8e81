"""A checkpoint in formats that other software runs: its own, one ONNX file, PyTorch's program, a Triton repository.

Each but the first is ``padded.py``'s model: logits, without what serving adds to them (windows, temperature, exits).
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..repository.store import check_name, find_version
from .checkpoint import read_checkpoint
from .export import bytes_of, class_of, export_version, placed, write_config, write_tokenizer
from .files import WANTED, locate
from .padded import INPUTS, Original, compare, exporter, open_original, program, run_torch, write_onnx

TRITON = """\
# Triton pads nothing: it batches requests of the same length, so let clients pad to a few lengths.
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 32
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
instance_group [ {{ count: 1, kind: KIND_AUTO }} ]
input [ {inputs} ]
output [ {outputs} ]
"""


def export(source: str, format: str, out: Path, repository: Path, name: str | None = None) -> dict[str, Any]:
    """Export what ``source`` names: a version's folder, NAME or NAME/VERSION in ``repository``, or a checkpoint.

    ``name`` is for Triton; without it the source's own.  Returns and raises as ``export_as``.
    """
    version = find_version(source, repository)
    if version is None:
        folder = locate(source)
        return export_as(folder, format, out, name or folder.resolve().name)
    if format == "checkpoint":
        return export_version(version, out)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "checkpoint"
        export_version(version, checkpoint)
        return export_as(checkpoint, format, out, name or version.resolve().parent.name)


def export_as(source: Path, format: str, out: Path, name: str) -> dict[str, Any]:
    """Export the checkpoint in the folder ``source`` to ``out``; ``format`` is a key of FORMATS.

    Returns the report of the comparison.  CheckpointError where it cannot be exported or ``out`` holds something,
    ParityError where the result does not answer as the checkpoint, RepositoryError where Triton's model cannot be
    called ``name``; nothing is left in ``out`` then.
    """
    if format not in FORMATS:
        raise CheckpointError(f"format is {format!r}; can export {', '.join(FORMATS)}")
    return FORMATS[format](source, out, name)


def export_checkpoint(source: Path, out: Path) -> dict[str, Any]:
    """Copy the files that make the checkpoint, once it has been read whole."""
    with placed(out) as folder:
        read_checkpoint(str(source))
        for path in sorted(path for pattern in WANTED for path in source.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
        return {"bytes": bytes_of(folder), "compared_with": "itself: the files are copies"}


def export_onnx(source: Path, out: Path) -> dict[str, Any]:
    """Write ``model.onnx``, ``tokenizer.json`` and ``config.json``.  Errors as ``export_as``."""
    with placed(out) as folder:
        original = _open(source, folder)
        return write_onnx(original, folder / "model.onnx")


def export_torch(source: Path, out: Path) -> dict[str, Any]:
    """Write ``model.pt2``, for ``torch.export.load``, and the two files beside it.  Errors as ``export_as``."""
    with placed(out) as folder:
        original = _open(source, folder)
        path = folder / "model.pt2"
        with exporter():
            torch.export.save(program(original, attention="sdpa"), path)
            module = torch.export.load(path).module()
            return compare(original, partial(run_torch, module), path, f"loaded by torch {torch.__version__}")


def export_triton(source: Path, out: Path, name: str) -> dict[str, Any]:
    """Write a Triton model repository with one model, ``name``.  Errors as ``export_as``."""
    check_name(name)
    with placed(out) as folder:
        home = folder / name
        (home / "1").mkdir(parents=True)
        original = _open(source, home)
        if labels := original.checkpoint.labels:
            text = "".join(" ".join(label.splitlines()) + "\n" for label in labels)
            (home / "labels.txt").write_text(text, encoding="utf-8")
        (home / "config.pbtxt").write_text(triton_config(original, name), encoding="utf-8")
        return write_onnx(original, home / "1" / "model.onnx")


FORMATS: dict[str, Callable[[Path, Path, str], dict[str, Any]]] = {
    "checkpoint": lambda source, out, name: export_checkpoint(source, out),
    "onnx": lambda source, out, name: export_onnx(source, out),
    "torch": lambda source, out, name: export_torch(source, out),
    "triton": export_triton,
}


def triton_config(original: Original, name: str) -> str:
    """Triton's ``config.pbtxt``.  The dimensions are without the batch; -1 is the length."""
    inputs = [f'{{ name: "{one}", data_type: TYPE_INT64, dims: [ -1 ] }}' for one in INPUTS]
    # Triton wants the dimension that the graph has: the number of labels is fixed there.
    size = ", ".join(map(str, original.dimensions))
    labels = ', label_filename: "labels.txt"' if original.checkpoint.task == "text-classification" else ""
    answers = [f'{{ name: "{one}", data_type: TYPE_FP32, dims: [ {size} ]{labels} }}' for one in original.outputs]
    return TRITON.format(name=name, inputs=",\n  ".join(inputs), outputs=",\n  ".join(answers))


def _open(source: Path, beside: Path) -> Original:
    """The checkpoint's model; its tokenizer and its configuration are written to the folder ``beside``."""
    checkpoint = read_checkpoint(str(source))
    original = open_original(checkpoint)
    write_tokenizer(checkpoint.tokenizer, checkpoint.special, checkpoint.shape.max_position_embeddings, beside)
    architecture = class_of(checkpoint.task)
    facts = {"dtype": "float32"} | asdict(checkpoint.shape)
    write_config(architecture, facts, checkpoint.labels, checkpoint.problem_type, beside)
    return original
