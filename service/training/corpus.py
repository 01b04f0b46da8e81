"""Plain text to what pretraining reads: a vocabulary, documents as tokens, neighbouring segments.

A file holds one paragraph a line and an empty line between documents, or a document a line and no empty ones.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece
import tokenizers
from tqdm import tqdm
from transformers import AlbertTokenizer

from ..errors import DataError
from ..types import Ints
from .datasets import read_lines

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")
LOOKED_AT = 1000  # lines
SHORTEST = 32  # tokens; a document with fewer teaches nothing about order
SHORT_SHARE = 0.25  # of the documents


def train_vocabulary(files: Sequence[Path], size: int, folder: Path, sentences: int = 400_000) -> None:
    """A SentencePiece unigram vocabulary of up to ``size`` pieces, in lower case as ALBERT's, in ``folder``.

    DataError where the text is too little for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").unlink(
        missing_ok=True
    )  # of an earlier run; it comes last, and so says that all is well
    lines = (line[:4000] for line in read_lines(files) if line)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.islice(lines, sentences), model_prefix=str(folder / "spiece"),
            vocab_size=size, model_type="unigram", normalization_rule_name="nmt_nfkc_cf", character_coverage=0.9995,
            pad_piece="<pad>", unk_piece="<unk>", control_symbols=["[CLS]", "[SEP]"],
            user_defined_symbols=["[MASK]"], hard_vocab_limit=False, minloglevel=2, pad_id=0, unk_id=1,
            bos_id=-1, eos_id=-1,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise DataError(f"{files[0]}: no vocabulary of {size} pieces can be made of this text: {error}") from error
    (folder / "spiece.vocab").unlink(missing_ok=True)
    tokenizer = AlbertTokenizer.from_pretrained(folder, do_lower_case=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


@dataclass(frozen=True, slots=True)
class Corpus:
    """``ids``: all tokens; ``sentences`` and ``documents``: where each begins, and behind the last one the end."""

    ids: Ints
    sentences: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]

    @classmethod
    def read(cls, files: Sequence[Path], tokenizer: Path, most: int) -> "Corpus":
        """Up to ``most`` tokens of ``files``, a document each time from each of them in turn."""
        engine = tokenizers.Tokenizer.from_file(str(tokenizer))
        parts: list[Ints] = []
        sentences, documents, total = [0], [0], 0
        with tqdm(total=most, desc="reading", unit=" tokens", unit_scale=True, leave=False) as bar:
            for group in _grouped(_in_turn([read_documents([file]) for file in files]), 256):
                texts = [sentence for document in group for sentence in document]
                encoded = iter(engine.encode_batch_fast(texts, add_special_tokens=False))
                for document in group:
                    for encoding in itertools.islice(encoded, len(document)):
                        parts.append(np.array(encoding.ids, dtype=np.int32))
                        total += len(encoding.ids)
                        sentences.append(total)
                    documents.append(total)
                bar.update(total - bar.n)
                if total >= most:
                    break
        if total < 10 * SHORTEST:
            raise DataError(f"{files[0]}: {total} tokens are too little to learn from")
        return cls(np.concatenate(parts), np.unique(sentences), np.unique(documents))

    def split(self, share: float, least: int = 1) -> tuple["Corpus", "Corpus"]:
        """The documents at the end that make up ``share``, ``least`` of them or more, held out from those before."""
        count = len(self.documents) - 1
        if count <= least:
            raise DataError(f"{count} documents are too few to hold {least} out: put an empty line between documents")
        cut = int(np.searchsorted(self.documents, (1 - share) * len(self.ids)))
        cut = min(max(1, cut), count - least)
        at = self.documents[cut]
        return self._cut(0, int(at)), self._cut(int(at), len(self.ids))

    def _cut(self, start: int, end: int) -> "Corpus":
        inside = [marks[(marks >= start) & (marks <= end)] - start for marks in (self.sentences, self.documents)]
        return Corpus(self.ids[start:end], *inside)

    def segments(self, room: int, draw: np.random.Generator) -> Iterator[tuple[Ints, Ints]]:
        """Two neighbouring segments of one document, up to ``room`` tokens together; documents in random order.

        Both are whole sentences: a segment that breaks off would tell its place by that.  A document is read from a
        random sentence, so that another epoch cuts it elsewhere; some are read in shorter pairs throughout, so that
        the order of short texts is learnt too.  A sentence that is longer than ``room`` is left out.
        """
        for number in draw.permutation(len(self.documents) - 1):
            start, end = self.documents[number], self.documents[number + 1]
            marks = self.sentences[slice(*np.searchsorted(self.sentences, (start, end + 1)))]
            most = room if draw.random() >= SHORT_SHARE else int(draw.integers(SHORTEST, room + 1))
            slack = int((end - start) % most) if end - start > most else 0
            at = int(np.searchsorted(marks, start + draw.integers(0, slack + 1)))
            while at < len(marks) - 1:
                upto = int(np.searchsorted(marks, marks[at] + most, side="right")) - 1
                first, last = marks[at], marks[upto]
                if upto - at >= 2 and last - first >= SHORTEST:
                    middle = _meeting(marks[at + 1 : upto], first, last, draw)
                    yield self.ids[first:middle], self.ids[middle:last]
                at = max(upto, at + 1)


def _meeting(marks: npt.NDArray[np.int64], first: int, last: int, draw: np.random.Generator) -> int:
    """Of ``marks`` the nearest to a random place in the middle half."""
    wish = draw.integers(first + (last - first) // 4, last - (last - first) // 4 + 1)
    return int(marks[np.abs(marks - wish).argmin()])


def read_documents(files: Iterable[Path]) -> Iterator[list[str]]:
    """Each document as sentences.  Of a file whose beginning knows no empty line every line is a document."""
    for file in files:
        lines = read_lines([file])
        begin = list(itertools.islice(lines, LOOKED_AT))
        alone = len(begin) == LOOKED_AT and all(begin)
        document: list[str] = []
        for line in itertools.chain(begin, lines, [""]):
            document += [sentence for sentence in SENTENCE_END.split(line) if sentence]
            if document and (alone or not line):
                yield document
                document = []


def _in_turn(sources: list[Iterator[list[str]]]) -> Iterator[list[str]]:
    """One document of each file, and again, until all have ended."""
    while sources:
        for source in list(sources):
            document = next(source, None)
            if document is None:
                sources.remove(source)
            else:
                yield document


def _grouped(documents: Iterator[list[str]], size: int) -> Iterator[list[list[str]]]:
    while group := list(itertools.islice(documents, size)):
        yield group
