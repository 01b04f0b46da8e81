"""Checkpoints that are refused: what they say twice does not agree, or a file is not what its name says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.odd_checkpoints.changes import (
    BIN,
    MODEL,
    READER,
    base,
    config,
    file,
    lost,
    more_rows,
    pickle_with_code,
    pickled,
    sharded,
    spoiled,
    then,
    truncated,
    without,
)  # fmt: skip
from tests.odd_checkpoints.outcomes import Build, Case, Refused
from tests.odd_checkpoints.taken import TOKENIZER_SETTINGS
from tests.odd_checkpoints.vocabularies import (
    ROWS,
    fast_from_spiece,
    framed,
    one_more_token,
    other_vocabulary,
    sentence_pieces,
    spiece,
    tokenizer,
    word_list,
)  # fmt: skip

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 47372894\n"


def _refused_tokenizers() -> Iterator[Case]:
    fast, slow, settings, specials = (
        "tokenizer.json",
        "spiece.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
    )
    grown = then(base(), tokenizer(one_more_token))
    yield Case("tokenizer.json larger than the table", grown, Refused((fast, "vocab_size")))
    longer = then(base(vocab_size=ROWS - 3), word_list)
    yield Case("vocab.txt larger than the table", longer, Refused(("vocab.txt", "vocab_size")))
    small = then(base(vocab_size=40), without(fast), file(slow, sentence_pieces()))
    yield Case("spiece.model larger than the table", small, Refused((slow, "vocab_size")))
    outside = then(spiece(), file("added_tokens.json", {"xqzx": 9999}))
    yield Case("added token without a row", outside, Refused(("added_tokens.json",)))
    for field, value in (("do_lower_case", False), ("strip_accents", False), ("tokenize_chinese_chars", False)):
        said = then(base(), file(settings, TOKENIZER_SETTINGS | {field: value}))
        yield Case(f"{field} against tokenizer.json", said, Refused((settings, field)))
    for field in ("do_lower_case", "keep_accents"):
        said = then(spiece(), fast_from_spiece, file(settings, {field: field == "keep_accents"}))
        yield Case(f"{field} against tokenizer.json of SentencePiece", said, Refused((settings, field)))
    for name, field in (
        (settings, "cls_token"),
        (settings, "sep_token"),
        (specials, "cls_token"),
        (specials, "sep_token"),
    ):
        said = then(base(), file(name, {field: "<begin>"}))
        yield Case(f"{field} of {name} that is not there", said, Refused((name, field, "<begin>")))
    both = then(base(), file(specials, {"cls_token": "[CLS]"}), file(settings, {"cls_token": "[MASK]"}))
    yield Case("two cls_tokens", both, Refused((specials, settings, "cls_token")))
    yield Case("vocab.txt is another", then(base(), other_vocabulary), Refused((fast, "vocab.txt")))
    another = then(spiece(), fast_from_spiece, file(slow, sentence_pieces(size=200)))
    yield Case("spiece.model is another", another, Refused((fast, slow)))
    frames = {
        "cls last": ("$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]"),
        "no sep": ("[CLS] $A", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "pair with two seps": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1"),
        "pair of one type": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:0 [SEP]:0"),
    }
    for name, templates in frames.items():
        yield Case(f"post_processor: {name}", then(base(), framed(*templates)), Refused((fast, "post_processor")))
    bpe = then(spiece(), file(slow, sentence_pieces("bpe")), more_rows(200))
    yield Case("SentencePiece of type BPE", bpe, Refused((slow, "BPE")))


def _refused_files() -> Iterator[Case]:
    starts: dict[str, Build] = {
        "spiece.model": spiece(),
        "vocab.txt": then(base(), word_list),
        BIN: then(base(), pickled),
    }
    every = ("tokenizer.json", "spiece.model", "vocab.txt", MODEL, BIN, "config.json")
    for name in every:
        start = starts.get(name, base())
        yield Case(f"git-lfs pointer as {name}", then(start, file(name, POINTER)), Refused((name, "lfs")))
    small = ("special_tokens_map.json", "tokenizer_config.json")
    for name in (*every, *small):
        yield Case(f"empty {name}", then(starts.get(name, base()), file(name, "")), Refused((name,)))
    for name in (*small, "config.json"):
        yield Case(f"BOM in {name}", then(base(), _marked(name)), Refused((name,)))
    for name in (*small, "config.json", "tokenizer.json"):
        yield Case(f"{name} is not JSON", then(base(), file(name, '{"a": ')), Refused((name,)))
        yield Case(f"{name} is a list", then(base(), file(name, "[]")), Refused((name,)))
    index = then(base(), sharded(MODEL))
    for what, content in (("not JSON", "{"), ("a list", "[]"), ("without weight_map", "{}")):
        name = f"{MODEL}.index.json"
        yield Case(f"index is {what}", then(index, file(name, content)), Refused((name,)))


def _marked(name: str) -> Build:
    def build(folder: Path) -> None:
        content = (folder / name).read_bytes() if (folder / name).exists() else b"{}"
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content)

    return build


def _refused_labels() -> Iterator[Case]:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "id2label is shorter than the head": ({"id2label": {"0": "a"}, "label2id": {"a": 0}}, "id2label"),
        "id2label is longer than the head": ({"id2label": dict(enumerate("abc")), "label2id": None}, "id2label"),
        "id2label has a hole": ({"id2label": {"0": "a", "2": "b"}, "label2id": None}, "id2label"),
        "id2label has words for numbers": ({"id2label": {"a": "a", "b": "b"}, "label2id": None}, "id2label"),
        "a label twice": ({"id2label": {"0": "same", "1": "same"}, "label2id": None}, "id2label"),
        "label2id is the other way round": ({"label2id": {"negative": 1, "positive": 0}}, "label2id"),
        "label2id has other labels": ({"label2id": {"bad": 0, "good": 1}}, "label2id"),
        "num_labels against the head": ({"num_labels": 5, "id2label": None, "label2id": None}, "num_labels"),
        "num_labels against id2label": ({"num_labels": 3}, "num_labels"),
    }
    for name, (values, field) in wrong.items():
        yield Case(name, then(base(), config(**values)), Refused(("config.json", field)))
    two = config(id2label=dict(enumerate("ab")), label2id=None)
    yield Case("two labels, three outputs", then(base(num_labels=3), two), Refused(("config.json", "id2label")))


def _refused_shapes() -> Iterator[Case]:
    one_type = base(type_vocab_size=1)
    yield Case("type_vocab_size 1", one_type, Refused(("config.json", "type_vocab_size")))
    wrong: dict[str, dict[str, Any]] = {
        "type_vocab_size": {"type_vocab_size": 3},
        "max_position_embeddings": {"max_position_embeddings": 128},
        "max_position_embeddings, fewer": {"max_position_embeddings": 32},
        "hidden_size": {"hidden_size": 96},
        "intermediate_size": {"intermediate_size": 48},
        "embedding_size": {"embedding_size": 32},
        "vocab_size": {"vocab_size": ROWS + 1},
        "vocab_size, fewer": {"vocab_size": ROWS - 1},
        "num_attention_heads": {"num_attention_heads": 7},
        "num_attention_heads, none": {"num_attention_heads": 0},
        "num_hidden_layers": {"num_hidden_layers": 0},
        "num_hidden_groups": {"num_hidden_groups": 9},
        "hidden_act": {"hidden_act": "no_such_act"},
        "position_embedding_type": {"position_embedding_type": "relative_key"},
        "model_type": {"model_type": "bert"},
        "architectures": {"architectures": ["AlbertForNextSentencePrediction"]},
    }
    for name, values in wrong.items():
        field = name.partition(",")[0]
        yield Case(f"wrong {name}", then(base(), config(**values)), Refused(("config.json", field)))
    for what, count in (("num_hidden_groups", 3), ("inner_group_num", 2)):
        more: dict[str, Any] = {what: count}
        fewer = then(base(**more), config(**{what: 1}))
        yield Case(f"fewer {what} than the weights hold", fewer, Refused(("config.json", what)))


def _refused_weights() -> Iterator[Case]:
    shared = "albert_layers.0.ffn.weight"
    for name, value in (
        ("word_embeddings.weight", float("nan")),
        (shared, float("inf")),
        ("classifier.bias", float("nan")),
    ):
        yield Case(f"{value} in {name}", then(base(), spoiled(name, value)), Refused((MODEL, name)))
    infinite = then(base(READER), spoiled("qa_outputs.weight", float("-inf")))
    yield Case("-inf in qa_outputs.weight", infinite, Refused((MODEL, "qa_outputs.weight")))
    for name in ("pooler.weight", "attention.key.bias", "position_embeddings.weight", "classifier.bias"):
        yield Case(f"no {name}", then(base(), lost(name)), Refused((MODEL, name)))
    yield Case("truncated safetensors", then(base(), truncated(MODEL)), Refused((MODEL,)))
    yield Case("truncated pytorch_model.bin", then(base(), pickled, truncated(BIN)), Refused((BIN,)))
    for name, gone in ((MODEL, "model-00002-of-00002.safetensors"), (BIN, "pytorch_model-00002-of-00002.bin")):
        yield Case(f"a shard of {name} is missing", then(base(), sharded(name), without(gone)), Refused((gone,)))
    yield Case("a pickle with code", then(base(), pickle_with_code), Refused((BIN,)))
    yield Case("no weights", then(base(), without(MODEL)), Refused((MODEL,)))


def _refused_folders() -> Iterator[Case]:
    yield Case("an empty folder", lambda folder: folder.mkdir(), Refused(("config.json",)))
    yield Case("no config.json", then(base(), without("config.json")), Refused(("config.json",)))
    yield Case("no tokenizer", then(base(), without("tokenizer.json")), Refused(("tokenizer.json", "vocab.txt")))
    yield Case("no folder", lambda folder: None, Refused(("checkpoint",)))


def cases() -> Iterator[Case]:
    kinds = (_refused_tokenizers, _refused_files, _refused_labels, _refused_shapes, _refused_weights, _refused_folders)
    for part in kinds:
        yield from part()
