"""A vocabulary that is trained once for all."""

from pathlib import Path

import pytest
import sentencepiece

from tests.tokenizer_texts import plain

SYMBOLS = ["(", ")", '"', "-", ".", "–", "£", "€"]  # ALBERT's user-defined ones


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of ALBERT's kind."""
    folder = tmp_path_factory.mktemp("spiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.lower() for text in plain()), model_prefix=str(folder / "spiece"),
        vocab_size=1200, model_type="unigram", normalization_rule_name="nmt_nfkc", character_coverage=0.9995,
        pad_piece="<pad>", unk_piece="<unk>", control_symbols=["[CLS]", "[SEP]", "[MASK]"], pad_id=0, unk_id=1,
        user_defined_symbols=SYMBOLS, hard_vocab_limit=False, minloglevel=2, bos_id=-1, eos_id=-1,
    )  # fmt: skip
    return folder / "spiece.model"
