"""Whatever tokenizer files a checkpoint has, as the one ``tokenizer.json`` that serving reads."""

from pathlib import Path

from service.errors import CheckpointError


def tokenizer_json(folder: Path) -> str:
    """``tokenizer.json`` as it is; else built from SentencePiece's ``spiece.model`` or word pieces' ``vocab.txt``.

    CheckpointError where none of them is there, or it cannot be read.  The Chinese ALBERTs use BERT's word pieces, so
    the files decide, not the model's type.
    """
    if (folder / "tokenizer.json").exists():
        return (folder / "tokenizer.json").read_text(encoding="utf-8")
    from transformers import AlbertTokenizer, BertTokenizer

    kinds = {"spiece.model": AlbertTokenizer, "vocab.txt": BertTokenizer}
    for file, kind in kinds.items():
        if (folder / file).exists():
            try:
                built: str = kind.from_pretrained(folder, local_files_only=True).backend_tokenizer.to_str()
                return built
            except Exception as error:
                raise CheckpointError(f"{folder / file}: cannot be read as a vocabulary: {error}") from error
    raise CheckpointError(f"{folder}: no tokenizer.json, no spiece.model and no vocab.txt in it")
