"""What a run leaves behind: a checkpoint that is whole or not there, its report, and the picture of its curves."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..errors import TrainingError
from .pictures import draw_curves
from .states import Progress

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "spiece.model")


def write_checkpoint(
    model: PreTrainedModel, tokenizer: Path, out: Path, report: dict[str, Any], progress: Progress
) -> None:
    """Weights go out in half precision: what is verified, published and served is then one and the same.

    Everything is written aside and moved in place, ``config.json`` last: in a new folder nothing takes it for a
    checkpoint before.  TrainingError where the disk is full.
    """
    aside = out / ".part"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        model.to("cpu").half().save_pretrained(aside)
        copy_tokenizer(tokenizer, aside)
        whole = report | {"held_out_score": round(progress.best, 4), "best_step": progress.best_step}
        (aside / "training.json").write_text(json.dumps(whole | {"history": progress.history}, indent=1))
        draw_curves(progress.history, aside / "curves.png")
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, out / path.name)
        aside.rmdir()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainingError(
            f"{out}: the checkpoint cannot be written ({error}). Free some of the disk; the same command then writes "
            "what was learnt."
        ) from error


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Those of a tokenizer's files that ``source`` has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        if (source / name).exists():
            shutil.copy(source / name, folder / name)


def weight_files(folder: Path) -> list[Path]:
    """What a checkpoint's weights and configuration lie in."""
    return sorted(
        path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin") or path.name == "config.json"
    )


def identity(report: Mapping[str, Any], files: Iterable[Path]) -> str:
    """A digest of what a run was asked for and of the data in its files: a state must not go on with others."""
    digest = hashlib.sha256(json.dumps(report, sort_keys=True, default=str).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
