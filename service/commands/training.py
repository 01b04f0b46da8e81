"""``train``, ``pretrain`` and ``split``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import QualityError, UsageError
from .converting import add_publishing, check_files, check_publishing, publish
from .numbers import above_zero, chance, count, from_zero, not_negative, part, share
from .starting import check_apart, preparing, shape_flags, shape_of

if TYPE_CHECKING:
    from ..training.finetune import Recipe
    from ..training.run import Job

TASKS = ("text-classification", "question-answering")


def add_train(parser: argparse.ArgumentParser) -> None:
    source = "FILE[:K/N]"
    parser.add_argument("--task", choices=TASKS, required=True, help="what it learns to do")
    parser.add_argument(
        "--init", required=True, help="ALBERT checkpoint to start from: a folder or a hub id, as convert"
    )
    parser.add_argument("--train", action="append", required=True, metavar=source, help="examples to learn from")
    parser.add_argument("--dev", metavar=source, help="examples to stop by; without it some are held out")
    parser.add_argument("--hold-out", type=part, default=0.1, help="the share that is held out then [0.1]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint; a killed run goes on")
    parser.add_argument("--epochs", type=above_zero, default=2.0, help="passes over the examples [2.0]")
    parser.add_argument("--max-length", type=count, help="longest example in tokens [256 texts, 192 questions]")
    parser.add_argument("--dropout", type=chance, default=0.1, help="chance of a value to be zeroed [0.1]")
    parser.add_argument("--class-weights", choices=("none", "balanced"), default="none", help="for rare labels [none]")
    parser.add_argument("--word-dropout", type=chance, default=0.0, help="chance of a word to be left out [0]")
    parser.add_argument("--word-swap", type=share, default=0.0, help="chance of a word to change places [0]")
    parser.add_argument(
        "--unanswerable", type=not_negative, default=0.0, help="questions on other paragraphs, a share [0]"
    )
    parser.add_argument("--exits", action="store_true", help="teach the head at every depth", dest="teach_exits")
    parser.add_argument("--teacher", help="a fine-tuned checkpoint to distil from, as --init")
    norm = "move word embeddings so far against it, each batch a second time: such as 1 [0]"
    parser.add_argument("--adversarial", type=not_negative, default=0.0, metavar="NORM", help=norm)
    parser.add_argument("--hints", type=not_negative, default=1.0, help="weight of the teacher's hidden states [1]")
    _recipe_flags(parser, batch_tokens=2048, learning_rate=5e-5)
    parser.add_argument("--publish", metavar="NAME", help="convert the result into the repository; see convert")
    parser.set_defaults(run=_train)
    publishing = parser.add_argument_group("with --publish")
    _add_publishing(publishing, parser)


def _add_publishing(group: argparse._ArgumentGroup, parser: argparse.ArgumentParser) -> None:
    """convert's own flags, but --exits, which is a switch here: with --publish the policy is chosen on --exits-on."""
    other = argparse.ArgumentParser(add_help=False)
    add_publishing(other)
    for action in other._actions:
        if action.dest == "exits":
            group.add_argument("--exits-on", dest="exits", metavar="FILE[:K/N]", help=action.help)
        elif action.dest != "task":
            group._add_action(action)


def _recipe_flags(parser: argparse.ArgumentParser, *, batch_tokens: int, learning_rate: float) -> None:
    rate, tokens = f"at its highest [{learning_rate:g}]", f"padded tokens in a batch [{batch_tokens}]"
    parser.add_argument("--learning-rate", type=above_zero, default=learning_rate, help=rate)
    parser.add_argument("--batch-tokens", type=count, default=batch_tokens, help=tokens)
    parser.add_argument("--accumulate", type=count, default=1, help="batches to a step [1]")
    parser.add_argument("--minutes", type=above_zero, help="end after so long [train: never, pretrain: 20]")
    parser.add_argument("--warmup", type=chance, default=0.06, help="share of the run [0.06]")
    parser.add_argument("--weight-decay", type=not_negative, default=0.01, help="share of the rate [0.01]")
    parser.add_argument("--evaluations", type=count, default=8, help="on the held-out examples [8]")
    parser.add_argument("--patience", type=count, default=3, help="evaluations without a better score [3]")
    parser.add_argument("--seed", type=from_zero, default=13, help="of the random numbers [13]")


def _recipe(options: argparse.Namespace) -> "Recipe":
    from ..training.finetune import Recipe

    names = (
        "minutes", "learning_rate", "batch_tokens", "accumulate", "warmup", "weight_decay", "evaluations", "patience",
        "seed",
    )  # fmt: skip
    return Recipe(**{name: getattr(options, name) for name in names})


def _train(options: argparse.Namespace) -> int:
    with preparing() as prepared:
        _check_out(options)
        init, teacher = prepared(options.init), prepared(options.teacher) if options.teacher else None
        if options.publish:
            _check(options, init)
        return _trained(options, _job(options, init, teacher))


def _check_out(options: argparse.Namespace) -> None:
    """Nothing that is read is written over; what only --publish does is not asked for without it."""
    from ..training.splits import check_not_written

    check_apart(options.out, options.init, *([options.teacher] if options.teacher else []))
    if not options.dev and options.task != "question-answering":
        check_not_written(options.train, [options.out / "dev.jsonl", options.out / "test.jsonl"])
    flags = {"--gate": options.gate, "--calibrate": options.calibrate, "--evaluate": options.evaluate}
    flags["--ranges"] = options.ranges
    given = [flag for flag, value in (flags | {"--exits-on": options.exits}).items() if value]
    if given and not options.publish:
        raise UsageError(f"{given[0]} is a part of publishing: give --publish NAME as well")


def _trained(options: argparse.Namespace, job: "Job") -> int:
    from ..training.run import train_classifier, train_reader

    done = train_reader(job) if options.task == "question-answering" else train_classifier(job)
    print(f"best score {done.score:.4f}; checkpoint in {options.out}, curves in {options.out / 'curves.png'}")
    if done.learnt_nothing:
        told = f"it is no better than always saying the commonest label ({done.commonest:.4f})"
        if options.publish:
            raise QualityError(f"{options.out}: {told}, so it is not published; the checkpoint stays there")
        print(f"{told}: try another learning rate, more epochs, or --class-weights balanced", file=sys.stderr)
    return publish(str(options.out), options.publish, options) if options.publish else 0


def _check(options: argparse.Namespace, init: Path) -> None:
    """What --publish would say of its flags when the training is over, said before it."""
    from ..conversion.checkpoint import read_config
    from ..conversion.pipeline import windows
    from ..conversion.shape import read_shape
    from ..training import splits

    check_publishing(options.publish, options)
    longest = read_shape(*read_config(init)).max_position_embeddings
    windows(options.task, longest, options.window, options.overlap)
    reading = options.task == "question-answering"
    labels = set() if reading else {row.label for source in options.train for row in splits.labelled(source)}
    held_out = () if reading or options.dev else [options.out / name for name in ("dev.jsonl", "test.jsonl")]
    check_files(options, options.task, sorted(labels), held_out)


def _job(options: argparse.Namespace, init: Path, teacher: Path | None) -> "Job":
    from ..training.augment import Augmentation
    from ..training.run import Job

    return Job(
        init=init,
        train=options.train,
        out=options.out,
        dev=options.dev,
        hold_out=options.hold_out,
        epochs=options.epochs,
        longest=options.max_length,
        dropout=options.dropout,
        teacher=teacher,
        exits=options.teach_exits,
        hints=options.hints,
        adversarial=options.adversarial,
        balanced=options.class_weights == "balanced",
        unanswerable=options.unanswerable,
        augmentation=Augmentation(options.word_dropout, options.word_swap),
        recipe=_recipe(options),
    )


def add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", type=Path, nargs="+", help="plain text: a paragraph a line, an empty line between documents"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; a killed run goes on there")
    parser.add_argument("--init", help="go on from this checkpoint, with its vocabulary and shape; a folder or hub id")
    parser.add_argument("--length", type=int, default=256, help="tokens in a sequence [256]")
    parser.add_argument(
        "--masked", type=chance, default=0.15, help="share of the words; 0 learns the order only [0.15]"
    )
    parser.add_argument(
        "--pairs", type=from_zero, default=0, help="write so many of the text to train.jsonl, for train"
    )
    parser.add_argument("--max-tokens", type=above_zero, default=60e6, help="of text that is read [60e6]")
    parser.add_argument(
        "--steps", type=count, default=1_000_000, help="end after so many, if not by --minutes before [1000000]"
    )
    shape_flags(parser)
    _recipe_flags(parser, batch_tokens=4096, learning_rate=1e-3)
    parser.set_defaults(run=_pretrain, minutes=20.0, patience=1_000, evaluations=10)


def _pretrain(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from ..training.pretrain import Plan, pretrain

    recipe = replace(_recipe(options), steps=options.steps)
    if options.init:
        check_apart(options.out, options.init)
    with preparing() as prepared:
        plan = Plan(
            options.texts,
            options.out,
            prepared(options.init) if options.init else None,
            shape_of(options),
            options.length,
            options.masked,
            int(options.max_tokens),
            options.pairs,
            recipe,
        )
        found = pretrain(plan)
    print(", ".join(f"held-out {name} {value}" for name, value in found.items()))
    print(f"checkpoint in {options.out}, curves in {options.out / 'curves.png'}")
    return 0


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE[:K/N]", help="labelled texts")
    parser.add_argument("--hold-out", type=part, default=0.2, help="share of dev and test together [0.2]")
    parser.add_argument("--seed", type=from_zero, default=13, help="of the random numbers [13]")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl, dev.jsonl and test.jsonl")
    parser.set_defaults(run=_split)


def _split(options: argparse.Namespace) -> int:
    from ..training import splits

    names = ("train", "dev", "test")
    splits.check_not_written([options.source], [options.out / f"{name}.jsonl" for name in names])
    parts = splits.hold_out_rows(splits.labelled(options.source), options.hold_out, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(names, parts, strict=True):
        splits.write_rows(rows, options.out / f"{name}.jsonl")
        print(f"{options.out / name}.jsonl: {len(rows)} rows")
    return 0
