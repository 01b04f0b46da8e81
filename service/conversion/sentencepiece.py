"""A SentencePiece model as a ``tokenizer.json`` that gives the same ids as the ``sentencepiece`` library.

The text is prepared as ALBERT's own tokenizer does (spaces joined, quotes, accents, lower case), then cut by the
model's unigrams.  Two things need care, for other converters lose them:

- *User-defined symbols* (ALBERT's are ``( ) " - . – £ €``) are pieces as any other, only sure to be chosen.  They must
  not cut the text before it: what follows one is no new word, so it gets no mark of a word's beginning.
- *Combining characters* are those with a combining class, which are not the non-spacing marks of ``StripAccents``.

Sources: Kudo and Richardson 2018; ``unigram_model.cc`` of SentencePiece 0.2 for the scores; ``preprocess_text`` of
Google's ALBERT (Lan et al. 2019).
"""

import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors

from ..errors import CheckpointError

MARK = "▁"  # begins a word
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of pieces
NO_TEXT = (CONTROL, UNKNOWN)
NEVER = -1e6  # score of a piece that no text is cut into
FINAL_SIGMA = r"(?<=\p{L})\x{3a3}(?!\p{L})"


@dataclass(frozen=True, slots=True)
class Preparation:
    """What ALBERT's tokenizer does to a text before it is cut, under the names of ``tokenizer_config.json``."""

    do_lower_case: bool = True
    keep_accents: bool = False
    remove_space: bool = True

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Preparation":
        given = {name: config[name] for name in cls.__slots__ if isinstance(config.get(name), bool)}
        return cls(**given)

    def __call__(self, text: str) -> str:
        """The prepared text, in plain Python: what the normalizers of ``tokenizer.json`` are compared with."""
        text = " ".join(text.strip().split()) if self.remove_space else text
        text = text.replace("``", '"').replace("''", '"')
        if not self.keep_accents:
            text = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
        return text.lower() if self.do_lower_case else text


def sentencepiece_json(path: Path, preparation: Preparation, frame: tuple[str, str]) -> str:
    """The ``tokenizer.json`` of the SentencePiece model in ``path``; ``frame`` names the tokens around a text.

    CheckpointError where the file is no such model, or one of a kind that ALBERT does not use.
    """
    model = read_model(path)
    highest = max((piece.score for piece in model.pieces if piece.type == NORMAL), default=0.0)
    vocabulary = [(piece.piece, _score(piece, highest)) for piece in model.pieces]
    unknown = next((index for index, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    if unknown is None:
        raise CheckpointError(f"{path}: trainer_spec.unk_id names no piece, and other characters need one")
    bytes_too = any(piece.type == BYTE for piece in model.pieces)
    built = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=bytes_too))
    built.normalizer = normalizers.Sequence(list(_normalizers(model.normalizer_spec, preparation)))
    built.pre_tokenizer = _words(model.normalizer_spec, preparation)
    built.add_special_tokens(
        [
            AddedToken(one.piece, special=True, normalized=False)
            for one in model.pieces
            if one.type in (CONTROL, UNKNOWN)
        ]
    )
    _frame(built, path, frame)
    return str(built.to_str())


def read_model(path: Path) -> Any:
    """The parsed ``ModelProto``.  CheckpointError where it is not one, or its kind is not that of ALBERT's."""
    try:
        from sentencepiece import sentencepiece_model_pb2 as generated
    except ModuleNotFoundError:
        raise
    except (
        Exception
    ) as error:  # protobuf's own, of code that is newer than it is; pip does not see that they do not fit
        raise CheckpointError(f"{path}: protobuf is older than what sentencepiece was made with: update it") from error

    protocol: Any = generated
    model = protocol.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # DecodeError, of protobuf, which has no types
        raise CheckpointError(f"{path}: no SentencePiece model: {error}") from error
    if not model.pieces:
        raise CheckpointError(f"{path}: no SentencePiece model: it holds no pieces")
    kind = model.trainer_spec.DESCRIPTOR.fields_by_name["model_type"].enum_type
    if model.trainer_spec.model_type != model.trainer_spec.UNIGRAM:
        name = kind.values_by_number[model.trainer_spec.model_type].name
        raise CheckpointError(f"{path}: trainer_spec.model_type is {name}; can convert UNIGRAM, as ALBERT's is")
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise CheckpointError(f"{path}: trainer_spec.treat_whitespace_as_suffix is set; can convert marks before words")
    return model


def _score(piece: Any, highest: float) -> float:
    """As ``unigram_model.cc`` scores it: a user-defined symbol gets more than any path of other pieces could."""
    if piece.type == USER_DEFINED:
        return float(len(piece.piece.encode()) * highest - 0.1)
    return NEVER if piece.type in (UNUSED, CONTROL) else float(piece.score)


def _normalizers(spec: Any, preparation: Preparation) -> Iterator[normalizers.Normalizer]:
    if preparation.remove_space:
        # The model's own rules delete some of what Python's split() takes for white space.
        yield normalizers.Replace(Regex(f"[{_ranges(str.isspace)}]+"), " ")
    yield normalizers.Replace("``", '"')
    yield normalizers.Replace("''", '"')
    if not preparation.keep_accents:
        yield normalizers.NFKD()
        yield normalizers.Replace(Regex(f"[{_ranges(unicodedata.combining)}]+"), "")
    if preparation.do_lower_case:
        yield normalizers.Replace(Regex(FINAL_SIGMA), "ς")  # as str.lower does; Lowercase knows no neighbours
        yield normalizers.Lowercase()
    if spec.precompiled_charsmap:
        if not preparation.keep_accents and "nfkc" in spec.name:
            yield normalizers.NFC()  # Precompiled looks at one character at a time, and does not put Hangul together
        yield normalizers.Precompiled(spec.precompiled_charsmap)


def _ranges(chosen: Callable[[str], object]) -> str:
    """The characters that are ``chosen``, as the inside of a regular expression's brackets."""
    ranges: list[list[int]] = []
    for code in (code for code in range(0x110000) if chosen(chr(code))):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges)


def _words(spec: Any, preparation: Preparation) -> pre_tokenizers.PreTokenizer:
    scheme = "always" if spec.add_dummy_prefix else "never"
    marks = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme=scheme)
    if spec.add_dummy_prefix and (preparation.remove_space or spec.remove_extra_whitespaces):
        return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    return marks


def _frame(built: tokenizers.Tokenizer, path: Path, frame: tuple[str, str]) -> None:
    cls, sep = frame
    ids = [(token, built.token_to_id(token)) for token in frame]
    missing = [token for token, number in ids if number is None]
    if missing:
        raise CheckpointError(f"{path}: no piece {missing[0]!r} in it, which ALBERT frames texts with")
    built.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", special_tokens=ids
    )


def with_added_tokens(definition: str, added: dict[str, int]) -> str:
    """The same tokenizer with the tokens of an ``added_tokens.json``, which are cut out of a text before all else."""
    if not added:
        return definition
    content = json.loads(definition)
    known = {token["id"] for token in content["added_tokens"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    content["added_tokens"] += [
        {"id": number, "content": text} | flags for text, number in added.items() if number not in known
    ]
    content["added_tokens"].sort(key=lambda token: token["id"])
    return json.dumps(content, ensure_ascii=False)
