"""Tokenizers of many kinds, and changes to them."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, processors

from service.conversion.texts import SENTENCES
from tests.checkpoints import SPECIAL, save_checkpoint, word_pieces
from tests.odd_checkpoints.changes import CLASSIFIER, NAMED, file
from tests.odd_checkpoints.outcomes import Build

ROWS = word_pieces().get_vocab_size()


def word_list(folder: Path) -> None:
    """The same word pieces as ``vocab.txt`` alone."""
    pieces = word_pieces().get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.__getitem__)))
    (folder / "tokenizer.json").unlink()


def chinese(folder: Path) -> None:
    """A classifier with word pieces as the Chinese ALBERTs have them: characters, and some Latin letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    characters = sorted({letter for text in SENTENCES for letter in text if "一" <= letter <= "鿿"})
    pieces = [*SPECIAL, *characters, *(f"##{letter}" for letter in characters), *letters, *"，。！？"]
    pieces += [f"##{letter}" for letter in letters]
    save_checkpoint(folder, vocab_size=len(pieces), tokenizer=False, **NAMED)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))


@functools.cache
def sentence_pieces(kind: str = "unigram", size: int = 300) -> bytes:
    """A ``spiece.model`` of the kind that ALBERT's authors made, with their user-defined symbols."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SENTENCES, *(text.lower() for text in SENTENCES)]), model_writer=written,
        vocab_size=size, model_type=kind, control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"], pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def spiece(architecture: str = CLASSIFIER, **settings: Any) -> Build:
    """A checkpoint with ``spiece.model`` alone, and ``settings`` in its ``tokenizer_config.json``."""

    def build(folder: Path) -> None:
        size = sentencepiece.SentencePieceProcessor(model_proto=sentence_pieces()).vocab_size()
        more = NAMED if architecture == CLASSIFIER else {}
        save_checkpoint(folder, architecture, vocab_size=size, tokenizer=False, **more)
        file("spiece.model", sentence_pieces())(folder)
        if settings:
            file("tokenizer_config.json", {"tokenizer_class": "AlbertTokenizer"} | settings)(folder)

    return build


def fast_from_spiece(folder: Path) -> None:
    """The ``tokenizer.json`` that transformers makes of ``spiece.model``."""
    transformers.AlbertTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.save(
        str(folder / "tokenizer.json")
    )


def tokenizer(change: Callable[[tokenizers.Tokenizer], None]) -> Build:
    def build(folder: Path) -> None:
        engine = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        change(engine)
        engine.save(str(folder / "tokenizer.json"))

    return build


def framed(single: str, pair: str) -> Build:
    """A post-processor that frames texts by these templates."""

    def change(engine: tokenizers.Tokenizer) -> None:
        ends = [(token, engine.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        engine.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)

    return tokenizer(change)


def one_more_token(engine: tokenizers.Tokenizer) -> None:
    engine.add_tokens([AddedToken("xqzx", normalized=False)])


def other_vocabulary(folder: Path) -> None:
    """A ``vocab.txt`` with as many pieces as ``tokenizer.json``, two of them in each other's place."""
    pieces = word_pieces().get_vocab()
    ordered = sorted(pieces, key=pieces.__getitem__)
    ordered[-1], ordered[-2] = ordered[-2], ordered[-1]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in ordered))
