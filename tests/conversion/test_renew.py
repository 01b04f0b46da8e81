"""A version's graphs for CUDA are written anew without its checkpoint, and nothing else of it changes."""

from pathlib import Path

from service.conversion.pipeline import Options, convert
from service.conversion.renew import renew
from service.repository.manifest import Graphs
from service.repository.store import check_files, read_manifest, sha256, write_manifest
from tests.checkpoints import save_checkpoint


def older(folder: Path) -> None:
    """As versions of before were: the layers for CUDA in one graph."""
    manifest = read_manifest(folder)
    for name in (*manifest.graphs["cuda"].unrolled.values(), str(manifest.graphs["cuda"].tensors)):
        (folder / name).unlink()
    (folder / "layers.cuda.onnx").write_bytes(b"a loop")
    graphs = Graphs(precision="float16", embed="embed.cuda.onnx", layers="layers.cuda.onnx", head="head.cuda.onnx")
    sums = {name: sha256(folder / name) for name in manifest.sha256 if (folder / name).exists()}
    sums["layers.cuda.onnx"] = sha256(folder / "layers.cuda.onnx")
    changed = {"graphs": manifest.graphs | {"cuda": graphs}, "sha256": sums, "precision": {}}
    write_manifest(folder, manifest.model_copy(update=changed))


def test_graphs_of_an_older_form_become_what_conversion_writes(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_groups=3, inner_group_num=2, half=True)
    folder = convert(str(checkpoint), tmp_path / "repo", Options("m"))
    wanted = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    facts = read_manifest(folder)
    older(folder)
    renewed = renew(folder)

    check_files(folder, renewed)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"} == wanted
    assert read_manifest(folder) == facts
