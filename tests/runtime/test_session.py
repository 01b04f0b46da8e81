"""A converted model in ONNX Runtime: rows do not see each other, layers may be run in steps, errors are ours."""

import ctypes
import gc
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.errors import DeviceError, DeviceLost, InferenceFailed, OutOfMemory, RepositoryError, ServiceError
from service.repository.store import read_files, read_manifest
from service.runtime.packing import Pack
from service.runtime.providers import Device, choose
from service.runtime.session import Model, open_session, translated
from service.serving.loading import LoadOptions, load, make_model
from service.types import Floats, Sequence
from tests.fakes import row

# What a row's logits may change by with its neighbours: matrix products of other sizes add in another order.
NEIGHBOURS = 1e-5
MODELS = ("sentiment", "qa")


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, repository: Path) -> Model:
    return model_of(repository / request.param / "1")


def model_of(folder: Path) -> Model:
    manifest = read_manifest(folder)
    return make_model(read_files(folder, manifest), manifest, choose("cpu"), "float32")


def copy_of(folder: Path, target: Path) -> Path:
    """``folder`` under ``target``, with the model's name and the version that its manifest says."""
    return Path(shutil.copytree(folder, target / folder.parent.name / folder.name))


def some_rows(*lengths: int, seed: int = 0) -> list[Sequence]:
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        ids = random.integers(5, 150, length).astype(np.int32)
        types = (np.arange(length) > length // 2).astype(np.int32)
        rows.append(Sequence(ids, types, length // 2 + 1))
    return rows


def difference(a: list[Floats], b: list[Floats]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def test_logits_are_a_row_of_labels_or_a_pair_a_token(repository: Path) -> None:
    rows = some_rows(5, 20)
    labels = model_of(repository / "sentiment" / "1").run(rows)
    spans = model_of(repository / "qa" / "1").run(rows)

    assert [values.shape for values in labels] == [(2,), (2,)]
    assert [values.shape for values in spans] == [(5, 2), (20, 2)]
    assert {values.dtype for values in labels + spans} == {np.dtype(np.float32)}


def test_different_rows_have_different_logits(model: Model) -> None:
    one, other = model.run(some_rows(12, 12))

    assert np.abs(one - other).max() > 100 * NEIGHBOURS


@pytest.mark.parametrize(
    "lengths", [(9, 9), (2, 64), (64, 2, 2, 2), (3, 17, 33, 5, 8), (2,) * 40, (64,) * 5, tuple(range(2, 30))]
)
def test_a_row_does_not_depend_on_its_neighbours(model: Model, lengths: tuple[int, ...]) -> None:
    rows = some_rows(*lengths)
    alone = [model.run([row])[0] for row in rows]

    assert difference(model.run(rows), alone) < NEIGHBOURS


@pytest.mark.parametrize("seed", range(3))
def test_a_row_does_not_depend_on_its_place_in_the_batch(model: Model, seed: int) -> None:
    rows = some_rows(4, 40, 11, 2, 23, 7, seed=seed)
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    straight = model.run(rows)

    assert difference(model.run([rows[index] for index in order]), [straight[index] for index in order]) < NEIGHBOURS


def test_other_neighbours_of_the_same_lengths_change_nothing(model: Model) -> None:
    (row,) = some_rows(15, seed=1)
    results = [model.run([*some_rows(30, 9, seed=seed), row])[2:] for seed in (2, 3)]

    assert difference(*results) < NEIGHBOURS


def test_the_same_row_twice_in_a_batch_has_the_same_logits(model: Model) -> None:
    (row,) = some_rows(21)
    (other,) = some_rows(50, seed=1)
    first, _, last = model.run([row, other, row])

    assert difference([first], [last]) < NEIGHBOURS


@pytest.mark.parametrize("steps", [(1, 1, 1), (1, 2), (2, 1), (3,)])
def test_layers_in_steps_are_the_layers_at_once(model: Model, steps: tuple[int, ...]) -> None:
    rows = some_rows(3, 30, 12)
    pack = Pack.of(rows)
    hidden = model.embed(pack)
    for layers in steps:
        hidden = model.advance(hidden, pack, layers)

    assert hidden.depth == model.depth == 3
    assert difference(model.head(hidden, pack), model.run(rows)) < NEIGHBOURS


def test_a_round_number_of_tokens_and_states_that_were_kept_change_no_answer(model: Model) -> None:
    rows = some_rows(3, 30, 12)
    plain = model.run(rows)
    pack = Pack.of(rows, rounded=True)
    assert pack.tokens > 45
    hidden = model.advance(model.embed(pack), pack, 1)
    kept = model.keep(hidden, pack, [0, 1, 2])
    assert [len(state) for state in kept] == [3, 30, 12]
    on = model.advance(model.resume(pack, [], kept, 1), pack, 2)  # as after a step that was interrupted
    assert difference(model.head(on, pack), plain) < NEIGHBOURS
    assert difference(model.head(on, pack, [2, 0]), [plain[2], plain[0]]) < NEIGHBOURS


def test_each_layer_changes_the_hidden_state(model: Model) -> None:
    pack = Pack.of(some_rows(10, 6))
    states = [model.embed(pack)]
    for _ in range(model.depth):
        states.append(model.advance(states[-1], pack, 1))  # each needs the one before

    assert [state.depth for state in states] == [0, 1, 2, 3]
    assert all(np.abs(b.value - a.value).max() > 0.01 for a, b in itertools.pairwise(states))


@pytest.mark.parametrize("token", [10**6, -(10**6)])
def test_an_id_out_of_the_vocabulary_is_a_failed_inference(model: Model, token: int) -> None:
    good, bad = some_rows(6, 6)
    bad.ids[3] = token
    with pytest.raises(InferenceFailed, match="embed"):
        model.run([good, bad])

    assert len(model.run([good])) == 1  # the model still works


def test_a_row_longer_than_the_model_sees_is_a_failed_inference(model: Model) -> None:
    with pytest.raises(InferenceFailed, match="embed"):
        model.run(some_rows(65))


@pytest.mark.parametrize("part", ["embed", "layers", "head"])
def test_a_damaged_graph_is_an_error_that_names_it(repository: Path, tmp_path: Path, part: str) -> None:
    folder = copy_of(repository / "sentiment" / "1", tmp_path)
    manifest = read_manifest(folder)
    files = read_files(folder, manifest) | {f"{part}.cpu.onnx": b"not a graph"}
    with pytest.raises(RepositoryError, match=f"the graph '{part}' cannot be loaded"):
        make_model(files, manifest, choose("cpu"), "float32")

    (folder / f"{part}.cpu.onnx").write_bytes(b"not a graph")
    with pytest.raises(RepositoryError, match=rf"{part}\.cpu\.onnx is damaged"):
        load(folder, LoadOptions(choose("cpu"), budget=64))


def test_missing_weights_are_an_error_of_the_repository(repository: Path) -> None:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    files = {name: content for name, content in read_files(folder, manifest).items() if name != "weights.bin"}

    with pytest.raises(RepositoryError, match="cannot be loaded"):
        make_model(files, manifest, choose("cpu"), "float32")


def test_a_model_keeps_nothing_of_the_bytes_that_it_was_made_of(repository: Path) -> None:
    folder = repository / "qa" / "1"
    manifest = read_manifest(folder)
    # Copies of this test's own: what is overwritten below belongs to nobody else.
    files = {name: bytes(bytearray(content)) for name, content in read_files(folder, manifest).items()}
    model = make_model(files, manifest, choose("cpu"), "float32")
    rows = some_rows(3, 30, 12)
    before = model.run(rows)
    for content in files.values():
        address = np.frombuffer(content, dtype=np.uint8).ctypes.data
        ctypes.memset(address, 0xFF, len(content))

    assert difference(model.run(rows), before) == 0


def test_a_version_without_graphs_for_the_device_is_an_error_of_the_device(repository: Path) -> None:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    only_cpu = manifest.model_copy(update={"graphs": {"cpu": manifest.graphs["cpu"]}})

    with pytest.raises(DeviceError, match="no graphs for cuda"):
        make_model(read_files(folder, manifest), only_cpu, Device("cuda"), "float32")


OUT_OF_MEMORY = [
    "bad_alloc",
    "std::bad_alloc",
    "Exception during initialization: std::bad_alloc",
    "Failed to allocate memory for requested buffer of size 4194304",
    "Available memory of 123 is smaller than requested bytes of 456",
    "BFCArena::AllocateRawInternal(size_t, bool) Available memory of 0 is smaller than requested bytes of 1048576",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; expr=cudaMalloc((void**)&p, size);",
    "CUDA error cudaErrorMemoryAllocation:out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h",
    "CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h",
    "CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0 ; hostname=h",
]
LOST = [
    "CUDA failure 700: an illegal memory access",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; expr=cudaStreamSynchronize(s);",
    "CUDA failure 719: unspecified launch failure ; GPU=0",
    "CUDA failure 46: all CUDA-capable devices are busy or unavailable",
    "CUDA failure 100: no CUDA-capable device is detected",
    "CUDA error: device-side assert triggered",
    "CUDA error cudaErrorIllegalAddress:an illegal memory access was encountered",
    "cudaErrorLaunchFailure",
    "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0",
    "CUBLAS failure 14: CUBLAS_STATUS_INTERNAL_ERROR ; GPU=0",
    "CUBLAS failure 1: CUBLAS_STATUS_NOT_INITIALIZED ; GPU=0",
    "CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0",
    "CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0",
    "CUDNN failure 7: CUDNN_STATUS_MAPPING_ERROR ; GPU=0",
]
OF_THE_INPUT = [
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running Gather node. "
    "indices element out of data bounds, idx=1000000 must be within the inclusive range [-150,149]",
    "Got invalid dimensions for input: slots for the following indices",
    "CUDNN_STATUS_BAD_PARAM",
    "",
]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((OutOfMemory, text) for text in OUT_OF_MEMORY),
        *((DeviceLost, text) for text in LOST),
        *((InferenceFailed, text) for text in OF_THE_INPUT),
    ],
)
@pytest.mark.parametrize("prefix", ["", "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code: "])
def test_a_text_of_the_runtimes_says_whether_memory_is_short_the_device_is_lost_or_neither(
    kind: type[ServiceError], text: str, prefix: str
) -> None:
    error = translated("layers", prefix + text)

    assert type(error) is kind
    assert str(error) == f"layers: {prefix}{text}"


def test_whatever_a_session_raises_is_translated(model: Model) -> None:
    class Broken:
        def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
            raise RuntimeError("CUDA failure 700: an illegal memory access")

    sessions = model._sessions
    model._sessions = sessions | {"layers": Broken()}
    try:
        with pytest.raises(DeviceLost, match="layers: CUDA failure 700") as lost:
            model.run(some_rows(5))
    finally:
        model._sessions = sessions
    assert isinstance(lost.value.__cause__, RuntimeError)


def test_a_loaded_engine_runs_what_its_model_runs(repository: Path) -> None:
    folder = repository / "qa" / "1"
    engine = load(folder, LoadOptions(choose("cpu"), budget=64))
    rows = some_rows(8, 13)

    assert engine.budget == 64
    assert str(engine.ref) == "qa/1"
    assert difference(engine.run(rows), model_of(folder).run(rows)) < NEIGHBOURS


@pytest.mark.parametrize("weights", [{"weights.bin": bytes(16)}, {}], ids=["with weights", "without"])
@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "here.bin", "link.bin"])
def test_a_graph_reads_no_file_that_the_manifest_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, bytes], location: str
) -> None:
    """Whatever a graph says of where its weights lie: ONNX's external data leaves no way out."""
    (tmp_path / "in").mkdir()
    for name in ("secret.bin", "in/here.bin"):
        (tmp_path / name).write_bytes(bytes(16))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path / "in")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location.format(folder=tmp_path))
    values = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [tensor])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)

    with pytest.raises(RepositoryError, match="cannot be loaded"):
        open_session("layers", made.SerializeToString(), weights, Device("cpu"))


def pool_of(make: Callable[[], Model]) -> int:
    """The threads that a model brings with it; they end with it."""
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/task"))
    model = make()
    during = len(os.listdir("/proc/self/task"))
    model.run([row(4)])
    del model
    gc.collect()
    assert len(os.listdir("/proc/self/task")) == before
    return during - before


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_only_the_layers_have_threads_and_as_many_as_the_device_says(repository: Path, threads: int) -> None:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    files, device = read_files(folder, manifest), choose("cpu", threads=threads)

    assert pool_of(lambda: make_model(files, manifest, device, "float32")) == threads - 1  # and who calls


def test_threads_do_not_change_an_answer(repository: Path) -> None:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    files, rows = read_files(folder, manifest), [row(7), row(30), row(12)]
    one, three, spinning = (
        make_model(files, manifest, choose("cpu", threads=threads, spin=spin), "float32").run(rows)
        for threads, spin in ((1, False), (3, False), (3, True))
    )
    for alone, shared, spun in zip(one, three, spinning, strict=True):
        np.testing.assert_allclose(shared, alone, atol=1e-6)
        np.testing.assert_allclose(spun, alone, atol=1e-6)
