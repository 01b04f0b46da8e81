"""An ALBERT that TensorFlow saved, under the names of Hugging Face's PyTorch model and without TensorFlow.

Two kinds of folders: Google's release or what its scripts fine-tuned (``model.ckpt-*`` and ``albert_config.json``), and
what ``save_pretrained`` of transformers 4's TFAlbert wrote (``tf_model.h5`` and ``config.json``).

Sources: modeling.py, run_pretraining.py, classifier_utils.py and squad_utils.py of github.com/google-research/albert;
convert_tf_weight_name_to_pt_weight_name of transformers 4.57.  A multiple choice head of run_race.py has the same names
and shapes as a regression of run_classifier.py, and is taken for one.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError
from .files import INDEX, WEIGHTS, check_whole, read_json
from .tensor_bundle import Array, read_index

H5 = "tf_model.h5"
PARAMETERS = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}
# Google's scopes, and the modules that they are in transformers.
LAYER = re.compile(r"bert/encoder/transformer/group_(\d+)/inner_group_(\d+)/(.+)")
IN_LAYER = {
    "attention_1/self/query": "attention.query",
    "attention_1/self/key": "attention.key",
    "attention_1/self/value": "attention.value",
    "attention_1/output/dense": "attention.dense",
    "LayerNorm": "attention.LayerNorm",
    "ffn_1/intermediate/dense": "ffn",
    "ffn_1/intermediate/output/dense": "ffn_output",
    "LayerNorm_1": "full_layer_layer_norm",
}
MODULES = {
    "bert/embeddings/LayerNorm": "albert.embeddings.LayerNorm",
    "bert/encoder/embedding_hidden_mapping_in": "albert.encoder.embedding_hidden_mapping_in",
    "bert/pooler/dense": "albert.pooler",
    "cls/predictions/transform/dense": "predictions.dense",
    "cls/predictions/transform/LayerNorm": "predictions.LayerNorm",
}
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
# These are not kernels of a layer: they are (labels, hidden) as PyTorch has them, and are not transposed.
OUTPUTS = {"": "classifier", "cls/seq_relationship/": "sop_classifier.classifier", "cls/squad/": "qa_outputs"}
WHOLE = {
    **{f"bert/embeddings/{table}": f"albert.embeddings.{table}.weight" for table in TABLES},
    **{f"{scope}output_weights": f"{head}.weight" for scope, head in OUTPUTS.items()},
    **{f"{scope}output_bias": f"{head}.bias" for scope, head in OUTPUTS.items()},
    "cls/predictions/output_bias": "predictions.bias",
}
# The first that is there decides: a fine-tuned head, then those of pretraining.
ARCHITECTURES = {
    "qa_outputs.weight": "AlbertForQuestionAnswering",
    "classifier.weight": "AlbertForSequenceClassification",
    "sop_classifier.classifier.weight": "AlbertForPreTraining",
    "predictions.bias": "AlbertForMaskedLM",
}
REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# Google's code calls the tanh approximation "gelu", which transformers calls "gelu_new"; its "gelu" is the exact one.
ACTIVATIONS = {"gelu": "gelu_new"}


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the checkpoint; ``shape`` is as TensorFlow has it, a kernel's is (inputs, outputs)."""

    shape: tuple[int, ...]
    kernel: bool
    load: Callable[[], Array]

    def tensor(self) -> torch.Tensor:
        """As PyTorch has it: the weight of a Linear is (outputs, inputs)."""
        value = self.load()
        return torch.from_numpy(np.ascontiguousarray(value.T if self.kernel else value))


def is_tensorflow(folder: Path) -> bool:
    """Whether the folder holds weights of TensorFlow, and none that PyTorch saved."""
    saved_by_torch = any((folder / f"{name}{end}").exists() for name in WEIGHTS for end in ("", INDEX))
    return not saved_by_torch and weights_file(folder).exists()


def weights_file(folder: Path) -> Path:
    """The file of the weights; of Google's checkpoint its index."""
    prefix = _prefix(folder)
    return prefix.with_name(f"{prefix.name}.index") if prefix else folder / H5


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The weights under their names in transformers' PyTorch model; what an optimizer kept is left out.

    CheckpointError names the file, and the variable where one cannot be expressed in transformers' ALBERT.
    """
    return {name: variable.tensor() for name, variable in _variables(folder).items()}


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in the form of transformers' ``config.json``, with the ``architectures`` that the heads tell.

    ``albert_config.json`` is translated; a ``config.json`` of transformers is taken as it is.
    """
    path = config_file(folder)
    config = read_json(path)
    if _prefix(folder) is not None and "model_type" not in config:
        config = _translated(path, config)
    return config if config.get("architectures") else config | _heads(folder, config)


def config_file(folder: Path) -> Path:
    """``albert_config.json`` of Google's, or ``config.json``.  CheckpointError where there is none."""
    names = ("albert_config.json", "config.json") if _prefix(folder) is not None else ("config.json",)
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise CheckpointError(f"{folder}: no {names[0]} in it, which belongs to the checkpoint of TensorFlow there")
    return found[0]


def vocabulary_file(folder: Path) -> Path | None:
    """SentencePiece's model (``*.model``), else the word pieces (``*.txt``), whatever they are called; None if neither.

    ``30k-clean.vocab`` is no such file: it lacks SentencePiece's normalization.
    """
    known = ("spiece.model", "30k-clean.model")
    models = [folder / name for name in known if (folder / name).exists()] or sorted(folder.glob("*.model"))
    if len(models) > 1 and models[0].name not in known:
        raise CheckpointError(f"{folder}: {models[0].name} and {models[1].name}: name the right one spiece.model")
    words = [folder / name for name in ("vocab.txt", "vocab_chinese.txt") if (folder / name).exists()]
    return next(iter(models + words), None)


def google_name(variable: str) -> str | None:
    """The name in transformers of a variable of Google's code; None where it is not one of the model's."""
    name = variable.removeprefix("module/")  # so called in what was fine-tuned from TensorFlow Hub
    module, _, parameter = name.rpartition("/")
    layer = LAYER.fullmatch(module)
    scope = IN_LAYER.get(layer[3]) if layer else MODULES.get(module)
    if scope is None or parameter not in (*PARAMETERS, "bias"):
        return WHOLE.get(name)
    path = f"albert.encoder.albert_layer_groups.{layer[1]}.albert_layers.{layer[2]}." if layer else ""
    return f"{path}{scope}.{PARAMETERS.get(parameter, parameter)}"


def _variables(folder: Path) -> dict[str, Variable]:
    prefix = _prefix(folder)
    return _of_google(prefix) if prefix else _of_keras(folder / H5)


def _of_google(prefix: Path) -> dict[str, Variable]:
    bundle = read_index(prefix)
    found = {}
    for name, entry in bundle.entries.items():
        renamed = google_name(name)
        if renamed is None:
            _refuse_other_models(prefix, name)
        else:
            found[renamed] = Variable(entry.shape, name.endswith("/kernel"), partial(bundle.read, name))
    return found


def _refuse_other_models(prefix: Path, name: str) -> None:
    if name.startswith(("end_logits/", "answer_class/")):
        raise CheckpointError(
            f"{prefix}: {name} belongs to the head of run_squad_v2.py, whose end depends on the start; no transformers "
            "model has it.  Fine-tune with run_squad_v1.py, or with transformers"
        )
    if ".ATTRIBUTES" in name:
        raise CheckpointError(f"{prefix}: of tf.train.Checkpoint (TensorFlow 2); can read those of Google's scripts")
    # A slot of an optimizer is called as its variable and one part more, like .../kernel/adam_m.
    slot = google_name(name.rpartition("/")[0]) is not None
    if name.removeprefix("module/").startswith("bert/") and not slot:
        raise CheckpointError(f"{prefix}: {name} is no variable of Google's ALBERT: another model, or other code's")


def _of_keras(path: Path) -> dict[str, Variable]:
    # A data set is called by its layer, the model, and the path in the model: albert/tf_albert_model/albert/...
    # ":0" follows; "_._" stands before the number of a module in a list.
    found = {}
    for name, value in _datasets(path).items():
        parts = name.partition(":")[0].replace("_._", "/").split("/")[2:]
        if parts:
            renamed = ".".join([*parts[:-1], PARAMETERS.get(parts[-1], parts[-1])])
            found[renamed] = Variable(value.shape, parts[-1] == "kernel", partial(np.asarray, value))
    return found


def _datasets(path: Path) -> dict[str, Array]:
    check_whole(path)
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise CheckpointError(f"{path}: reading it takes h5py, which is in the extra 'convert'") from error
    found: dict[str, Array] = {}
    try:
        with h5py.File(path, "r") as file:
            file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    except (OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged, or no HDF5 file: {str(error).splitlines()[0]}") from error
    return found


def _prefix(folder: Path) -> Path | None:
    """``model.ckpt-N``: the one that the file ``checkpoint`` names, else ``-best``, else that of the last step.

    Google's scripts copy the checkpoint with the best score on the development set to ``model.ckpt-best``.
    """
    found = [path.name.removesuffix(".index") for path in folder.glob("*.ckpt*.index")]
    if not found:
        return None
    state = folder / "checkpoint"
    text = state.read_text(encoding="utf-8", errors="replace") if state.is_file() else ""
    # The path may be that of another machine: its last part counts.
    named = re.search(r'^model_checkpoint_path:\s*"(?:.*[/\\])?(.+)"', text, re.MULTILINE)
    return folder / (named[1] if named and named[1] in found else max(found, key=_rank))


def _rank(name: str) -> tuple[bool, int]:
    step = re.search(r"-(\d+)$", name)
    return name.endswith("-best"), int(step[1]) if step else -1


def _translated(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in REQUIRED if not isinstance(config.get(name), int)]
    if missing:
        raise CheckpointError(f"{path}: no {missing[0]} in it, or no whole number")
    act = str(config.get("hidden_act", "gelu")).lower()  # Google's code ignores the case
    # 1e-12 is what the layer norm of Google's code adds to the variance; its configuration does not say it.
    return config | {"model_type": "albert", "layer_norm_eps": 1e-12, "hidden_act": ACTIVATIONS.get(act, act)}


def _heads(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    variables = _variables(folder)
    architecture = next((kind for name, kind in ARCHITECTURES.items() if name in variables), "AlbertModel")
    found: dict[str, Any] = {"architectures": [architecture]}
    if architecture == "AlbertForSequenceClassification" and "id2label" not in config:
        head = variables["classifier.weight"]
        found["id2label"] = {str(label): f"LABEL_{label}" for label in range(head.shape[-1 if head.kernel else 0])}
    return found
