"""Checkpoints to start from: ``new-model``, ``shrink-bert``, ``share-layer``; and any other, in training's form."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .numbers import count, from_zero

if TYPE_CHECKING:
    from ..training.pretrain import Shape


@contextlib.contextmanager
def preparing() -> Iterator[Callable[[str], Path]]:
    """Gives a checkpoint, named by its folder or hub id, in the form that training loads, as long as it is needed."""
    from ..conversion.initial import prepare

    with tempfile.TemporaryDirectory() as folder:
        yield lambda source: prepare(source, Path(tempfile.mkdtemp(dir=folder)))


def check_apart(out: Path, *sources: str) -> None:
    """UsageError where ``out`` is a checkpoint that is read: writing there would destroy it."""
    for source in sources:
        if Path(source).resolve() == out.resolve():
            raise UsageError(f"{source} is read, and would be written over: give another folder with --out")


def shape_flags(parser: argparse.ArgumentParser) -> None:
    shape = parser.add_argument_group("a model from scratch")
    for flag, default, told in (
        ("--vocab-size", 10_000, "pieces of words"),
        ("--embedding-size", 128, "of a piece, before it is widened"),
        ("--hidden-size", 512, "of a token between layers"),
        ("--num-hidden-layers", 12, "how often the shared layer runs"),
        ("--num-attention-heads", 8, "they share the hidden size"),
        ("--intermediate-size", 2048, "of the feed-forward part"),
    ):
        shape.add_argument(flag, type=count, default=default, help=f"{told} [{default}]")


def shape_of(options: argparse.Namespace) -> "Shape":
    from dataclasses import fields

    from ..training.pretrain import Shape

    return Shape(**{field.name: getattr(options, field.name) for field in fields(Shape)})


def add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--word-pieces", type=Path, required=True, metavar="VOCAB", help="BERT's kind of vocab.txt")
    parser.add_argument(
        "--texts", type=Path, action="append", required=True, metavar="FILE", help="decide the vocabulary"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--seed", type=from_zero, default=13, help="of the random weights [13]")
    shape_flags(parser)
    parser.set_defaults(run=_new)


def _new(options: argparse.Namespace) -> int:
    from ..training.datasets import texts_of
    from ..training.scratch import from_scratch

    from_scratch(options.word_pieces, texts_of(options.texts), shape_of(options), options.out, options.seed)
    print(options.out)
    return 0


def add_shrink(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bert", type=Path, help="folder of a post-norm BERT with word pieces")
    parser.add_argument(
        "--texts", type=Path, action="append", required=True, metavar="FILE", help="decide the vocabulary"
    )
    parser.add_argument("--vocabulary", type=count, default=10_240, help="word pieces that stay [10240]")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.set_defaults(run=_shrink)


def _shrink(options: argparse.Namespace) -> int:
    from ..training.bert import from_bert
    from ..training.datasets import texts_of

    check_apart(options.out, str(options.bert))
    from_bert(options.bert, texts_of(options.texts), options.vocabulary, options.out)
    return 0


def add_share(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="an ALBERT checkpoint: a folder or a hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder of the student")
    parser.add_argument("--group", type=from_zero, default=2, help="the group whose layer is shared by all, from 0 [2]")
    parser.add_argument("--layers", type=count, help="how often it runs [as many layers as the source has]")
    parser.add_argument("--embedding-size", type=count, help="narrower embeddings")
    parser.set_defaults(run=_share)


def _share(options: argparse.Namespace) -> int:
    from ..training.share import Form, share_layer

    check_apart(options.out, options.source)
    with preparing() as prepared:
        share_layer(prepared(options.source), options.out, Form(options.group, options.layers, options.embedding_size))
    print(options.out)
    return 0
