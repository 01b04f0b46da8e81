"""The training loop of all commands: warm-up and decay, gradient accumulation, early stopping with the best step kept,
a budget in steps or in minutes, and a state on disk from which a stopped run goes on."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from ..errors import DataError, TrainingError
from .features import Batch
from .precision import mixed_precision
from .states import Progress, State, restore, save
from .stopping import Stop

Say = Callable[[str], None]
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Learning(Protocol):
    """What the loop trains: a module with a ``student`` that is kept, a loss for a batch, and a score on dev data."""

    student: Any

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self) -> Any: ...

    def loss(self, batch: Batch) -> torch.Tensor: ...

    def attacked(self) -> AbstractContextManager[bool]: ...

    def score(self) -> float: ...


class Stream(Protocol):
    """The batches of an epoch, from number ``skip`` on: the same ones in the same order whenever it is asked."""

    def __call__(self, epoch: int, skip: int) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.  ``batch_tokens`` and ``learning_rate`` go together: halve one, halve the other.

    ``steps`` or ``minutes``, whichever is used up first, is the length of the run; the learning rate follows it.
    """

    steps: int = 1000
    minutes: float | None = None
    learning_rate: float = 5e-5
    batch_tokens: int = 2048
    accumulate: int = 1  # batches to a step
    warmup: float = 0.06  # share of the run
    weight_decay: float = 0.01
    clip: float = 1.0
    evaluations: int = 8  # on the dev features, spread evenly over the run
    patience: int = 3  # evaluations without a better score before it stops
    save_minutes: float = 5.0
    seed: int = 13

    def share_done(self, steps: int, seconds: float) -> float:
        timed = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(steps / self.steps, timed))


@dataclass(slots=True)
class Run:
    """One run of the loop: its parts, and where it is.  ``identity`` tells its state from that of another run."""

    learner: Learning
    stream: Stream
    recipe: Recipe
    state_file: Path
    say: Say = print
    clock: Callable[[], float] = time.monotonic
    identity: str = ""
    progress: Progress = field(default_factory=Progress)
    optimizer: torch.optim.Optimizer = field(init=False)
    best: State = field(init=False)
    _saved: float = 0.0
    _turned: float = 0.0

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            _decayed(self.learner, self.recipe.weight_decay), lr=self.recipe.learning_rate
        )
        self.best = _copy(self.learner.student)
        if self.state_file.exists():
            self.progress, self.best = restore(self.state_file, self.learner, self.optimizer, self.identity)
            self.say(f"going on from step {self.progress.step} ({self.state_file})")
        torch.manual_seed(self.recipe.seed + self.progress.step)

    def to_the_end(self) -> Progress:
        """Train in place and leave the weights of the best step in the student.

        TrainingError where the loss is no number any more, where the disk is full, and when it is interrupted: the
        state is saved then, and the same command goes on from there.
        """
        with Stop() as stop:
            self._train(stop)
        self._save()  # what follows may fail too, a full disk say, and must not cost the run
        if stop and not self._over():
            raise TrainingError(
                f"interrupted at step {self.progress.step}; the same command goes on from there ({self.state_file})"
            )
        if not self.progress.best_step:
            raise TrainingError("no evaluation gave a score that is a number: try again with a lower --learning-rate")
        self.learner.student.load_state_dict(self.best)
        return self.progress

    def forget(self) -> None:
        """The run's result is safe: its state is not wanted any more."""
        self.state_file.unlink(missing_ok=True)

    @property
    def done(self) -> float:
        """The share of the run that is behind us."""
        return self.recipe.share_done(self.progress.step, self.progress.seconds)

    def _train(self, stop: Stop) -> None:
        self._saved = self._turned = self.clock()
        with tqdm(total=100, initial=round(100 * self.done), desc="training", bar_format=BAR, mininterval=1) as bar:
            while not self._over():
                before = self.progress.step
                for batches in self._steps():
                    loss = self._step(batches)
                    self._turn()
                    bar.set_postfix_str(f"step {self.progress.step}, loss {loss:.3f}, best {self.progress.best:.4f}")
                    bar.update(round(100 * self.done, 2) - bar.n)
                    self._evaluate_in_time(loss)
                    if self._over() or stop:
                        return
                    if self.clock() - self._saved > 60 * self.recipe.save_minutes:
                        self._save()
                if self.progress.step == before:
                    raise DataError("an epoch holds no batch: the examples are too few, or too short, to learn from")

    def _turn(self) -> None:
        """Count the time since the last turn: that of the step, and of waiting for its batch."""
        now = self.clock()
        self.progress.seconds += now - self._turned
        self._turned = now

    def _over(self) -> bool:
        return self.progress.worse >= self.recipe.patience or self.done >= 1

    def _steps(self) -> Iterator[list[Batch]]:
        """The rest of the epoch, a step's batches at a time; where the epoch ends, the last step may have fewer."""
        batches: list[Batch] = []
        for batch in self.stream(self.progress.epoch, self.progress.batch):
            batches.append(batch)
            if len(batches) == self.recipe.accumulate:
                self.progress.batch += len(batches)
                yield batches
                batches = []
        self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
        if batches:
            yield batches

    def _step(self, batches: list[Batch]) -> float:
        self.learner.train()
        rate = self.recipe.learning_rate * slope(self.done, self.recipe.warmup, 1 / self.recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = next(self.learner.parameters()).device
        total = 0.0
        for batch in batches:
            with mixed_precision(device):
                value = self.learner.loss(batch.to(device)) / len(batches)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
            with self.learner.attacked() as attacked:
                if attacked:  # the same batch again, as the attack has it; both gradients count
                    with mixed_precision(device):
                        harder = self.learner.loss(batch.to(device)) / len(batches)
                    harder.backward()  # type: ignore[no-untyped-call]
        if math.isnan(total):
            raise TrainingError(
                f"the loss is not a number at step {self.progress.step}: try again with a lower --learning-rate"
            )
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.learn(total)
        return total

    def _evaluate_in_time(self, loss: float) -> None:
        due = int(self.done * self.recipe.evaluations)
        if due <= self.progress.evaluated:
            return
        reached = self.learner.score()
        self._turn()
        if self.progress.judge(reached, loss, getattr(self.learner, "figures", {})):
            self.best = _copy(self.learner.student)
        self.progress.evaluated = due
        left = self.progress.seconds * (1 / self.done - 1) / 60
        self.say(
            f"step {self.progress.step}: loss {self.progress.history[-1]['loss']:.3f}, dev score {reached:.4f}, "
            f"best {self.progress.best:.4f}, about {left:.0f} min left"
        )
        if self.progress.worse >= self.recipe.patience:
            self.say(f"no better for {self.progress.worse} evaluations: stopping at step {self.progress.step}")

    def _save(self) -> None:
        save(self.state_file, self.learner, self.optimizer, self.progress, self.best, self.identity)
        self._saved = self.clock()


def slope(done: float, warmup: float, least: float = 0.0) -> float:
    """The learning rate as a share of its highest: up in a line over ``warmup`` of the run, and down to zero.

    ``least`` is the share of one step, so that the first one is not lost.
    """
    return min((done + least) / max(warmup, least, 1e-9), 1.0, (1 - done) / max(1e-9, 1 - warmup))


def _decayed(model: Learning, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and layer norms are not decayed: they have one dimension."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _copy(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
