"""What a checkpoint says twice of its tokenizer, compared; each contradiction is one line with file and field."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import CheckpointError
from .sentencepiece import read_model
from .vocabulary import CONFIGS, FRAME, TokenizerFiles, read_word_pieces, token_text

ACCENTED, CHINESE = "résumé", "中文"


def check_tokenizer(files: TokenizerFiles, definition: str, rows: int) -> None:
    """Compare ``definition`` (a ``tokenizer.json``) with the other files, and with ``rows`` of the word embeddings.

    CheckpointError at the first contradiction.
    """
    engine = tokenizers.Tokenizer.from_str(definition)
    ids = engine.get_vocab(with_added_tokens=True)
    most, piece = max((number, piece) for piece, number in ids.items())
    if most >= rows:
        where = files.folder / "added_tokens.json" if piece in files.added else files.path
        raise CheckpointError(
            f"{where}: the piece {piece!r} has the id {most}, but vocab_size in config.json, and so the word "
            f"embeddings, end at {rows - 1}"
        )
    for field, token in zip(FRAME, files.frame, strict=True):
        if token not in ids:
            where = files.folder / CONFIGS[0 if files.config.get(field) else 1]
            raise CheckpointError(f"{where}: {field} is {token!r}, which {files.source} does not hold")
    _check_added(files, ids)
    if files.source == "tokenizer.json":
        content = json.loads(definition)
        _check_pieces(files, content)
        _check_preparation(files, engine, content)
        _check_frame(files, engine, ids)


def _check_added(files: TokenizerFiles, ids: dict[str, int]) -> None:
    for token, number in files.added.items():
        if ids.get(token) != number:
            where = files.folder / "added_tokens.json"
            raise CheckpointError(f"{where}: {token!r} is {number!r}, but {ids.get(token)} in {files.source}")
    listed = files.config.get("added_tokens_decoder") or {}
    for number, token in listed.items() if isinstance(listed, dict) else ():
        text = token_text(token) or ""
        if str(ids.get(text)) != str(number):
            raise CheckpointError(
                f"{files.folder / 'tokenizer_config.json'}: added_tokens_decoder has {text!r} at {number}, but "
                f"{files.source} has it at {ids.get(text)}"
            )


def _check_pieces(files: TokenizerFiles, definition: dict[str, Any]) -> None:
    """The vocabulary file beside a ``tokenizer.json`` holds the same pieces under the same ids."""
    for name in files.present[1:]:
        ours, theirs = _pieces(definition), _pieces_of(files.folder / name)
        for number in range(max(len(ours), len(theirs))):
            a, b = (part[number] if number < len(part) else None for part in (ours, theirs))
            if a != b:
                raise CheckpointError(
                    f"{files.path}: model.vocab has {a!r} at {number}, but {name} has {b!r} there: they are of two "
                    "tokenizers; remove the file that the model was not trained with"
                )


def _pieces(definition: dict[str, Any]) -> list[str | None]:
    """By id, with the added tokens that stand inside the vocabulary."""
    vocabulary = definition["model"]["vocab"]
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((one[0], i) for i, one in enumerate(vocabulary))
    by_id = {number: piece for piece, number in pairs}
    return [by_id.get(number) for number in range(max(by_id, default=-1) + 1)]


def _pieces_of(path: Path) -> list[str | None]:
    if path.name == "vocab.txt":
        return list(read_word_pieces(path))
    return [piece.piece for piece in read_model(path).pieces]


def _check_preparation(files: TokenizerFiles, engine: tokenizers.Tokenizer, definition: dict[str, Any]) -> None:
    """Told by what the tokenizer does to a word, whatever parts it is made of."""

    def normal(text: str) -> str:
        return str(engine.normalizer.normalize_str(text)) if engine.normalizer else text

    unigrams = definition["model"].get("type") == "Unigram" or isinstance(definition["model"]["vocab"], list)
    stripped = normal(ACCENTED).lower() == "resume"
    does: dict[str, tuple[bool, str]] = {
        "do_lower_case": ("abc" in normal("ABC"), "lower case"),
    }
    if unigrams:
        does["keep_accents"] = (not stripped, "accents that are kept")
    else:
        does["strip_accents"] = (stripped, "accents that are stripped")
        does["tokenize_chinese_chars"] = (
            len(_words(engine, normal(CHINESE))) > 1,
            "Chinese that is cut into characters",
        )
    for field, (done, what) in does.items():
        said = files.config.get(field)
        if isinstance(said, bool) and said != done:
            raise CheckpointError(
                f"{files.folder / 'tokenizer_config.json'}: {field} is {str(said).lower()}, but tokenizer.json has "
                f"{'' if done else 'no '}{what}: correct the one that is wrong for this model (transformers 4 and 5 "
                "do not agree on which of them counts)"
            )


def _words(engine: tokenizers.Tokenizer, text: str) -> list[Any]:
    return list(engine.pre_tokenizer.pre_tokenize_str(text)) if engine.pre_tokenizer else [text]


def _check_frame(files: TokenizerFiles, engine: tokenizers.Tokenizer, ids: dict[str, int]) -> None:
    """A ``post_processor`` must frame as ALBERT does; without one the frame is ALBERT's all the same."""
    if engine.post_processor is None:
        return
    engine.no_padding()
    engine.no_truncation()
    cls, sep = (ids[token] for token in files.frame)
    first, second = (engine.encode(text, add_special_tokens=False).ids for text in ("one", "two"))
    alone, pair = engine.encode("one"), engine.encode("one", "two")
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    if alone.ids != [cls, *first, sep] or pair.ids != [*alone.ids, *second, sep] or pair.type_ids != types:
        raise CheckpointError(
            f"{files.path}: post_processor frames a pair as {pair.tokens} of the types {pair.type_ids}, not as "
            f"{files.frame[0]} a {files.frame[1]} b {files.frame[1]} of 0 and 1, as ALBERT is trained"
        )
