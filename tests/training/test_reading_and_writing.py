"""Commands that read and write: nothing that is read is written over, and a wrong number is one line of advice."""

import json
from pathlib import Path

import pytest

from service.cli import main
from tests.checkpoints import save_checkpoint
from tests.training.test_run import write_distinct


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        ["split", "data/train.jsonl", "--out", "data"],
        ["split", "data/dev.jsonl:1/2", "--out", "sub/../data"],
        ["share-layer", "init", "--out", "init"],
        ["share-layer", "init", "--out", "sub/../init"],
        ["shrink-bert", "init", "--texts", "data/train.jsonl", "--out", "init"],
        ["pretrain", "data/text.txt", "--init", "init", "--out", "init"],
        ["train", "--task", "text-classification", "--init", "init", "--train", "data/train.jsonl", "--out", "init"],
        ["train", "--task", "text-classification", "--init", "init", "--train", "data/dev.jsonl", "--out", "data"],
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written_over(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "init", "AlbertModel")
    (tmp_path / "sub").mkdir()
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"label": label, "text": f"{label} {number}"}) for label in "ab" for number in range(40)]
    for name in ("train", "dev"):
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(rows))
    (tmp_path / "data" / "text.txt").write_text("it was good\n" * 200)
    before = content(tmp_path)

    assert main(command) in (1, 2)
    assert "would be written over: give another folder with --out" in capsys.readouterr().err
    assert content(tmp_path) == before


START = ["--task", "text-classification", "--init", "init", "--train", "rows.tsv", "--out", "out"]


@pytest.mark.parametrize(
    ("command", "flag", "values"),
    [
        (["share-layer", "init", "--out", "out"], "--embedding-size", ["-3", "0"]),
        (["share-layer", "init", "--out", "out"], "--layers", ["-3", "0", "two"]),
        (["new-model", "--word-pieces", "v", "--texts", "t", "--out", "out"], "--num-attention-heads", ["0"]),
        (["new-model", "--word-pieces", "v", "--texts", "t", "--out", "out"], "--vocab-size", ["0", "-5"]),
        (["train", *START], "--learning-rate", ["nan", "-1", "0"]),
        (["train", *START], "--weight-decay", ["nan"]),
        (["train", *START], "--word-dropout", ["7", "1"]),
        (["train", *START], "--warmup", ["2", "-1"]),
        (["train", *START], "--hints", ["nan"]),
        (["train", *START], "--max-length", ["0"]),
        (["train", *START], "--hold-out", ["1", "0"]),
        (["train", *START], "--seed", ["-1"]),
        (["train", *START], "--gate-points", ["nan"]),
        (["evaluate", "model", "rows.tsv"], "--typos", ["-3", "nan", "50"]),
        (["evaluate", "model", "rows.tsv"], "--gate", ["nan", "inf"]),
        (["robustness", "model", "rows.tsv"], "--examples", ["0", "-1"]),
        (["bench", "http://localhost:1"], "--clients", ["0"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_number_out_of_range_is_told_at_once(
    command: list[str], flag: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in values:
        with pytest.raises(SystemExit) as stopped:
            main([*command, f"{flag}={value}"])
        assert stopped.value.code == 2
        assert f"argument {flag}: {value!r}: wanted " in capsys.readouterr().err


def test_a_shape_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"label": "a", "text": "x"}\n{"label": "b", "text": "y"}\n')
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nx\ny\n")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\u00e9".encode("latin-1"))
    start = ["new-model", "--texts", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--word-pieces"]
    pieces = [*start, str(tmp_path / "vocab.txt")]

    for command, told in (
        ([*pieces, "--hidden-size", "33", "--num-attention-heads", "4"], "--hidden-size 33"),
        ([*pieces, "--vocab-size", "4"], "--vocab-size 4"),
        ([*start, str(latin)], "latin.txt: cannot be read"),
    ):
        assert main(command) == 1
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_flags_of_publishing_alone_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "init", "AlbertModel")
    write_distinct(tmp_path / "rows.tsv", 20)
    assert main(["train", *START, "--exits-on", "rows.tsv"]) == 2
    assert "--exits-on is a part of publishing: give --publish NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["a/rows.tsv", "b/rows.tsv", "--out", "report"], "two files have one name"),
        (["a/rows.tsv", "--calibrate", "--typos", "0.3"], "--typos is for measuring"),
    ],
)
def test_what_evaluate_cannot_do_is_told_before_it_loads_anything(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        write_distinct(tmp_path / name / "rows.tsv", 4)
    assert main(["evaluate", "nowhere", *flags]) in (1, 2)
    assert told in capsys.readouterr().err


def test_a_file_that_is_not_there_is_told_before_another_is_measured(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_distinct(tmp_path / "rows.tsv", 4)  # of labels that the model has not
    files = [str(tmp_path / "rows.tsv"), str(tmp_path / "absent.tsv")]
    assert main(["evaluate", "sentiment", *files, "--model-repo", str(repository), "--device", "cpu"]) == 1
    assert "absent.tsv: there is no such file" in capsys.readouterr().err


def test_evaluate_takes_a_name_of_the_repository(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.tsv").write_text("label\ttext\npositive\tgood\nnegative\tbad\n")
    asked = [str(tmp_path / "rows.tsv"), "--model-repo", str(repository), "--device", "cpu", "--json"]
    assert main(["evaluate", "sentiment", *asked]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 2
