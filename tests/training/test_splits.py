"""What is learnt from and what is measured on never meet."""

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
    unanswerable,
    write_rows,
)
from tests.training.test_run import write_questions, write_rows as write_tsv


def article(title: str, contexts: list[str]) -> list[Question]:
    return [
        Question(f"{title}{i}", f"what of {i}", context, ((context.split()[0], 0),), title)
        for i, context in enumerate(contexts)
    ]


def test_articles_are_never_on_both_sides() -> None:
    found = [Question(str(i), "q", "c", (), f"title {i % 7}") for i in range(70)]
    learnt, held = hold_out_articles(found, every=3)

    assert {q.title for q in learnt}.isdisjoint(q.title for q in held)
    assert len(learnt) + len(held) == 70
    assert held


@given(st.integers(10, 200), st.floats(0.05, 0.5), st.integers())
def test_rows_are_split_whole_and_apart(count: int, share: float, seed: int) -> None:
    learnt, dev, test = hold_out_rows(list(range(count)), share, seed)

    assert sorted(learnt + dev + test) == list(range(count))
    assert dev
    assert test
    assert len(dev) + len(test) == max(2, round(share * count))
    assert hold_out_rows(list(range(count)), share, seed) == (learnt, dev, test)


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="too few"):
        hold_out_rows([1, 2, 3], 0.9, 0)


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


def test_unanswerable_questions_stand_on_another_paragraph_of_their_article() -> None:
    found = article("a", ["Ann was here", "Ben was there", "Cid and Ann"]) + article("b", ["Dora alone"])
    made = unanswerable(found, share=1.0, seed=0)

    assert {question.title for question in made} == {"a"}  # an article of one paragraph has no other
    for question in made:
        origin = next(one for one in found if question.id.startswith(one.id))
        assert question.context != origin.context
        assert question.answers == ()
        assert origin.answers[0][0].lower() not in question.context.lower()
    assert unanswerable(found, share=0.0, seed=0) == []
