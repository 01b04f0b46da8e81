"""What a run leaves behind: a checkpoint that is whole or not there, its report, and the picture of its curves."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from service.errors import TrainingError
from service.training.pictures import draw_curves
from service.training.states import Progress

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "spiece.model")


def write_checkpoint(
    model: PreTrainedModel, tokenizer: Path, out: Path, report: dict[str, Any], progress: Progress
) -> None:
    """Weights go out in half precision: what is verified, published and served is then one and the same.

    Everything is written aside and moved in place, ``config.json`` last: without it nothing takes the folder for a
    checkpoint.  TrainingError where the disk is full.
    """
    aside = out / ".part"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        model.to("cpu").half().save_pretrained(aside)
        for name in TOKENIZER:
            if (tokenizer / name).exists():
                shutil.copy(tokenizer / name, aside / name)
        whole = report | {"held_out_score": round(progress.best, 4), "best_step": progress.best_step}
        (aside / "training.json").write_text(json.dumps(whole | {"history": progress.history}, indent=1))
        draw_curves(progress.history, aside / "curves.png")
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, out / path.name)
        aside.rmdir()
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainingError(
            f"{out}: the checkpoint cannot be written ({error.strerror}). Free some of the disk and run it again."
        ) from error
