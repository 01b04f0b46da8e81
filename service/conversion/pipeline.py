"""From a checkpoint to a published version: read, build, check, verify, publish; all or nothing."""

import datetime
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from service import __version__
from service.conversion.checkpoint import Checkpoint, read_checkpoint
from service.conversion.graph import PARTS, Device, Network, build
from service.conversion.verify import verify
from service.conversion.vocabulary import tokenizer_json
from service.conversion.weights import WeightFile, serving_arrays
from service.errors import CheckpointError
from service.repository.manifest import Graphs, Manifest, TokenizerFacts
from service.repository.store import publish, sha256, staging
from service.runtime.providers import choose
from service.serving.engine import Engine, load, make_model, make_task

PRECISION: dict[Device, str] = {"cpu": "float32", "cuda": "float16"}
Evaluate = Callable[[Engine], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller decides.  ``window`` and ``overlap`` in tokens; None takes the task's default."""

    name: str
    task: str | None = None
    window: int | None = None
    overlap: int | None = None
    licence: str | None = None


def convert(source: str, root: Path, options: Options, evaluate: Evaluate | None = None) -> Path:
    """Convert ``source`` and publish it under ``root``; returns the new version's folder.

    CheckpointError where it cannot be converted, ParityError where the result does not answer as the original.
    Nothing is published then.  ``evaluate`` measures the result on real data; its figures go into the manifest.
    """
    with staging(root) as folder, tqdm(total=6, desc="reading", unit=" steps") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update()

        checkpoint = read_checkpoint(source, options.task)
        step("writing weights")
        files = write_files(checkpoint, folder)
        step("writing graphs")
        manifest = draft(checkpoint, options, files, folder)
        step("verifying")
        parity = verify_files(folder, manifest, checkpoint)
        step("evaluating" if evaluate else "checking")
        engine = Engine(manifest, make_task(folder, manifest), make_model(folder, manifest, choose("cpu")), 512)
        quality = evaluate(engine) if evaluate else {}
        step("publishing")
        done = publish(folder, root, manifest.model_copy(update={"parity": parity, "quality": quality}))
        bar.set_description(f"published {done.parent.name}/{done.name}")
        bar.update()
    return done


def verify_published(folder: Path, source: str, device: str = "cpu") -> dict[str, Any]:
    """Compare a published version with the checkpoint that it was made from, on ``device``."""
    engine = load(folder, choose(device), budget=1024)
    return verify(engine, read_checkpoint(source, engine.manifest.task))


def write_files(checkpoint: Checkpoint, folder: Path) -> dict[Device, Graphs]:
    """Weights, graphs and tokenizer into ``folder``; the graphs of both devices share the one file of weights."""
    (folder / "tokenizer.json").write_text(tokenizer_json(checkpoint.folder), encoding="utf-8")
    try:
        weights = WeightFile(folder, serving_arrays(checkpoint))
    except KeyError as error:
        raise CheckpointError(f"the weights hold no {error.args[0]}, which every ALBERT has") from error
    network = Network(checkpoint.shape, checkpoint.task == "text-classification", weights)
    graphs: dict[Device, Graphs] = {}
    for device, precision in PRECISION.items():
        names = {part: f"{part}.{device}.onnx" for part in PARTS}
        for part, name in names.items():
            (folder / name).write_bytes(build(part, network, device).SerializeToString())
            onnx.checker.check_model(str(folder / name))
        graphs[device] = Graphs.model_validate({"precision": precision} | names)
    return graphs


def draft(checkpoint: Checkpoint, options: Options, graphs: dict[Device, Graphs], folder: Path) -> Manifest:
    """The manifest of what lies in ``folder``; its version is given when it is published."""
    longest = checkpoint.shape.max_position_embeddings
    reading = checkpoint.task == "question-answering"
    window = options.window or (min(384, longest) if reading else longest)
    overlap = options.overlap if options.overlap is not None else (window // 3 if reading else 0)
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
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
        provenance=_provenance(checkpoint, options),
    )


def verify_files(folder: Path, manifest: Manifest, checkpoint: Checkpoint) -> dict[str, Any]:
    engine = Engine(manifest, make_task(folder, manifest), make_model(folder, manifest, choose("cpu")), 1024)
    report = verify(engine, checkpoint)
    size = sum(path.stat().st_size for path in folder.glob("*.onnx")) + (folder / "weights.bin").stat().st_size
    return report | {"bytes": size, "bytes_of_checkpoint": checkpoint.weight_bytes}


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
