"""Rows laid end to end, and every index that leads from a token to its place and back."""

import numpy as np
from hypothesis import given, settings, strategies as st

from service.runtime.packing import Pack, round_up
from service.types import Sequence

many = settings(deadline=None, max_examples=50)
all_lengths = st.lists(st.integers(2, 12), min_size=1, max_size=9)


def rows_of(lengths: list[int]) -> list[Sequence]:
    """Rows whose tokens are numbered through, so that each tells where it came from."""
    numbers = np.arange(100, 100 + sum(lengths), dtype=np.int32)
    parts = np.split(numbers, np.cumsum(lengths)[:-1])
    return [Sequence(ids, (ids % 2).astype(np.int32), len(ids)) for ids in parts]


@many
@given(lengths=all_lengths)
def test_rows_lie_end_to_end(lengths: list[int]) -> None:
    pack = Pack.of(rows_of(lengths))

    assert pack.ids.tolist() == list(range(100, 100 + sum(lengths)))
    assert pack.types.tolist() == [number % 2 for number in pack.ids.tolist()]
    assert pack.positions.tolist() == [position for length in lengths for position in range(length)]
    assert pack.lengths.tolist() == lengths
    assert pack.starts.tolist() == [sum(lengths[:index]) for index in range(len(lengths))]
    assert pack.cu_seqlens.tolist() == [sum(lengths[:index]) for index in range(len(lengths) + 1)]


@many
@given(lengths=all_lengths)
def test_sizes_are_those_of_the_rows(lengths: list[int]) -> None:
    pack = Pack.of(rows_of(lengths))

    assert (pack.tokens, pack.longest, pack.real) == (sum(lengths), max(lengths), len(lengths))


@many
@given(lengths=all_lengths)
def test_slots_lay_tokens_out_in_rows_and_tokens_at_takes_them_back(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    pack = Pack.of(rows)
    laid_out = pack.ids[pack.gather_index]  # (rows, longest)

    assert laid_out.shape == (len(lengths), max(lengths))
    for row, of_row in zip(rows, laid_out, strict=True):
        assert of_row[: len(row)].tolist() == row.ids.tolist()
        assert set(of_row.tolist()) == set(row.ids.tolist())  # past its end a row sees nothing of another
    assert laid_out.reshape(-1)[pack.scatter_index].tolist() == pack.ids.tolist()


@many
@given(lengths=all_lengths, rounded=st.booleans())
def test_token_offset_names_the_places_of_tokens_then_those_of_padding(lengths: list[int], rounded: bool) -> None:
    pack = Pack.of(rows_of(lengths), rounded=rounded)
    lengths, longest = pack.lengths.tolist(), max(lengths)  # those of the rows that fill up too
    tokens = [row * longest + column for row, length in enumerate(lengths) for column in range(length)]
    padding = [row * longest + column for row, length in enumerate(lengths) for column in range(length, longest)]

    assert pack.token_offset.shape == (len(lengths), longest)
    assert pack.token_offset.reshape(-1).tolist() == tokens + padding
    assert pack.cu_seqlens.tolist() == [sum(lengths[:index]) for index in range(len(lengths) + 1)]


@many
@given(lengths=all_lengths, rounded=st.booleans())
def test_every_index_is_of_the_type_that_the_graphs_read(lengths: list[int], rounded: bool) -> None:
    pack = Pack.of(rows_of(lengths), rounded=rounded)

    arrays = (
        pack.ids, pack.positions, pack.types, pack.lengths, pack.starts,
        pack.gather_index, pack.scatter_index, pack.token_offset, pack.cu_seqlens,
    )  # fmt: skip
    assert {array.dtype for array in arrays} == {np.dtype(np.int32)}


@many
@given(lengths=all_lengths)
def test_values_of_tokens_are_split_into_one_piece_a_row(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    pack = Pack.of(rows)
    pieces = pack.split(np.stack([pack.ids, -pack.ids], axis=1).astype(np.float32))  # (tokens, 2)

    assert len(pieces) == len(rows)
    for row, piece in zip(rows, pieces, strict=True):
        assert piece.tolist() == [[number, -number] for number in row.ids.tolist()]


@many
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_a_rounded_pack_has_its_rows_first_and_a_round_number_of_tokens(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    plain, pack = Pack.of(rows), Pack.of(rows, rounded=True)

    assert pack.tokens == round_up(plain.tokens) == len(pack.types) == sum(pack.lengths)
    assert (pack.real, pack.longest) == (len(rows), plain.longest)  # no row that fills up is the longest
    assert pack.ids[: plain.tokens].tolist() == plain.ids.tolist()
    assert pack.positions[: plain.tokens].tolist() == plain.positions.tolist()
    assert all(pack.positions < pack.longest)
    values = np.arange(pack.tokens, dtype=np.float32)
    assert [piece.tolist() for piece in pack.split(values)] == [
        piece.tolist() for piece in plain.split(values[: plain.tokens])
    ]


@many
@given(lengths=all_lengths, rounded=st.booleans())
def test_what_was_split_is_joined_again(lengths: list[int], rounded: bool) -> None:
    pack = Pack.of(rows_of(lengths), rounded=rounded)
    values = np.arange(2 * pack.tokens, dtype=np.float16).reshape(-1, 2)
    joined = pack.join(pack.split(values))

    assert (joined.shape, joined.dtype) == (values.shape, values.dtype)
    assert joined[: sum(lengths)].tolist() == values[: sum(lengths)].tolist()


def test_round_sizes_are_few_and_not_much_more() -> None:
    sizes = {tokens: round_up(tokens) for tokens in range(1, 32_769)}

    assert all(tokens <= size <= tokens + max(7, tokens / 8) for tokens, size in sizes.items())
    assert len(set(sizes.values())) < 100
    assert all(round_up(size) == size for size in sizes.values())
