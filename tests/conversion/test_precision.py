"""A lower precision is published only where it keeps its score; nothing of a refused one stays."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.torch import load_file, save_file

from service.conversion import precision
from service.conversion.pipeline import Options, convert, verify_published
from service.conversion.precision import Gate, staged_engine
from service.errors import CheckpointError, QualityError
from service.repository.store import check_files, read_manifest
from service.runtime.processor import assumed
from service.runtime.providers import choose
from service.serving.engine import Engine
from service.serving.loading import LoadOptions, load
from tests.checkpoints import save_checkpoint
from tests.fakes import row


@pytest.fixture
def vnni() -> Iterator[None]:
    """As on a processor whose products of eight bits do not overflow: forms of eight bits are tried, too."""
    with assumed("vnni"):
        yield


def gate(full: float, *lower: float, half: float = 90.0) -> Gate:
    """Float32 scores ``full``, float16 ``half``, and each form of int8 that is tried the next of ``lower``."""
    values = iter([full, half, *lower])
    return Gate(0.5, lambda engine: {"accuracy": next(values)})


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(save_checkpoint(tmp_path / "checkpoint"))


def products(folder: Path) -> int:
    """How many matrices are multiplied in eight bits."""
    graph = onnx.load(folder / "layers.cpu.onnx", load_external_data=False).graph
    body = next(a.g for node in graph.node if node.op_type == "Loop" for a in node.attribute if a.name == "body")
    return sum(node.op_type == "MatMulIntegerToFloat" for node in body.node)


@pytest.mark.usefixtures("vnni")
def test_eight_bits_that_keep_their_score_are_published(tmp_path: Path, checkpoint: str) -> None:
    folder = convert(checkpoint, tmp_path / "repo", Options("m", precision="int8", gate=gate(90, 89.6)))
    manifest = read_manifest(folder)
    check_files(folder, manifest)

    assert manifest.graphs["cpu"].precision == "int8"
    assert products(folder) == 4
    assert manifest.precision["float32"]["scores"] == {"accuracy": 90}
    assert manifest.precision["tried"][1]["scores"] == {"accuracy": 89.6}
    assert manifest.graphs["cpu"].weight_bits == 7
    assert load(folder, LoadOptions(choose("cpu"), budget=64)).run([row(5)])[0].shape == (2,)
    # The layers in float32 lie beside them, and still answer as PyTorch does.
    assert verify_published(folder, checkpoint)["max_difference_in_batches"] < 1e-5


@pytest.mark.usefixtures("vnni")
def test_what_suffers_first_goes_back_to_float(tmp_path: Path, checkpoint: str) -> None:
    folder = convert(checkpoint, tmp_path / "repo", Options("m", precision="int8", gate=gate(90, 40, 89.9)))

    assert products(folder) == 3
    assert [entry["lost"] for entry in read_manifest(folder).precision["tried"]] == [0, 50, pytest.approx(0.1)]


@pytest.mark.usefixtures("vnni")
def test_nothing_is_published_where_eight_bits_fail_and_were_asked_for(tmp_path: Path, checkpoint: str) -> None:
    with pytest.raises(QualityError, match="loses at least 5 points"):
        convert(
            checkpoint, tmp_path / "repo", Options("m", precision="int8", gate=gate(90, 40, 50, 60, 85, 40, 50, 60, 70))
        )
    assert not [path for path in (tmp_path / "repo").rglob("*") if path.is_file()]


def test_where_products_of_eight_bits_overflow_float32_is_served(tmp_path: Path, checkpoint: str) -> None:
    with assumed("vnni"):
        scores = gate(90, 40, 40, 40, 40, 90)  # no form of seven bits passes
        folder = convert(checkpoint, tmp_path / "repo", Options("m", precision="int8", gate=scores))
        bits = load(folder, LoadOptions(choose("cpu")))
    manifest = read_manifest(folder)
    exact = staged_engine(folder, manifest, exact=True)
    with assumed("none"):
        given = load(folder, LoadOptions(choose("cpu")))

    assert manifest.graphs["cpu"].weight_bits == 8
    assert (bits.precision, given.precision) == ("int8", "float32")
    assert (exact.run([row(9)])[0] == given.run([row(9)])[0]).all()
    assert (exact.run([row(9)])[0] != bits.run([row(9)])[0]).any()


def test_weights_of_eight_bits_are_not_tried_where_they_cannot_be_judged(tmp_path: Path, checkpoint: str) -> None:
    with assumed("none"):
        with pytest.raises(QualityError, match="loses at least 10 points"):
            convert(checkpoint, tmp_path / "repo", Options("m", precision="int8", gate=gate(90, 80, 80, 80, 80)))
        auto = read_manifest(convert(checkpoint, tmp_path / "repo", Options("m", gate=gate(90, 80, 80, 80, 80))))
    assert auto.graphs["cpu"].precision == auto.precision["cpu"] == "float32"
    assert {entry.get("weight_bits", 7) for entry in auto.precision["tried"]} == {7}


def speeds(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    values = iter(seconds)
    timed: Callable[[Engine], float] = lambda engine: next(values)  # noqa: E731 - it is handed over at once
    monkeypatch.setattr(precision, "speed", timed)


@pytest.mark.usefixtures("vnni")
def test_auto_takes_what_is_faster_and_passes(tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, 1.0, 5.0, 0.4, 1.0)
    folder = convert(checkpoint, tmp_path / "repo", Options("m", gate=gate(90, 90)))

    assert read_manifest(folder).graphs["cpu"].precision == "int8"


@pytest.mark.usefixtures("vnni")
def test_auto_keeps_float32_where_nothing_passes_or_is_faster(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds(monkeypatch, 1.0, 5.0, 1.1, 1.0, 0.5, 1.2, 1.0, 1.3, 1.0, 0.5, 0.5, 0.5, 0.5)
    folder = convert(checkpoint, tmp_path / "repo", Options("m", gate=gate(90, 90, 80, 90, 90, 80, 80, 80, 80)))
    manifest = read_manifest(folder)
    check_files(folder, manifest)

    assert manifest.graphs["cpu"].precision == manifest.precision["cpu"] == "float32"
    assert len(manifest.precision["tried"]) == 9
    assert products(folder) == 0


def floats(folder: Path, device: str) -> int:
    """The type of the hidden state in the graphs of ``device``."""
    graph = onnx.load(folder / f"embed.{device}.onnx", load_external_data=False).graph
    return int(graph.output[0].type.tensor_type.elem_type)


def test_cuda_computes_in_half_precision_only_where_it_keeps_the_score(tmp_path: Path, checkpoint: str) -> None:
    options = [Options("m", precision="auto", gate=gate(90, *[0] * 8, half=half)) for half in (89.6, 89.0)]
    good, bad = (convert(checkpoint, tmp_path / "repo", one) for one in options)

    assert (floats(good, "cuda"), floats(good, "cpu")) == (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    assert (floats(bad, "cuda"), floats(bad, "cpu")) == (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT)
    assert read_manifest(bad).graphs["cuda"].precision == read_manifest(bad).precision["cuda"] == "float32"
    with pytest.raises(QualityError, match="fp16 loses 1 points"):
        convert(checkpoint, tmp_path / "repo", Options("m", precision="fp16", gate=gate(90, half=89.0)))
    wanted = convert(checkpoint, tmp_path / "repo", Options("m", precision="fp16", gate=gate(90, half=89.9)))
    assert read_manifest(wanted).graphs["cpu"].precision == "float32"


def overflowing(folder: Path, **config: Any) -> Path:
    """A checkpoint whose feed-forward parts give out more than float16 can hold, and take it back."""
    save_checkpoint(folder, **config)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        weights[name] *= 1e4 if ".ffn." in name else 1e-4 if name.endswith("ffn_output.weight") else 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_model_that_overflows_in_half_precision_has_float32_on_cuda(tmp_path: Path, activation: str) -> None:
    """Between two kernels of the feed-forward part, where ONNX Runtime on the CPU never leaves float32."""
    folder = overflowing(tmp_path / "large", hidden_act=activation)
    manifest = read_manifest(convert(str(folder), tmp_path / "repo", Options("m")))

    assert manifest.graphs["cuda"].precision == manifest.precision["cuda"] == "float32"
    assert "overflow" in manifest.precision["rounding"]["why"]
    assert floats(tmp_path / "repo" / "m" / "1", "cuda") == onnx.TensorProto.FLOAT
    with pytest.raises(QualityError, match=r"fp16 cannot be published: rounded to float16 as CUDA does, .* overflow"):
        convert(str(folder), tmp_path / "repo", Options("m", precision="fp16", gate=gate(90, 90)))
    gated = read_manifest(convert(str(folder), tmp_path / "repo", Options("m", gate=gate(90, *[0] * 8))))
    assert gated.graphs["cuda"].precision == "float32"


def test_what_rounding_does_to_the_logits_is_in_the_manifest(tmp_path: Path, checkpoint: str) -> None:
    manifest = read_manifest(convert(checkpoint, tmp_path / "repo", Options("m")))

    assert 0 < manifest.precision["rounding"]["difference"] < manifest.precision["rounding"]["tolerance"]
    assert manifest.graphs["cuda"].precision == "float16"


def test_without_a_gate_only_float32_is_published_for_the_cpu(tmp_path: Path, checkpoint: str) -> None:
    assert read_manifest(convert(checkpoint, tmp_path / "repo", Options("m"))).graphs["cpu"].precision == "float32"
    whole = convert(checkpoint, tmp_path / "repo", Options("m", precision="fp32"))
    assert {graphs.precision for graphs in read_manifest(whole).graphs.values()} == {"float32"}
    for lower in ("int8", "fp16"):
        with pytest.raises(CheckpointError, match="--gate"):
            convert(checkpoint, tmp_path / "repo", Options("m", precision=lower))
