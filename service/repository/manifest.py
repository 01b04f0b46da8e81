"""``manifest.json``: all that is known of one version of a model.  Read at load, written once, never changed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..heads import TASKS

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A plain name in the version's own folder: a manifest must not reach outside it.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerFacts(_Part):
    file: FileName = "tokenizer.json"
    cls_token: str = "[CLS]"
    sep_token: str = "[SEP]"
    mask_token: str | None = None


class Graphs(_Part):
    """The graphs for one kind of device, and the precision that they compute in.

    Beside int8, ``float32_layers`` are the same layers in float32: what other devices are compared with.  Its weights
    have ``weight_bits``: products of seven are exact on every processor, those of eight where there is VNNI.

    The layers are one graph of any number of them, ``layers``, or, on CUDA, one for each of some numbers, ``unrolled``,
    whose weights ``tensors`` gives out.
    """

    precision: Literal["float32", "float16", "int8"]
    weight_bits: Literal[7, 8] = 8
    embed: FileName
    head: FileName
    layers: FileName | None = None
    float32_layers: FileName | None = None
    tensors: FileName | None = None
    unrolled: dict[int, FileName] = {}

    def files(self) -> list[str]:
        given = (self.embed, self.layers, self.head, self.float32_layers, self.tensors, *self.unrolled.values())
        return [name for name in given if name is not None]

    @model_validator(mode="after")
    def _layered(self) -> "Graphs":
        if self.layers is None and (self.tensors is None or 1 not in self.unrolled):
            raise ValueError("wanted layers, or tensors and unrolled with a graph of 1 layer")
        return self


class Exits(_Part):
    """The rule by which a sequence may leave before the last layer (``tasks/exits.py``), and its measured cost.

    ``mean_depth`` is in layers, weighted by tokens; ``lost`` in points of the score that ``data`` was measured with.
    """

    kind: Literal["confidence", "window"]
    threshold: float = Field(ge=0, le=1)
    first: int = Field(ge=1)
    window: int = Field(ge=1)
    mean_depth: float
    lost: float
    data: str


class Manifest(_Part):
    """Facts under the names of Hugging Face's configurations where it has them; lengths in tokens."""

    format: Literal[1] = 1
    name: str
    version: int = Field(ge=1)
    task: str
    labels: list[str] = []
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = None
    max_length: int = Field(ge=8)  # the longest sequence that the model can see
    window: int = Field(ge=8)  # the length of the windows that a long text is cut into
    overlap: int = Field(default=0, ge=0)  # tokens that neighbouring windows of a document share
    layers: int = Field(ge=1)
    architecture: dict[str, Any]
    tokenizer: TokenizerFacts = TokenizerFacts()
    graphs: dict[Literal["cpu", "cuda"], Graphs]
    attention: FileName | None = None  # the graph that gives attention out; versions of before have none
    sha256: dict[FileName, Sha256]  # of every file that serving reads
    temperature: float = Field(default=1.0, gt=0)  # logits are divided by it
    evidence: float = Field(default=0.0, ge=0, le=1)  # a text's logits are multiplied by (tokens / window) to this
    exponent: float = Field(default=1.0, ge=1)  # of an answer's score, and the two of "no answer": tasks/confidence.py
    no_answer_scale: float = Field(default=1.0, gt=0)
    no_answer_shift: float = 0.0
    calibration: dict[str, Any] = {}  # how those above were fitted
    exits: Exits | None = None  # None: every sequence runs through all layers
    pooling: Literal["mean", "cls"] | None = None  # of a model of vectors: how a row's states become one
    parity: dict[str, Any] = {}
    precision: dict[str, Any] = {}  # the gate of a lower precision: both scores, and what each costs
    quality: dict[str, Any] = {}
    provenance: dict[str, Any] = {}

    @field_validator("task")
    @classmethod
    def _known(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"none of {', '.join(TASKS)}")
        return task

    @model_validator(mode="before")
    @classmethod
    def _older(cls, facts: Any) -> Any:
        """Versions of before had a lead in logits above which there was no answer: the same decision, as a shift."""
        if isinstance(facts, dict) and isinstance(threshold := facts.get("no_answer_threshold"), int | float):
            kept = {name: value for name, value in facts.items() if name != "no_answer_threshold"}
            return {"no_answer_shift": -threshold} | kept
        return facts

    @model_validator(mode="after")
    def _whole(self) -> "Manifest":
        unsummed = self.named_files() - self.sha256.keys()
        if unsummed:
            raise ValueError(f"no checksum for {', '.join(sorted(unsummed))}")
        if self.task == "text-classification" and (not self.labels or self.problem_type is None):
            raise ValueError("a classifier needs labels and a problem_type")
        if TASKS[self.task].labelled and not self.labels:
            raise ValueError(f"a model for {self.task} needs labels")
        if self.window > self.max_length or self.overlap >= self.window:
            raise ValueError("wanted overlap < window <= max_length")
        return self

    def named_files(self) -> set[str]:
        """All but the files of weights, which the graphs name."""
        graphs = {name for one in self.graphs.values() for name in one.files()}
        return graphs | {self.tokenizer.file} | ({self.attention} if self.attention else set())
