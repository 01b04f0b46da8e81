"""A version of the repository to an engine: read and checked once, in memory from then on, warmed up.

Blocks; runs in a thread of its own.  Only what times the device goes through ``device_run``, in short slices.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import DeviceError, InvalidRequest
from ..heads import TASKS
from ..repository.manifest import Graphs, Manifest
from ..repository.store import read_files, read_manifest
from ..runtime.attention import AttentionModel
from ..runtime.cuda import CudaModel, ranges
from ..runtime.memory import give_back
from ..runtime.processor import current
from ..runtime.providers import Device
from ..runtime.session import Model
from ..tasks.classification import Classification
from ..tasks.confidence import Confidence
from ..tasks.embedding import Embedding
from ..tasks.exits import ExitPolicy
from ..tasks.fill_mask import FillMask
from ..tasks.multiple_choice import MultipleChoice
from ..tasks.question_answering import QuestionAnswering
from ..tasks.text import Tokenizer
from ..tasks.token_classification import TokenClassification
from .engine import Engine, Task
from .stepping import Stepping
from .warmup import as_fast, exits_pay, fit_budget, measure_budget, measure_layers, measure_regrouping

log = logging.getLogger(__name__)
Files = Mapping[str, bytes]
Run = Callable[[Callable[[], Any]], Any]
Precision = Literal["auto", "int8", "float32"]
# On CUDA a step's rows times the square of its longest are bounded, as so many places a token of the model's longest:
# kernels of attention that keep their scores lay them out.
PLACES = 16
PADDED = 0.03  # more work than this in padded attention, and a row waits for a step of its like


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """``budget`` in tokens a step, ``layers_per_check``: 0 measures them.  Without ``early_exit`` exits are unused."""

    device: Device
    budget: int = 0
    layers_per_check: int = 0
    early_exit: bool = True
    precision: Precision = "auto"


def at_once(work: Callable[[], Any]) -> Any:
    return work()


def load(folder: Path, options: LoadOptions, device_run: Run = at_once) -> Engine:
    """Read, check, load and warm up the version in ``folder``.  RepositoryError says what is wrong with it."""
    manifest = read_manifest(folder)
    files, device = read_files(folder, manifest), options.device
    graphs = _graphs(manifest, device)
    precision = choose_precision(graphs, options.precision)
    engine = assemble(manifest, make_task(files, manifest), make_model(files, manifest, device, precision), precision)
    if not options.early_exit:
        engine.stepping = replace(engine.stepping, exits=None)
    engine.padding = attention_padding(manifest) if device.kind == "cpu" else float(PLACES * manifest.max_length)
    if precision == "int8" and options.precision == "auto" and not current().vnni:
        _prefer_floats(engine, files, device, device_run)
    served = engine.precision
    engine.open_attention = lambda: make_attention(read_files(folder, manifest), manifest, device.threads)
    engine.remake = lambda: make_model(read_files(folder, manifest), manifest, device, served)
    if served != graphs.precision:
        log.warning("%s runs in %s, its graphs are in %s: %s", folder, served, graphs.precision, _why(graphs, options))
    measured = measure_budget(engine, device, device_run)
    engine.set_budget(options.budget or measured)
    if device.kind == "cuda":
        engine.set_budget(fit_budget(engine, engine.budget, PLACES, device_run))
        _choose_exits(engine, device_run)
    layers = options.layers_per_check or measure_layers(engine, engine.budget, device_run)
    engine.stepping = replace(engine.stepping, layers_per_check=layers if layers < manifest.layers else 0)
    device_run(engine.model.give_back)
    give_back()
    return engine


def _choose_exits(engine: Engine, device_run: Run) -> None:
    """Early exits where they pay: on a card each question to the head is a wait, and layers are cheap."""
    if engine.stepping.exits is None:
        return
    regrouping = measure_regrouping(engine, engine.budget, device_run)
    engine.stepping = replace(engine.stepping, regrouping=regrouping)
    plain = replace(engine, stepping=replace(engine.stepping, exits=None))
    if not exits_pay(engine, plain, engine.budget, device_run):
        log.info("%s runs all its layers: leaving early would not be faster on this device", engine.ref)
        engine.stepping = plain.stepping


def choose_precision(graphs: Graphs, wanted: Precision = "auto") -> str:
    """The precision that is served here: float32 where asked for, or where products of eight bits overflow."""
    if graphs.float32_layers is None:
        return graphs.precision
    if wanted == "float32" or (graphs.weight_bits == 8 and not current().vnni):
        return "float32"
    return graphs.precision


def _prefer_floats(engine: Engine, files: Files, device: Device, device_run: Run) -> None:
    """Without VNNI eight bits may gain nothing: float32 then, which loses nothing either."""
    floats = make_model(files, engine.manifest, device, "float32")
    if as_fast(replace(engine, model=floats), engine, device_run):
        engine.model, engine.precision = floats, "float32"


def _why(graphs: Graphs, options: LoadOptions) -> str:
    if options.precision == "float32":
        return "asked for"
    if graphs.weight_bits == 8:
        return "products of eight bits overflow on this processor, which has no VNNI; convert again for seven"
    return "it is as fast on this processor"


def assemble(manifest: Manifest, task: Task, model: Model, precision: str, *, budget: int = 1) -> Engine:
    """An engine that is not warm and steps through all layers at once."""
    exits = manifest.exits
    stepping = Stepping(
        manifest.layers,
        mixes=manifest.architecture.get("num_hidden_groups") == 1,
        exits=ExitPolicy(exits.kind, exits.threshold, exits.first, exits.window) if exits else None,
        mean_depth=exits.mean_depth if exits else 0.0,
        temperature=manifest.temperature,
    )
    return Engine(manifest, task, model, budget, stepping, precision)


def attention_padding(manifest: Manifest) -> float:
    """The squares of padding a token that cost attention as much as PADDED of the token's matrix products."""
    hidden, between = (manifest.architecture.get(name, math.inf) for name in ("hidden_size", "intermediate_size"))
    # A token's products take 8 h^2 + 4 h f operations, a square of attention 4 h.
    return PADDED * (2 * float(hidden) + float(between))


def make_task(files: Files, manifest: Manifest) -> Task:
    facts = manifest.tokenizer
    tokenizer = Tokenizer.from_bytes(
        files[facts.file], facts.file, cls_token=facts.cls_token, sep_token=facts.sep_token, mask_token=facts.mask_token
    )
    return MAKERS[manifest.task](tokenizer, manifest)


def _classification(tokenizer: Tokenizer, manifest: Manifest) -> Task:
    return Classification(
        tokenizer, manifest.labels, str(manifest.problem_type), manifest.max_length, manifest.window,
        manifest.temperature, manifest.evidence,
    )  # fmt: skip


def _question_answering(tokenizer: Tokenizer, manifest: Manifest) -> Task:
    confidence = Confidence(manifest.temperature, manifest.exponent, manifest.no_answer_scale, manifest.no_answer_shift)
    return QuestionAnswering(tokenizer, manifest.max_length, manifest.window, manifest.overlap, confidence)


MAKERS: dict[str, Callable[[Tokenizer, Manifest], Task]] = {
    "text-classification": _classification,
    "question-answering": _question_answering,
    "token-classification": lambda tokenizer, facts: TokenClassification(
        tokenizer, facts.labels, facts.window, facts.overlap, facts.temperature
    ),
    "fill-mask": lambda tokenizer, facts: FillMask(tokenizer, facts.max_length),
    "feature-extraction": lambda tokenizer, facts: Embedding(
        tokenizer, facts.max_length, facts.window, facts.pooling or "mean"
    ),
    "multiple-choice": lambda tokenizer, facts: MultipleChoice(tokenizer, facts.max_length, facts.temperature),
}


def make_model(files: Files, manifest: Manifest, device: Device, precision: str) -> Model:
    """``precision`` "float32" takes the layers in float32 where those of the graphs are in eight bits."""
    graphs = _graphs(manifest, device)
    weights, head = _weights(files, manifest), TASKS[manifest.task].head
    parts = {"embed": files[graphs.embed], "head": files[graphs.head]}
    if device.kind == "cuda":
        unrolled = {count: files[name] for count, name in graphs.unrolled.items()}
        parts["tensors"] = files[str(graphs.tensors)]
        spans = ranges(manifest.layers, manifest.architecture["num_hidden_groups"])
        return CudaModel(parts, unrolled, weights, device, spans=spans, head=head)
    parts["layers"] = files[str(graphs.float32_layers if precision == "float32" and graphs.float32_layers
                                else graphs.layers)]  # fmt: skip
    return Model(parts, weights, device, layers=manifest.layers, head=head)


def make_attention(files: Files, manifest: Manifest, threads: int = 0) -> AttentionModel:
    """On the CPU whatever the device.  InvalidRequest for a version that was converted without its graph."""
    if manifest.attention is None:
        raise InvalidRequest(
            f"{manifest.name}/{manifest.version} has no graph that gives attention out: convert its checkpoint again"
        )
    return AttentionModel(files[manifest.attention], _weights(files, manifest), threads)


def _weights(files: Files, manifest: Manifest) -> dict[str, bytes]:
    named = manifest.named_files()
    return {name: content for name, content in files.items() if name not in named}


def _graphs(manifest: Manifest, device: Device) -> Graphs:
    graphs = manifest.graphs.get(device.kind)
    if graphs is None:
        raise DeviceError(
            f"{manifest.name}/{manifest.version} has no graphs for {device.kind}; convert the checkpoint again"
        )
    if device.kind == "cuda" and not graphs.unrolled:
        raise DeviceError(
            f"{manifest.name}/{manifest.version} has graphs for cuda of an older form. Publish it with new ones: "
            f"python -m {__package__.partition('.')[0]}.conversion.renew {manifest.name}/{manifest.version}"
        )
    return graphs
