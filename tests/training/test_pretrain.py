"""From plain text to a checkpoint with both heads, by the command; and what it is made of."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from transformers import AlbertConfig, AlbertForPreTraining

from service.cli import main
from service.errors import DataError
from service.repository.store import read_manifest
from service.training.corpus import Corpus, read_documents
from service.training.masking import NO_TARGET, Special, masked_batch, ngrams
from service.training.pretrain import PairStream, Pretraining, ahead
from tests.checkpoints import TINY, save_checkpoint, word_pieces

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SPECIAL = Special(cls=2, sep=3, mask=4, size=40)


def stories(path: Path, documents: int, seed: int = 0) -> Path:
    """Documents that begin with "once", with animals, and end with tools: which segment comes first is plain to see."""
    draw = np.random.default_rng(seed)
    halves = (["horse", "goose", "otter", "heron"], ["hammer", "chisel", "pliers", "spanner"])
    with path.open("w") as file:
        for _ in range(documents):
            file.write("once there was a story.\n")
            for words in halves:
                file.write(" ".join(f"the {draw.choice(words)} and the {draw.choice(words)}." for _ in range(4)) + "\n")
            file.write("\n")
    return path


def corpus(sentences: list[list[int]]) -> Corpus:
    """Documents whose sentences have the lengths given; the tokens count up from ten."""
    lengths = [length for document in sentences for length in document]
    ends = np.cumsum([0, *lengths])
    documents = np.cumsum([0, *(sum(document) for document in sentences)])
    return Corpus(np.arange(10, 10 + ends[-1], dtype=np.int32), ends, documents)


def test_documents_end_at_empty_lines_and_at_the_ends_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One. Two? Three\nfour.\n\n\nFive.\n")
    (tmp_path / "b.txt").write_text("Six.")

    found = list(read_documents([tmp_path / "a.txt", tmp_path / "b.txt"]))
    assert found == [["One.", "Two?", "Three", "four."], ["Five."], ["Six."]]


def test_a_file_without_empty_lines_has_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "reviews.txt").write_text("Fine. Good.\n" * 1500)

    found = list(read_documents([tmp_path / "reviews.txt"]))
    assert found == [["Fine.", "Good."]] * 1500


@given(
    sentences=st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=30), min_size=1, max_size=6),
    room=st.integers(40, 128), seed=st.integers(0, 99),
)  # fmt: skip
def test_segments_are_whole_sentences_and_neighbours_in_one_document(
    sentences: list[list[int]], room: int, seed: int
) -> None:
    text = corpus(sentences)
    for first, second in text.segments(room, np.random.default_rng(seed)):
        assert second[0] == first[-1] + 1
        assert 32 <= len(first) + len(second) <= room
        assert {first[0] - 10, second[0] - 10, second[-1] - 9} <= set(text.sentences.tolist())
        start, end = np.searchsorted(text.documents, [first[0] - 10, second[-1] - 10], side="right")
        assert start == end


def test_most_of_a_long_text_is_read_and_some_of_it_in_short_pairs() -> None:
    text = corpus([[7] * 40, [11] * 30, [5] * 100] * 20)
    lengths = [len(a) + len(b) for a, b in text.segments(64, np.random.default_rng(0))]

    assert sum(lengths) > 0.8 * len(text.ids)
    assert 0.1 < np.mean(np.array(lengths) <= 50) < 0.5


def test_a_batch_takes_as_many_pairs_as_fit_with_their_padding() -> None:
    text = corpus([[7] * 40, [11] * 30, [5] * 100] * 5)
    batches = list(PairStream(text, SPECIAL, 64, 0.0, 512, 0)(0, 0))

    assert all(batch.ids.numel() <= 512 for batch in batches)
    assert np.mean([batch.ids.numel() for batch in batches[:-1]]) > 400


def test_what_is_held_out_is_whole_documents() -> None:
    text = corpus([[7] * 10] * 50)
    learnt, held = text.split(0.1)

    assert len(learnt.ids) + len(held.ids) == len(text.ids)
    assert held.ids[0] == learnt.ids[-1] + 1
    assert len(held.ids) == 5 * 70
    assert held.documents[0] == held.sentences[0] == 0
    with pytest.raises(DataError, match="empty line"):
        corpus([[50] * 10]).split(0.1)


def test_about_the_share_that_is_asked_for_is_masked_in_runs_of_one_to_three() -> None:
    words = np.ones((200, 256), dtype=bool)
    words[:, [0, 100, 255]] = False
    chosen = ngrams(words, 0.15, np.random.default_rng(0))

    assert 0.13 < chosen.mean() < 0.16
    assert not chosen[:, [0, 100, 255]].any()
    joined = "".join("x" if one else "." for one in chosen.ravel())
    runs = [len(list(group)) for mark, group in itertools.groupby(joined) if mark == "x"]
    assert runs.count(1) > runs.count(2) > runs.count(3) > 0


def test_a_batch_says_what_was_masked_and_which_pairs_are_swapped() -> None:
    pairs = list(corpus([[8] * 200]).segments(61, np.random.default_rng(0)))
    batch = masked_batch(pairs, SPECIAL, 0.15, np.random.default_rng(1))

    swapped = 0
    for row, (first, second) in enumerate(pairs):
        turned = bool(batch.target[row])
        swapped += turned
        whole = [2, *(second if turned else first), 3, *(first if turned else second), 3]
        length = int(batch.mask[row].sum())
        restored = torch.where(batch.wanted[row] == NO_TARGET, batch.ids[row], batch.wanted[row])
        assert restored[:length].tolist() == whole
        assert int(batch.types[row].sum()) == len(first if turned else second) + 1
    assert 0.3 < swapped / len(pairs) < 0.7


def test_without_masks_each_pair_stands_both_ways() -> None:
    pairs = list(corpus([[8] * 200]).segments(61, np.random.default_rng(0)))
    batch = masked_batch(pairs, SPECIAL, 0.0, np.random.default_rng(1))

    assert batch.target.tolist() == [0, 1] * len(pairs)
    for row, (first, second) in enumerate(pairs):
        length = len(first) + len(second) + 3
        for turned, parts in enumerate(((first, second), (second, first))):
            assert batch.ids[2 * row + turned][:length].tolist() == [2, *parts[0], 3, *parts[1], 3]
    assert (batch.wanted == NO_TARGET).all()


def test_both_tasks_are_learnt_and_the_loss_is_their_sum() -> None:
    torch.manual_seed(0)
    settings = {"vocab_size": 40} | TINY
    student = AlbertForPreTraining(AlbertConfig(**settings, classifier_dropout_prob=0.0))
    text = corpus([[8] * 200])
    ids = Corpus((text.ids % 30 + 5).astype(np.int32), text.sentences, text.documents)
    batch = next(iter(PairStream(ids, SPECIAL, 64, 0.15, 512, 0)(0, 0)))
    learner = Pretraining(student.eval(), [batch])
    learner.score()

    wanted = student(
        batch.ids, attention_mask=batch.mask, token_type_ids=batch.types, labels=batch.wanted,
        sentence_order_label=batch.target,
    ).loss  # fmt: skip
    torch.testing.assert_close(learner.loss(batch), wanted)
    assert learner.figures["mlm_loss"] + learner.figures["sop_loss"] == pytest.approx(wanted.item(), abs=0.1)


def test_batches_made_ahead_are_the_same_and_their_errors_come_out() -> None:
    def failing() -> itertools.chain[int]:
        return itertools.chain([1, 2], (1 // zero for zero in [0]))

    assert list(ahead(iter(range(100)))) == list(range(100))
    found = ahead(iter(failing()))
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_pretrain_then_convert_to_a_judge_of_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, out, judge = stories(tmp_path / "stories.txt", 900), tmp_path / "out", tmp_path / "judge"
    shape = ["--vocab-size", "90", "--embedding-size", "16", "--hidden-size", "32", "--num-hidden-layers", "2"]
    shape += ["--num-attention-heads", "2", "--intermediate-size", "64"]
    flags = ["--length", "72", "--batch-tokens", "1152", "--learning-rate", "3e-3", "--evaluations", "2"]

    assert main(["pretrain", str(text), "--out", str(out), *shape, *flags, "--steps", "80"]) == 0
    assert "held-out mlm_loss" in capsys.readouterr().out
    report = json.loads((out / "training.json").read_text())
    assert report["history"][-1]["mlm_loss"] < 4
    assert (out / "spiece.model").exists()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    # Going on from it keeps its vocabulary and shape.
    more = ["pretrain", str(text), "--init", str(out), "--out", str(judge), *flags, "--steps", "150", "--masked", "0"]
    assert main([*more, "--pairs", "40"]) == 0
    assert "mlm_loss 0.0" in capsys.readouterr().out
    convert = ["convert", str(judge), "--name", "order", "--model-repo", str(tmp_path / "repo")]
    assert main([*convert, "--calibrate", str(judge / "dev.jsonl"), "--evaluate", str(judge / "test.jsonl")]) == 0
    manifest = read_manifest(tmp_path / "repo" / "order" / "1")
    assert manifest.labels == ["in-order", "swapped"]
    # It may teach others, on pairs of the text that it learnt from.
    assert len((judge / "train.jsonl").read_text().splitlines()) == 40
    teach = ["train", "--task", "text-classification", "--init", str(out), "--teacher", str(judge), "--out"]
    pairs = [str(tmp_path / "taught"), "--train", str(judge / "train.jsonl"), "--dev", str(judge / "dev.jsonl")]
    assert main([*teach, *pairs, "--epochs", "1"]) == 0
    # What was learnt holds on text that nothing looked at, through the serving code.
    assert manifest.quality["test.jsonl"]["accuracy"] > 0.8


def test_too_little_text_is_an_error_that_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("A line.\n")
    out = tmp_path / "out"

    assert main(["pretrain", str(tmp_path / "short.txt"), "--out", str(out)]) == 1
    assert "short.txt" in capsys.readouterr().err
    word_pieces().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="too little"):
        Corpus.read([tmp_path / "short.txt"], tmp_path / "tokenizer.json", 1000)
    assert not (out / "config.json").exists()


def test_a_pretraining_that_could_not_write_goes_on_from_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.training import output

    text, out = stories(tmp_path / "stories.txt", 60), tmp_path / "out"
    shape = ["--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--length", "72"]
    command = ["pretrain", str(text), "--out", str(out), *shape, "--steps", "4", "--evaluations", "2"]
    monkeypatch.setattr(output, "draw_curves", lambda history, path: (_ for _ in ()).throw(OSError(28, "No space")))

    assert main(command) == 1
    monkeypatch.undo()
    assert main(command) == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert main([*command, "--length", "64"]) == 0  # the state is gone: another run may begin here


def test_a_pretraining_goes_on_only_from_the_init_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from service.training import output

    text, init = stories(tmp_path / "stories.txt", 60), save_checkpoint(tmp_path / "init", "AlbertModel")
    command = [
        "pretrain",
        str(text),
        "--init",
        str(init),
        "--out",
        str(tmp_path / "out"),
        "--length",
        "48",
        "--steps",
        "2",
    ]
    monkeypatch.setattr(output, "draw_curves", lambda history, path: (_ for _ in ()).throw(OSError(28, "No space")))

    assert main(command) == 1
    monkeypatch.undo()
    save_checkpoint(init, "AlbertModel", seed=1)
    assert main(command) == 1
    assert "state.pt" in capsys.readouterr().err


@pytest.mark.parametrize("length", ["34", "513"])
def test_a_length_that_no_model_has_is_refused(tmp_path: Path, length: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = stories(tmp_path / "stories.txt", 60)

    assert main(["pretrain", str(text), "--out", str(tmp_path / "out"), "--length", length]) == 1
    assert "wanted 35 to 512 tokens" in capsys.readouterr().err
