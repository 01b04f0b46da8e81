"""Versions with new graphs, from their own weights: no checkpoint is needed.

    python -m service.conversion.renew VERSION...

For versions whose graphs are of an older form, or that have none for CUDA.  What a gate decided stays: the matrices in
eight bits, or float16, which has to pass the check of its rounding too.  The CPU answers as before, which is checked.
Each is published as the next version.
"""

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx

from ..errors import ParityError, ServiceError
from ..heads import TASKS
from ..repository.manifest import Graphs, Manifest
from ..repository.store import publish, read_files, read_manifest, staging
from ..runtime.providers import choose
from ..serving.engine import Engine
from ..serving.loading import make_model
from .builder import CPU, CUDA, Target
from .graph import Network
from .precision import put, rounded, size_of, staged_engine
from .shape import Shape
from .verify import difference
from .weights import WeightFile

# Of the largest logit: another order of adding up, by which in eight bits a code may fall the other way.
SAME = {"float32": 1e-4, "int8": 2e-2}


def renew(folder: Path) -> Path:
    """The new version's folder.  RepositoryError where the one in ``folder`` cannot be read."""
    manifest = read_manifest(folder)
    files, before = read_files(folder, manifest), manifest.graphs.get("cuda")
    with staging(folder.parent.parent) as staged:
        for name in files:
            shutil.copy2(folder / name, staged / name)
        network = network_of(staged, manifest)
        old = _on_the_cpu(staged, manifest)
        manifest = put(staged, manifest, network, _target(staged, manifest.graphs["cpu"]))
        _check_same(old, _on_the_cpu(staged, manifest))
        # Judged aside, for it writes graphs for the CPU as well.
        with staging(folder.parent.parent) as aside:
            copied = Path(shutil.copytree(staged, aside / "judged"))
            judged = rounded(copied, put(copied, manifest, network, CUDA), network_of(copied, manifest))
        kept = "float32" if before is not None and before.precision == "float32" else judged.graphs["cuda"].precision
        renewed = put(staged, manifest, network, Target("cuda", "float32" if kept == "float32" else "float16"))
        for name in files.keys() - renewed.sha256.keys():
            os.unlink(staged / name)
        changes = {
            "precision": manifest.precision | judged.precision,
            "parity": manifest.parity | {"bytes": size_of(staged)},
        }
        return publish(staged, folder.parent.parent, renewed.model_copy(update=changes))


def _target(folder: Path, graphs: Graphs) -> Target:
    """What the version's graphs for the CPU were made for; which matrices are in eight bits, they say themselves."""
    if graphs.precision != "int8":
        return CPU
    graph = onnx.load(folder / str(graphs.layers), load_external_data=False).graph
    bodies = [part.g for node in graph.node for part in node.attribute if part.name == "body"]
    products = [node for body in bodies for node in body.node if node.op_type == "MatMulIntegerToFloat"]
    matrices = {node.input[1].removesuffix(".weight.int8").rpartition(".")[2] for node in products}
    steps = {one.name.removesuffix(".step"): one for one in graph.initializer if one.name.endswith(".step")}
    ranges = {name: 127 * onnx.numpy_helper.to_array(one) for name, one in steps.items() if name != "int8"}
    return Target("cpu", "int8", frozenset(matrices), graphs.weight_bits, ranges=ranges)


def _on_the_cpu(folder: Path, manifest: Manifest) -> list[Engine]:
    """In each precision that a CPU may run.  Where products of eight bits overflow here, old and new do alike."""
    files, exact = read_files(folder, manifest), staged_engine(folder, manifest, exact=True)
    lower = {manifest.graphs["cpu"].precision} - {"float32"}
    models = {precision: make_model(files, manifest, choose("cpu"), precision) for precision in lower}
    return [exact, *(replace(exact, model=model, precision=precision) for precision, model in models.items())]


def _check_same(before: list[Engine], after: list[Engine]) -> None:
    for old, new in zip(before, after, strict=True):
        if not (found := difference(old, new)) <= SAME[old.precision]:
            raise ParityError(f"{old.ref}: new graphs in {old.precision} are off by {found:.2g} of the largest logit")


def network_of(folder: Path, manifest: Manifest) -> Network:
    """What the graphs of a published version are built from: its weights lie where its graphs for the CPU say."""
    facts = {name: value for name, value in manifest.architecture.items() if name != "class"}
    tensors: dict[str, onnx.TensorProto] = {}
    graphs = manifest.graphs["cpu"]
    for name in (graphs.embed, graphs.layers, graphs.head):
        graph = onnx.load(folder / str(name), load_external_data=False).graph
        tensors |= {one.name: one for one in graph.initializer if one.external_data}
    return Network(Shape(**facts), TASKS[manifest.task].head, WeightFile.of(folder, tensors))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", type=Path, nargs="+", metavar="VERSION", help="such as model_repo/sentiment/7")
    for folder in parser.parse_args().versions:
        try:
            print(renew(folder.resolve()))
        except (ServiceError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
