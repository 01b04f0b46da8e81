"""Examples to what the training loop eats: framed ids and a target, and padded batches of about equal cost."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ..errors import DataError
from ..tasks.text import Tokenizer, Tokens, cut_pair
from ..types import Ints
from .datasets import Labelled, Question

MAX_QUESTION = 64  # tokens, as the pipelines have always cut it


@dataclass(frozen=True, slots=True)
class Feature:
    """``ids`` and ``types`` (n,); ``target``: a label's index, or an answer's first and last token (0 0: none)."""

    ids: Ints
    types: Ints
    target: int | tuple[int, int]


def labelled_features(
    rows: Sequence[Labelled], tokenizer: Tokenizer, labels: Sequence[str], longest: int,
    draw: random.Random | None = None,
) -> list[Feature]:  # fmt: skip
    """One feature a row.  DataError on a label that training does not know.

    A text of more than ``longest`` tokens is cut at its end; with ``draw`` a window is taken anywhere in it instead,
    for the service pools windows of long texts and so sees all of them.
    """
    index = {label: number for number, label in enumerate(labels)}
    features = []
    for row in tqdm(rows, desc="tokenizing", unit=" texts", leave=False):
        if row.label not in index:
            raise DataError(f"label {row.label!r} is not among the labels of the training file: {', '.join(labels)}")
        first = tokenizer.encode(row.text).ids
        second = tokenizer.encode(row.text_pair).ids if row.text_pair else None
        if second is None:
            start = draw.randint(0, max(0, len(first) - longest + 2)) if draw else 0
            framed = tokenizer.frame(first[start : start + longest - 2])
        else:
            framed = tokenizer.frame(*cut_pair(first, second, longest - 3))
        features.append(Feature(framed.ids, framed.types, index[row.label]))
    return features


def question_features(
    questions: Sequence[Question], tokenizer: Tokenizer, longest: int, seed: int, unanswerable: float = 0.15
) -> list[Feature]:
    """One window a question, of random length up to ``longest``, holding the answer at a random place.

    A share ``unanswerable`` of the windows is taken beside the answer instead: the model must learn to say of a
    window that the answer is not in it, or scores of different windows do not compare.
    """
    draw = random.Random(seed)
    contexts: dict[str, Tokens] = {}
    features = []
    for item in tqdm(questions, desc="tokenizing", unit=" questions", leave=False):
        if item.context not in contexts:
            contexts[item.context] = tokenizer.encode(item.context)
        asked = tokenizer.encode(item.question).ids[: min(MAX_QUESTION, longest // 4)]
        features.append(_window(item, asked, contexts[item.context], tokenizer, longest, draw, unanswerable))
    return features


def _window(
    item: Question, asked: Ints, context: Tokens, tokenizer: Tokenizer,
    longest: int, draw: random.Random, unanswerable: float,
) -> Feature:  # fmt: skip
    room = min(len(context), draw.randint(longest // 2, longest) - len(asked) - 3)
    if not item.answers:
        start = draw.randint(0, len(context) - room)
        framed = tokenizer.frame(asked, context.ids[start : start + room])
        return Feature(framed.ids, framed.types, (0, 0))
    text, at = item.answers[0]
    # The tokens that share at least one code point with the answer.
    first = int(np.searchsorted(context.offsets[:, 1], at, side="right"))
    last = int(np.searchsorted(context.offsets[:, 0], at + len(text), side="left")) - 1
    last = max(first, last)
    earliest = max(0, last - room + 1)
    start = draw.randint(earliest, max(earliest, min(first, len(context) - room)))
    before, after = first, len(context) - last - 1
    if draw.random() < unanswerable and max(before, after) >= 24:
        part = context.part(0, min(first, room)) if before >= after else context.part(last + 1, last + 1 + room)
        beside = item.context[part.offsets[0, 0] : part.offsets[-1, 1]].lower()
        if not any(answer.lower() in beside for answer, _ in item.answers):
            framed = tokenizer.frame(asked, part.ids)
            return Feature(framed.ids, framed.types, (0, 0))
    framed = tokenizer.frame(asked, context.ids[start : start + room])
    shift = framed.second - start
    if first < start:  # an answer longer than the window
        return Feature(framed.ids, framed.types, (0, 0))
    return Feature(framed.ids, framed.types, (first + shift, last + shift))


@dataclass(frozen=True, slots=True)
class FeatureStream:
    """The training batches of each epoch; ``features`` gives an epoch's own, so that augmented texts differ."""

    features: Callable[[int], Sequence[Feature]]
    tokens: int
    seed: int

    def __call__(self, epoch: int, skip: int = 0) -> Iterator["Batch"]:
        return itertools.islice(batches(self.features(epoch), self.tokens, seed=self.seed + epoch), skip, None)

    def batches_per_epoch(self) -> int:
        return sum(1 for _ in self(0))


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded to the longest: ``ids``, ``types``, ``mask`` (rows, longest); ``target`` (rows,) or (rows, 2)."""

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    target: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(part.to(device) for part in (self.ids, self.types, self.mask, self.target)))


def batches(features: Sequence[Feature], tokens: int, seed: int | None = None) -> Iterator[Batch]:
    """Batches of at most ``tokens`` padded tokens, of like length; shuffled by ``seed``, in order of length without."""
    order = list(range(len(features)))
    if seed is not None:
        # A little noise keeps neighbours from always meeting, and the padding small.
        noise = random.Random(seed)
        order.sort(key=lambda i: len(features[i].ids) * noise.uniform(0.9, 1.1) + noise.random())
    else:
        order.sort(key=lambda i: len(features[i].ids))
    groups = _groups([len(features[i].ids) for i in order], tokens)
    if seed is not None:
        random.Random(seed).shuffle(groups)
    for start, end in groups:
        yield collate([features[i] for i in order[start:end]])


def _groups(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    groups, start, longest = [], 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and longest * (index - start + 1) > tokens:
            groups.append((start, index))
            start, longest = index, length
    return [*groups, (start, len(lengths))]


def collate(features: Sequence[Feature]) -> Batch:
    longest = max(len(feature.ids) for feature in features)
    ids, types, mask = (torch.zeros((len(features), longest), dtype=torch.long) for _ in range(3))
    for row, feature in enumerate(features):
        length = len(feature.ids)
        ids[row, :length] = torch.from_numpy(feature.ids)
        types[row, :length] = torch.from_numpy(feature.types)
        mask[row, :length] = 1
    return Batch(ids, types, mask, torch.tensor([feature.target for feature in features]))
