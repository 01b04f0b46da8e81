"""What a student is taught by: the right labels or spans, its own last layer at every exit, a teacher if it has one.

A classifier chooses among labels once a row; a reader chooses twice, the first and the last token of the answer.  Both
are ``choices`` here: a list of logits (rows, options), one or two of them, so that every loss is written once.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional
from transformers import AlbertForQuestionAnswering

from .features import Batch, Feature, batches
from .precision import mixed_precision
from .scores import accuracy, macro_f1

Student: TypeAlias = Any  # AlbertForSequenceClassification | AlbertForQuestionAnswering, which mypy does not see
NOWHERE = -1e4  # a logit that padding gets: no candidate for an answer


@dataclass(frozen=True, slots=True)
class Lessons:
    """How a student is taught, besides by the right answers.

    ``exits``: the head also learns at every depth, so that layers may be left out.  ``hints``: weight of the teacher's
    hidden states.  ``class_weights`` (labels,): of each label's rows in the loss.  ``adversarial``: how far word
    embeddings are moved against the student, as a norm; 0, not at all.
    """

    exits: bool = False
    hints: float = 1.0
    class_weights: tuple[float, ...] | None = None
    adversarial: float = 0.0


class Learner(nn.Module):
    """A student with all that its training adds to it.  Its parameters are trained; only the student is kept."""

    def __init__(
        self, student: Student, dev: Sequence[Feature], lessons: Lessons | None = None, teacher: Student | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.dev = dev
        self.lessons = lessons or Lessons()
        self.reading = isinstance(student, AlbertForQuestionAnswering)
        # In a list, so that the teacher's weights are neither trained nor saved with ours.
        self._teacher = [teacher.eval()] if teacher else []
        same_width = teacher is not None and teacher.config.hidden_size == student.config.hidden_size
        self._hinted = same_width and self.lessons.hints > 0
        layers = teacher.config.num_hidden_layers if teacher is not None and self._hinted else 0
        self.scales = nn.Parameter(torch.ones(layers, student.config.hidden_size))
        self.shifts = nn.Parameter(torch.zeros(layers, student.config.hidden_size))
        weights = self.lessons.class_weights
        self._class_weights = torch.tensor(weights) if weights else None

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean of what the right answers, the teacher, its hidden states and the exits say; a scalar."""
        hidden = self._hidden(self.student, batch)
        last = self.choices(self.student, hidden[-1], batch)
        value = self._hard(last, batch)
        if self._teacher:
            with torch.no_grad():
                theirs = self._hidden(self._teacher[0], batch)
                wanted = self.choices(self._teacher[0], theirs[-1], batch)
            value = (value + _apart(last, wanted, self._taught(batch))) / 2
            if self._hinted:
                value = value + self.lessons.hints * self._hints(hidden, theirs, batch.mask.bool())
        if self.lessons.exits:
            value = (value + self._exits(hidden, last, batch)) / 2
        return value

    @contextlib.contextmanager
    def attacked(self) -> Iterator[bool]:
        """With word embeddings moved by ``lessons.adversarial`` to where the loss, whose gradients are there, grows
        fastest; False where they are not (Miyato et al. 2017, fast gradient method)."""
        table = self.student.albert.embeddings.word_embeddings.weight
        norm = table.grad.norm() if self.lessons.adversarial and table.grad is not None else torch.zeros(())
        if not (torch.isfinite(norm) and norm > 0):
            yield False
            return
        moved = self.lessons.adversarial * table.grad / norm
        with torch.no_grad():
            table.add_(moved)
        try:
            yield True
        finally:
            with torch.no_grad():
                table.sub_(moved)

    @torch.inference_mode()
    def score(self) -> float:
        """On the dev features: accuracy, or macro F1 where classes are weighted; a reader's mean token F1."""
        self.eval()
        device = next(self.parameters()).device
        overlap, given, gold = 0.0, [], []
        for batch in batches(self.dev, 8192):
            moved = batch.to(device)
            with mixed_precision(device):
                best = [one.argmax(-1) for one in self._judged(self._last(moved), moved)]
            if self.reading:
                overlap += _overlap(best[0], best[1], moved)
            else:
                given += [str(label) for label in best[0].tolist()]
                gold += [str(label) for label in moved.target.tolist()]
        if self.reading:
            return overlap / len(self.dev)
        return macro_f1(given, gold) if self._class_weights is not None else accuracy(given, gold)

    def choices(self, model: Student, hidden: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        """Logits from a hidden state (rows, longest, hidden) of any depth: of labels, or of first and last tokens."""
        if isinstance(model, AlbertForQuestionAnswering):
            first, last = model.qa_outputs(hidden).float().unbind(-1)  # (rows, longest) each
            padding = batch.mask == 0
            return [first.masked_fill(padding, NOWHERE), last.masked_fill(padding, NOWHERE)]
        pooled = model.albert.pooler_activation(model.albert.pooler(hidden[:, 0]))
        return [model.classifier(model.dropout(pooled)).float()]

    def _judged(self, choices: Sequence[torch.Tensor], batch: Batch) -> Sequence[torch.Tensor]:
        """Where there is an answer its best span counts, as the service gives it, not whether it beats "no answer"."""
        if self.reading:
            for one in choices:
                one[batch.target[:, 1] > 0, 0] = NOWHERE
        return choices

    def _last(self, batch: Batch) -> list[torch.Tensor]:
        return self.choices(self.student, self._hidden(self.student, batch)[-1], batch)

    def _hidden(self, model: Student, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The hidden state after each layer."""
        out = model.albert(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types, output_hidden_states=True)
        states: tuple[torch.Tensor, ...] = out.hidden_states  # the embeddings' first, then one an inner layer
        inner = model.config.inner_group_num
        return states[inner::inner]

    def _hard(self, choices: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        weights = self._class_weights.to(batch.ids.device) if self._class_weights is not None else None
        losses = [
            functional.cross_entropy(one, target, weight=weights)
            for one, target in zip(choices, self._targets(batch), strict=True)
        ]
        return torch.stack(losses).mean()

    def _targets(self, batch: Batch) -> list[torch.Tensor]:
        return list(batch.target.unbind(-1)) if self.reading else [batch.target]

    def _taught(self, batch: Batch) -> torch.Tensor:
        """(rows,): 1 where the teacher is listened to.  It may never have learnt that a window holds no answer."""
        return (batch.target.sum(-1) > 0).float() if self.reading else torch.ones_like(batch.target, dtype=torch.float)

    def _hints(
        self, ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], present: torch.Tensor
    ) -> torch.Tensor:
        """Distance of the hidden states, each teacher's layer against ours at the same share of the depth.

        A scale and a shift per unit and layer are learnt beside it: one shared layer norm cannot imitate several.
        The distance is a share of the variance of the teacher's state (Jiao et al. 2020, TinyBERT, without it).
        """
        total = torch.zeros((), device=present.device)
        for index, state in enumerate(theirs):
            mine = ours[max(0, (index + 1) * len(ours) // len(theirs) - 1)].float()[present]
            wanted = state.float()[present]
            distance = (mine * self.scales[index] + self.shifts[index] - wanted).square().mean()
            total = total + distance / wanted.var(0).mean().clamp(min=1e-6)
        return total / len(theirs)

    def _exits(self, hidden: Sequence[torch.Tensor], last: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """The head at each depth before the last, from the right answers and from the last depth; deeper counts more.

        Weights by depth are PABEE's (Zhou et al. 2020); the last depth as teacher is self-distillation (Zhang et al.
        2019).
        """
        wanted = [one.detach() for one in last]
        everything = torch.ones(len(batch.ids), device=batch.ids.device)
        total, weights = torch.zeros((), device=batch.ids.device), 0
        for depth, state in enumerate(hidden[:-1], start=1):
            choices = self.choices(self.student, state, batch)
            total = total + depth * (self._hard(choices, batch) + _apart(choices, wanted, everything)) / 2
            weights += depth
        return total / max(1, weights)


def _apart(choices: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], counted: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from ``wanted``, over the rows that are ``counted`` (rows,)."""
    values = [
        functional.kl_div(one.log_softmax(-1), goal.softmax(-1), reduction="none").sum(-1)
        for one, goal in zip(choices, wanted, strict=True)
    ]
    return (torch.stack(values).mean(0) * counted).mean()


def _overlap(first: torch.Tensor, last: torch.Tensor, batch: Batch) -> float:
    """Summed token F1 of spans (rows,) against the targets: quick, and close to what the official F1 will say."""
    shared = torch.minimum(last, batch.target[:, 1]) - torch.maximum(first, batch.target[:, 0]) + 1
    sizes = (last - first + 1).clamp(min=0) + batch.target[:, 1] - batch.target[:, 0] + 1
    return float((2 * shared.clamp(min=0) / sizes).sum())
