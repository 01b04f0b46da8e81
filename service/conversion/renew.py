"""Versions with new graphs for CUDA, from their own weights: no checkpoint is needed.

    python -m service.conversion.renew VERSION...

For versions whose layers on CUDA are of an older form, or that have none.  What the CPU runs is the same, what a gate
decided stays, and float16 has to pass the check of its rounding too.  Each is published as the next version.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import onnx

from ..errors import ServiceError
from ..heads import TASKS
from ..repository.manifest import Manifest
from ..repository.store import publish, read_files, read_manifest, staging
from .builder import CUDA, Target
from .graph import Network
from .precision import put, rounded, size_of
from .shape import Shape
from .weights import WeightFile


def renew(folder: Path) -> Path:
    """The new version's folder.  RepositoryError where the one in ``folder`` cannot be read."""
    manifest = read_manifest(folder)
    files, before = read_files(folder, manifest), manifest.graphs.get("cuda")
    with staging(folder.parent.parent) as staged:
        for name in files:
            shutil.copy2(folder / name, staged / name)
        network = network_of(staged, manifest)
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
    parser.add_argument("versions", type=Path, nargs="+", metavar="VERSION", help="such as model_repo/sentiment/6")
    for folder in parser.parse_args().versions:
        try:
            print(renew(folder.resolve()))
        except (ServiceError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
