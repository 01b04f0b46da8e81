"""What is exported runs without this project, and answers as the checkpoint does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import transformers
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from service.cli import main
from service.conversion import padded
from service.conversion.checkpoint import read_checkpoint
from service.conversion.formats import FORMATS, export, export_as, triton_config
from service.conversion.padded import INPUTS, TOLERANCE, Original
from service.errors import CheckpointError, ParityError, RepositoryError
from tests.checkpoints import save_checkpoint

CLASSIFIER, READER = "AlbertForSequenceClassification", "AlbertForQuestionAnswering"
FILES = {"onnx": "model.onnx", "torch": "model.pt2", "triton": "mine/1/model.onnx"}
CASES: list[tuple[str, dict[str, Any]]] = [
    (CLASSIFIER, {"num_hidden_groups": 3, "num_labels": 5}),
    (CLASSIFIER, {"inner_group_num": 2, "half": True, "num_labels": 1, "hidden_act": "relu"}),
    (CLASSIFIER, {"max_position_embeddings": 16, "embedding_size": 48, "hidden_act": "gelu"}),
    (READER, {"num_hidden_groups": 2, "inner_group_num": 2, "type_vocab_size": 3}),
    ("AlbertForPreTraining", {}),
]
# Programs of a reader of the files: they know the file, the inputs and no line of ours.
RUN_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
batches = numpy.load(sys.argv[2])
names = sorted({key.split("/")[0] for key in batches})
for number in names:
    found = session.run(None, {one.name: batches[f"{number}/{one.name}"] for one in session.get_inputs()})
    numpy.savez(f"{sys.argv[3]}/{number}", *found)
"""
RUN_TORCH = """
import sys, numpy, torch
module = torch.export.load(sys.argv[1]).module()
batches = numpy.load(sys.argv[2])
for number in sorted({key.split("/")[0] for key in batches}):
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    found = module(**{name: torch.from_numpy(batches[f"{number}/{name}"]) for name in inputs})
    numpy.savez(f"{sys.argv[3]}/{number}", *(one.detach().numpy() for one in found))
"""
# The part of Triton's ModelConfig (github.com/triton-inference-server/common, protobuf/model_config.proto) that is
# used: messages with their fields as (type, repeated).  Text format goes by names, so the numbers are any.
TRITON: dict[str, dict[str, tuple[str, bool]]] = {
    "Tensor": {"name": ("string", False), "data_type": ("DataType", False), "dims": ("int64", True),
               "label_filename": ("string", False)},
    "Group": {"count": ("int32", False), "kind": ("Kind", False)},
    "Batching": {"max_queue_delay_microseconds": ("uint64", False)},
    "Model": {"name": ("string", False), "platform": ("string", False), "max_batch_size": ("int32", False),
              "dynamic_batching": ("Batching", False), "instance_group": ("Group", True),
              "input": ("Tensor", True), "output": ("Tensor", True)},
}  # fmt: skip
ENUMS = {"DataType": ["TYPE_INVALID", "TYPE_INT64", "TYPE_FP32"], "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU"]}


def batch_of(lengths: list[int]) -> dict[str, npt.NDArray[np.int64]]:
    """A batch of pairs of random tokens."""
    random, shape = np.random.default_rng(7), (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": random.integers(5, 40, shape) * mask, "attention_mask": mask, "token_type_ids": 0 * mask}


def answers(checkpoint: Path, architecture: str, batch: dict[str, npt.NDArray[np.int64]]) -> list[npt.NDArray[Any]]:
    model = getattr(transformers, architecture).from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        found = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    names = ("start_logits", "end_logits") if architecture == READER else ("logits", "sop_logits")
    return [found[name].numpy() for name in names if name in found]


def run_elsewhere(file: Path, batches: list[dict[str, npt.NDArray[np.int64]]]) -> list[list[npt.NDArray[Any]]]:
    """Through a new process, started in the file's folder so that it finds nothing of this project."""
    stored = {f"{number}/{name}": values for number, batch in enumerate(batches) for name, values in batch.items()}
    np.savez(file.parent / "batches.npz", allow_pickle=False, **stored)
    program = RUN_TORCH if file.suffix == ".pt2" else RUN_ONNX
    arguments = [sys.executable, "-c", program, str(file), "batches.npz", "."]
    subprocess.run(arguments, cwd=file.parent, check=True, capture_output=True)
    found = [np.load(file.parent / f"{number}.npz") for number in range(len(batches))]
    return [[one[key] for key in one.files] for one in found]


@pytest.mark.parametrize(("architecture", "config"), CASES, ids=str)
@pytest.mark.parametrize("format", FILES)
def test_another_runtime_gives_the_checkpoints_answers(
    tmp_path: Path, format: str, architecture: str, config: dict[str, Any]
) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", architecture, **config)
    report = export_as(checkpoint, format, tmp_path / "out", "mine")
    longest = config.get("max_position_embeddings", 64)
    batches = [batch_of(lengths) for lengths in ([1], [1, 1, 1], [2], [longest], [3, longest, 1, 9, 9])]
    found = run_elsewhere(tmp_path / "out" / FILES[format], batches)

    assert report["max_difference"] < TOLERANCE
    for batch, outputs in zip(batches, found, strict=True):
        wanted = answers(checkpoint, architecture, batch)
        assert len(wanted) == len(outputs)
        assert all(np.allclose(*pair, atol=1e-4) for pair in zip(wanted, outputs, strict=True))
    # config.json and the tokenizer are enough to make and to name an answer.
    folder = tmp_path / "out" / ("mine" if format == "triton" else "")
    transformers.AutoTokenizer.from_pretrained(folder)
    named = transformers.AlbertConfig.from_pretrained(folder)
    labels = read_checkpoint(str(checkpoint)).labels
    assert not labels or list(named.id2label.values()) == labels


def test_a_shared_layer_stands_in_the_file_once(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", num_hidden_layers=12, intermediate_size=4096)
    stored = (checkpoint / "model.safetensors").stat().st_size
    # Twelve layers in the file would be ten times as large.  The graphs of twelve layers take some of it.
    for format, graph in (("onnx", 200_000), ("torch", 800_000)):
        size = export_as(checkpoint, format, tmp_path / format, "mine")["bytes"]
        assert stored < size < stored + graph, format


def test_the_graph_has_standard_operators_and_names_no_file_of_this_machine(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", READER)
    export_as(checkpoint, "onnx", tmp_path / "out", "mine")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    shapes = {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*model.graph.input, *model.graph.output)
    }

    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert shapes == {name: ["batch", "sequence"] for name in (*INPUTS, "start_logits", "end_logits")}
    export_as(checkpoint, "torch", tmp_path / "torch", "mine")
    for file in (tmp_path / "out" / "model.onnx", tmp_path / "torch" / "model.pt2"):
        assert b"site-packages" not in file.read_bytes()
        assert b"service/conversion" not in file.read_bytes()


def triton_message() -> Any:
    """An empty ModelConfig, of the part that TRITON describes."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="triton", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in TRITON.items():
        message = file.message_type.add(name=name)
        for number, (field, (kind, repeated)) in enumerate(fields.items(), start=1):
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in TRITON or kind in ENUMS:
                added.type, added.type_name = (11 if kind in TRITON else 14), f".triton.{kind}"
            else:
                added.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.Model"))()


@pytest.mark.parametrize("architecture", [CLASSIFIER, READER])
def test_tritons_configuration_parses_and_has_the_graphs_inputs_and_outputs(tmp_path: Path, architecture: str) -> None:
    labels = {0: "bad", 1: "so\nso", 2: "gut & schön"}
    named: dict[str, Any] = {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    config = named if architecture == CLASSIFIER else {}
    export_as(save_checkpoint(tmp_path / "checkpoint", architecture, **config), "triton", tmp_path / "out", "mine")
    home = tmp_path / "out" / "mine"
    found = text_format.Parse((home / "config.pbtxt").read_text(), triton_message())
    graph = onnx.load(home / "1" / "model.onnx").graph

    assert (found.name, found.platform) == ("mine", "onnxruntime_onnx")
    assert found.max_batch_size > 1
    assert found.HasField("dynamic_batching")
    assert [one.name for one in found.input] == [one.name for one in graph.input]
    assert [one.name for one in found.output] == [one.name for one in graph.output]
    for one, tensor in zip((*found.input, *found.output), (*graph.input, *graph.output), strict=True):
        # Without the batch; -1 where the graph has a name instead of a number.
        assert list(one.dims) == [dim.dim_value or -1 for dim in tensor.type.tensor_type.shape.dim[1:]]
        kind = {"TYPE_INT64": onnx.TensorProto.INT64, "TYPE_FP32": onnx.TensorProto.FLOAT}
        assert kind[ENUMS["DataType"][one.data_type]] == tensor.type.tensor_type.elem_type
    if architecture == CLASSIFIER:
        assert (home / found.output[0].label_filename).read_text("utf-8") == "bad\nso so\ngut & schön\n"


def test_the_checkpoint_itself_is_copied_without_what_else_lies_there(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", half=True)
    (checkpoint / "optimizer.pt").write_bytes(b"much")
    export_as(checkpoint, "checkpoint", tmp_path / "out", "mine")
    before, after = read_checkpoint(str(checkpoint)), read_checkpoint(str(tmp_path / "out"))

    assert not (tmp_path / "out" / "optimizer.pt").exists()
    assert all(torch.equal(after.weights[name], value) for name, value in before.weights.items())


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path, format: str) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    export_as(checkpoint, "checkpoint", tmp_path / "out", "mine")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CheckpointError, match="out is not empty: give another --out"):
        export_as(checkpoint, format, tmp_path / "out", "mine")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("format", FILES)
def test_an_answer_that_is_no_number_fails_and_leaves_nothing(tmp_path: Path, format: str, existed: bool) -> None:
    checkpoint, out = save_checkpoint(tmp_path / "checkpoint"), tmp_path / "out"
    model = transformers.AlbertForSequenceClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)  # finite, but not the sums
        model.albert.pooler.bias.fill_(9.0)
    model.save_pretrained(checkpoint)
    if existed:
        out.mkdir()

    with pytest.raises(ParityError, match=r"the logits of model\.\w+ differ by nan") as caught:
        export_as(checkpoint, format, out, "mine")
    assert "\n" not in caught.value.message
    assert out.exists() == existed
    assert not existed or not list(out.iterdir())


def test_another_models_answers_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the mask ignored, a batch without padding would not tell."""
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    forward = padded.PaddedModel.forward

    def unmasked(self: Any, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return forward(self, input_ids, torch.ones_like(attention_mask), token_type_ids)

    monkeypatch.setattr(padded.PaddedModel, "forward", unmasked)
    for format in ("onnx", "torch"):
        with pytest.raises(ParityError, match=r"differ by \d\S* of the largest, the tolerance is 0\.0001"):
            export_as(checkpoint, format, tmp_path / "out", "mine")
        assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint")
    model = transformers.AlbertForSequenceClassification.from_pretrained(checkpoint)
    weights = {name: value for name, value in model.state_dict().items() if "attention.query" not in name}
    model.save_pretrained(checkpoint, state_dict=weights)

    with pytest.raises(CheckpointError, match=r"the weights hold no .*attention\.query\."):
        export_as(checkpoint, "onnx", tmp_path / "out", "mine")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, out = save_checkpoint(tmp_path / "checkpoint"), tmp_path / "out"

    with pytest.raises(CheckpointError, match="can export checkpoint, onnx, torch, triton"):
        export_as(checkpoint, "tensorflow", out, "mine")
    with pytest.raises(RepositoryError, match="no name for a model"):
        export_as(checkpoint, "triton", out, "../mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        export_as(tmp_path / "empty", "torch", out, "mine")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("Constraints violated\nfor more information, read a page")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(CheckpointError, match=r"cannot be exported: Constraints violated$"):
        export_as(checkpoint, "torch", out, "mine")
    assert not out.exists()


def test_the_configuration_without_labels_has_the_length_as_its_dimension(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(save_checkpoint(tmp_path / "checkpoint", READER)))
    text = triton_config(Original(checkpoint, None), "qa")

    assert 'name: "end_logits", data_type: TYPE_FP32, dims: [ -1 ] }' in text
    assert "label_filename" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_a_version_is_exported_by_its_folder_its_name_or_its_number(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    files = {"checkpoint": "model.safetensors", "triton": "mine/1/model.onnx"} | {
        k: FILES[k] for k in ("onnx", "torch")
    }
    monkeypatch.chdir(tmp_path)
    contents = []
    for place, source in enumerate((str(repository / "qa" / "1"), "qa", "qa/1")):
        out = tmp_path / f"out{place}"
        arguments = ["export", source, "--format", format, "--out", str(out), "--name", "mine"]
        assert main([*arguments, "--model-repo", str(repository)]) == 0
        assert capsys.readouterr().out.endswith(f"{out}\n")
        contents.append((out / files[format]).stat().st_size)
    assert len(set(contents)) == 1


def test_tritons_model_has_the_sources_name(repository: Path, tmp_path: Path) -> None:
    export("sentiment", "triton", tmp_path / "out", repository)

    assert (tmp_path / "out" / "sentiment" / "labels.txt").read_text() == "negative\npositive\n"


def test_a_version_that_is_not_there_is_named_with_those_that_are(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"qa has no version 9; it has 1"):
        export("qa/9", "onnx", tmp_path / "out", repository)
    with pytest.raises(CheckpointError, match="neither a folder"):
        export("nobody", "onnx", tmp_path / "out", tmp_path / "no-repository")
    assert not (tmp_path / "out").exists()
