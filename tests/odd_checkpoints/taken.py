"""Checkpoints that convert."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints import TINY, word_pieces
from tests.odd_checkpoints.changes import (
    BIN,
    CLASSIFIER,
    MODEL,
    PRETRAINED,
    READER,
    base,
    cast,
    config,
    file,
    more_rows,
    named,
    pickled,
    sharded,
    then,
)  # fmt: skip
from tests.odd_checkpoints.outcomes import ANY, MULTI, SINGLE, Build, Case, Converts
from tests.odd_checkpoints.vocabularies import chinese, fast_from_spiece, one_more_token, spiece, tokenizer, word_list

TOKENIZER_SETTINGS = {"tokenizer_class": "BertTokenizer"}
OLD_TOKEN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "__type": "AddedToken"}
THREE = tuple(f"LABEL_{index}" for index in range(3))
LOWER_CASE = (("The Ferry", "the ferry"),)


def _tokenizer_kinds() -> Iterator[Case]:
    cased = Converts(unlike=LOWER_CASE)
    lower = Converts(alike=(*LOWER_CASE, ("café", "cafe")))
    yield Case("spiece.model alone", spiece(), lower)
    yield Case("spiece.model of a reader", spiece(READER), Converts((), None, alike=LOWER_CASE))
    yield Case("tokenizer.json alone", base(), lower)
    yield Case("vocab.txt alone", then(base(), word_list), lower)
    yield Case("spiece.model and tokenizer.json that agree", then(spiece(), fast_from_spiece), lower)
    yield Case("vocab.txt and tokenizer.json that agree", both_word_lists, lower)
    yield Case("Chinese word pieces", chinese, Converts(alike=(("他们", "他 们"), ("们a他", "们 a 他"))))
    settings = TOKENIZER_SETTINGS | {"do_lower_case": False}
    yield Case("cased word pieces", then(base(), word_list, file("tokenizer_config.json", settings)), cased)
    yield Case("cased spiece.model", spiece(do_lower_case=False), cased)
    accents = Converts(alike=LOWER_CASE, unlike=(("São Paulo", "Sao Paulo"),))
    yield Case("spiece.model with accents", spiece(keep_accents=True), accents)
    settings = TOKENIZER_SETTINGS | {"strip_accents": False}
    kept = Converts(unlike=(("São Paulo", "Sao Paulo"),))
    yield Case("word pieces with accents", then(base(), word_list, file("tokenizer_config.json", settings)), kept)
    yield Case("added_tokens.json", added_token, Converts(one_token=("xqzx",)))
    yield Case("added token in tokenizer.json", then(base(), tokenizer(one_more_token), more_rows(1)), Converts())
    yield Case("rows for more tokens than there are", then(base(), more_rows(7)), Converts())
    old = {name: OLD_TOKEN | {"content": piece} for name, piece in (("cls_token", "[CLS]"), ("sep_token", "[SEP]"))}
    yield Case("special_tokens_map.json with entries", then(base(), file("special_tokens_map.json", old)), Converts())
    huge = TOKENIZER_SETTINGS | {"model_max_length": 1000000000000000019884624838656}
    yield Case("huge model_max_length", then(base(), file("tokenizer_config.json", huge)), Converts())


def both_word_lists(folder: Path) -> None:
    then(base(), word_list)(folder)
    word_pieces().save(str(folder / "tokenizer.json"))


def added_token(folder: Path) -> None:
    """One entry in ``added_tokens.json``, and a row of the embeddings for it."""
    then(spiece(), more_rows(1))(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    file("added_tokens.json", {"xqzx": size - 1})(folder)


ACTIVATIONS = (
    "gelu", "gelu_new", "relu", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "silu", "swish", "quick_gelu", "tanh",
    "relu6",
)  # fmt: skip


def _shapes() -> Iterator[Case]:
    shapes: list[dict[str, Any]] = [
        {"num_hidden_groups": 2, "num_hidden_layers": 5},
        {"num_hidden_groups": 3},
        {"inner_group_num": 2},
        {"inner_group_num": 2, "num_hidden_groups": 2, "num_hidden_layers": 4},
        {"embedding_size": TINY["hidden_size"]},
        {"embedding_size": TINY["hidden_size"] + 16},
        {"num_hidden_layers": 1},
        {"max_position_embeddings": 16},
        {"num_attention_heads": 1},
        {"type_vocab_size": 4},
        *({"hidden_act": name} for name in ACTIVATIONS),
    ]
    for shape in shapes:
        yield Case(", ".join(f"{name} {value}" for name, value in shape.items()), base(**shape), Converts())


def _bare(name: str) -> str:
    return name.removeprefix("albert.")


def _weights() -> Iterator[Case]:
    changes: dict[str, Build] = {
        "safetensors": then(),
        "sharded safetensors": sharded(MODEL),
        "pytorch_model.bin": pickled,
        "sharded pytorch_model.bin": sharded(BIN),
        "names without a prefix": named(_bare),
        "names with bert.": named(lambda name: name.replace("albert.", "bert.")),
        "names with module.": named(lambda name: f"module.{_bare(name)}"),
        "names with model.": named(lambda name: f"model.{_bare(name)}"),
        "names with module.albert.": named(lambda name: f"module.{name}"),
        "names with model.albert.": named(lambda name: f"model.{name}"),
        "module.albert. in a bin": then(named(lambda name: f"module.{name}"), pickled),
        "LayerNorm.gamma and beta": named(
            lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        ),
        "float16": cast(torch.float16),
        "bfloat16": cast(torch.bfloat16),
        "float32": cast(torch.float32),
        "sharded bin in float16": then(cast(torch.float16), sharded(BIN)),
    }
    for name, change in changes.items():
        yield Case(f"weights: {name}", then(base(), change), Converts())
    renamed = named(lambda name: f"module.{name}")
    yield Case("weights: a reader with module.", then(base(READER), renamed), Converts((), None))


def _heads() -> Iterator[Case]:
    yield Case("head: single label", base(), Converts())
    yield Case("head: multi label", base(problem_type=MULTI, num_labels=3), Converts(THREE, MULTI))
    yield Case("head: regression", base(problem_type="regression", num_labels=1), Converts(THREE[:1], "regression"))
    yield Case("head: one single label", then(base(num_labels=1), config(problem_type=SINGLE)), Converts(THREE[:1]))
    yield Case("head: one output", base(num_labels=1), Converts(THREE[:1], ANY))
    unnamed = config(id2label=None, label2id=None, num_labels=None)
    yield Case("head: three labels without id2label", then(base(num_labels=3), unnamed), Converts(THREE))
    yield Case("head: question answering", base(READER), Converts((), None))
    yield Case("head: pretraining", base(PRETRAINED), Converts(("in-order", "swapped")))
    whole = [f"topic {index}" for index in range(12)]
    many = base(id2label=dict(enumerate(whole)), label2id={label: index for index, label in enumerate(whole)})
    yield Case("head: twelve labels", many, Converts(tuple(whole)))  # sorted as text, "10" comes before "2"


def _configurations() -> Iterator[Case]:
    flags = ("return_dict", "output_attentions", "output_hidden_states", "torchscript")
    for name in flags:
        yield Case(f"config: {name}", then(base(), config(**{name: name != "return_dict"})), Converts())
    yield Case("config: all of them, a reader", then(base(READER), config(
        return_dict=False, output_attentions=True, output_hidden_states=True, torchscript=True,
    )), Converts((), None))  # fmt: skip
    masked = then(base(), config(architectures=["AlbertForMaskedLM"]))
    yield Case("config: another head and --task", masked, Converts(), ("--task", "text-classification"))
    other = then(base(READER), config(architectures=[CLASSIFIER]))
    yield Case("config: a classifier, but a reader's head", other, Converts((), None), ("--task", "question-answering"))
    yield Case("config: no problem_type", then(base(), config(problem_type=None)), Converts())
    only = then(base(num_labels=3), config(id2label=None, label2id=None, num_labels=3))
    yield Case("config: num_labels only", only, Converts(THREE))
    silent = config(architectures=None)
    yield Case("config: silent, a classifier", then(base(), silent), Converts(), ("--task", "text-classification"))
    reading = ("--task", "question-answering")
    yield Case("config: silent, a reader", then(base(READER), silent), Converts((), None), reading)


def cases() -> Iterator[Case]:
    for part in (_tokenizer_kinds, _shapes, _weights, _heads, _configurations):
        yield from part()
