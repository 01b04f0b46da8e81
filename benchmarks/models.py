"""An albert-base of random weights, for time does not depend on them, as a checkpoint, as an export and converted."""

import json
import shutil
from pathlib import Path

import numpy as np
from packing import export
from tokenizers import Tokenizer
from transformers import AlbertConfig, AlbertForSequenceClassification, PreTrainedTokenizerFast

from service.bench.traffic import Kind, read_kind
from service.cli import main as albert_serve
from service.repository.store import versions
from service.types import Sequence

ROOT = Path(__file__).parents[1]
REPOSITORY = ROOT / "model_repo"
LONG = 200  # tokens of a long text, about
WINDOW = 384


def newest(name: str) -> Path:
    return REPOSITORY / name / str(max(versions(REPOSITORY)[name]))


def make(folder: Path, hidden: int = 768, layers: int = 12, precision: str = "fp32") -> Path:
    """The folder of the checkpoint, with ``padded.onnx`` in it; beside it lies ours, in ``repository``."""
    checkpoint = folder / "checkpoint"
    tokenizer = Tokenizer.from_file(str(newest("sentiment") / "tokenizer.json"))
    shape = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 64}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    config = AlbertConfig(**shape, **names, num_hidden_layers=layers, vocab_size=tokenizer.get_vocab_size())
    model = AlbertForSequenceClassification(config).eval()
    model.save_pretrained(checkpoint)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(checkpoint)
    shutil.copyfile(newest("sentiment") / "tokenizer.json", checkpoint / "tokenizer.json")
    export(model, checkpoint / "padded.onnx")
    convert = ["convert", str(checkpoint), "--name", "sentiment", "--precision", precision]
    assert albert_serve([*convert, "--model-repo", str(folder / "repository")]) == 0
    return checkpoint


def row(length: int) -> Sequence:
    """A sequence of so many tokens; any id will do."""
    return Sequence(np.full(length, 7, np.int32), np.zeros(length, np.int32), length)


def make_int8(checkpoint: Path, folder: Path, data: Path) -> Path:
    """A repository of the same in eight bits.  The gate lets random weights through: here only time is asked."""
    convert = ["convert", str(checkpoint), "--name", "sentiment", "--precision", "int8"]
    gate = ["--gate", f"{data / 'sst2' / 'dev.tsv'}:1/20", "--gate-points", "100"]
    assert albert_serve([*convert, *gate, "--model-repo", str(folder / "int8")]) == 0
    return folder / "int8"


def altered(version: Path, repository: Path, *, name: str | None = None, **facts: object) -> Path:
    """``repository`` with one more model: ``version`` under ``name``, with ``facts`` in its manifest."""
    name = name or version.parent.name
    folder = repository / name / "1"
    shutil.copytree(version, folder)
    manifest = json.loads((version / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": name, "version": 1} | facts))
    return repository


def short_texts(data: Path, share: float = 1.0) -> Kind:
    kind = read_kind("/classify", f"{data / 'sst2' / 'dev.tsv'}@{share}", {})
    return Kind("short", kind.route, kind.bodies, share)


def long_texts(data: Path, tokens: int, share: float) -> Kind:
    """Film reviews, cut to so many tokens; those that are shorter are left out."""
    tokenizer = Tokenizer.from_file(str(newest("sentiment") / "tokenizer.json"))
    bodies = []
    for body in read_kind("/classify", f"{data / 'imdb' / 'train.jsonl.xz'}:1/20", {}).bodies:
        offsets = tokenizer.encode(json.loads(body)["inputs"], add_special_tokens=False).offsets
        if len(offsets) >= tokens:
            text = json.loads(body)["inputs"][: offsets[tokens - 3][1]]
            bodies.append(json.dumps({"inputs": text}).encode())
    return Kind("long", "/classify", bodies, share)
