"""SentencePiece and word-piece files become the tokenizer.json that transformers would use."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AlbertTokenizer, BertTokenizer

from service.conversion.pipeline import Options, convert
from service.conversion.texts import SENTENCES
from service.conversion.vocabulary import tokenizer_json
from service.repository.store import read_manifest
from service.tasks.text import Tokenizer
from tests.checkpoints import save_checkpoint
from tests.conftest import ROOT

REAL = ROOT.parent / "shared" / "data" / "vocab"
KINDS = {
    "albert-base-v2.spiece.model": ("spiece.model", AlbertTokenizer),
    "albert-chinese.vocab.txt": ("vocab.txt", BertTokenizer),
}


@pytest.mark.skipif(not REAL.exists(), reason="the real vocabularies are not on this machine")
@pytest.mark.parametrize("source", KINDS)
def test_real_vocabularies_give_transformers_ids_and_convert(tmp_path: Path, source: str) -> None:
    file, kind = KINDS[source]
    (tmp_path / "vocab").mkdir()
    shutil.copy(REAL / source, tmp_path / "vocab" / file)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(tmp_path / "vocab"), encoding="utf-8")
    ours, theirs = Tokenizer.from_file(tmp_path / "tokenizer.json"), kind.from_pretrained(tmp_path / "vocab")

    for first, second in itertools.pairwise(SENTENCES):
        framed = ours.frame(ours.encode(first).ids, ours.encode(second).ids)
        np.testing.assert_array_equal(framed.ids, theirs(first, second)["input_ids"])

    # Some versions of transformers leave out the segment ids; the converted model decides what they mean.
    size = len(theirs)
    checkpoint = save_checkpoint(tmp_path / "checkpoint", vocab_size=size, tokenizer=False)
    shutil.copy(REAL / source, checkpoint / file)
    assert read_manifest(convert(str(checkpoint), tmp_path / "repo", Options("real"))).parity["different_answers"] == 0
