"""Whatever tokenizer files a checkpoint has, as the one ``tokenizer.json`` that serving reads.

The files decide, not the model's type: the Chinese ALBERTs use BERT's word pieces.  Where there is a
``tokenizer.json`` it is taken as it is, for it was saved with the model and is what ran; it must agree with all that
the other files say (``tokenizer_checks.py``).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from ..errors import CheckpointError
from .files import check_whole, read_bytes, read_json
from .sentencepiece import Preparation, sentencepiece_json, with_added_tokens
from .tensorflow import vocabulary_file

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # of word pieces
FRAME = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
NAMES = ("tokenizer.json", "spiece.model", "vocab.txt")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a folder says of its tokenizer.  ``config`` is ``tokenizer_config.json``, empty where there is none.

    ``path`` is the file that decides, and ``present`` the usual names of those that are there, that one first: Google
    calls its own otherwise.  ``frame`` holds the tokens around a text, [CLS] and [SEP]; ``added`` is
    ``added_tokens.json``.
    """

    folder: Path
    path: Path
    present: tuple[str, ...]
    config: dict[str, Any]
    frame: tuple[str, str]
    added: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> "TokenizerFiles":
        """CheckpointError where there is none, or one of them is no such file."""
        present = tuple(name for name in NAMES if (folder / name).exists())
        path = folder / present[0] if present else vocabulary_file(folder)
        if path is None:
            raise CheckpointError(f"{folder}: no {', no '.join(NAMES[:2])} and no {NAMES[2]} in it")
        present = present or ("spiece.model" if path.suffix == ".model" else "vocab.txt",)
        for file in {path, *(folder / name for name in present[1:])}:
            check_whole(file)
        config = optional_json(folder / "tokenizer_config.json")
        return cls(folder, path, present, config, _frame(folder, config), optional_json(folder / "added_tokens.json"))

    @property
    def source(self) -> Literal["tokenizer.json", "spiece.model", "vocab.txt"]:
        """The usual name of the file that decides."""
        return self.present[0]  # type: ignore[return-value]  # present holds names of NAMES only


def tokenizer_json(files: TokenizerFiles) -> str:
    """``tokenizer.json`` as it is, or built from SentencePiece's ``spiece.model`` or word pieces' ``vocab.txt``.

    CheckpointError where the file cannot be read as what its name says.
    """
    if files.source == "tokenizer.json":
        read_json(files.path)
        text = files.path.read_text(encoding="utf-8")
        try:
            tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{files.path}: the tokenizers library cannot read it: {error}") from error
        return text
    if files.source == "spiece.model":
        built = sentencepiece_json(files.path, Preparation.of(files.config), files.frame)
    else:
        built = _word_pieces_json(files)
    return with_added_tokens(built, files.added)


def read_word_pieces(path: Path) -> dict[str, int]:
    """The pieces of a ``vocab.txt`` with their ids, which are the numbers of their lines."""
    try:
        lines = read_bytes(path).decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not UTF-8: {error}") from error
    pieces = {piece: number for number, piece in enumerate(lines)}
    if len(pieces) < len(lines):
        twice = next(piece for number, piece in enumerate(lines) if pieces[piece] != number)
        raise CheckpointError(f"{path}: the piece {twice!r} stands in two lines, so it has two ids")
    return pieces


def _word_pieces_json(files: TokenizerFiles) -> str:
    """As BERT's tokenizer: Devlin et al. 2018, ``tokenization.py``."""
    pieces, config = read_word_pieces(files.path), files.config
    unknown = token_text(config.get("unk_token")) or "[UNK]"
    missing = [token for token in (unknown, *files.frame) if token not in pieces]
    if missing:
        raise CheckpointError(f"{files.path}: no piece {missing[0]!r} in it, which the tokenizer needs")
    built = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token=unknown, max_input_chars_per_word=100))
    built.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True) is not False,
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True) is not False,
    )
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    named = {*SPECIAL, unknown, *files.frame}
    built.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in pieces if one in named])
    cls, sep = files.frame
    built.post_processor = processors.BertProcessing((sep, pieces[sep]), (cls, pieces[cls]))
    return str(built.to_str())


def optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def token_text(value: Any) -> str | None:
    """A token as the files write it: its text, or an object with it in ``content``."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def mask_token(files: TokenizerFiles) -> str:
    """What stands for a word that is to be found.  CheckpointError where the vocabulary has none."""
    older = optional_json(files.folder / "special_tokens_map.json")
    given = [token_text(one["mask_token"]) for one in (files.config, older) if one.get("mask_token") is not None]
    token = next((one for one in given if one), "[MASK]")
    if tokenizers.Tokenizer.from_str(tokenizer_json(files)).token_to_id(token) is None:
        raise CheckpointError(f"{files.path}: no piece {token!r} in it, which masks a word")
    return token


def read_pooling(folder: Path) -> str:
    """ "mean" or "cls".  CheckpointError for another that sentence-transformers knows."""
    _check_modules(folder / "modules.json")
    path = folder / "1_Pooling" / "config.json"
    said = optional_json(path)
    modes = {name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on}
    modes = {"mean" if mode == "mean_tokens" else mode.removesuffix("_token") for mode in modes} or {"mean"}
    if not modes <= {"mean", "cls"} or len(modes) > 1:
        raise CheckpointError(f"{path}: pooling by {', '.join(sorted(modes))}; vectors are pooled by mean or by cls")
    return modes.pop()


def _check_modules(path: Path) -> None:
    """Of sentence-transformers.  CheckpointError for one that changes vectors and is not served."""
    if not path.exists():
        return
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in json.loads(read_bytes(path))]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no list of modules: {error!r}") from error
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise CheckpointError(f"{path}: a module {kind!r} after the model, which is not served")


def _frame(folder: Path, config: dict[str, Any]) -> tuple[str, str]:
    """[CLS] and [SEP] under the names that the files give them.  CheckpointError where two files differ."""
    older = optional_json(folder / "special_tokens_map.json")
    found = []
    for field, usual in FRAME.items():
        names = {token_text(one[field]) for one in (older, config) if one.get(field) is not None}
        if None in names or "" in names:
            raise CheckpointError(f"{folder}: {field} is not the text of a token in {' or '.join(CONFIGS)}")
        if len(names) > 1:
            raise CheckpointError(
                f"{folder / 'special_tokens_map.json'}: {field} is {token_text(older[field])!r}, but "
                f"tokenizer_config.json says {token_text(config[field])!r}"
            )
        found.append(next(iter(names)) if names else usual)
    return str(found[0]), str(found[1])
