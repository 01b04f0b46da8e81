"""A small post-norm BERT in ALBERT's shape, with its vocabulary trimmed: where the shipped models start from.

BERT's layer is ALBERT's; its parameters are not shared, so every layer becomes a group of its own
(``num_hidden_groups == num_hidden_layers``), and as it has no factorised embedding, the map from embedding to hidden
is the identity.  Word pieces that the texts at hand rarely use are dropped: a word that loses its own piece is spelled
with shorter ones, for every single character stays.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import AlbertConfig, AlbertModel

from ..errors import CheckpointError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_bert(source: Path, texts: Iterable[str], vocabulary: int, target: Path) -> None:
    """Write the BERT in ``source`` to ``target`` as an ALBERT with ``vocabulary`` word pieces.

    ``texts`` decide which pieces stay.  CheckpointError where ``source`` is not a BERT with word pieces.
    """
    config = json.loads((source / "config.json").read_text())
    if config.get("model_type") != "bert":
        raise CheckpointError(f"{source}: model_type is {config.get('model_type')!r}, wanted 'bert'")
    definition = json.loads((source / "tokenizer.json").read_text())
    kept = trimmed_vocabulary(definition, texts, vocabulary)
    old_ids = torch.tensor([definition["model"]["vocab"][piece] for piece in kept])
    model = AlbertModel(albert_config(config, len(kept)))
    model.load_state_dict(albert_weights(load_file(source / "model.safetensors"), config, old_ids))
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    write_tokenizer(definition, kept, target)


def albert_config(bert: dict[str, Any], vocabulary: int) -> AlbertConfig:
    """The ALBERT configuration of a BERT's: one group a layer, embeddings as wide as the hidden state."""
    layers = bert["num_hidden_layers"]
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps")
    same = {name: bert[name] for name in (*names, "max_position_embeddings", "type_vocab_size")}
    return AlbertConfig(
        vocab_size=vocabulary,
        embedding_size=bert["hidden_size"],
        num_hidden_layers=layers,
        num_hidden_groups=layers,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        **same,
    )


def albert_weights(
    bert: dict[str, torch.Tensor], config: dict[str, Any], old_ids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """BERT's tensors under ALBERT's names; ``old_ids`` (vocabulary,) picks the rows of the embedding that stay."""
    size = config["hidden_size"]
    weights = {
        f"embeddings.{name}": bert[f"embeddings.{name}"]
        for name in ("position_embeddings.weight", "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    }
    weights["embeddings.word_embeddings.weight"] = bert["embeddings.word_embeddings.weight"][old_ids]
    weights["encoder.embedding_hidden_mapping_in.weight"] = torch.eye(size)
    weights["encoder.embedding_hidden_mapping_in.bias"] = torch.zeros(size)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                weights[f"encoder.albert_layer_groups.{layer}.albert_layers.0.{ours}.{kind}"] = bert[
                    f"encoder.layer.{layer}.{theirs}.{kind}"
                ]
    weights["pooler.weight"], weights["pooler.bias"] = bert["pooler.dense.weight"], bert["pooler.dense.bias"]
    return weights


_LAYER_NAMES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.dense",
    "attention.output.LayerNorm": "attention.LayerNorm",
    "intermediate.dense": "ffn",
    "output.dense": "ffn_output",
    "output.LayerNorm": "full_layer_layer_norm",
}


def trimmed_vocabulary(definition: dict[str, Any], texts: Iterable[str], size: int) -> list[str]:
    """The pieces that stay, special ones first: all single letters that occur, then the most used of ``texts``."""
    engine = tokenizers.Tokenizer.from_str(json.dumps(definition | {"truncation": None, "padding": None}))
    names = {index: piece for piece, index in definition["model"]["vocab"].items()}
    counts: Counter[str] = Counter()
    for batch in _batches(tqdm(texts, desc="counting word pieces", unit=" texts"), 2048):
        for encoding in engine.encode_batch_fast(batch, add_special_tokens=False):
            counts.update(names[index] for index in encoding.ids)  # the fast call leaves the pieces' text empty
    pieces = [piece for piece in definition["model"]["vocab"] if piece not in SPECIAL and "[unused" not in piece]
    letters = [p for p in pieces if len(p.removeprefix("##")) == 1 and (p.isascii() or counts[p])]
    # A letter inside a word must stay spellable when the pieces that held it are gone.
    words = sorted(set(pieces) - set(letters), key=lambda piece: (-counts[piece], piece))
    return [*SPECIAL, *letters, *words][:size]


def write_tokenizer(definition: dict[str, Any], kept: list[str], target: Path) -> None:
    ids = {piece: index for index, piece in enumerate(kept)}
    definition = json.loads(json.dumps(definition)) | {"truncation": None, "padding": None}
    definition["model"]["vocab"] = ids
    definition["added_tokens"] = [
        t | {"id": ids[t["content"]]} for t in definition["added_tokens"] if t["content"] in ids
    ]
    for name, special in definition["post_processor"].get("special_tokens", {}).items():
        special["ids"] = [ids[name]]
    (target / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), encoding="utf-8")
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    # The word pieces are BERT's, and AutoTokenizer goes by this name, not by the model's.
    described = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "model_max_length": 512} | names
    (target / "tokenizer_config.json").write_text(json.dumps(described, indent=1))


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch
