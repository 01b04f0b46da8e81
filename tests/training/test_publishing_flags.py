"""``train --publish`` looks at its flags before the training, and publishes nothing that learnt nothing."""

from pathlib import Path

import pytest

from service.cli import main
from service.training import run
from tests.checkpoints import save_checkpoint
from tests.training.test_run import write_distinct, write_questions

WRONG = [
    (["--window", "4"], "--window 4"),
    (["--window", "600"], "--window 600"),
    (["--window", "32", "--overlap", "32"], "--overlap 32"),
    (["--gate", "absent.tsv"], "absent.tsv"),
    (["--gate", "asked.json"], "--gate asked.json: the model is for text-classification"),
    (["--evaluate", "others.tsv"], "--evaluate others.tsv: label 'bad'"),
    (["--calibrate", "rows.tsv:3/2"], "rows.tsv:3/2"),
    (["--calibrate", "others.tsv"], "--calibrate others.tsv: label 'bad'"),
    (["--exits-on", "others.tsv"], "--exits-on others.tsv: label 'bad'"),
    (["--evaluate", "rows.tsv", "--evaluate", "sub/rows.tsv"], "two files have one name"),
    (["--precision", "int8"], "gate"),
    (["--model-repo", "rows.tsv"], "--model-repo rows.tsv: it is a file"),
]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "init", "AlbertModel")
    write_distinct(tmp_path / "rows.tsv", 20)
    write_questions(tmp_path / "asked.json")
    (tmp_path / "others.tsv").write_text("label\ttext\nbad\tIt was not good.\ngood\tok\n")
    train = ["train", "--task", "text-classification", "--init", "init", "--train", "rows.tsv", "--out", "out"]
    return [*train, "--publish", "made", "--model-repo", "repo"]


@pytest.mark.parametrize(("flags", "told"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_flag_that_cannot_be_right_is_told_before_the_training(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    monkeypatch.setattr(run, "train_classifier", lambda job: pytest.fail("the training began"))

    assert main([*command, *flags]) == 1
    line = capsys.readouterr().err.strip()
    assert told in line
    assert "\n" not in line
    assert not Path("out").exists()
    assert not Path("repo").exists()


def test_a_readers_calibration_takes_both_kinds_of_question(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command[command.index("text-classification")] = "question-answering"
    command[command.index("rows.tsv")] = "asked.json"

    assert main([*command, "--calibrate", "asked.json"]) == 1
    assert (
        "--calibrate asked.json: calibration takes questions with an answer and without one" in capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_files_that_the_training_writes_may_be_named(command: list[str]) -> None:
    flags = ["--calibrate", "out/dev.jsonl", "--evaluate", "out/test.jsonl"]
    write_distinct(Path("rows.tsv"), 80)
    recipe = ["--epochs", "12", "--learning-rate", "2e-3", "--batch-tokens", "128", "--hold-out", "0.2"]

    assert main([*command, *flags, *recipe]) == 0
    assert Path("repo/made/1/manifest.json").exists()


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_model_no_better_than_the_commonest_label_is_not_published(
    command: list[str], capsys: pytest.CaptureFixture[str], weights: str
) -> None:
    recipe = ["--epochs", "0.1", "--learning-rate", "1e-12", "--class-weights", weights]

    assert main([*command, *recipe]) == 1
    assert "no better than always saying the commonest label" in capsys.readouterr().err.strip().splitlines()[-1]
    assert Path("out/config.json").exists()
    assert not Path("repo").exists()


def test_without_publish_it_is_only_told(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    del command[command.index("--publish") :]

    assert main([*command, "--epochs", "0.1", "--learning-rate", "1e-12"]) == 0
    assert "commonest label" in capsys.readouterr().err


def test_what_the_commonest_label_scores() -> None:
    gold = ["a"] * 6 + ["b"] * 4

    assert run.commonest_score(gold, balanced=False) == 0.6
    assert run.commonest_score(gold, balanced=True) == pytest.approx((2 * 6 / 16) / 2)
