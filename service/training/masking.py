"""Pairs of segments to a batch of both tasks: half of them swapped, and some of the words masked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
import torch

from ..errors import DataError
from ..types import Ints
from .features import Batch

NO_TARGET = -100  # what torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Special:
    """Ids of the tokens that frame and mask, and the size of the vocabulary."""

    cls: int
    sep: int
    mask: int
    size: int

    @classmethod
    def of(cls, file: Path) -> "Special":
        engine = tokenizers.Tokenizer.from_file(str(file))
        opening, end, mask = (engine.token_to_id(name) for name in ("[CLS]", "[SEP]", "[MASK]"))
        if opening is None or end is None or mask is None:
            raise DataError(f"{file}: wants the tokens [CLS], [SEP] and [MASK]")
        return cls(opening, end, mask, engine.get_vocab_size())


@dataclass(frozen=True, slots=True)
class MaskedBatch(Batch):
    """A batch whose ``target`` is 1 where the segments are swapped; ``wanted`` (rows, longest) are the masked ids."""

    wanted: torch.Tensor

    def to(self, device: torch.device) -> "MaskedBatch":
        parts = (self.ids, self.types, self.mask, self.target, self.wanted)
        return MaskedBatch(*(part.to(device, non_blocking=True) for part in parts))


def masked_batch(
    pairs: Sequence[tuple[Ints, Ints]], special: Special, masked: float, draw: np.random.Generator
) -> MaskedBatch:
    """Half of the pairs swapped (the sentence-order task of Lan et al. 2019), then masked.

    Without masks each pair stands in the batch both ways, so that nothing but the order tells the two apart.
    """
    if masked:
        swapped = draw.random(len(pairs)) < 0.5
    else:
        pairs = [pair for pair in pairs for _ in range(2)]
        swapped = np.arange(len(pairs)) % 2 == 1
    longest = max(len(a) + len(b) for a, b in pairs) + 3
    ids, types, mask = (np.zeros((len(pairs), longest), dtype=np.int64) for _ in range(3))
    words = np.zeros((len(pairs), longest), dtype=bool)
    for row, ((a, b), turned) in enumerate(zip(pairs, swapped, strict=True)):
        first, second = (b, a) if turned else (a, b)
        length, middle = len(a) + len(b) + 3, len(first) + 2
        ids[row, :length] = np.concatenate(([special.cls], first, [special.sep], second, [special.sep]))
        types[row, middle:length] = 1
        mask[row, :length] = 1
        words[row, 1:length] = True
        words[row, [middle - 1, length - 1]] = False
    wanted = np.full_like(ids, NO_TARGET)
    if masked:
        chosen = ngrams(words, masked, draw)
        wanted[chosen] = ids[chosen]
        ids = hidden_words(ids, chosen, special, draw)
    parts = (ids, types, mask, swapped.astype(np.int64), wanted)
    return MaskedBatch(*(torch.from_numpy(part) for part in parts))


def ngrams(words: npt.NDArray[np.bool_], share: float, draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """About ``share`` of the ``words`` (rows, longest), in runs of one to three: n tokens with a chance of 1/n."""
    chances = np.array([1, 1 / 2, 1 / 3]) / (1 + 1 / 2 + 1 / 3)
    mean = float(chances @ [1, 2, 3])
    begins = draw.random(words.shape) < share / mean
    length = draw.choice([1, 2, 3], size=words.shape, p=chances)
    chosen = begins.copy()
    chosen[:, 1:] |= (begins & (length >= 2))[:, :-1]
    chosen[:, 2:] |= (begins & (length >= 3))[:, :-2]
    return chosen & words


def hidden_words(
    ids: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_], special: Special, draw: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Of the chosen ones 80 % become [MASK], 10 % any token, and 10 % stay (Devlin et al. 2018)."""
    dice = draw.random(ids.shape)
    anything = draw.integers(5, special.size, ids.shape)
    hidden = np.where(chosen & (dice < 0.8), special.mask, ids)
    return np.where(chosen & (dice >= 0.8) & (dice < 0.9), anything, hidden)
