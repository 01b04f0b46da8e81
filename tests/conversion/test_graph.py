"""Every ALBERT that its configuration can describe, against PyTorch, through the code that serves."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest

from service.conversion.builder import CPU, CUDA, LAYER_MATRICES, Target
from service.conversion.checkpoint import read_checkpoint
from service.conversion.graph import group_ranges
from service.conversion.pipeline import Options, draft, write_shared
from service.conversion.precision import staged_engine, write_graphs
from service.conversion.shape import Shape
from service.conversion.unrolled import counts
from service.conversion.verify import verify
from service.runtime.packing import Pack
from service.runtime.processor import assumed
from service.serving.engine import Engine
from tests.checkpoints import TINY, save_checkpoint
from tests.fakes import row

CLASSIFIER, READER, PRETRAINED = "AlbertForSequenceClassification", "AlbertForQuestionAnswering", "AlbertForPreTraining"
MASKED = "AlbertForMaskedLM"
INT8 = Target("cpu", "int8", LAYER_MATRICES)
SHAPES: list[dict[str, Any]] = [
    {},
    {"num_hidden_groups": 3},
    {"num_hidden_layers": 5, "num_hidden_groups": 2},
    {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2},
    {"inner_group_num": 3},
    {"hidden_act": "gelu"},
    {"hidden_act": "gelu_new"},
    {"hidden_act": "relu"},
    {"embedding_size": 48},
    {"num_attention_heads": 12},
    {"num_hidden_layers": 1},
    {"layer_norm_eps": 1e-5},
    {"type_vocab_size": 4},
]


def converted(checkpoint: Path, folder: Path, target: Target = CPU) -> Engine:
    """The engine of ``checkpoint``, its files written to ``folder``; nothing verified yet."""
    read = read_checkpoint(str(checkpoint))
    folder.mkdir(exist_ok=True)
    network = write_shared(read, folder)
    graphs = {one.device: write_graphs(network, folder, one) for one in (target, CUDA)}
    return staged_engine(folder, draft(read, Options("tiny"), graphs, folder))


@pytest.mark.parametrize("architecture", [CLASSIFIER, READER, PRETRAINED])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_answers_as_pytorch_does(tmp_path: Path, architecture: str, shape: dict[str, Any]) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture, **shape)
    report = verify(converted(checkpoint, tmp_path / "files"), read_checkpoint(str(checkpoint)))

    assert report["max_difference_alone"] < 1e-5
    assert report["max_difference_in_batches"] < 1e-5
    assert report["max_difference_of_attention"] < 1e-5
    assert report["longest"] == TINY["max_position_embeddings"]


@pytest.mark.parametrize(("problem", "labels"), [("multi_label_classification", 3), ("regression", 1), (None, 4)])
def test_every_kind_of_classifier_converts(tmp_path: Path, problem: str | None, labels: int) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_labels=labels, problem_type=problem)
    engine = converted(checkpoint, tmp_path / "files")

    assert engine.manifest.problem_type == (problem or "single_label_classification")
    assert engine.manifest.labels == [f"LABEL_{index}" for index in range(labels)]
    assert verify(engine, read_checkpoint(str(checkpoint)))["different_answers"] == 0


def test_half_precision_weights_are_stored_as_they_are(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", half=True)
    read = read_checkpoint(str(checkpoint))
    engine = converted(checkpoint, tmp_path / "files")

    assert read.dtype == "float16"
    assert (tmp_path / "files" / "weights.bin").stat().st_size < read.weight_bytes * 1.05
    assert verify(engine, read)["max_difference_alone"] < 1e-5


@pytest.mark.parametrize("layers", [12, 24])
def test_the_shared_layer_is_stored_once_however_deep(tmp_path: Path, layers: int) -> None:
    big: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "embedding_size": 64}
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_layers=layers, **big)
    converted(checkpoint, tmp_path / "files")

    size = sum(path.stat().st_size for path in (tmp_path / "files").iterdir() if path.name != "tokenizer.json")
    assert size < read_checkpoint(str(checkpoint)).weight_bytes * 1.05


@pytest.mark.parametrize(("layers", "groups"), list(itertools.combinations_with_replacement([1, 2, 3, 5, 7, 12], 2)))
def test_groups_own_the_layers_that_transformers_gives_them(layers: int, groups: int) -> None:
    layers, groups = max(layers, groups), min(layers, groups)
    shape = Shape(10, 4, 4, layers, groups, 1, 1, 4, "relu", 8, 2, 1e-12)

    owners = [group for group, (start, end) in enumerate(group_ranges(shape)) for _ in range(start, end)]
    assert owners == [int(i / (layers / groups)) for i in range(layers)]


def test_cuda_graphs_pack_in_half_precision_and_read_the_same_weights(tmp_path: Path) -> None:
    converted(save_checkpoint(tmp_path / "checkpoint"), tmp_path / "files")

    graphs = {
        path.name: onnx.load(path, load_external_data=False).graph for path in (tmp_path / "files").glob("*.cuda*")
    }
    assert set(graphs) == {f"{part}.onnx" for part in ("embed.cuda", "head.cuda", "tensors.cuda", "layers.cuda.1",
                                                       "layers.cuda.2", "layers.cuda.3")}  # fmt: skip
    three = graphs["layers.cuda.3.onnx"]
    operators = [node.op_type for node in three.node]
    assert operators.count("PackedMultiHeadAttention") == 3
    # Nothing is padded, nothing waits for the host, and nobody's bias is laid out by row.
    assert not {"Gather", "Loop", "If", "Scan"} & set(operators)
    assert all(node.input[3] == "" for node in three.node if node.op_type == "PackedMultiHeadAttention")
    assert three.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    # The layers hold no weights: those of the one layer are given, as often as it runs.
    assert not [one for one in three.initializer if one.external_data]
    given = {one.name for one in three.input} - {"hidden", "token_offset", "cumulative"}
    assert {f"{name}.given" for name in given} == {one.name for one in graphs["tensors.cuda.onnx"].output}
    places = {entry.value for one in graphs["tensors.cuda.onnx"].initializer for entry in one.external_data
              if entry.key == "location"}  # fmt: skip
    assert places == {"weights.bin"}


@pytest.mark.parametrize(
    ("layers", "wanted"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (12, [1, 2, 3, 6, 12]), (24, [1, 2, 3, 6, 12, 24])]
)
def test_there_are_few_graphs_of_layers_and_all_at_once_is_one(layers: int, wanted: list[int]) -> None:
    assert counts(layers) == wanted


def test_any_range_of_layers_can_be_run(tmp_path: Path) -> None:
    """The door to stepping: layers one by one, across groups, are the layers all at once."""
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_layers=5, num_hidden_groups=2)
    engine = converted(checkpoint, tmp_path / "files")
    pack = Pack.of([row(5), row(9), row(2)])
    whole = engine.model.advance(engine.model.embed(pack), pack, 5)
    stepped = engine.model.embed(pack)
    for layers in (1, 3, 1):
        stepped = engine.model.advance(stepped, pack, layers)

    np.testing.assert_array_equal(stepped.value, whole.value)
    assert stepped.depth == whole.depth == 5


@pytest.mark.parametrize("target", [CPU, INT8], ids=lambda target: target.precision)
@pytest.mark.parametrize("architecture", [CLASSIFIER, MASKED])
@pytest.mark.parametrize("shape", [{}, {"num_hidden_groups": 3}, {"inner_group_num": 3}], ids=str)
def test_the_last_layer_may_be_computed_for_what_the_head_reads(
    tmp_path: Path, architecture: str, shape: dict[str, Any], target: Target
) -> None:
    engine = converted(save_checkpoint(tmp_path / "checkpoint", architecture, **shape), tmp_path / "files", target)
    model, rows = engine.model, [row(5), row(9), row(2)]
    if architecture == MASKED:
        masks = [np.array([3], np.int32), None, np.array([1, 0], np.int32)]
        rows = [replace(one, masks=places) for one, places in zip(rows, masks, strict=True)]
    pack = Pack.of(rows)
    before = model.advance(model.embed(pack), pack, model.depth - 1)
    whole = model.advance(before, pack, 1)
    for asked in ([0, 1, 2], [2, 0], [1]):
        part = model.advance(before, pack, 1, asked)
        assert (part.depth, part.narrowed) == (model.depth, True)
        assert len(part.value) == sum(2 if architecture == MASKED and index == 2 else 1 for index in asked)
        for found, wanted in zip(model.head(part, pack, asked), model.head(whole, pack, asked), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [CLASSIFIER, READER])
def test_before_the_last_layer_and_for_a_head_that_reads_all_nothing_is_left_out(
    tmp_path: Path, architecture: str
) -> None:
    model = converted(save_checkpoint(tmp_path / "checkpoint", architecture), tmp_path / "files").model
    pack = Pack.of([row(5), row(9)])
    state = model.advance(model.embed(pack), pack, model.depth - 1, [0, 1])
    if architecture == READER:
        state = model.advance(state, pack, 1, [0, 1])

    assert len(state.value) == 14
    assert not state.narrowed


def test_versions_that_compute_all_of_the_last_layer_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, rows = save_checkpoint(tmp_path / "checkpoint"), [row(5), row(9)]
    with monkeypatch.context() as before:
        before.setattr("service.conversion.graph.narrows", lambda network: False)
        older = converted(checkpoint, tmp_path / "older")
    layers = onnx.load(tmp_path / "older" / "layers.cpu.onnx", load_external_data=False)
    assert "kept" not in {one.name for one in layers.graph.input}
    wanted = converted(checkpoint, tmp_path / "files").run(rows)
    np.testing.assert_allclose(older.run(rows), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [{}, {"num_hidden_groups": 3}, {"inner_group_num": 3}], ids=str)
def test_eight_bits_stay_near_the_floats(tmp_path: Path, shape: dict[str, Any], half: bool) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", half=half, **shape)
    floats = converted(checkpoint, tmp_path / "floats")
    bits = converted(checkpoint, tmp_path / "bits", INT8)
    rows = [row(length, length) for length in (3, 9, 30)]

    for wanted, found in zip(floats.run(rows), bits.run(rows), strict=True):
        assert np.abs(found - wanted).max() < 0.25 * max(1.0, np.abs(wanted).max())
        assert (found != wanted).any()


@pytest.mark.parametrize("features", ["none", "vnni"])
@pytest.mark.parametrize("bits", [7, 8])
def test_seven_bits_are_served_on_every_processor_eight_where_there_is_vnni(
    tmp_path: Path, features: str, bits: Literal[7, 8]
) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    target = Target("cpu", "int8", LAYER_MATRICES, bits)
    with assumed(features):
        engine = converted(checkpoint, tmp_path / "bits", target)
    floats = converted(checkpoint, tmp_path / "floats").run([row(9)])[0]

    served = "int8" if bits == 7 or features == "vnni" else "float32"
    assert engine.precision == served
    assert (engine.run([row(9)])[0] != floats).any() == (served == "int8")


def test_no_weight_of_seven_bits_overflows_a_sum_of_two_in_sixteen(tmp_path: Path) -> None:
    """What processors without VNNI compute: uint8 x int8, two products added in sixteen bits."""
    converted(save_checkpoint(tmp_path / "c"), tmp_path / "bits", INT8)
    steps = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "bits" / "layers.cpu.onnx", load_external_data=False).graph.initializer
        if tensor.name.endswith("step")
    }

    assert float(steps["int8.weight_step"]) == pytest.approx(1 / 63)
    assert 2 * 255 * 63 < 2**15 < 2 * 255 * 127


def test_in_eight_bits_too_a_row_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    engine = converted(save_checkpoint(tmp_path / "c"), tmp_path / "bits", INT8)
    rows = [row(length, length) for length in (5, 12, 40)]
    together = engine.run(rows)

    for alone, found in zip((engine.run([one])[0] for one in rows), together, strict=True):
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_eight_bits_take_no_room_in_the_file(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", hidden_size=192, intermediate_size=384)
    for name, target in (("floats", CPU), ("bits", INT8)):
        converted(checkpoint, tmp_path / name, target)
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("floats", "bits")]

    assert sizes[1] < sizes[0] + 15_000
