"""One training run from files to a checkpoint that ``convert`` takes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AlbertConfig, AlbertForQuestionAnswering, AlbertForSequenceClassification

from service.errors import DataError
from service.tasks.text import Tokenizer
from service.training.datasets import Question, read_labelled, read_questions
from service.training.features import labelled_features, question_features
from service.training.finetune import Recipe, finetune, label_accuracy, label_loss, span_loss, span_overlap


def train_classifier(init: Path, train: Path, dev: Path, out: Path, recipe: Recipe, longest: int = 256) -> float:
    """Fine-tune the ALBERT in ``init`` on labelled rows; write the best step to ``out``; return its dev accuracy."""
    rows, dev_rows = read_labelled(train), read_labelled(dev)
    labels = sorted({row.label for row in rows})
    tokenizer = Tokenizer.from_file(init / "tokenizer.json")
    torch.manual_seed(recipe.seed)
    names = dict(enumerate(labels))
    config = AlbertConfig.from_pretrained(init, num_labels=len(labels), id2label=names, classifier_dropout_prob=0.1)
    config.label2id = {label: number for number, label in names.items()}
    config.problem_type = "single_label_classification"
    model = AlbertForSequenceClassification.from_pretrained(init, config=config, attn_implementation="sdpa")
    features, held = (labelled_features(part, tokenizer, labels, longest) for part in (rows, dev_rows))
    out.mkdir(parents=True, exist_ok=True)
    device = _device()
    progress = finetune(model.to(device), label_loss, label_accuracy, features, held, recipe, out / "state.pt")
    _write(model, init, out, recipe, progress.best, [train, dev])
    return progress.best


def train_reader(init: Path, train: Path, out: Path, recipe: Recipe, longest: int = 192) -> float:
    """Fine-tune the ALBERT in ``init`` on questions; write the best step to ``out``; return its held-out token F1.

    Every fiftieth article of ``train`` is held out to stop by, so that no dev file is touched.
    """
    learnt, held = hold_out(read_questions(train), every=50)
    tokenizer = Tokenizer.from_file(init / "tokenizer.json")
    torch.manual_seed(recipe.seed)
    config = AlbertConfig.from_pretrained(init, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
    model = AlbertForQuestionAnswering.from_pretrained(init, config=config, attn_implementation="sdpa")
    features = question_features(learnt, tokenizer, longest, recipe.seed)
    held_features = question_features(held, tokenizer, 256, recipe.seed, unanswerable=0.0)
    out.mkdir(parents=True, exist_ok=True)
    progress = finetune(model.to(_device()), span_loss, span_overlap, features, held_features, recipe, out / "state.pt")
    _write(model, init, out, recipe, progress.best, [train])
    return progress.best


def hold_out(questions: Sequence[Question], every: int) -> tuple[list[Question], list[Question]]:
    """Split by article: questions on one article never stand on both sides."""
    titles = sorted({question.title for question in questions})
    kept = set(titles[::every])
    learnt = [question for question in questions if question.title not in kept]
    if not learnt:
        raise DataError("all questions are on one article: a second article is wanted, to stop by")
    return learnt, [question for question in questions if question.title in kept]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write(
    model: AlbertForSequenceClassification | AlbertForQuestionAnswering, init: Path, out: Path, recipe: Recipe,
    score: float, files: Sequence[Path],
) -> None:  # fmt: skip
    """Weights go out in half precision: what is verified, published and served is then one and the same."""
    model.to("cpu").half().save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(init / name, out / name)
    training = {field: getattr(recipe, field) for field in recipe.__dataclass_fields__}
    report = {"files": [file.name for file in files], "recipe": training, "held_out_score": round(score, 4)}
    (out / "training.json").write_text(json.dumps(report, indent=1))
