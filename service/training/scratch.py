"""An ALBERT with random weights, its word pieces trimmed to the texts at hand: for a task that has texts enough.

A small vocabulary and a small model learn labels from some thousand texts without pretraining; what little text there
is teaches a model of words less than the labels do.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AlbertConfig, AlbertModel, BertTokenizer

from ..errors import CheckpointError
from .bert import SPECIAL, trimmed_vocabulary, write_tokenizer
from .pretrain import Shape


def from_scratch(word_pieces: Path, texts: Iterable[str], shape: Shape, out: Path, seed: int) -> None:
    """Write a checkpoint of ``shape`` to ``out``; up to ``shape.vocab_size`` of the ``word_pieces`` (a ``vocab.txt``)
    that ``texts`` use stay.  CheckpointError where the file is no list of word pieces."""
    try:
        pieces = word_pieces.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{word_pieces}: cannot be read: {error}") from error
    if shape.vocab_size < len(SPECIAL):
        raise CheckpointError(f"--vocab-size {shape.vocab_size}: wanted {len(SPECIAL)} at least, for {SPECIAL}")
    if not set(SPECIAL) <= set(pieces):
        raise CheckpointError(f"{word_pieces}: no list of word pieces: [PAD], [UNK], [CLS], [SEP] or [MASK] is missing")
    definition = json.loads(BertTokenizer(vocab=str(word_pieces)).backend_tokenizer.to_str())
    kept = trimmed_vocabulary(definition, texts, shape.vocab_size)
    torch.manual_seed(seed)
    settings = asdict(shape) | {"vocab_size": len(kept)}
    model = AlbertModel(AlbertConfig(**settings, pad_token_id=0, bos_token_id=2, eos_token_id=3))
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    write_tokenizer(definition, kept, out)
