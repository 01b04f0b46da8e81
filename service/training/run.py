"""One training run, from files to a checkpoint that ``convert`` takes."""

import functools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AlbertForQuestionAnswering, AlbertForSequenceClassification

from ..errors import CheckpointError, DataError
from ..tasks.text import Tokenizer
from . import splits
from .augment import Augmentation
from .datasets import Labelled
from .features import Feature, FeatureStream, labelled_features, question_features
from .finetune import Recipe, Run
from .learner import Learner, Lessons, Student
from .loading import load
from .output import identity, weight_files, write_checkpoint
from .precision import device
from .scores import accuracy, macro_f1
from .unanswerable import unanswerable


@dataclass(frozen=True, slots=True)
class Job:
    """What one run is asked for.  Files are ``FILE`` or ``FILE:1/2``; lengths in tokens.

    Without ``dev``, a share ``hold_out`` of the rows (or of the articles) is kept to stop by.
    """

    init: Path
    train: Sequence[str]
    out: Path
    dev: str | None = None
    hold_out: float = 0.1
    epochs: float = 2.0
    longest: int | None = None
    dropout: float = 0.1
    teacher: Path | None = None
    exits: bool = False
    hints: float = 1.0
    adversarial: float = 0.0
    balanced: bool = False
    unanswerable: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True)
class Trained:
    """The best step's dev score, and a classifier's if it always said the ``commonest`` label."""

    score: float
    commonest: float | None = None

    @property
    def learnt_nothing(self) -> bool:
        return self.commonest is not None and self.score <= self.commonest


def train_classifier(job: Job) -> Trained:
    """Fine-tune on labelled rows; write the best step to ``job.out``.  Its score is ``Learner.score``."""
    _check_attack(job)
    if job.unanswerable:
        raise DataError("--unanswerable is for question answering")
    rows, dev_rows = _rows(job)
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise DataError(f"a classifier needs at least two labels; all rows have {labels[0]!r}")
    student = _classifier(job, labels)
    tokenizer = Tokenizer.from_file(job.init / "tokenizer.json")
    longest = _longest(job, student, 256)
    dev = labelled_features(dev_rows, tokenizer, labels, longest)

    @functools.lru_cache(maxsize=1)
    def features(epoch: int) -> list[Feature]:
        """Each epoch has windows and augmented texts of its own."""
        draw = random.Random(job.recipe.seed + epoch)
        shown = [_augmented(row, job.augmentation, draw) for row in rows] if job.augmentation else rows
        return labelled_features(shown, tokenizer, labels, longest, draw)

    weights = balanced_weights([row.label for row in rows], labels) if job.balanced else None
    lessons = Lessons(job.exits, job.hints, weights, job.adversarial)
    stream = FeatureStream(features, job.recipe.batch_tokens, job.recipe.seed)
    score = _run(job, student, stream, dev, lessons)
    return Trained(score, commonest_score([row.label for row in dev_rows], balanced=job.balanced))


def _check_attack(job: Job) -> None:
    """The gradient that the attack follows is that of its own batch."""
    if job.adversarial and job.recipe.accumulate > 1:
        raise DataError("--adversarial takes --accumulate 1: raise --batch-tokens instead")


def train_reader(job: Job) -> Trained:
    """Fine-tune on questions; write the best step to ``job.out``; return its dev token F1."""
    _check_attack(job)
    if job.balanced or job.augmentation:
        raise DataError("--class-weights, --word-dropout and --word-swap are for text classification")
    torch.manual_seed(job.recipe.seed)
    student = load(AlbertForQuestionAnswering, job.init, _dropout(job))
    longest = _longest(job, student, 192)
    found = [question for source in job.train for question in splits.questions(source)]
    if job.dev:
        learnt, held = found, splits.questions(job.dev)
    else:
        learnt, held = splits.hold_out_articles(found, every=max(2, round(1 / job.hold_out)))
    tokenizer = Tokenizer.from_file(job.init / "tokenizer.json")

    @functools.lru_cache(maxsize=1)
    def features(epoch: int) -> list[Feature]:
        """Each epoch has windows and unanswerable questions of its own."""
        seed = job.recipe.seed + epoch
        return question_features(learnt + unanswerable(learnt, job.unanswerable, seed), tokenizer, longest, seed)

    held = random.Random(job.recipe.seed).sample(held, min(len(held), 2000))  # enough to choose a step by
    seen = min(256, student.config.max_position_embeddings)
    dev = question_features(held, tokenizer, seen, job.recipe.seed, unanswerable=0.0)
    stream = FeatureStream(features, job.recipe.batch_tokens, job.recipe.seed)
    return Trained(_run(job, student, stream, dev, Lessons(job.exits, job.hints, adversarial=job.adversarial)))


def commonest_score(gold: Sequence[str], *, balanced: bool) -> float:
    """What always saying the commonest label scores: accuracy, or macro F1 where classes are weighted."""
    given = [Counter(gold).most_common(1)[0][0]] * len(gold)
    return macro_f1(given, gold) if balanced else accuracy(given, gold)


def balanced_weights(labels: Sequence[str], names: Sequence[str]) -> tuple[float, ...]:
    """Each label's rows count as much together as any other's: total / (labels x rows of the label)."""
    counts = Counter(labels)
    return tuple(len(labels) / (len(names) * counts[name]) for name in names)


def _rows(job: Job) -> tuple[list[Labelled], list[Labelled]]:
    """Rows to learn from and to stop by.  Held-out rows are written beside the checkpoint, half of them untouched."""
    rows = [row for source in job.train for row in splits.labelled(source)]
    if job.dev:
        return rows, splits.labelled(job.dev)
    rows, dev, test = splits.hold_out_rows(rows, job.hold_out, job.recipe.seed)
    job.out.mkdir(parents=True, exist_ok=True)
    splits.write_rows(dev, job.out / "dev.jsonl")
    splits.write_rows(test, job.out / "test.jsonl")
    return rows, dev


def _augmented(row: Labelled, augmentation: Augmentation, draw: random.Random) -> Labelled:
    pair = augmentation.apply(row.text_pair, draw) if row.text_pair else None
    return replace(row, text=augmentation.apply(row.text, draw), text_pair=pair)


def _classifier(job: Job, labels: Sequence[str]) -> AlbertForSequenceClassification:
    names = dict(enumerate(labels))
    changes = {
        "num_labels": len(labels),
        "id2label": names,
        "label2id": {label: number for number, label in names.items()},
        "problem_type": "single_label_classification",
        "classifier_dropout_prob": 0.1,
    }
    torch.manual_seed(job.recipe.seed)  # the head begins at chance
    made: AlbertForSequenceClassification = load(AlbertForSequenceClassification, job.init, changes | _dropout(job))
    return made


def _longest(job: Job, student: Student, default: int) -> int:
    """Tokens in an example.  DataError where the model has no positions for them."""
    longest, positions = job.longest or default, int(student.config.max_position_embeddings)
    if job.longest and not 16 <= longest <= positions:
        raise DataError(f"--max-length {longest}: this model takes 16 to {positions} tokens")
    return min(longest, positions)


def _dropout(job: Job) -> dict[str, float]:
    return {"hidden_dropout_prob": job.dropout, "attention_probs_dropout_prob": 0.0}


def _run(job: Job, student: Student, stream: FeatureStream, dev: Sequence[Feature], lessons: Lessons) -> float:
    if not dev:
        raise DataError("no example is left to stop by: give --dev, or a larger --hold-out")
    teacher = _teacher(job.teacher, student) if job.teacher else None
    per_epoch = math.ceil(stream.batches_per_epoch() / job.recipe.accumulate)
    recipe = replace(job.recipe, steps=max(1, math.ceil(per_epoch * job.epochs)))
    told = report(job, recipe)
    job.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    learner = Learner(student, dev, lessons, teacher.to(device()) if teacher else None).to(device())
    files = [splits.path_of(source) for source in (*job.train, *([job.dev] if job.dev else []))]
    # A teacher that was trained again is another one, whatever its folder is called.
    files += [path for folder in (job.init, job.teacher) if folder for path in weight_files(folder)]
    run = Run(learner, stream, recipe, job.out / "state.pt", identity=identity(told, files))
    progress = run.to_the_end()
    write_checkpoint(student, job.init, job.out, told, progress)
    run.forget()
    return progress.best


def _teacher(folder: Path, student: Student) -> Student:
    teacher = load(type(student), folder, new_head=False)
    theirs, ours = teacher.config, student.config
    if theirs.vocab_size != ours.vocab_size or (
        isinstance(student, AlbertForSequenceClassification) and theirs.id2label != ours.id2label
    ):
        raise CheckpointError(f"{folder} cannot teach this student: its vocabulary or its labels are others")
    return teacher


def report(job: Job, recipe: Recipe) -> dict[str, Any]:
    """What was asked for, for ``training.json`` and the manifest; names without folders, which tell of the machine."""
    told = {"epochs": job.epochs, "longest": job.longest, "dropout": job.dropout} | asdict(recipe)
    taught: dict[str, Any] = {"exits": job.exits}
    taught |= {name: value for name in ("balanced", "unanswerable", "adversarial") if (value := getattr(job, name))}
    if job.teacher:
        taught |= {"teacher": job.teacher.name, "hints": job.hints}
    if job.augmentation:
        taught |= asdict(job.augmentation)
    files = [splits.name(source) for source in job.train]
    held = splits.name(job.dev) if job.dev else f"held out, {job.hold_out:g}"
    return {"init": job.init.name, "files": files, "dev": held, "lessons": taught, "recipe": told}
