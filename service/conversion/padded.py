"""A checkpoint as one padded model: traced, written as ONNX, and compared with the checkpoint.

Three int64 tensors of (batch, sequence) go in: ``input_ids``, ``attention_mask`` (0 at padding) and
``token_type_ids``, with any batch and 1 to ``max_position_embeddings`` tokens.  A classifier answers ``logits`` (batch,
labels), a reader ``start_logits`` and ``end_logits`` (batch, sequence).  Weights and results are float32.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import transformers
from onnx_ir.passes import common
from torch import Tensor

from ..errors import CheckpointError, ParityError, ServiceError
from ..runtime.providers import choose
from .checkpoint import Checkpoint
from .files import first_line

Array = npt.NDArray[Any]
Run = Callable[[dict[str, Array]], list[Array]]  # one padded batch by the names of its inputs -> its outputs

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Largest difference of a logit, as a share of the largest logit of its sequence (or of 1).
TOLERANCE = 1e-4
OUTPUTS = {"question-answering": ["start_logits", "end_logits"], "feature-extraction": ["last_hidden_state"]}
# Opset 18 has all that ALBERT needs, and IR version 8 came out with it: runtimes since the end of 2022 read both.
OPSET, IR_VERSION = 18, 8


@dataclass(frozen=True, slots=True)
class Original:
    """The checkpoint and its Hugging Face model (a ``PreTrainedModel``), in float32."""

    checkpoint: Checkpoint
    model: Any

    @property
    def outputs(self) -> list[str]:
        return OUTPUTS.get(self.checkpoint.task, ["logits"])

    @property
    def dimensions(self) -> list[int]:
        """Of one sequence's output, -1 for its length."""
        checkpoint, shape = self.checkpoint, self.checkpoint.shape
        by_token = {
            "question-answering": [-1], "token-classification": [-1, len(checkpoint.labels)],
            "fill-mask": [-1, shape.vocab_size], "feature-extraction": [-1, shape.hidden_size],
        }  # fmt: skip
        return by_token.get(checkpoint.task, [len(checkpoint.labels)])


class PaddedModel(torch.nn.Module):
    """What is exported: three integer tensors of (batch, sequence) in, the logits out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        # (batch, 1, 1, sequence).  transformers adds a mask of four dimensions as it is; from one of two it would
        # trace gathers and ranges that not every runtime has.
        padding = (attention_mask[:, None, None, :] == 0).float() * torch.finfo(torch.float32).min
        return _logits(self.model(input_ids=input_ids, attention_mask=padding, token_type_ids=token_type_ids))


def open_original(checkpoint: Checkpoint) -> Original:
    """The Hugging Face model of ``checkpoint``.  CheckpointError where a weight is missing, or the task has no such
    form: choices are a dimension more."""
    if checkpoint.task == "multiple-choice":
        raise CheckpointError("a model of choices is exported as a checkpoint only (--format checkpoint)")
    shape = transformers.AlbertConfig(**asdict(checkpoint.shape), num_labels=len(checkpoint.labels) or 2)
    model = getattr(transformers, checkpoint.architecture)(shape)
    if checkpoint.architecture == "AlbertForPreTraining":
        model.predictions = torch.nn.Identity()  # serving needs the sentence order only
    if checkpoint.task == "fill-mask":
        model.tie_weights()
    heads = tuple(name for name, _ in model.named_children() if name != "albert")
    body = "" if checkpoint.architecture == "AlbertModel" else "albert."
    named = {name if name.startswith(heads) else body + name: value for name, value in checkpoint.weights.items()}
    # What is missing would be random numbers, and the result would agree with them; these are not read, or tied.
    unread = set() if body else {"pooler.weight", "pooler.bias"}
    unread |= {"predictions.decoder.weight", "predictions.decoder.bias"}
    if missing := sorted(set(model.load_state_dict(named, strict=False).missing_keys) - unread):
        raise CheckpointError(f"{checkpoint.folder}: the weights hold no {missing[0]}")
    return Original(checkpoint, model.eval())


def _logits(answer: Any) -> tuple[Tensor, ...]:
    if "start_logits" in answer:
        return answer.start_logits, answer.end_logits
    return (next(answer[name] for name in ("sop_logits", "logits", "last_hidden_state") if name in answer),)


def program(original: Original, attention: str) -> torch.export.ExportedProgram:
    """Trace the model with any batch and any length; ``attention`` is transformers' name of an implementation."""
    original.model.set_attn_implementation(attention)
    longest = original.checkpoint.shape.max_position_embeddings
    dims = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1, max=longest)}
    # Two rows of several tokens: a dimension of 1 would be taken for a constant.
    example = {name: torch.zeros(2, min(5, longest), dtype=torch.int64) for name in INPUTS}
    module, shapes = PaddedModel(original.model), dict.fromkeys(INPUTS, dims)
    with torch.no_grad():
        program = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # they name files of this machine
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(key, None)
    return program


def write_onnx(original: Original, path: Path) -> dict[str, Any]:
    """Write the model as one file, run it, and report as ``compare`` does."""
    wanted: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "output_names": original.outputs}
    names = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    with exporter():
        traced = program(original, attention="eager")
        exported = torch.onnx.export(traced, dynamic_shapes=names, optimize=False, verbose=False, **wanted)
        assert exported is not None
        # Every layer transposes the shared weights.  Merged first, they are folded once; else once for each layer.
        common.CommonSubexpressionEliminationPass()(exported.model)
        exported.optimize()
        common.ClearMetadataAndDocStringPass()(exported.model)
        exported.model.ir_version = IR_VERSION
        exported.save(path, external_data=False)
        session = onnxruntime.InferenceSession(path, providers=choose("cpu").providers)
        return compare(original, partial(session.run, None), path, f"through onnxruntime {onnxruntime.__version__}")


@contextlib.contextmanager
def exporter() -> Iterator[None]:
    """Keep torch's remarks about its own code off the terminal; CheckpointError where exporter or runtime fails."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ServiceError, ImportError, OSError):
        raise
    except Exception as error:  # they have many kinds; each means the same here
        raise CheckpointError(f"the model cannot be exported: {first_line(error)}") from error
    finally:
        log.setLevel(level)


def run_torch(module: torch.nn.Module, batch: dict[str, Array]) -> list[Array]:
    """A batch through a program that was loaded."""
    with torch.inference_mode():
        outputs = module(**{name: torch.from_numpy(values) for name, values in batch.items()})
    return [output.numpy() for output in outputs]


def compare(original: Original, run: Run, path: Path, through: str) -> dict[str, Any]:
    """Padded batches through ``run`` against the original, one sequence at a time.  ParityError where they differ."""
    longest = original.checkpoint.shape.max_position_embeddings
    batches = [[1], [longest], [1, 1, 1], [2, 1, 7, 16], [longest // 2, 3, longest, longest // 3, 1]]  # of lengths
    worst = float(np.max([_difference(original, run, np.clip(batch, 1, longest)) for batch in batches]))
    if not worst <= TOLERANCE:  # written so that a NaN fails
        raise ParityError(
            f"the logits of {path.name} differ by {worst:.2g} of the largest, the tolerance is {TOLERANCE:.2g}: "
            "the weights hold values that are not numbers, or are far outside the range of a trained model"
        )
    reference = f"transformers {transformers.__version__}, torch {torch.__version__}, {through}"
    return {"max_difference": worst, "bytes": path.stat().st_size, "compared_with": reference}


def _difference(original: Original, run: Run, lengths: Array) -> float:
    """The largest difference in one batch of random sequences, as a share of the largest logit of its sequence."""
    shape, random = original.checkpoint.shape, np.random.default_rng(0)
    batch = {name: np.zeros((len(lengths), lengths.max()), dtype=np.int64) for name in INPUTS}
    for row, length in enumerate(lengths):
        batch["input_ids"][row, :length] = random.integers(shape.vocab_size, size=length)
        batch["attention_mask"][row, :length] = 1
        # Pairs: the second text fills the rest.
        batch["token_type_ids"][row, length // 2 : length] = min(1, shape.type_vocab_size - 1)
    found, worst = run(batch), [0.0]
    for row, length in enumerate(lengths):
        alone = {name: torch.from_numpy(values[row : row + 1, :length]) for name, values in batch.items()}
        with torch.inference_mode():
            wanted = [output[0].numpy() for output in _logits(original.model(**alone))]
        # A reader's outputs run over the batch's padding: only the sequence's own are compared.
        parts = [output[row, : len(logits)] for output, logits in zip(found, wanted, strict=True)]
        worst.append(np.max(np.abs(np.subtract(parts, wanted))) / max(1.0, np.max(np.abs(wanted))))
    return float(np.max(worst))  # NaN where one of them is
