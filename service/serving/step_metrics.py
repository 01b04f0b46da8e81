"""Counts what the device did: once a step, whatever the number of its rows."""

from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from ..errors import ServiceError
from ..metrics import Metrics
from ..types import StepRun
from .pending import PendingSequence, Runner
from .stepping import Progress

MOST_RECORDED = 256  # steps of one request


@dataclass(frozen=True, slots=True)
class Step:
    """One that ran: who was in it, with what tokens each, and what became of each.

    ``layers`` are those that ran, times tokens; ``seconds`` is what they took.
    """

    runner: Runner
    sequences: Seq[PendingSequence]
    lengths: Seq[int]
    after: Seq[Progress | ServiceError]
    layers: int
    seconds: float


def record_step(
    steps: list[StepRun], batch: Seq[PendingSequence], after: Seq[Progress | ServiceError], began: float, ended: float
) -> None:
    """Add a step to those of a request that was in it, once, however many of its sequences were."""
    if len(steps) == MOST_RECORDED or (steps and steps[-1].began == began):
        return
    before = min(one.progress.depth for one in batch if one.progress is not None)
    depth = max((now.depth for now in after if isinstance(now, Progress)), default=before)
    steps.append(StepRun(began, ended, sum(one.tokens for one in batch), len(batch), before, depth))


def count_step(metrics: Metrics, step: Step) -> None:
    runner, lengths = step.runner, step.lengths
    label, tokens = (runner.ref.name, str(runner.ref.version)), sum(lengths)
    metrics.steps.labels(*label).inc()
    metrics.step_sequences.labels(*label).observe(len(lengths))
    metrics.step_tokens.labels(*label).observe(tokens)
    metrics.layers.labels(*label, "run").inc(step.layers)
    metrics.padding_avoided.labels(*label).inc(len(lengths) * max(lengths) - tokens)
    metrics.device_busy.inc(step.seconds)
    metrics.token_budget.labels(*label).set(runner.budget)  # out of memory halves it
    for name, value in zip(("per_step", "per_token"), runner.cost.coefficients, strict=True):
        metrics.cost.labels(*label, name).set(value)
    left = [now for now in step.after if isinstance(now, Progress) and now.logits is not None]
    failed = sum(isinstance(now, ServiceError) for now in step.after)
    if failed:
        metrics.failed.labels(*label).inc(failed)
    saved = sum(len(now) * (runner.stepping.layers - now.depth) for now in left)
    if saved:
        metrics.layers.labels(*label, "saved").inc(saved)
    for depth, sequences in Counter(now.depth for now in left).items():
        metrics.exit_depth.labels(*label, str(depth)).inc(sequences)
