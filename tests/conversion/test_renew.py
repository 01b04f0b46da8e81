"""A version's graphs are written anew without its checkpoint, and nothing else of it changes."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.conversion.builder import LAYER_MATRICES, Target
from service.conversion.graph import Network
from service.conversion.pipeline import Options, convert
from service.conversion.precision import INT8, put
from service.conversion.renew import main, network_of, renew
from service.errors import ParityError
from service.repository.manifest import Graphs, Manifest
from service.repository.store import check_files, read_manifest, sha256, write_manifest
from service.runtime.processor import assumed
from tests.checkpoints import save_checkpoint
from tests.conversion.test_precision import overflowing


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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_graphs_of_an_older_form_become_what_conversion_writes(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_groups=3, inner_group_num=2, half=True)
    folder = convert(str(checkpoint), tmp_path / "repo", Options("m"))
    wanted, facts = contents(folder), read_manifest(folder)
    older(folder)
    before = contents(folder)
    renewed = renew(folder)

    assert (renewed.parent.name, renewed.name) == ("m", "2")
    check_files(renewed, read_manifest(renewed))
    assert contents(renewed) == wanted | {"manifest.json": (renewed / "manifest.json").read_bytes()}
    assert read_manifest(renewed) == facts.model_copy(update={"version": 2})
    # Versions are immutable: whoever serves the old one notices nothing.
    assert contents(folder) == before
    assert sorted(path.name for path in (tmp_path / "repo").iterdir()) == ["m"]


def test_graphs_for_the_cpu_that_compute_all_of_the_last_layer_get_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = str(save_checkpoint(tmp_path / "checkpoint", num_hidden_groups=3, inner_group_num=2))
    wanted = contents(convert(checkpoint, tmp_path / "wanted", Options("m")))
    with monkeypatch.context() as before:
        before.setattr("service.conversion.graph.narrows", lambda network: False)
        folder = convert(checkpoint, tmp_path / "repo", Options("m"))
    assert contents(folder)["layers.cpu.onnx"] != wanted["layers.cpu.onnx"]
    renewed = contents(renew(folder))
    assert renewed | {"manifest.json": b""} == wanted | {"manifest.json": b""}


def lowered(tmp_path: Path, target: Target) -> Path:
    """A version whose graphs for the CPU are those of ``target``, and which does not say how that was decided."""
    folder = convert(str(save_checkpoint(tmp_path / "checkpoint")), tmp_path / "repo", Options("m"))
    manifest = read_manifest(folder)
    write_manifest(folder, put(folder, manifest, network_of(folder, manifest), target))
    return folder


@pytest.mark.parametrize("features", ["none", "vnni"])
@pytest.mark.parametrize("target", INT8[::3], ids=lambda target: f"{sorted(target.int8)} {target.weight_bits}")
def test_the_matrices_in_eight_bits_stay(tmp_path: Path, target: Target, features: str) -> None:
    folder = lowered(tmp_path, target)
    with assumed(features):
        renewed = renew(folder)
    assert contents(renewed) | {"manifest.json": b""} == contents(folder) | {"manifest.json": b""}
    assert read_manifest(renewed).graphs == read_manifest(folder).graphs


@pytest.mark.parametrize("features", ["none", "vnni"])
def test_other_matrices_in_eight_bits_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    folder = lowered(tmp_path, Target("cpu", "int8", frozenset({"up"}), 8))
    monkeypatch.setattr("service.conversion.renew._target", lambda *_: Target("cpu", "int8", LAYER_MATRICES, 8))
    with assumed(features), pytest.raises(ParityError, match="int8"):
        renew(folder)


def test_graphs_that_answer_otherwise_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(str(save_checkpoint(tmp_path / "checkpoint")), tmp_path / "repo", Options("m"))
    read = network_of

    def other(staged: Path, manifest: Manifest) -> Network:
        network = read(staged, manifest)
        return replace(network, shape=replace(network.shape, hidden_act="relu"))

    monkeypatch.setattr("service.conversion.renew.network_of", other)
    with pytest.raises(ParityError, match="float32"):
        renew(folder)
    assert sorted(path.name for path in (tmp_path / "repo").rglob("*") if path.is_dir()) == ["1", "m"]


def test_a_version_without_graphs_for_cuda_gets_them(tmp_path: Path) -> None:
    folder = convert(str(save_checkpoint(tmp_path / "checkpoint")), tmp_path / "repo", Options("m"))
    facts = read_manifest(folder)
    gone = set(facts.graphs["cuda"].files())
    sums = {name: value for name, value in facts.sha256.items() if name not in gone}
    write_manifest(folder, facts.model_copy(update={"graphs": {"cpu": facts.graphs["cpu"]}, "sha256": sums}))

    assert read_manifest(renew(folder)).graphs == facts.graphs


def test_one_that_overflows_there_gets_float32(tmp_path: Path) -> None:
    folder = convert(str(overflowing(tmp_path / "large")), tmp_path / "repo", Options("m"))
    older(folder)
    renewed = read_manifest(renew(folder))

    assert renewed.graphs["cuda"].precision == "float32"
    assert "overflow" in renewed.precision["rounding"]["why"]


def test_what_is_no_version_is_told_in_one_line_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = convert(str(save_checkpoint(tmp_path / "checkpoint")), tmp_path / "repo", Options("m"))
    (folder / "embed.cpu.onnx").write_bytes(b"damaged")
    capsys.readouterr()
    for version in (tmp_path / "nowhere", folder):
        monkeypatch.setattr("sys.argv", ["renew", str(version)])
        assert main() == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "repo").rglob("*") if path.is_dir()) == ["1", "m"]
