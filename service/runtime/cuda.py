"""A converted model on CUDA: weights, hidden states and what is made of them stay on the card.

The layers are small graphs of 1, 2, 3, 6 ... layers, without control flow and without weights.  Their weights come
once from a graph that gives them out; all graphs, depths and groups of layers are given the same.  Rows that leave or
join between layers are gathered on the card: what crosses the bus is token ids, places of tokens and logits.
"""

import functools
from collections.abc import Mapping, Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from ..heads import Head
from ..types import Ints, Sequence
from .packing import Pack
from .providers import Device
from .session import Hidden, Model, host, open_session, translated
from .small import small_graph

GIVEN = ".given"  # ends the names of the outputs that are weights
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """A row's part of a hidden state on the card: ``length`` tokens of ``whole`` (tokens, hidden), from ``first``."""

    whole: Any
    first: int
    length: int

    def __len__(self) -> int:
        return self.length


def ranges(layers: int, groups: int) -> list[Span]:
    """The layers, half open, that each group of weights runs: layer i belongs to group int(i / (layers / groups))."""
    owners = [int(i / (layers / groups)) for i in range(layers)]
    return [(owners.index(g), len(owners) - owners[::-1].index(g)) for g in range(groups)]


class CudaModel(Model):
    """``graphs`` holds embed, head and tensors, ``unrolled`` the graphs of layers by how many they are, ``spans`` the
    layers of each group.  Everything else as for ``Model``."""

    def __init__(
        self, graphs: Mapping[str, bytes], unrolled: Mapping[int, bytes], weights: Mapping[str, bytes], device: Device,
        *, spans: Seq[Span], head: Head,
    ) -> None:  # fmt: skip
        parts = dict(graphs)
        tensors = parts.pop("tensors")
        super().__init__(parts, weights, device, layers=spans[-1][1], head=head)
        self._spans, self._counts = spans, sorted(unrolled, reverse=True)
        self._sessions |= {_part(count): open_session(_part(count), unrolled[count], {}, device) for count in unrolled}
        self._weights = self._given(tensors, weights)
        hidden = self._sessions["embed"].get_outputs()[0]
        self._width, self._kind = hidden.shape[1], "float16" if hidden.type == "tensor(float16)" else "float32"
        for part in ("take", "join"):
            graph = small_graph(f"{part}.{self._kind}")
            self._sessions[part] = open_session(part, graph, {}, device)

    def pack(self, rows: Seq[Sequence]) -> Pack:
        return Pack.of(rows, rounded=True)

    def advance(self, hidden: Hidden, pack: Pack, layers: int, last_of: Seq[int] | None = None) -> Hidden:
        """All tokens of the last layer too: a graph for some would be one more run for each step."""
        plan = {"token_offset": pack.token_offset, "cumulative": pack.cu_seqlens}
        value, depth = hidden.value, hidden.depth
        for group, count in self._runs(depth, layers):
            value = self._call(_part(count), {"hidden": value} | plan | self._weights[group])
        return Hidden(value, depth + layers)

    def keep(self, hidden: Hidden, pack: Pack, rows: Seq[int]) -> list[Any]:
        """Where some rows leave now, the others are gathered, so that these keep no memory of those.

        Where all stay, they stay where they are, and share the memory until the last of them has gone on.
        """
        pieces = [Piece(hidden.value, int(pack.starts[row]), int(pack.lengths[row])) for row in rows]
        if len(rows) == pack.real:
            return pieces
        whole, lengths = self._gather(pieces), [len(piece) for piece in pieces]
        starts = np.cumsum(lengths) - lengths
        return [Piece(whole, int(start), length) for start, length in zip(starts, lengths, strict=True)]

    def resume(self, pack: Pack, new: Seq[Sequence], kept: Seq[Any], depth: int) -> Hidden:
        pieces = list(kept)
        if new:
            entering = self.pack(new)
            pieces = [*self.keep(self.embed(entering), entering, range(len(new))), *pieces]
        whole, firsts = self._joined(pieces)
        places = np.concatenate([_span(first, len(piece)) for first, piece in zip(firsts, pieces, strict=True)])
        filler = np.zeros(pack.tokens - len(places), dtype=np.int32)  # any token fills a pack up
        return Hidden(self._call("take", {"x": whole, "rows": np.concatenate((places, filler))}), depth)

    def _joined(self, pieces: Seq[Piece]) -> tuple[Any, list[int]]:
        """One state that holds all ``pieces``, and where each begins in it.

        Of several wholes the rows that go on are taken first, so that nothing is larger than the step.
        """
        groups: dict[int, list[int]] = {}
        for number, piece in enumerate(pieces):
            groups.setdefault(id(piece.whole), []).append(number)
        if len(groups) == 1:
            return pieces[0].whole, [piece.first for piece in pieces]
        parts = [self._gather([pieces[number] for number in group]) for group in groups.values()]
        order = [number for group in groups.values() for number in group]
        lengths = [len(pieces[number]) for number in order]
        starts = dict(zip(order, (np.cumsum(lengths) - lengths).tolist(), strict=True))
        whole = functools.reduce(lambda left, right: self._call("join", {"left": left, "right": right}), parts)
        return whole, [starts[number] for number in range(len(pieces))]

    def give_back(self) -> None:
        """What the arena holds and nobody uses, to the card: sizes that warm-up tried are of no use to others."""
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{self.device.index}")
        row = np.zeros((1, self._width), dtype=self._kind)
        self._call("take", {"x": row, "rows": np.zeros(1, dtype=np.int32)}, options)

    def _gather(self, pieces: Seq[Piece]) -> Any:
        """Pieces of one whole, one after the other."""
        places = np.concatenate([_span(piece.first, len(piece)) for piece in pieces])
        return self._call("take", {"x": pieces[0].whole, "rows": places})

    def _runs(self, depth: int, layers: int) -> list[tuple[int, int]]:
        """From ``depth`` on, ``layers`` layers as (group, count) that there are graphs for: the longest first."""
        runs = []
        for group, (start, end) in enumerate(self._spans):
            left = min(depth + layers, end) - max(depth, start)
            while left > 0:
                count = next(count for count in self._counts if count <= left)
                runs.append((group, count))
                left -= count
        return runs

    def _given(self, graph: bytes, weights: Mapping[str, bytes]) -> list[dict[str, Any]]:
        """The weights of each group on the card, under the names of the layers' inputs."""
        session = open_session("tensors", graph, weights, self.device)
        names = [one.name for one in session.get_outputs()]
        groups: list[dict[str, Any]] = [{} for _ in self._spans]
        for name, value in zip(names, self._bound("tensors", session, {}), strict=True):
            _, group, rest = name.removesuffix(GIVEN).split(".", 2)
            groups[int(group)][f"layer.0.{rest}"] = value
        return groups

    def _call(self, part: str, feeds: dict[str, Any], options: ort.RunOptions | None = None) -> Any:
        (out,) = self._bound(part, self._sessions[part], feeds, options)
        return host(out) if part == "head" else out

    def _bound(
        self, part: str, session: ort.InferenceSession, feeds: dict[str, Any], options: ort.RunOptions | None = None
    ) -> Seq[Any]:
        """Inputs from wherever they are; the outputs stay on the card, in the arena of the process."""
        try:
            binding = session.io_binding()
            for name, value in feeds.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for output in session.get_outputs():
                binding.bind_output(output.name, self.device.kind, self.device.index)
            session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's own kinds share no base but this
            raise translated(part, str(error)) from error
        outputs: Seq[Any] = binding.get_outputs()
        return outputs


def _part(count: int) -> str:
    return f"layers of {count}"


def _span(first: int, length: int) -> Ints:
    return np.arange(first, first + length, dtype=np.int32)
