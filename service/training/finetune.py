"""Fine-tuning in one readable loop: warm-up and decay, early stopping, the best step kept, resumable when killed."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from service.training.features import Batch, Feature, batches

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.  ``batch_tokens`` and ``learning_rate`` go together: halve one, halve the other."""

    epochs: float = 2.0
    learning_rate: float = 5e-5
    batch_tokens: int = 2048
    warmup: float = 0.06  # share of all steps
    weight_decay: float = 0.01
    clip: float = 1.0
    evaluations: int = 8  # on the dev features, spread evenly over the run
    patience: int = 3  # evaluations without a better score before it stops
    save_minutes: float = 5.0
    seed: int = 13


@dataclass(slots=True)
class Progress:
    step: int = 0
    best: float = -1.0
    best_step: int = 0
    worse: int = 0  # evaluations since the best one


Loss = Callable[[nn.Module, Batch], torch.Tensor]
Score = Callable[[nn.Module, Sequence[Feature]], float]


def finetune(
    model: nn.Module, loss: Loss, score: Score, train: Sequence[Feature], dev: Sequence[Feature],
    recipe: Recipe, state_file: Path, say: Callable[[str], None] = print,
) -> Progress:  # fmt: skip
    """Train ``model`` in place and leave the weights of the best step in it.

    ``state_file`` holds everything that a killed run needs to go on; it is removed at the end.
    """
    device = next(model.parameters()).device
    per_epoch = sum(1 for _ in batches(train, recipe.batch_tokens, seed=recipe.seed))
    total = max(1, math.ceil(per_epoch * recipe.epochs))
    optimizer = torch.optim.AdamW(_decayed(model, recipe.weight_decay), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: slope(step, total, recipe.warmup))
    progress, best = Progress(), _copy(model)
    if state_file.exists():
        progress, best = _restore(state_file, model, optimizer, schedule)
        say(f"going on from step {progress.step} of {total} ({state_file})")
    torch.manual_seed(recipe.seed + progress.step)
    every = max(1, total // recipe.evaluations)
    saved = time.monotonic()
    stream = _stream(train, recipe, per_epoch, progress.step, total)
    with tqdm(stream, total=total, initial=progress.step, desc="training", unit=" steps") as bar:
        for batch in bar:
            value = _step(model, loss, batch.to(device), optimizer, schedule, recipe.clip)
            progress.step += 1
            bar.set_postfix(loss=f"{value:.3f}", best=f"{progress.best:.4f}", refresh=False)
            if progress.step % every == 0 or progress.step == total:
                reached = score(model, dev)
                best = _judge(model, progress, reached, best)
                say(
                    f"step {progress.step}/{total}: loss {value:.3f}, dev score {reached:.4f}, best {progress.best:.4f}"
                )
                if progress.worse >= recipe.patience:
                    say(f"no better for {progress.worse} evaluations: stopping at step {progress.step}")
                    break
            if time.monotonic() - saved > recipe.save_minutes * 60:
                _save(state_file, model, optimizer, schedule, progress, best)
                saved = time.monotonic()
    model.load_state_dict(best)
    state_file.unlink(missing_ok=True)
    return progress


def slope(step: int, total: int, warmup: float) -> float:
    """The share of the learning rate at ``step``: up linearly over the warm-up, then down linearly to zero."""
    rise = max(1, round(total * warmup))
    return min((step + 1) / rise, max(0.0, (total - step) / max(1, total - rise)))


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it in hardware: any recent GPU, and CPUs with AVX512-BF16 or AMX."""
    capable = device.type == "cuda" or _cpu_has_bf16()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=capable)


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def label_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    logits = model(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types).logits
    return functional.cross_entropy(logits.float(), batch.target)


def label_accuracy(model: nn.Module, features: Sequence[Feature]) -> float:
    right = sum(int((out.logits.argmax(-1) == batch.target).sum()) for batch, out in _outputs(model, features))
    return right / len(features)


def span_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross entropy of the first and the last token; padding is no candidate."""
    out = model(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types)
    hidden = batch.mask == 0
    first = functional.cross_entropy(out.start_logits.float().masked_fill(hidden, -1e4), batch.target[:, 0])
    last = functional.cross_entropy(out.end_logits.float().masked_fill(hidden, -1e4), batch.target[:, 1])
    return (first + last) / 2


def span_overlap(model: nn.Module, features: Sequence[Feature]) -> float:
    """Mean token F1 of the most likely first and last token: quick, and close to what the official F1 will say."""
    total = 0.0
    for batch, out in _outputs(model, features):
        hidden = batch.mask == 0
        first = out.start_logits.float().masked_fill(hidden, -1e4).argmax(-1)
        last = out.end_logits.float().masked_fill(hidden, -1e4).argmax(-1)
        shared = torch.minimum(last, batch.target[:, 1]) - torch.maximum(first, batch.target[:, 0]) + 1
        sizes = (last - first + 1).clamp(min=0) + batch.target[:, 1] - batch.target[:, 0] + 1
        total += float((2 * shared.clamp(min=0) / sizes).sum())
    return total / len(features)


def _outputs(model: nn.Module, features: Sequence[Feature]) -> Iterator[tuple[Batch, Any]]:
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode(), mixed_precision(device):
        for batch in batches(features, 8192):
            moved = batch.to(device)
            yield moved, model(moved.ids, attention_mask=moved.mask, token_type_ids=moved.types)


def _stream(train: Sequence[Feature], recipe: Recipe, per_epoch: int, done: int, total: int) -> Iterator[Batch]:
    """The batches from step ``done`` to ``total``: each epoch in its own order, the same order after a resume."""
    for epoch in range(done // per_epoch, math.ceil(total / per_epoch)):
        for index, batch in enumerate(batches(train, recipe.batch_tokens, seed=recipe.seed + epoch)):
            step = epoch * per_epoch + index
            if index < per_epoch and done <= step < total:
                yield batch


def _step(
    model: nn.Module, loss: Loss, batch: Batch, optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR, clip: float,
) -> float:  # fmt: skip
    model.train()
    with mixed_precision(batch.ids.device):
        value = loss(model, batch)
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return float(value.detach())


def _judge(model: nn.Module, progress: Progress, reached: float, best: State) -> State:
    if reached > progress.best:
        progress.best, progress.best_step, progress.worse = reached, progress.step, 0
        return _copy(model)
    progress.worse += 1
    return best


def _decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and layer norms are not decayed: they have one dimension."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _copy(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR,
    progress: Progress, best: State,
) -> None:  # fmt: skip
    aside = path.with_suffix(".part")
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    counts = {name: getattr(progress, name) for name in ("step", "best", "best_step", "worse")}
    torch.save(parts | {"progress": counts, "best_model": best}, aside)
    os.replace(aside, path)  # a kill in the middle of a save leaves the save before it


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
) -> tuple[Progress, State]:
    state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return Progress(**state["progress"]), state["best_model"]
