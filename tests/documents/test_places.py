"""Where code points stand: pages, and one box a line."""

import numpy as np
from hypothesis import given, strategies as st

from service.documents.places import ReadDocument

NAN = np.full(4, np.nan)


def document(boxes: list[tuple[float, float, float, float] | None], starts: list[int]) -> ReadDocument:
    rows = [NAN if box is None else np.array(box) for box in boxes]
    return ReadDocument("x" * len(rows), np.array(rows, dtype=np.float32).reshape(-1, 4), starts)


def test_code_points_beside_each_other_share_a_box() -> None:
    read = document([(0.1, 0.1, 0.2, 0.15), None, (0.3, 0.11, 0.4, 0.15)], [0])
    place = read.place(0, 3)

    assert place is not None
    assert place.page == 1
    assert place.boxes == [(0.1, 0.1, 0.4, 0.15)]


def test_each_line_has_a_box() -> None:
    read = document([(0.8, 0.1, 0.9, 0.15), None, (0.1, 0.2, 0.2, 0.25), (0.2, 0.2, 0.3, 0.26)], [0])
    place = read.place(0, 4)

    assert place is not None
    assert place.boxes == [(0.8, 0.1, 0.9, 0.15), (0.1, 0.2, 0.3, 0.26)]


def test_two_columns_are_not_one_line() -> None:
    read = document([(0.6, 0.1, 0.9, 0.15), (0.1, 0.1, 0.4, 0.15)], [0])
    place = read.place(0, 2)

    assert place is not None
    assert len(place.boxes) == 2


def test_an_answer_is_on_the_page_where_it_begins() -> None:
    read = document([(0.1, 0.1, 0.2, 0.2), None, None, (0.5, 0.5, 0.6, 0.6)], [0, 3])
    first, second = read.place(0, 4), read.place(3, 4)

    assert first is not None
    assert second is not None
    assert (first.page, first.boxes) == (1, [(0.1, 0.1, 0.2, 0.2)])
    assert (second.page, second.boxes) == (2, [(0.5, 0.5, 0.6, 0.6)])


def test_plain_text_has_no_pages() -> None:
    assert document([None], []).place(0, 1) is None


@given(st.lists(st.tuples(*[st.floats(-1, 2)] * 4) | st.none(), max_size=12), st.data())
def test_boxes_lie_on_the_page(boxes: list[tuple[float, float, float, float] | None], data: st.DataObject) -> None:
    read = document(boxes, [0])
    start = data.draw(st.integers(0, len(boxes)))
    place = read.place(start, data.draw(st.integers(start, len(boxes))))

    assert place is not None
    assert all(0 <= side <= 1 for box in place.boxes for side in box)
