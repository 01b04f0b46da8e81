"""What a student is taught by: exits that answer early, a teacher that it becomes like."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.training.features import batches
from service.training.learner import Learner, Lessons
from tests.training.test_finetune import classifier, examples, reader, run, spans


def accuracy_by_depth(learner: Learner) -> list[float]:
    """Of the head at every depth."""
    learner.eval()
    right = [0.0] * learner.student.config.num_hidden_layers
    with torch.inference_mode():
        for batch in batches(learner.dev, 4096):
            for depth, hidden in enumerate(learner._hidden(learner.student, batch)):
                choice = learner.choices(learner.student, hidden, batch)[0].argmax(-1)
                right[depth] += float((choice == batch.target).sum())
    return [value / len(learner.dev) for value in right]


def test_with_exits_the_head_answers_at_every_depth(tmp_path: Path) -> None:
    learner = Learner(classifier(), examples(60, 1), Lessons(exits=True))
    run(learner, examples(300, 0), tmp_path / "s", evaluations=1).to_the_end()

    assert min(accuracy_by_depth(learner)) > 0.85


def test_the_last_depth_answers_as_the_model_itself(tmp_path: Path) -> None:
    for student, features in ((classifier(), examples(8, 0)), (reader(), spans(8))):
        learner = Learner(student, [])
        batch = next(batches(features, 4096))
        student.eval()
        with torch.inference_mode():
            out: Any = student(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types)
            found = learner._last(batch)
        wanted = [out.logits] if "logits" in out else [out.start_logits, out.end_logits]
        for one, other in zip(found, wanted, strict=True):
            present = batch.mask.bool() if len(wanted) == 2 else torch.ones_like(one, dtype=torch.bool)
            torch.testing.assert_close(one[present], other[present])


def test_a_student_becomes_like_its_teacher(tmp_path: Path) -> None:
    """The teacher holds the opposite of every label to be right: what it says shows in the student."""
    train = examples(300, 0)
    upside_down = [type(f)(f.ids, f.types, 1 - int(f.target)) for f in train]  # type: ignore[arg-type]
    teacher = classifier()
    run(Learner(teacher, upside_down[:60]), upside_down, tmp_path / "t").to_the_end()
    dev = examples(60, 1)
    alone, taught = Learner(classifier(1), dev), Learner(classifier(1), dev, teacher=teacher)
    for name, learner in (("alone", alone), ("taught", taught)):
        run(learner, train, tmp_path / name, patience=99).to_the_end()
    batch = next(batches(dev, 4096))
    with torch.inference_mode():
        wanted = teacher.eval()(batch.ids, attention_mask=batch.mask).logits.softmax(-1)
        far, near = (
            float((one.student.eval()(batch.ids, attention_mask=batch.mask).logits.softmax(-1) - wanted).abs().mean())
            for one in (alone, taught)
        )
    assert near < 0.8 * far


def test_the_teachers_weights_are_neither_trained_nor_saved() -> None:
    teacher = classifier(num_hidden_groups=3)
    learner = Learner(classifier(1), [], teacher=teacher)
    batch = next(batches(examples(8, 0), 4096))
    learner.loss(batch).backward()  # type: ignore[no-untyped-call]

    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any("teacher" in name for name in learner.state_dict())
    assert learner.scales.grad is not None  # the hints are learnt from


def test_a_reader_does_not_listen_where_a_window_holds_no_answer() -> None:
    features = spans(4)
    nowhere = [type(f)(f.ids, f.types, (0, 0)) for f in features]
    learner = Learner(reader(), [], Lessons(hints=0), teacher=reader())

    assert learner._taught(next(batches(features, 4096))).tolist() == [1.0] * 4
    assert learner._taught(next(batches(nowhere, 4096))).tolist() == [0.0] * 4


@pytest.mark.parametrize("make", [classifier, reader])
def test_without_lessons_the_loss_is_that_of_transformers(make: Any) -> None:
    student = make()
    student.eval()
    features = examples(16, 0) if make is classifier else [f for f in spans(40) if len(f.ids) == 9]
    batch = next(batches(features, 4096))
    targets = (
        {"labels": batch.target}
        if make is classifier
        else {"start_positions": batch.target[:, 0], "end_positions": batch.target[:, 1]}
    )
    wanted = student(batch.ids, attention_mask=batch.mask, token_type_ids=batch.types, **targets).loss

    torch.testing.assert_close(Learner(student, []).loss(batch), wanted)


def test_an_attack_makes_the_loss_larger_and_leaves_the_weights_as_they_were() -> None:
    learner = Learner(classifier(), [], Lessons(adversarial=0.5))
    learner.eval()
    table = learner.student.albert.embeddings.word_embeddings.weight
    before = table.detach().clone()
    (batch,) = batches(examples(8, 0), 4096)
    with learner.attacked() as attacked:
        assert not attacked  # there is no gradient yet
    plain = learner.loss(batch)
    plain.backward()  # type: ignore[no-untyped-call]
    with learner.attacked() as attacked:
        assert attacked
        assert float((table.detach() - before).norm()) == pytest.approx(0.5, rel=1e-3)
        assert float(learner.loss(batch).detach()) > float(plain.detach())
    torch.testing.assert_close(table.detach(), before, atol=1e-6, rtol=0)


def test_without_it_nothing_is_attacked() -> None:
    learner = Learner(classifier(), [])
    (batch,) = batches(examples(8, 0), 4096)
    learner.loss(batch).backward()  # type: ignore[no-untyped-call]
    with learner.attacked() as attacked:
        assert not attacked
