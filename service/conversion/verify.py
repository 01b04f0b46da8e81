"""Does the converted model answer as the original?  Compared through the code that will serve.

The original is the Hugging Face PyTorch model, in float32, one sequence at a time.  The converted one runs every
sequence alone, then all of them in mixed batches.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence as Seq
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from ..errors import ParityError, TextTooLong
from ..runtime.reduction import best_words, mean_and_first
from ..serving.attention import attention_by_layer
from ..serving.engine import Engine
from ..tasks.fill_mask import FillMask
from ..tasks.multiple_choice import MultipleChoice
from ..tasks.question_answering import EncodedQuestion, QuestionAnswering
from ..types import Floats, Sequence
from .checkpoint import Checkpoint
from .oracles import compare_ids
from .texts import inputs, pairs

# Largest difference of a logit, as a share of the largest logit of its row (or of 1).  Float32 sums in another order;
# float16 on a GPU rounds every layer's output to eleven bits.
TOLERANCE = {"float32": 5e-4, "float16": 3e-2}
BATCH_TOKENS = 1024
ATTENTION_TOKENS = 64
BODY = ("embeddings.", "encoder.", "pooler.")


def verify(engine: Engine, checkpoint: Checkpoint) -> dict[str, Any]:
    """Compare and report.  ParityError where a logit is off, or a label or a span is another one.

    ``engine`` computes in float32 or float16: eight bits have a gate of their own, a score on real data.
    """
    questions = _questions(engine)
    rows = [row for question in questions for row in question.sequences] if questions else _texts(engine)
    original = _original(checkpoint)
    wanted = [_reference(original, row) for row in tqdm(rows, desc="original", unit=" texts", leave=False)]
    alone = [engine.run([row])[0] for row in tqdm(rows, desc="converted, alone", unit=" texts", leave=False)]
    mixed = _mixed(engine, rows)
    kind = engine.model.device.kind
    texts = list(dict.fromkeys(inputs()))
    report = {
        "device": kind,
        "ids": compare_ids(engine.task.tokenizer, checkpoint.files, texts),
        "tolerance": _tolerance(engine),
        "max_difference_alone": _worst(_values(engine, wanted), _values(engine, alone)),
        "max_difference_in_batches": _worst(_values(engine, wanted), _values(engine, mixed)),
        "sequences": len(rows),
        "longest": max(map(len, rows)),
        "different_answers": _different(engine, questions, wanted, alone)
        + _different(engine, questions, wanted, mixed),
        "compared_with": f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}",
    }
    report |= {"max_difference_of_attention": _attention(engine, original, rows)} if engine.manifest.attention else {}
    _judge(report)
    return report


def difference(engine: Engine, other: Engine) -> float:
    """The largest difference of a logit of ``other``, as in ``verify``; infinite where one is no number."""
    questions = _questions(engine)
    rows = [row for question in questions for row in question.sequences] if questions else _texts(engine)
    wanted, found = ([one.run([row])[0] for row in rows] for one in (engine, other))
    worst = _worst(_values(engine, wanted), _values(engine, found))
    return worst if np.isfinite(worst) else math.inf


def _attention(engine: Engine, original: Any, rows: Seq[Sequence]) -> float:
    """The largest difference of a weight of attention, in the shortest and the longest of the short ``rows``."""
    original.set_attn_implementation("eager")  # the others keep their weights to themselves
    short = sorted((row for row in rows if len(row) <= ATTENTION_TOKENS), key=len)
    worst = 0.0
    for row in (short[0], short[-1]) if short else ():
        layers = attention_by_layer(engine.model, engine.attention(), row, lambda work: work())
        found, wanted = np.stack(list(layers)), _reference_attention(original, row)
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


def _reference_attention(model: torch.nn.Module, row: Sequence) -> Floats:
    """(layers, heads, tokens, tokens)"""
    ids, types = (torch.from_numpy(part.astype(np.int64))[None] for part in (row.ids, row.types))
    with torch.inference_mode():
        body: Any = getattr(model, "albert", model)
        out = body(
            ids, attention_mask=torch.ones_like(ids), token_type_ids=types, return_dict=True, output_attentions=True
        )
    return np.asarray(torch.cat(out.attentions).numpy())


def _tolerance(engine: Engine) -> float:
    return TOLERANCE[
        "float16" if engine.manifest.graphs[engine.model.device.kind].precision == "float16" else "float32"
    ]


def _judge(report: dict[str, Any]) -> None:
    worst = max(report["max_difference_alone"], report["max_difference_in_batches"])
    # The comparison is written so that a NaN fails it.
    if not worst <= report["tolerance"]:
        raise ParityError(
            f"the logits differ by {worst:.2g} of the largest, the tolerance is {report['tolerance']:.2g}: "
            "the converted model is damaged, or the weights are not those of this configuration"
        )
    if not report.get("max_difference_of_attention", 0.0) <= report["tolerance"]:
        raise ParityError(
            f"weights of attention differ by {report['max_difference_of_attention']:.2g}, the tolerance is "
            f"{report['tolerance']:.2g}: the graph that gives attention out is wrong, which is a bug"
        )
    if report["different_answers"]:
        raise ParityError(f"{report['different_answers']} labels or spans differ from the original's")


def _texts(engine: Engine) -> list[Sequence]:
    return [row for encoded in ENCODERS[engine.manifest.task](engine.task) for row in encoded.sequences]


def _classified(task: Any) -> Iterator[Any]:
    yield from map(task.encode, inputs())
    for first, second in pairs():
        yield task.encode(first, second)


def _masked(task: FillMask) -> Iterator[Any]:
    """Every text with its first word masked, the short ones with their last as well."""
    for text in inputs():
        words = text.split()
        masked = [task.mask_token, *words[1:-1], task.mask_token] if 2 < len(words) < 20 else [task.mask_token, *words]
        with contextlib.suppress(TextTooLong):
            yield task.encode(" ".join(masked))


def _chosen(task: MultipleChoice) -> Iterator[Any]:
    for first, second in pairs():
        yield task.encode(first, [second, first], "truncate")


ENCODERS: dict[str, Callable[[Any], Iterable[Any]]] = {
    "text-classification": _classified,
    "token-classification": lambda task: map(task.encode, inputs()),
    "feature-extraction": lambda task: map(task.encode, inputs()),
    "fill-mask": _masked,
    "multiple-choice": _chosen,
}


def _questions(engine: Engine) -> list[EncodedQuestion]:
    task = engine.task
    if not isinstance(task, QuestionAnswering):
        return []
    return [task.encode("Who repaired the clock, and when?", [text]) for text in inputs()]


def _original(checkpoint: Checkpoint) -> Any:
    """From the tensors as they were read: transformers would start one that it knows under another name at chance."""
    body = "" if checkpoint.architecture == "AlbertModel" else "albert."
    state = {f"{body}{name}" if name.startswith(BODY) else name: value for name, value in checkpoint.weights.items()}
    kind = getattr(transformers, checkpoint.architecture)
    config = transformers.AlbertConfig(**asdict(checkpoint.shape), num_labels=len(checkpoint.labels) or 2)
    model = kind.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
    return model.eval()


def _reference(model: torch.nn.Module, row: Sequence) -> Floats:
    """Logits of one row, or its states, as ``Head`` says."""
    ids, types = (torch.from_numpy(part.astype(np.int64))[None] for part in (row.ids, row.types))
    if type(model).__name__ == "AlbertForMultipleChoice":
        ids, types = ids[None], types[None]  # (texts, choices, tokens)
    with torch.inference_mode():
        out = model(ids, attention_mask=torch.ones_like(ids), token_type_ids=types, return_dict=True)
    if "start_logits" in out:
        return np.asarray(torch.stack([out.start_logits[0], out.end_logits[0]], dim=-1).numpy())
    named = next(name for name in ("sop_logits", "logits", "last_hidden_state") if name in out)
    found = np.asarray(out[named][0].numpy())
    if row.masks is not None:
        return best_words(found[row.masks])
    return mean_and_first(found) if "last_hidden_state" in out else found


def _mixed(engine: Engine, rows: Seq[Sequence]) -> list[Floats]:
    """All rows in batches of neighbours that have nothing in common but the step."""
    order = np.random.default_rng(0).permutation(len(rows))
    results: dict[int, Floats] = {}
    batch: list[int] = []
    for position, index in enumerate(order):
        batch.append(int(index))
        if sum(len(rows[i]) for i in batch) >= BATCH_TOKENS or position == len(order) - 1:
            results |= dict(zip(batch, engine.run([rows[i] for i in batch]), strict=True))
            batch = []
    return [results[index] for index in range(len(rows))]


def _values(engine: Engine, rows: Seq[Floats]) -> Seq[Floats]:
    """Without the ids of words, of which two that are as likely may change places."""
    if engine.manifest.task != "fill-mask":
        return rows
    return [np.concatenate([row[:, : row.shape[1] // 2], row[:, -1:]], axis=1) for row in rows]


def _worst(wanted: Seq[Floats], found: Seq[Floats]) -> float:
    shares = [
        float(np.abs(found_row - row).max()) / max(1.0, float(np.abs(row).max()))
        for row, found_row in zip(wanted, found, strict=True)
    ]
    return float(np.max(shares))


def _different(engine: Engine, questions: Seq[EncodedQuestion], wanted: Seq[Floats], found: Seq[Floats]) -> int:
    """How many labels, or spans, are not the same; a tie within the tolerance may fall either way."""
    task, slack = engine.task, _tolerance(engine)
    if isinstance(task, QuestionAnswering):
        return _different_spans(task, questions, wanted, found)
    if engine.manifest.task == "feature-extraction":
        return 0  # vectors have no best one
    if engine.manifest.task == "fill-mask":
        return sum(_other_words(row, found_row, slack) for row, found_row in zip(wanted, found, strict=True))
    different = 0
    for row, found_row in zip(wanted, found, strict=True):
        for one, other in zip(np.atleast_2d(row), np.atleast_2d(found_row), strict=True):
            margin = float(one[one.argmax()] - one[other.argmax()])
            different += margin > slack * max(1.0, float(np.abs(one).max()))
    return different


def _other_words(wanted: Floats, found: Floats, slack: float) -> int:
    """For how many masks of a row another word is best, and by more than a tie."""
    kept, different = wanted.shape[1] // 2, 0
    for one, other in zip(wanted, found, strict=True):
        same = np.flatnonzero(one[kept:-1] == other[kept])
        margin = float(one[0] - one[same[0]]) if len(same) else float("inf")
        different += margin > slack * max(1.0, float(np.abs(one[:kept]).max()))
    return different


def _different_spans(
    task: QuestionAnswering, questions: Seq[EncodedQuestion], wanted: Seq[Floats], found: Seq[Floats]
) -> int:
    different, position = 0, 0
    for question in questions:
        rows = slice(position, position + len(question.windows))
        position = rows.stop
        best, second = (task.decode(question, logits[rows], top_k=2).answers for logits in (wanted, found))
        tie = len(best) > 1 and best[0].score - best[1].score < 0.01
        different += not tie and (best[0].start, best[0].end) != (second[0].start, second[0].end)
    return different
