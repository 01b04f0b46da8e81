"""What is learnt from and what is measured on never meet."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from service.errors import DataError
from service.training.datasets import Labelled, Question, read_labelled
from service.training.splits import (
    hold_out_articles,
    hold_out_rows,
    is_questions,
    labelled,
    name,
    questions,
    write_rows,
)
from tests.training.test_run import write_questions, write_rows as write_tsv


def test_articles_are_never_on_both_sides() -> None:
    found = [Question(str(i), "q", "c", (), f"title {i % 7}") for i in range(70)]
    learnt, held = hold_out_articles(found, every=3)

    assert {q.title for q in learnt}.isdisjoint(q.title for q in held)
    assert len(learnt) + len(held) == 70
    assert held


def texts(**counts: int) -> list[Labelled]:
    return [Labelled(label, f"{label} {i}") for label, count in counts.items() for i in range(count)]


@given(st.integers(8, 200), st.integers(8, 60), st.floats(0.05, 0.5), st.integers())
def test_rows_are_split_whole_and_apart_and_every_label_gives_its_share(
    a: int, b: int, share: float, seed: int
) -> None:
    rows = texts(a=a, b=b)
    learnt, dev, test = hold_out_rows(rows, share, seed)

    assert sorted(row.text for row in learnt + dev + test) == sorted(row.text for row in rows)
    for part in (dev, test):
        counts = Counter(row.label for row in part)
        assert counts == {"a": max(1, round(share * a / 2)), "b": max(1, round(share * b / 2))}
    assert hold_out_rows(rows, share, seed) == (learnt, dev, test)


def test_a_text_that_stands_twice_is_on_one_side() -> None:
    learnt, dev, test = hold_out_rows(texts(a=20, b=20) * 3, 0.4, 0)

    assert len({row.text for row in learnt + dev + test}) == len(learnt) + len(dev) + len(test) == 40


def test_too_few_rows_are_an_error_that_names_their_label() -> None:
    with pytest.raises(DataError, match="2 texts of label 'b' are too few"):
        hold_out_rows(texts(a=50, b=2), 0.2, 0)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_parts_of_a_file_are_the_whole(tmp_path: Path, parts: int) -> None:
    rows, asked = write_tsv(tmp_path / "rows.tsv", 5), write_questions(tmp_path / "q.json")
    by_rows = [labelled(f"{rows}:{k}/{parts}") for k in range(1, parts + 1)]
    by_title = [questions(f"{asked}:{k}/{parts}") for k in range(1, parts + 1)]

    assert sorted(str(row) for part in by_rows for row in part) == sorted(str(row) for row in labelled(str(rows)))
    assert sum(map(len, by_title)) == len(questions(str(asked)))
    assert sum(len({q.title for q in part}) for part in by_title) == 60


@pytest.mark.parametrize("part", ["0/2", "3/2"])
def test_a_part_that_is_none_is_an_error(tmp_path: Path, part: str) -> None:
    with pytest.raises(DataError, match="wanted a part"):
        labelled(f"{write_tsv(tmp_path / 'rows.tsv', 1)}:{part}")


def test_a_source_is_told_by_its_name_without_its_folder() -> None:
    assert name("/some/where/dev.json:1/2") == "dev.json:1/2"
    assert name("C:/some/where/dev.tsv") == "dev.tsv"
    assert is_questions("a/dev.json.xz:2/3")
    assert not is_questions("a/dev.jsonl")


def test_rows_that_are_written_are_read_again(tmp_path: Path) -> None:
    rows = [Labelled("a", 'x\t"y"\n🎉'), Labelled("b", "one", "two")]
    write_rows(rows, tmp_path / "rows.jsonl")

    assert read_labelled(tmp_path / "rows.jsonl") == rows


def test_messages_that_differ_in_their_numbers_stay_on_one_side() -> None:
    rows = [Labelled("spam", f"Call 0{number:09d} now to claim  £{number}") for number in range(7)]
    rows += [Labelled("spam", f"other message {'x' * number}") for number in range(73)]
    rows += [Labelled("ham", f"see you {'y' * number}") for number in range(80)]
    parts = hold_out_rows(rows, 0.4, 13)
    assert sum(map(len, parts)) == len(rows)
    assert sum(any(row.text.startswith("Call") for row in part) for part in parts) == 1
    assert all({row.label for row in part} == {"spam", "ham"} for part in parts)


def test_a_part_of_too_many_digits_is_no_part_but_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        labelled(f"{tmp_path / 'rows.tsv'}:1/{'9' * 5000}")


def test_a_text_with_two_labels_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*texts(a=20, b=20), Labelled("b", "the same"), Labelled("a", "the same")]
    parts = hold_out_rows(rows, 0.2, 1)
    assert [row.label for part in parts for row in part if row.text == "the same"] == ["a"]
    assert "1 texts have two labels, of which the last counts, such as 'the same'" in capsys.readouterr().err
