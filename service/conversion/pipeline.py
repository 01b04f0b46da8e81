"""From a checkpoint to a published version: read, build, check, verify, publish; all or nothing."""

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..errors import CheckpointError
from ..heads import TASKS
from ..repository.manifest import Graphs, Manifest, TokenizerFacts
from ..repository.store import check_files, publish, read_manifest, sha256, staging
from ..runtime.providers import choose
from ..serving.engine import Engine
from .attention import FILE as ATTENTION, build_attention
from .builder import CPU, CUDA, Device
from .checkpoint import Checkpoint, read_checkpoint
from .graph import Network
from .precision import Gate, check_wish, lowered, size_of, staged_engine, write_graph, write_graphs
from .verify import verify
from .weights import WeightFile, serving_arrays

Measure = Callable[[Engine], dict[str, Any]]
Check = Callable[[Checkpoint], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller decides.  ``window`` and ``overlap`` in tokens; None takes the task's default.

    ``precision``: fp32, fp16, int8 or auto; see ``precision.py`` for the ``gate`` that a lower one must pass.
    """

    name: str
    task: str | None = None
    window: int | None = None
    overlap: int | None = None
    licence: str | None = None
    precision: str = "auto"
    gate: Gate | None = None


def convert(
    source: str, root: Path, options: Options, measures: Sequence[Measure] = (), check: Check | None = None
) -> Path:
    """Convert ``source`` and publish it under ``root``; returns the new version's folder.

    CheckpointError where it cannot be converted, ParityError where the result does not answer as the original,
    QualityError where the precision that was asked for does not pass its gate.  Nothing is published then.
    ``check`` looks at the checkpoint before the work; ``measures`` look at the result, one after the other, and what
    each returns goes into the manifest.
    """
    check_wish(options.precision, gated=options.gate is not None)
    with staging(root) as folder, tqdm(total=6 + len(measures), desc="reading", unit=" steps") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        checkpoint = read_checkpoint(source, options.task)
        windows(checkpoint.task, checkpoint.shape.max_position_embeddings, options.window, options.overlap)
        if check:
            check(checkpoint)
        step("writing weights")
        network = write_shared(checkpoint, folder)
        step("writing graphs")
        manifest = draft(checkpoint, options, {t.device: write_graphs(network, folder, t) for t in (CPU, CUDA)}, folder)
        step("verifying")
        manifest = manifest.model_copy(update={"parity": verify_files(folder, manifest, checkpoint)})
        step("choosing the precision")
        manifest = lowered(folder, manifest, network, options.precision, options.gate)
        manifest.parity["bytes"] = size_of(folder)
        for number, measure in enumerate(measures, start=1):
            step(f"measuring, {number} of {len(measures)}")
            manifest = Manifest.model_validate(manifest.model_dump() | measure(staged_engine(folder, manifest)))
        step("publishing")
        done = publish(folder, root, manifest)
        bar.set_description(f"published {done.parent.name}/{done.name}")
        bar.update()
    return done


def verify_published(folder: Path, source: str, device: str = "cpu") -> dict[str, Any]:
    """Compare a published version with the checkpoint that it was made from, on ``device``."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    engine = staged_engine(folder, manifest, choose(device), exact=True)
    return verify(engine, read_checkpoint(source, manifest.task))


def write_shared(checkpoint: Checkpoint, folder: Path) -> Network:
    """What all devices and precisions share, into ``folder``: weights, tokenizer and the graph that gives attention."""
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer, encoding="utf-8")
    weights = WeightFile(folder, serving_arrays(checkpoint))
    network = Network(checkpoint.shape, checkpoint.head, weights)
    write_graph(build_attention(network), folder / ATTENTION)
    return network


def draft(checkpoint: Checkpoint, options: Options, graphs: dict[Device, Graphs], folder: Path) -> Manifest:
    """The manifest of what lies in ``folder``; its version is given when it is published."""
    longest = checkpoint.shape.max_position_embeddings
    window, overlap = windows(checkpoint.task, longest, options.window, options.overlap)
    return Manifest(
        name=options.name,
        version=1,
        task=checkpoint.task,
        labels=checkpoint.labels,
        problem_type=checkpoint.problem_type,
        max_length=longest,
        window=window,
        overlap=overlap,
        layers=checkpoint.shape.num_hidden_layers,
        architecture={"class": checkpoint.architecture} | asdict(checkpoint.shape),
        tokenizer=TokenizerFacts(**checkpoint.special),
        graphs=graphs,
        attention=ATTENTION,
        pooling=checkpoint.pooling,
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        provenance=_provenance(checkpoint, options),
    )


def windows(task: str, longest: int, window: int | None, overlap: int | None) -> tuple[int, int]:
    """The window and the overlap, in tokens, with the task's defaults.  CheckpointError where they cannot be."""
    least = TASKS[task].least
    reading = task in ("question-answering", "token-classification")
    if longest < least:
        raise CheckpointError(f"config.json: max_position_embeddings is {longest}; {task} needs {least} or more")
    window = window if window is not None else (min(384, longest) if reading else longest)
    if not least <= window <= longest:
        raise CheckpointError(f"--window {window}: this model takes windows of {least} to {longest} tokens")
    overlap = overlap if overlap is not None else (window // 3 if reading else 0)
    if not 0 <= overlap < window:
        raise CheckpointError(f"--overlap {overlap}: wanted 0 to {window - 1} tokens, less than the window of {window}")
    return window, overlap


def verify_files(folder: Path, manifest: Manifest, checkpoint: Checkpoint) -> dict[str, Any]:
    """The graphs in float32; a lower precision is judged by its gate."""
    return verify(staged_engine(folder, manifest), checkpoint) | {"bytes_of_checkpoint": checkpoint.weight_bytes}


def _provenance(checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
    training = checkpoint.folder / "training.json"
    facts: dict[str, Any] = {
        "checkpoint": checkpoint.folder.name,  # its name only: a path would tell of the machine
        "stored_precision": checkpoint.dtype,
        "converted": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "converter": f"albert-serve {__version__}",
        "licence": options.licence,
    }
    return facts | ({"training": json.loads(training.read_text())} if training.exists() else {})
