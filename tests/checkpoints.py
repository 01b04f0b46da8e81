"""Tiny ALBERT checkpoints with random weights, made in milliseconds, and the vocabulary that they share."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from service.conversion.texts import SENTENCES

TINY = {
    "embedding_size": 16,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_pieces() -> tokenizers.Tokenizer:
    """BERT's kind of tokenizer: every letter of the sentences, and their words."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {w for s in SENTENCES for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(s))}
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def save_checkpoint(
    folder: Path, architecture: str = "AlbertForSequenceClassification", *, half: bool = False, seed: int = 0,
    tokenizer: bool = True, **config: Any,
) -> Path:  # fmt: skip
    """Write a checkpoint with weights large enough that a wrong graph shows in the logits."""
    torch.manual_seed(seed)
    pieces = word_pieces()
    settings = {"vocab_size": pieces.get_vocab_size()} | TINY | config
    model = getattr(transformers, architecture)(transformers.AlbertConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.dim() > 1 else 0.1
            parameter.add_(torch.randn_like(parameter) * scale)
    folder.mkdir(parents=True, exist_ok=True)
    (model.half() if half else model).save_pretrained(folder)
    if tokenizer:
        pieces.save(str(folder / "tokenizer.json"))
    return folder
