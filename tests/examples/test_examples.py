"""Each example, run as its page says, against a real service with the shipped models."""

import csv
import io
import re
from pathlib import Path

import httpx
import pytest

from examples import ask_folder, classify_csv, explain_html, steady_rate
from tests.conftest import ROOT
from tests.system.conftest import Server, Start, free_port, start

__all__ = ["start"]
FOLDER = ROOT / "examples"
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start(ROOT / "model_repo")


def test_the_page_lists_them_all() -> None:
    listed = set(re.findall(r"\]\((\w+\.py)\)", (FOLDER / "README.md").read_text()))

    assert listed == {path.name for path in FOLDER.glob("*.py")} - {"__init__.py"}


def test_they_need_the_client_alone() -> None:
    for path in FOLDER.glob("*.py"):
        imported = re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"service", "transformers", "torch", "httpx"} & set(imported), path


def test_rows_of_a_csv_get_labels(server: Server, tmp_path: Path) -> None:
    source, out = tmp_path / "reviews.csv", tmp_path / "labelled.csv"
    source.write_text('id,text\n1,"a gorgeous, witty,\nseductive movie"\n2,truly dreadful\n3,\n', encoding="utf-8-sig")

    assert classify_csv.main([str(source), "--out", str(out), "--url", server.url]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"), newline="")))
    assert [row["label"] for row in rows] == ["positive", "negative", ""]
    assert float(rows[0]["score"]) > 0.9
    assert rows[0]["text"] == "a gorgeous, witty,\nseductive movie"
    assert "empty" in rows[2]["error"]


def test_what_is_wrong_with_a_csv_is_said_in_one_line(server: Server, tmp_path: Path, capsys: Output) -> None:
    source = tmp_path / "reviews.csv"
    source.write_text("id,review\n1,good\n")
    common = ["--out", str(tmp_path / "out.csv")]

    assert classify_csv.main([str(source), *common, "--url", server.url]) == 1
    assert capsys.readouterr().err == f"{source}: no column 'text'; it has id, review\n"
    assert classify_csv.main([str(tmp_path / "none.csv"), *common]) == 1
    assert "No such file" in capsys.readouterr().err
    for content, said in {
        b"text\ngood,extra\n": "row 1 has more fields than the header",
        b"text,label\ngood,old\n": "has a column 'label' already",
        "text\nMüller\n".encode("latin-1"): "can't decode",
    }.items():
        source.write_bytes(content)
        assert classify_csv.main([str(source), *common, "--url", server.url]) == 1
        assert said in capsys.readouterr().err


def test_a_folder_is_asked(server: Server, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "town.md").write_text("# Town\n\nThe bridge was opened in 1902 by the mayor.\n")
    (tmp_path / "metal.txt").write_text("Copper conducts electricity better than iron does.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").write_text("")

    assert ask_folder.main([str(tmp_path), "When was the bridge opened?", "--top", "1", "--url", server.url]) == 0
    shown = capsys.readouterr().out
    assert "deep/town.md:3: The bridge was opened in \033[1m1902\033[0m by the mayor." in shown
    assert ask_folder.main([str(tmp_path / "deep" / "nothing"), "When?"]) == 1
    assert "has no file of .md, .rst, .txt" in capsys.readouterr().err


def test_an_explanation_becomes_a_page(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "why.html"
    text = "<b>It</b> was not good & dull."

    assert explain_html.main([text, "--out", str(out), "--url", server.url]) == 0
    page = out.read_text(encoding="utf-8")
    body = page[page.index("<p>") : page.index("</p>")]
    assert "<h1>negative: " in page
    assert "&lt;" in body
    assert "<b>" not in page
    strongest = max(re.findall(r"rgba\([\d, ]+, ([\d.]+)\)\" title=\"[^\"]+\">([^<]+)<", body))
    assert strongest[1] in ("not", "dull")
    assert page.count("<tr><td>") == 6


def test_a_steady_rate_is_kept_and_what_is_late_is_counted(server: Server, tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("a gorgeous movie\n\ntruly dreadful\n" * 5)

    assert steady_rate.main([str(file), "--rate", "20", "--deadline", "20", "--url", server.url]) == 0
    shown = capsys.readouterr().out
    assert "10 answers, half of them within" in shown
    assert re.search(r"5  positive", shown)
    assert re.search(r"5  negative", shown)
    assert steady_rate.main([str(file), "--rate", "50", "--deadline", "0.001", "--url", server.url]) == 0
    assert "positive" not in capsys.readouterr().out


def test_where_no_service_answers_each_says_so(tmp_path: Path, capsys: Output) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)

    assert explain_html.main(["good", "--out", str(tmp_path / "why.html"), "--url", url]) == 1
    assert "no albert-serve answers there" in capsys.readouterr().err
    assert not (tmp_path / "why.html").exists()
    assert explain_html.main(["good", "--out", str(tmp_path / "none" / "why.html"), "--url", url]) == 1
    assert "is no folder" in capsys.readouterr().err
