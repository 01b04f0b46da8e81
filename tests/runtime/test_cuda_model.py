"""What CUDA's model does with rows, layers and states: on the CPU, which has the graphs that regroup, and no card's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.heads import Head
from service.repository.store import read_files, read_manifest
from service.runtime.cuda import CudaModel, Piece, ranges
from service.runtime.packing import Pack
from service.runtime.providers import Device
from service.runtime.session import Hidden, Model, host
from service.runtime.small import small_graph
from service.serving.loading import make_model
from service.types import Sequence
from tests.fakes import row


class OnTheCpu(CudaModel):
    """The layers of the CPU, on states that are kept and gathered as on a card."""

    def __init__(self, parts: Mapping[str, bytes], layers: Model, weights: Mapping[str, bytes]) -> None:
        super().__init__(parts, {}, weights, Device("cpu"), spans=[(0, layers.depth)], head=Head.POOLED)
        self._layers = layers
        self.calls: list[str] = []

    def advance(self, hidden: Hidden, pack: Pack, layers: int, last_of: Any = None) -> Hidden:
        return self._layers.advance(Hidden(host(hidden.value), hidden.depth), pack, layers)

    def _call(self, part: str, feeds: dict[str, Any], options: Any = None) -> Any:
        self.calls.append(part)
        return super()._call(part, feeds, options)


@pytest.fixture(scope="module")
def plain(repository: Path) -> Model:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    return make_model(read_files(folder, manifest), manifest, Device("cpu"), "float32")


@pytest.fixture
def model(repository: Path, plain: Model) -> OnTheCpu:
    folder = repository / "sentiment" / "1"
    manifest = read_manifest(folder)
    files, graphs = read_files(folder, manifest), manifest.graphs["cpu"]
    cuda = manifest.graphs["cuda"]
    parts = {"embed": files[graphs.embed], "head": files[graphs.head], "tensors": files[str(cuda.tensors)]}
    return OnTheCpu(parts, plain, {"weights.bin": files["weights.bin"]})


def some_rows(*lengths: int) -> list[Sequence]:
    return [row(length, 5 + index) for index, length in enumerate(lengths)]


def states(model: Model, pieces: list[Any]) -> list[Any]:
    return [host(one.whole)[one.first : one.first + len(one)] for one in pieces]


def test_all_that_stay_are_left_where_they_are(model: OnTheCpu) -> None:
    rows = some_rows(3, 30, 12)
    pack = model.pack(rows)
    hidden = model.embed(pack)
    model.calls.clear()
    pieces = model.keep(hidden, pack, range(3))

    assert not model.calls
    assert [len(piece) for piece in pieces] == [3, 30, 12]
    assert all(piece.whole is hidden.value for piece in pieces)


def test_where_some_leave_the_others_keep_no_memory_of_them(model: OnTheCpu, plain: Model) -> None:
    rows = some_rows(3, 30, 12)
    pack = model.pack(rows)
    pieces = model.keep(model.embed(pack), pack, [2, 0])

    assert pieces[0].whole is pieces[1].whole
    assert pieces[0].whole.shape()[0] == 15
    wanted = plain.states(plain.embed(plain.pack(rows)), plain.pack(rows))
    for found, one in zip(states(model, pieces), (wanted[2], wanted[0]), strict=True):
        np.testing.assert_allclose(found, one, atol=1e-6)


def test_new_rows_go_on_with_those_of_several_steps(model: OnTheCpu, plain: Model) -> None:
    """Each as if it had been alone, whatever it was gathered from."""
    first, second, new = some_rows(3, 30, 12), some_rows(9, 7), some_rows(4, 21)
    kept: list[Piece] = []
    for rows, stay in ((first, [0, 2]), (second, [1, 0])):
        pack = model.pack(rows)
        kept += model.keep(Hidden(model._call("take", _same(model.embed(pack).value)), 0), pack, stay)
    order = [*new, first[0], first[2], second[1], second[0]]
    pack = model.pack(order)
    hidden = model.resume(pack, new, kept, 0)

    assert hidden.value.shape()[0] == pack.tokens
    logits = model.head(model.advance(hidden, pack, model.depth), pack)
    for found, sequence in zip(logits, order, strict=True):
        np.testing.assert_allclose(found, plain.run([sequence])[0], atol=1e-5)


def _same(value: Any) -> dict[str, Any]:
    return {"x": value, "rows": np.arange(value.shape()[0], dtype=np.int32)}


@pytest.mark.parametrize(
    ("spans", "counts", "depth", "layers", "runs"),
    [
        ([(0, 12)], [1, 2, 3, 6, 12], 0, 12, [(0, 12)]),
        ([(0, 12)], [1, 2, 3, 6, 12], 1, 11, [(0, 6), (0, 3), (0, 2)]),
        ([(0, 12)], [1], 5, 2, [(0, 1), (0, 1)]),
        ([(0, 3), (3, 6)], [1, 2, 3, 6], 1, 4, [(0, 2), (1, 2)]),
        ([(0, 3), (3, 6)], [1, 2, 3, 6], 3, 3, [(1, 3)]),
    ],
)
def test_any_number_of_layers_is_made_of_the_graphs_that_there_are(
    model: OnTheCpu, spans: list[Any], counts: list[int], depth: int, layers: int, runs: list[Any]
) -> None:
    model._spans, model._counts = spans, sorted(counts, reverse=True)

    assert model._runs(depth, layers) == runs


def test_every_group_has_its_weights_under_the_names_of_the_first(model: OnTheCpu) -> None:
    (weights,) = model._weights
    assert len(weights) == 12
    assert all(name.startswith("layer.0.0.") for name in weights)


def test_layers_belong_to_groups_as_in_transformers() -> None:
    assert ranges(12, 1) == [(0, 12)]
    assert ranges(5, 2) == [(0, 3), (3, 5)]


@pytest.mark.parametrize("name", ["probe", "take.float16", "take.float32", "join.float16", "join.float32"])
def test_the_small_graphs_are_what_conversion_writes(name: str) -> None:
    from service.conversion.small_graphs import small_graphs

    assert small_graph(name) == small_graphs()[f"{name}.onnx"]
