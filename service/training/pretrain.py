"""ALBERT from plain text: masked words and the order of segments, for a number of minutes."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tokenizers
import torch
from torch import nn
from torch.nn import functional
from transformers import AlbertConfig, AlbertForPreTraining

from ..errors import CheckpointError, DataError
from ..types import Ints
from .corpus import SHORTEST, Corpus, train_vocabulary
from .datasets import Labelled
from .features import Batch
from .finetune import Recipe, Run
from .loading import load, positions_of
from .masking import NO_TARGET, MaskedBatch, Special, masked_batch
from .output import copy_tokenizer, identity, weight_files, write_checkpoint
from .precision import device, mixed_precision
from .splits import write_rows

T = TypeVar("T")
AHEAD = 8  # batches that are made while the device works
HELD_BATCHES = 16
HELD_PAIRS = 1000
LABELS = ("in-order", "swapped")
POSITIONS = 512  # that a new model has


@dataclass(frozen=True, slots=True)
class Shape:
    """A model from scratch, under the names of ``AlbertConfig``."""

    vocab_size: int = 10_000
    embedding_size: int = 128
    hidden_size: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    intermediate_size: int = 2048

    def __post_init__(self) -> None:
        """CheckpointError where the heads cannot share the hidden state."""
        if self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise CheckpointError(f"--hidden-size {self.hidden_size}: {heads} attention heads cannot share it evenly")


@dataclass(frozen=True, slots=True)
class Plan:
    """``length`` in tokens; ``masked``: share of the words, 0 leaves only the order; ``most``: tokens that are read.

    ``pairs``: so many of the text that is learnt from are written too, for another model to be taught on.
    """

    texts: Sequence[Path]
    out: Path
    init: Path | None = None
    shape: Shape = Shape()
    length: int = 256
    masked: float = 0.15
    most: int = 60_000_000
    pairs: int = 0
    recipe: Recipe = field(default_factory=Recipe)


def pretrain(plan: Plan) -> dict[str, float]:
    """Train and write a checkpoint with both heads; returns the held-out losses and the accuracy of the order.

    Beside it lie pairs of held-out documents for ``evaluate``: ``dev.jsonl``, of those that chose the step, and
    ``test.jsonl``, of those that nothing looked at; and, where the plan wants ``pairs``, ``train.jsonl``.
    """
    positions = positions_of(plan.init) if plan.init else POSITIONS
    if not SHORTEST + 3 <= plan.length <= positions:
        raise DataError(f"--length {plan.length}: wanted {SHORTEST + 3} to {positions} tokens")
    vocabulary = plan.out if plan.init is None else plan.init
    if plan.init is None and not (plan.out / "state.pt").exists():
        train_vocabulary(plan.texts, plan.shape.vocab_size, plan.out)
    elif plan.init:
        copy_tokenizer(plan.init, plan.out)
    special = Special.of(vocabulary / "tokenizer.json")
    corpus, held = Corpus.read(plan.texts, vocabulary / "tokenizer.json", plan.most).split(0.04, least=2)
    held, untouched = held.split(0.5)
    torch.manual_seed(plan.recipe.seed)
    student = _student(plan, special)
    stream = PairStream(corpus, special, plan.length, plan.masked, plan.recipe.batch_tokens, plan.recipe.seed)
    fixed = list(itertools.islice(replace(stream, corpus=held, seed=0)(0, 0), HELD_BATCHES))
    if not fixed:
        raise DataError(f"no held-out document has {SHORTEST} tokens: give more text, or longer documents")
    learner = Pretraining(student.to(device()), fixed)
    report = _report(plan, len(corpus.ids))
    files = [*plan.texts, *(weight_files(plan.init) if plan.init else [])]
    run = Run(learner, stream, plan.recipe, plan.out / "state.pt", identity=identity(report, files))
    progress = run.to_the_end()
    learner.score()
    for name, part, most in (("dev", held, HELD_PAIRS), ("test", untouched, HELD_PAIRS), ("train", corpus, plan.pairs)):
        if most:
            write_pairs(part, vocabulary / "tokenizer.json", plan.length, most, plan.out / f"{name}.jsonl")
    write_checkpoint(student, vocabulary, plan.out, report | learner.figures, progress)
    run.forget()
    return learner.figures


def write_pairs(corpus: Corpus, tokenizer: Path, length: int, most: int, path: Path) -> None:
    """Up to ``most`` pairs of segments as labelled texts, under the labels that ``convert`` gives the head."""
    engine = tokenizers.Tokenizer.from_file(str(tokenizer))
    draw = np.random.default_rng(1)
    rows = []
    for pair in itertools.islice(corpus.segments(length - 3, draw), most):
        first, second = (engine.decode(part.tolist()) for part in pair)
        swapped = draw.random() < 0.5
        rows.append(Labelled(LABELS[1], second, first) if swapped else Labelled(LABELS[0], first, second))
    write_rows(rows, path)


class Pretraining(nn.Module):
    """Both tasks: ``L = L_MLM + L_SOP``.  ``figures`` are those of the last call of ``score``."""

    def __init__(self, student: AlbertForPreTraining, held: Sequence[MaskedBatch]) -> None:
        super().__init__()
        self.student = student
        self.held = held
        self.figures: dict[str, float] = {}

    def attacked(self) -> AbstractContextManager[bool]:
        return contextlib.nullcontext(False)

    def loss(self, batch: Batch) -> torch.Tensor:
        words, order, _ = self._losses(batch)
        return words + order

    @torch.inference_mode()
    def score(self) -> float:
        """Higher is better: what is left of the held-out loss, turned round.  Twice the tasks, one number."""
        self.eval()
        where = next(self.parameters()).device
        sums = np.zeros(3)
        for batch in self.held:
            with mixed_precision(where):
                sums += [float(value) for value in self._losses(batch.to(where))]
        words, order, right = (float(value) for value in sums / len(self.held))
        self.figures = {"mlm_loss": round(words, 4), "sop_loss": round(order, 4), "sop_accuracy": round(right, 4)}
        return float(1 / (1 + words + order))

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the masked words, of the order, and the share of pairs whose order is found."""
        assert isinstance(batch, MaskedBatch)
        out = self.student.albert(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types)
        chosen = batch.wanted != NO_TARGET
        words = torch.zeros((), device=batch.ids.device)
        if chosen.any():
            # Only the masked places are scored against the vocabulary: it is most of a small model's work.
            logits = self.student.predictions(out.last_hidden_state[chosen])
            words = functional.cross_entropy(logits.float(), batch.wanted[chosen])
        order = self.student.sop_classifier(out.pooler_output).float()
        right = (order.argmax(-1) == batch.target).float().mean()
        return words, functional.cross_entropy(order, batch.target), right


@dataclass(frozen=True, slots=True)
class PairStream:
    """Batches of pairs, ``tokens`` in each; made in a thread of their own."""

    corpus: Corpus
    special: Special
    length: int
    masked: float
    tokens: int
    seed: int

    def __call__(self, epoch: int, skip: int) -> Iterator[MaskedBatch]:
        return ahead(itertools.islice(self._batches(epoch), skip, None))

    def _batches(self, epoch: int) -> Iterator[MaskedBatch]:
        draw = np.random.default_rng((self.seed, epoch))
        pairs = self.corpus.segments(self.length - 3, draw)
        for group in _filled(pairs, self.tokens if self.masked else self.tokens // 2):
            yield masked_batch(group, self.special, self.masked, draw)


def _filled(pairs: Iterator[tuple[Ints, Ints]], tokens: int) -> Iterator[list[tuple[Ints, Ints]]]:
    """Groups that take up to ``tokens`` with their padding, a pair at least."""
    group: list[tuple[Ints, Ints]] = []
    longest = 0
    for pair in pairs:
        length = len(pair[0]) + len(pair[1]) + 3
        if group and max(longest, length) * (len(group) + 1) > tokens:
            yield group
            group, longest = [], 0
        group.append(pair)
        longest = max(longest, length)
    if group:
        yield group


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, up to AHEAD of them made before they are asked for; an error comes out where it belongs."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not left.is_set():
            try:
                waiting.put(entry, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # whatever it is, the other side must not wait for ever
            put((False, error))

    threading.Thread(target=make, daemon=True, name="batches").start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item
            elif item is not None:
                raise item
            else:
                return
    finally:
        left.set()


def _student(plan: Plan, special: Special) -> AlbertForPreTraining:
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}
    if plan.init:
        return load(AlbertForPreTraining, plan.init, {"num_labels": len(LABELS)} | names)
    settings = asdict(plan.shape) | {"vocab_size": special.size}
    config = AlbertConfig(
        **settings, max_position_embeddings=POSITIONS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        classifier_dropout_prob=0.0, pad_token_id=0, bos_token_id=special.cls, eos_token_id=special.sep, **names,
    )  # fmt: skip
    return AlbertForPreTraining._from_config(config, attn_implementation="sdpa")


def _report(plan: Plan, tokens: int) -> dict[str, Any]:
    told = {"length": plan.length, "masked": plan.masked, "tokens_read": tokens} | asdict(plan.recipe)
    start = plan.init.name if plan.init else "scratch"
    return {"init": start, "files": [path.name for path in plan.texts], "recipe": told}
