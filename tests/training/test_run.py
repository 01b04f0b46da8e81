"""From files to a checkpoint to a published model, by the commands that made the shipped ones."""

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel

from service.cli import main
from service.errors import CheckpointError, TrainingError
from service.repository.store import read_manifest
from tests.checkpoints import save_checkpoint, word_pieces

ROWS = [("positive", "ok"), ("positive", "Great service"), ("negative", "It was not good."), ("negative", "bored")]


def write_rows(path: Path, copies: int) -> Path:
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in ROWS * copies))
    return path


def write_distinct(path: Path, count: int) -> Path:
    """As many texts of each label, no two alike."""
    rows = [f"{label}\t{text} {number}\n" for number in range(count) for label, text in ROWS[1:3]]
    path.write_text("label\ttext\n" + "".join(rows))
    return path


def write_questions(path: Path) -> Path:
    text = "Nobody knew why the river had changed its course overnight."
    qas = [{"id": "1", "question": "what changed", "answers": [{"text": "the river", "answer_start": 16}]}]
    data = [{"title": f"t{i}", "paragraphs": [{"context": text, "qas": qas}]} for i in range(60)]
    path.write_text(json.dumps({"data": data}))
    return path


def test_train_then_convert_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    (init / "tokenizer_config.json").write_text("{}")
    train, dev = write_rows(tmp_path / "train.tsv", 30), write_rows(tmp_path / "dev.tsv", 2)
    out = str(tmp_path / "out")
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(train), "--dev", str(dev)]
    flags = ["--out", out, "--epochs", "12", "--learning-rate", "2e-3", "--batch-tokens", "128", "--max-length", "32"]

    assert main([*command, *flags]) == 0
    assert "best score" in capsys.readouterr().out
    convert = ["convert", out, "--name", "made", "--model-repo", str(tmp_path / "repo"), "--evaluate", str(dev)]
    assert main(convert) == 0
    manifest = read_manifest(tmp_path / "repo" / "made" / "1")
    assert manifest.labels == ["negative", "positive"]
    assert manifest.provenance["stored_precision"] == "float16"
    assert manifest.provenance["training"]["recipe"]["epochs"] == 12
    assert manifest.quality["dev.tsv"]["accuracy"] > 0.9


def test_train_then_convert_a_reader(tmp_path: Path) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    (init / "tokenizer_config.json").write_text("{}")
    train = write_questions(tmp_path / "train.json")
    out = str(tmp_path / "out")
    command = ["train", "--task", "question-answering", "--init", str(init), "--train", str(train), "--out", out]

    assert main([*command, "--epochs", "8", "--learning-rate", "3e-3", "--max-length", "40"]) == 0
    convert = ["convert", out, "--name", "made", "--model-repo", str(tmp_path / "repo"), "--evaluate", str(train)]
    assert main(convert) == 0
    quality = read_manifest(tmp_path / "repo" / "made" / "1").quality["train.json"]
    assert quality["questions"] == 60
    assert quality["f1"] >= quality["exact_match"] > 50


def test_a_bert_becomes_an_albert_that_answers_as_the_bert_did(tmp_path: Path) -> None:
    import numpy as np
    import torch
    from transformers import AlbertModel

    pieces = word_pieces()
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    bert = BertModel(BertConfig(vocab_size=pieces.get_vocab_size(), **shape)).eval()
    bert.save_pretrained(tmp_path / "bert")
    pieces.save(str(tmp_path / "bert" / "tokenizer.json"))
    texts = tmp_path / "texts.txt"
    texts.write_text("Nobody knew why the river had changed.\n" * 3)
    out = str(tmp_path / "albert")
    size = pieces.get_vocab_size() - 60
    shrink = ["shrink-bert", str(tmp_path / "bert"), "--texts", str(texts), "--vocabulary", str(size), "--out", out]

    assert main(shrink) == 0
    albert = AlbertModel.from_pretrained(out).eval()
    from service.tasks.text import Tokenizer

    old, new = (Tokenizer.from_file(tmp_path / name / "tokenizer.json") for name in ("bert", "albert"))
    text = "Nobody knew why the river had changed."
    with torch.inference_mode():
        wanted, found = (
            model(
                torch.from_numpy(tokenizer.frame(tokenizer.encode(text).ids).ids.astype(np.int64))[None]
            ).last_hidden_state.numpy()
            for model, tokenizer in ((bert, old), (albert, new))
        )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert albert.config.vocab_size == size
    rare = "wrote would"  # words that the texts do not hold are spelled out
    assert len(new.encode(rare)) > len(old.encode(rare)) == 2


def test_bad_files_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    bad = tmp_path / "bad.tsv"
    bad.write_text("label\ttext\npositive\tok\nnegative\t\n")
    command = ["train", "--task", "text-classification", "--init", str(init), "--out", str(tmp_path / "out")]

    assert main([*command, "--train", str(bad), "--dev", str(bad)]) == 1
    assert f"{bad}, line 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_student_with_one_shared_layer_is_distilled_from_several(tmp_path: Path) -> None:
    """The commands that made the shipped models: share-layer, then train with a teacher, held-out rows and exits."""
    init = save_checkpoint(tmp_path / "init", "AlbertModel", num_hidden_groups=3, half=True)
    rows, student, out = write_distinct(tmp_path / "rows.tsv", 80), tmp_path / "student", tmp_path / "out"
    teacher = tmp_path / "teacher"

    taught = [
        "train",
        "--task",
        "text-classification",
        "--init",
        str(init),
        "--train",
        str(rows),
        "--out",
        str(teacher),
    ]
    assert main([*taught, "--epochs", "6", "--learning-rate", "2e-3", "--batch-tokens", "128"]) == 0
    share = ["share-layer", str(teacher), "--out", str(student), "--group", "1", "--embedding-size", "12"]
    assert main(share) == 0
    command = ["train", "--task", "text-classification", "--init", str(student), "--train", str(rows)]
    flags = [
        "--teacher",
        str(teacher),
        "--out",
        str(out),
        "--epochs",
        "4",
        "--hold-out",
        "0.2",
        "--word-dropout",
        "0.1",
    ]
    flags += ["--learning-rate", "2e-3"]
    flags += ["--exits", "--class-weights", "balanced", "--accumulate", "2", "--batch-tokens", "128"]
    published = ["--publish", "made", "--model-repo", str(tmp_path / "repo"), "--calibrate", str(out / "dev.jsonl")]
    assert main([*command, *flags, *published, "--evaluate", str(out / "test.jsonl")]) == 0

    assert len((out / "dev.jsonl").read_text().splitlines()) == len((out / "test.jsonl").read_text().splitlines()) == 16
    manifest = read_manifest(tmp_path / "repo" / "made" / "1")
    assert (manifest.architecture["num_hidden_groups"], manifest.architecture["embedding_size"]) == (1, 12)
    assert manifest.quality["test.jsonl"]["texts"] == 16
    lessons = manifest.provenance["training"]["lessons"]
    assert lessons["teacher"] == "teacher"
    assert str(tmp_path) not in (tmp_path / "repo" / "made" / "1" / "manifest.json").read_text()


def test_a_shared_layer_of_full_width_is_a_copy(tmp_path: Path) -> None:
    import torch
    from transformers import AlbertModel

    from service.training.share import Form, share_layer

    save_checkpoint(tmp_path / "one", "AlbertModel")
    share_layer(tmp_path / "one", tmp_path / "same", Form())
    share_layer(tmp_path / "one", tmp_path / "narrow", Form(embedding=15))
    ids = torch.randint(5, 40, (2, 9))
    with torch.inference_mode():
        whole, same, narrow = (
            AlbertModel.from_pretrained(tmp_path / name).eval()(ids).last_hidden_state
            for name in ("one", "same", "narrow")
        )

    torch.testing.assert_close(same, whole)
    assert torch.nn.functional.cosine_similarity(narrow, whole, dim=-1).mean() > 0.7


@pytest.mark.parametrize(
    ("form", "message"), [(["--group", "7"], "groups 0 to 2"), (["--embedding-size", "99"], "cannot grow")]
)
def test_a_form_that_does_not_fit_is_an_error(
    tmp_path: Path, form: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_checkpoint(tmp_path / "c", "AlbertModel", num_hidden_groups=3)

    assert main(["share-layer", str(source), "--out", str(tmp_path / "out"), *form]) == 1
    assert message in capsys.readouterr().err


def test_a_teacher_with_other_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    teacher = save_checkpoint(tmp_path / "teacher", id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    rows = write_distinct(tmp_path / "rows.tsv", 20)
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(rows)]

    assert main([*command, "--teacher", str(teacher), "--out", str(tmp_path / "out")]) == 1
    assert "cannot teach" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.training import output

    init, rows = save_checkpoint(tmp_path / "init", "AlbertModel"), write_distinct(tmp_path / "rows.tsv", 20)
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(rows)]

    def full(history: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "draw_curves", full)
    assert main([*command, "--out", str(tmp_path / "out"), "--epochs", "1", "--publish", "made"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    # The run itself is not lost: once there is room, the same command writes what was learnt.
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"dev.jsonl", "test.jsonl", "state.pt"}


@pytest.mark.parametrize("other", ["init", "teacher"])
def test_a_run_does_not_go_on_from_weights_that_were_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    from service.training import output

    labels = sorted(label for label, _ in ROWS[1:3])
    names: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {b: a for a, b in enumerate(labels)}}
    folders = {name: save_checkpoint(tmp_path / name, **names) for name in ("init", "teacher")}
    rows = write_distinct(tmp_path / "rows.tsv", 20)
    command = ["train", "--task", "text-classification", "--train", str(rows), "--out", str(tmp_path / "out")]
    command += ["--init", str(folders["init"]), "--teacher", str(folders["teacher"]), "--epochs", "1"]

    def full(history: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(output, "draw_curves", full)
        assert main(command) == 1
    capsys.readouterr()
    save_checkpoint(folders[other], seed=1, **names)

    assert main(command) == 1
    assert "state.pt" in capsys.readouterr().err


def test_weights_that_the_disk_does_not_take_leave_nothing(tmp_path: Path) -> None:
    """The limit of a file's size stands for a full disk: writing fails in the middle of the weights."""
    from transformers import AlbertModel

    from service.training.output import write_checkpoint
    from service.training.states import Progress

    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    model, soft = AlbertModel.from_pretrained(init), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, soft[1]))
    try:
        with pytest.raises(TrainingError, match="cannot be written"):
            write_checkpoint(model, init, tmp_path / "out", {}, Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("text-classification", ["--unanswerable", "0.3"], "is for question answering"),
        ("question-answering", ["--word-dropout", "0.1"], "are for text classification"),
        ("text-classification", ["--max-length", "900"], "takes 16 to 64 tokens"),
        ("text-classification", ["--publish", "no/name"], "is no name for a model"),
        ("text-classification", ["--publish", "m", "--precision", "int8"], "give real data with --gate"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    tmp_path: Path, task: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    init, rows = save_checkpoint(tmp_path / "init", "AlbertModel"), write_distinct(tmp_path / "rows.tsv", 20)
    command = ["train", "--task", task, "--init", str(init), "--train", str(rows), "--out", str(tmp_path / "out")]

    assert main([*command, *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_checkpoint_that_lacks_something_is_not_trained(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    init, rows = save_checkpoint(tmp_path / "init", "AlbertModel"), write_distinct(tmp_path / "rows.tsv", 20)
    (init / damage).unlink()
    command = ["train", "--task", "text-classification", "--init", str(init), "--train", str(rows)]

    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert str(init) in capsys.readouterr().err


def test_a_body_that_does_not_fit_is_not_replaced_by_chance(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AlbertForSequenceClassification

    from service.training.loading import load

    init = save_checkpoint(tmp_path / "init", "AlbertModel")
    weights = load_file(init / "model.safetensors")
    weights.pop("encoder.embedding_hidden_mapping_in.weight")
    save_file(weights, init / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="embedding_hidden_mapping_in"):
        load(AlbertForSequenceClassification, init)
