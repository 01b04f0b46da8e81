"""The ids that a checkpoint's texts must get, told by libraries that are not ours.

``sentencepiece`` decides where there is a ``spiece.model`` alone: it made the model.  transformers 5 reads the same
file otherwise (it makes added tokens of user-defined symbols, which cut the text), so it is only reported there.  A
``tokenizer.json`` decides where there is one, for it was saved with the model, and word pieces are BERT's.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import transformers

from ..errors import ParityError
from ..tasks.text import Tokenizer
from .sentencepiece import Preparation
from .vocabulary import TokenizerFiles

Ids = Callable[[str], Sequence[int]]


def compare_ids(tokenizer: Tokenizer, files: TokenizerFiles, texts: Sequence[str]) -> dict[str, Any]:
    """How many of ``texts`` get other ids from each library.  ParityError where the one that decides gives others."""
    # sentencepiece knows nothing of added tokens, which are cut out of a text before it sees the rest.
    texts = [text for text in texts if not any(token in text for token in files.added)]
    report: dict[str, Any] = {"texts": len(texts), "decides": files.source, "different": {}}
    deciding, ids = _deciding(files)
    different = [text for text in texts if list(tokenizer.ids(text)) != list(ids(text))]
    if different:
        raise ParityError(
            f"{files.path}: {deciding} gives other ids than ours in {len(different)} of {len(texts)} texts, such as "
            f"{different[0][:60]!r}"
        )
    report["different"][deciding] = 0
    name = f"AutoTokenizer of transformers {transformers.__version__}"
    try:
        auto = _loaded(transformers.AutoTokenizer, files)
        report["different"][name] = sum(list(tokenizer.ids(text)) != list(auto(text)) for text in texts)
    except Exception as error:  # what it cannot read has a dozen kinds of errors, and it decides nothing
        report["different"][name] = f"cannot read it ({type(error).__name__})"
    return report


def _deciding(files: TokenizerFiles) -> tuple[str, Ids]:
    if files.source == "spiece.model":
        processor, prepared = sentencepiece.SentencePieceProcessor(str(files.path)), Preparation.of(files.config)
        return f"sentencepiece {sentencepiece.__version__}", lambda text: list(processor.encode(prepared(text)))
    if files.source == "tokenizer.json":
        engine = tokenizers.Tokenizer.from_file(str(files.path))
        engine.no_truncation()
        engine.no_padding()
        return f"tokenizers {tokenizers.__version__}", lambda text: engine.encode(text, add_special_tokens=False).ids
    return f"BertTokenizer of transformers {transformers.__version__}", _loaded(transformers.BertTokenizer, files)


def _loaded(kind: Any, files: TokenizerFiles) -> Ids:
    """``kind`` of the folder; Google's files are given the names that it looks for."""
    with tempfile.TemporaryDirectory() as renamed:
        folder = files.folder
        if files.path.name != files.source:
            folder = Path(renamed)
            shutil.copy(files.path, folder / files.source)
        loaded = kind.from_pretrained(folder, local_files_only=True)
    return lambda text: list(loaded(text, add_special_tokens=False)["input_ids"])
