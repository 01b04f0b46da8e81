"""SentencePiece and word-piece files become a tokenizer.json that gives the ids of the libraries that made them."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece

from service.conversion.pipeline import Options, convert
from service.conversion.sentencepiece import Preparation
from service.conversion.vocabulary import TokenizerFiles, tokenizer_json
from service.errors import CheckpointError
from service.repository.store import read_manifest
from service.tasks.text import Tokenizer
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT
from tests.tokenizer_texts import kinds, plain

REAL = ROOT.parent / "shared" / "data" / "vocab"
WORDS = ("[CLS]", "[SEP]", "[MASK]", "<unk>", "<pad>")  # a text that holds one is another matter


def built(folder: Path, model: Path, **config: bool) -> tuple[Tokenizer, Preparation]:
    folder.mkdir()
    shutil.copy(model, folder / "spiece.model")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    files = TokenizerFiles.read(folder)
    (folder / "built.json").write_text(tokenizer_json(files), encoding="utf-8")
    return Tokenizer.from_file(folder / "built.json"), Preparation.of(config)


def different(tokenizer: Tokenizer, preparation: Preparation, model: Path) -> dict[str, list[str]]:
    """By kind, the texts that get other ids than the library gives."""
    processor = sentencepiece.SentencePieceProcessor(str(model))
    found: dict[str, list[str]] = {}
    for kind, texts in kinds().items():
        for text in (one for one in texts if not any(word in one for word in WORDS)):
            if not alike(processor, tokenizer.ids(text).tolist(), processor.encode(preparation(text))):
                found.setdefault(kind, []).append(text)
    return found


def alike(processor: sentencepiece.SentencePieceProcessor, ours: list[int], theirs: list[int]) -> bool:
    """The same ids; or the same letters in another cut that the model scores alike: "!!" "!" and "!" "!!"."""
    if ours == theirs:
        return True
    text = ["".join(processor.id_to_piece(number) for number in ids) for ids in (ours, theirs)]
    score = [sum(processor.get_score(number) for number in ids) for ids in (ours, theirs)]
    return text[0] == text[1] and abs(score[0] - score[1]) < 1e-3


@pytest.mark.parametrize("config", [{}, {"do_lower_case": False}], ids=str)
def test_sentencepiece_alone_gives_the_librarys_ids(tmp_path: Path, trained: Path, config: dict[str, bool]) -> None:
    assert different(*built(tmp_path / "checkpoint", trained, **config), trained) == {}


@pytest.mark.skipif(not REAL.exists(), reason="the real vocabularies are not on this machine")
def test_alberts_own_model_gives_the_librarys_ids(tmp_path: Path) -> None:
    model = REAL / "albert-base-v2.spiece.model"

    assert different(*built(tmp_path / "checkpoint", model), model) == {}


def test_a_user_defined_symbol_does_not_cut_the_text(tmp_path: Path, trained: Path) -> None:
    """transformers 5 makes an added token of it: what follows then begins a new word, which no ALBERT has seen."""
    tokenizer, _ = built(tmp_path / "checkpoint", trained)
    processor = sentencepiece.SentencePieceProcessor(str(trained))

    pieces = [processor.id_to_piece(number) for number in tokenizer.ids("U.S.-led").tolist()]
    assert "".join(pieces) == "▁u.s.-led"
    assert sum(piece.startswith("▁") for piece in pieces) == 1


def test_a_spiece_model_alone_converts_and_says_what_decides(tmp_path: Path, trained: Path) -> None:
    size = sentencepiece.SentencePieceProcessor(str(trained)).get_piece_size()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", vocab_size=size, tokenizer=False)
    shutil.copy(trained, checkpoint / "spiece.model")

    ids = read_manifest(convert(str(checkpoint), tmp_path / "repo", Options("old"))).parity["ids"]
    assert ids["decides"] == "spiece.model"
    assert ids["different"][f"sentencepiece {sentencepiece.__version__}"] == 0


def test_added_tokens_beside_a_spiece_model_convert(tmp_path: Path, trained: Path) -> None:
    size = sentencepiece.SentencePieceProcessor(str(trained)).get_piece_size()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", vocab_size=size + 1, tokenizer=False)
    shutil.copy(trained, checkpoint / "spiece.model")
    (checkpoint / "added_tokens.json").write_text(json.dumps({"xqzx": size}))

    published = convert(str(checkpoint), tmp_path / "repo", Options("added"))
    assert size in Tokenizer.from_file(published / "tokenizer.json").ids("a xqzx - b").tolist()

    (checkpoint / "added_tokens.json").write_text(json.dumps({"xqzx": size, "zzz": size + 1}))
    with pytest.raises(CheckpointError, match=r"added_tokens\.json: the piece 'zzz'"):
        convert(str(checkpoint), tmp_path / "repo", Options("added"))


def test_word_pieces_alone_give_berts_ids(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    definition = json.loads((save_checkpoint(tmp_path / "checkpoint") / "tokenizer.json").read_text())
    (tmp_path / "words").mkdir()
    pieces = sorted(definition["model"]["vocab"], key=definition["model"]["vocab"].get)
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (tmp_path / "built.json").write_text(tokenizer_json(TokenizerFiles.read(tmp_path / "words")), encoding="utf-8")
    ours, theirs = Tokenizer.from_file(tmp_path / "built.json"), BertTokenizer.from_pretrained(tmp_path / "words")

    for first, second in itertools.pairwise(text for text in plain()[::10]):
        framed = ours.frame(ours.encode(first).ids, ours.encode(second).ids)
        assert framed.ids.tolist() == theirs(first, second)["input_ids"]


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"not a model")

    with pytest.raises(CheckpointError, match=r"spiece\.model: no SentencePiece model"):
        tokenizer_json(TokenizerFiles.read(tmp_path))


def test_a_piece_that_stands_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\na\n")

    with pytest.raises(CheckpointError, match=r"vocab\.txt: the piece 'a' stands in two lines"):
        tokenizer_json(TokenizerFiles.read(tmp_path))
