"""The graphs for CUDA of versions that are published already, written anew from their own weights.

    python -m service.conversion.renew VERSION...

For versions whose layers on CUDA are of an older form: no checkpoint is needed, nothing that the CPU runs changes.
What a gate decided stays, and float16 has to pass the check of its rounding too.  The manifest is replaced last, so
that a service that looks meanwhile sees one or the other.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import onnx

from ..heads import TASKS
from ..repository.manifest import Manifest
from ..repository.store import read_manifest, sha256, write_manifest
from .builder import Target
from .graph import Network
from .precision import rounded, write_graphs
from .shape import Shape
from .weights import WeightFile


def renew(folder: Path) -> Manifest:
    """The new manifest.  RepositoryError where the version cannot be read."""
    manifest = read_manifest(folder)
    before, judged = manifest.graphs["cuda"], _judged(folder, manifest)
    wanted = {before.precision, judged.graphs["cuda"].precision}
    target = Target("cuda", "float32" if "float32" in wanted else "float16")
    after = write_graphs(network_of(folder, manifest), folder, target)
    gone = set(before.files()) - set(after.files())
    sums = {name: value for name, value in manifest.sha256.items() if name not in gone}
    sums |= {name: sha256(folder / name) for name in after.files()}
    precision = manifest.precision | judged.precision
    renewed = manifest.model_copy(
        update={"graphs": manifest.graphs | {"cuda": after}, "sha256": sums, "precision": precision}
    )
    write_manifest(folder, renewed)
    for name in gone:
        os.unlink(folder / name)
    return renewed


def _judged(folder: Path, manifest: Manifest) -> Manifest:
    """What ``rounded`` says, on a copy."""
    with tempfile.TemporaryDirectory() as aside:
        copied = Path(shutil.copytree(folder, Path(aside) / folder.name))
        return rounded(copied, manifest, network_of(copied, manifest))


def network_of(folder: Path, manifest: Manifest) -> Network:
    """What the graphs of a published version are built from: its weights lie where its graphs for the CPU say."""
    facts = {name: value for name, value in manifest.architecture.items() if name != "class"}
    tensors: dict[str, onnx.TensorProto] = {}
    graphs = manifest.graphs["cpu"]
    for name in (graphs.embed, graphs.layers, graphs.head):
        graph = onnx.load(folder / str(name), load_external_data=False).graph
        tensors |= {one.name: one for one in graph.initializer if one.external_data}
    return Network(Shape(**facts), TASKS[manifest.task].head, WeightFile.of(folder, tensors))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, *renew(Path(argument)).graphs["cuda"].files())
