"""Files to examples, and errors that name the file and the line."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from service.errors import DataError
from service.training.datasets import Labelled, read_labelled, read_questions, texts_of

ROWS = [
    Labelled("good", "It was fine."),
    Labelled("bad", "外卖 was e\u0301pic 🎉"),
    Labelled("good", "x", "and a second"),
]
TSV = "label\ttext\ttext_pair\ngood\tIt was fine.\t\nbad\t外卖 was e\u0301pic 🎉\t\ngood\tx\tand a second\n"
CSV = "label,text,text_pair\ngood,It was fine.,\nbad,外卖 was e\u0301pic 🎉,\ngood,x,and a second\n"
JSONL = "".join(json.dumps({"label": row.label, "text": row.text, "text_pair": row.text_pair}) + "\n" for row in ROWS)
CONTEXT = "The ferry leaves at half past six. 🎉 昨天."


def write(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def squad(*answers: tuple[str, int], **changes: Any) -> dict[str, Any]:
    """A file of one question, in SQuAD's form."""
    asked = {
        "id": "q1", "question": "When?",
        "answers": [{"text": text, "answer_start": start} for text, start in answers],
    }  # fmt: skip
    return {"data": [{"title": "Ferries", "paragraphs": [{"context": CONTEXT, "qas": [asked | changes]}]}]}


def write_squad(path: Path, content: Any) -> Path:
    return write(path, json.dumps(content))


@pytest.mark.parametrize(("name", "content"), [("rows.tsv", TSV), ("rows.csv", CSV), ("rows.jsonl", JSONL)])
@pytest.mark.parametrize("packed", ["", ".xz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_form_holds_the_same_rows(tmp_path: Path, name: str, content: str, packed: str, newline: str) -> None:
    path = write(tmp_path / (name + packed), content.replace("\n", newline))

    assert read_labelled(path) == ROWS


def test_quotes_in_a_tsv_are_quotes_in_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.tsv", 'label\ttext\na\t"open, and never closed\nb\tshe said "no", twice\n')

    assert read_labelled(path) == [Labelled("a", '"open, and never closed'), Labelled("b", 'she said "no", twice')]


def test_quotes_in_a_csv_hold_commas_quotes_and_lines_together(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'label,text\na,"one, two"\nb,"she said ""no"""\na,"two\nlines"\n')

    assert [row.text for row in read_labelled(path)] == ["one, two", 'she said "no"', "two\nlines"]


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "id,text,label\n1,fine,a\n2,poor,b\n")

    assert read_labelled(path) == [Labelled("a", "fine"), Labelled("b", "poor")]


@pytest.mark.parametrize("labels", [(0, 1), (2, 0, 1), (-1, 1)])
def test_a_label_may_be_a_number(tmp_path: Path, labels: tuple[int, ...]) -> None:
    lines = [json.dumps({"label": label, "text": "fine"}) for label in labels]
    path = write(tmp_path / "rows.jsonl", "\n".join(lines))

    assert [row.label for row in read_labelled(path)] == [str(label) for label in labels]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("r.tsv", "label\ttext\na\tfine\nb\t\n", 3),
        ("r.tsv", "label\ttext\na\tfine\nb\t   \n", 3),
        ("r.tsv", "label\ttext\n\tfine\nb\tfine\n", 2),
        ("r.tsv", "label\ttext\na\tfine\nb\n", 3),
        ("r.tsv", "label\ttekst\na\tfine\n", 2),
        ("r.csv", "label,text\na,fine\nb,\n", 3),
        ("r.csv", "text\nfine\n", 2),
        ("r.csv", 'label,text\na,"two\nlines"\nb,\n', 4),
        ("r.csv", "label,text\na,fine\n\n\nb,\n", 5),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n{"label": "b"\n', 2),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n{"label": "b"}\n', 2),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n["b", "fine"]\n', 2),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n{"label": "b", "text": 5}\n', 2),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n{"label": "", "text": "fine"}\n', 2),
        ("r.jsonl", '{"label": "a", "text": "fine"}\n{"label": null, "text": "fine"}\n', 2),
        ("r.jsonl", 'null\n{"label": "b", "text": "fine"}\n', 1),
    ],
)
@pytest.mark.parametrize("packed", ["", ".xz"])
def test_a_wrong_row_is_an_error_that_names_file_and_line(
    tmp_path: Path, name: str, content: str, line: int, packed: str
) -> None:
    path = write(tmp_path / (name + packed), content)

    with pytest.raises(DataError) as wrong:
        read_labelled(path)
    assert wrong.value.message.startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize(("content", "labels"), [("label\ttext\n", 0), ("label\ttext\na\tx\na\ty\n", 1), ("", 0)])
def test_one_label_alone_is_nothing_to_learn(tmp_path: Path, content: str, labels: int) -> None:
    path = write(tmp_path / "rows.tsv", content)

    with pytest.raises(DataError, match=f"{path}: a classifier needs at least two labels, this file has {labels}"):
        read_labelled(path)


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.json", "rows.tsv.gz", "rows.xz"])
def test_a_form_that_is_not_known_is_an_error_that_says_which_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: wants .tsv, .csv or .jsonl, plain or .xz"):
        read_labelled(write(tmp_path / name, TSV))


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv.xz", "rows.jsonl"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: cannot be read: No such file"):
        read_labelled(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_questions(tmp_path / "train.json.xz")


@pytest.mark.parametrize("name", ["rows.tsv.xz", "rows.csv.xz", "rows.jsonl.xz"])
def test_a_damaged_archive_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive")

    with pytest.raises(DataError, match=name):
        read_labelled(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [("rows.tsv", TSV), ("rows.csv", CSV), ("rows.jsonl", JSONL)])
def test_a_file_that_is_not_utf_8_is_an_error_that_names_it(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode().replace(b"fine", b"fin\xe9"))

    with pytest.raises(DataError, match=name):
        read_labelled(tmp_path / name)


def test_questions_that_are_not_utf_8_or_not_unpacked_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_bytes(b'{"data": "\xe9"}')
    (tmp_path / "dev.json.xz").write_bytes(b"this is no archive")

    for name in ("dev.json", "dev.json.xz"):
        with pytest.raises(DataError, match=name):
            read_questions(tmp_path / name)


@pytest.mark.parametrize("packed", ["", ".xz"])
def test_questions_keep_all_their_answers(tmp_path: Path, packed: str) -> None:
    path = write_squad(tmp_path / f"dev.json{packed}", squad(("half past six", 20), ("six", 30), ("昨天", 37)))
    (question,) = read_questions(path)

    assert (question.id, question.question, question.context) == ("q1", "When?", CONTEXT)
    assert question.answers == (("half past six", 20), ("six", 30), ("昨天", 37))
    assert question.title == "Ferries"
    assert all(CONTEXT[start : start + len(text)] == text for text, start in question.answers)


def test_a_question_may_have_no_answer(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "dev.json", squad(is_impossible=True, plausible_answers=[{"text": "x"}]))

    assert read_questions(path)[0].answers == ()


@pytest.mark.parametrize(
    ("text", "start"), [("half past six", 19), ("half past seven", 20), ("昨天", 38), ("six", 4000)]
)
def test_an_answer_that_is_not_where_the_file_says_names_its_question(tmp_path: Path, text: str, start: int) -> None:
    path = write_squad(tmp_path / "dev.json", squad((text, start)))

    with pytest.raises(DataError, match=rf"dev\.json, line 1: question q1: the answer '{text}' is not at {start}"):
        read_questions(path)


@pytest.mark.parametrize("content", ["", "not JSON", "[]", "{}", '{"version": "1.1"}', "5", '{"data": [}'])
def test_what_is_not_in_squads_form_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"dev\.json: not in SQuAD's form"):
        read_questions(write(tmp_path / "dev.json", content))


@pytest.mark.parametrize(
    "content",
    [
        {"data": 5},
        {"data": [{"title": "no paragraphs"}]},
        {"data": [{"paragraphs": [{"qas": []}, {"context": "x"}]}]},
        {"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "q1", "question": "?"}]}]}]},
        {"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "q1", "answers": []}]}]}]},
        {"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "q1", "question": "?", "answers": [{}]}]}]}]},
    ],
)
def test_a_part_of_squads_form_that_is_missing_is_an_error_that_names_the_file(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"dev\.json"):
        read_questions(write_squad(tmp_path / "dev.json", content))


@pytest.mark.parametrize("content", [{"data": []}, {"data": [{"paragraphs": []}]}])
def test_a_file_without_questions_is_an_error(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"dev\.json: no questions in it"):
        read_questions(write_squad(tmp_path / "dev.json", content))


def test_texts_of_a_file_are_all_that_it_holds(tmp_path: Path) -> None:
    both = squad(("six", 30))
    both["data"] *= 2
    questions = write_squad(tmp_path / "dev.json", both)
    lines = write(tmp_path / "plain.txt", "one\ntwo\nthree\n")

    assert list(texts_of([questions])) == [CONTEXT, "When?", "When?"]  # a context once, however many ask about it
    assert [line.strip() for line in texts_of([lines], lines=2)] == ["one", "two"]


def test_texts_of_pairs_are_both_texts(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.tsv", TSV)

    assert sorted(texts_of([rows])) == sorted([*(row.text for row in ROWS), "and a second"])


def test_a_long_field_of_a_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f'label,text\na,"{"x" * 200_000}"\nb,short\n')

    assert len(read_labelled(path)[0].text) == 200_000


@pytest.mark.parametrize("label", ['["a", "b"]', '{"a": 1}', "true", "0.5"])
def test_a_label_that_is_no_name_is_refused_with_its_line(tmp_path: Path, label: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"label": "a", "text": "one"}}\n{{"label": {label}, "text": "two"}}\n')

    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: label is"):
        read_labelled(path)


def test_a_field_that_is_too_long_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(f'label,text\na,short\nb,"{"x" * (2**24 + 1)}"\n')

    with pytest.raises(DataError, match=r"long\.csv, line [23]: field larger than field limit"):
        read_labelled(path)


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv", "rows.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = [("good", "it was"), ("bad", "it was not")]
    mark = "\t" if name.endswith(".tsv") else ","
    plain = "".join(f"{label}{mark}{text}\n" for label, text in [("label", "text"), *rows])
    lines = "".join(json.dumps({"label": label, "text": text}) + "\n\n" for label, text in rows)  # empty lines are none
    path.write_text(lines if name.endswith(".jsonl") else plain, encoding="utf-8-sig")
    assert [(row.label, row.text) for row in read_labelled(path)] == rows


@pytest.mark.parametrize("pair", [5, ["a", "b"], {"a": 1}])
def test_a_second_text_is_a_text(tmp_path: Path, pair: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"label": "a", "text": "b", "text_pair": pair}) + "\n")
    with pytest.raises(DataError, match="line 1: text_pair is"):
        read_labelled(path)


def test_rows_that_are_nested_without_end_are_an_error_of_their_line(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "squad.json"):
        path = tmp_path / name
        path.write_text("[" * 100_000)
        with pytest.raises(DataError, match=name):
            read_labelled(path) if name == "rows.jsonl" else read_questions(path)


@pytest.mark.parametrize("change", [{"question": None}, {"question": 5}, {"answers": [{"text": 5, "answer_start": 0}]}])
def test_a_question_is_a_text(tmp_path: Path, change: dict[str, Any]) -> None:
    asked = {"id": "1", "question": "Who?", "answers": []} | change
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"title": None, "paragraphs": [{"context": "Ann", "qas": [asked]}]}]}))
    with pytest.raises(DataError, match="texts"):
        read_questions(path)


def test_an_article_may_have_no_title(tmp_path: Path) -> None:
    asked = {"id": "1", "question": "Who?", "answers": []}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"title": None, "paragraphs": [{"context": "Ann", "qas": [asked]}]}]}))
    assert [question.title for question in read_questions(path)] == [""]
