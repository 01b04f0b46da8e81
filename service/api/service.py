"""What the routes share: the service's parts, whether it is ready, and what a request would cost."""

import time
from collections import deque
from dataclasses import dataclass, field

from ..documents.reader import DocumentReader
from ..errors import TooLarge
from ..heads import TASKS, TaskFacts
from ..metrics import Metrics
from ..serving.aside import Aside
from ..serving.cost import quantile
from ..serving.encoding import EncodingStage
from ..serving.engine import Task
from ..serving.registry import Registry
from ..serving.reuse import Reuse
from ..settings import Settings
from ..tasks.classification import Classification
from ..tasks.embedding import Embedding
from ..tasks.fill_mask import FillMask
from ..tasks.multiple_choice import MultipleChoice
from ..tasks.question_answering import QuestionAnswering
from ..tasks.token_classification import TokenClassification
from .body import BodyLimits
from .computing import ComputingDevice, Submit
from .lifecycle import Lifecycle

KINDS: dict[type[Task], TaskFacts] = {
    Classification: TASKS["text-classification"], QuestionAnswering: TASKS["question-answering"],
    TokenClassification: TASKS["token-classification"], FillMask: TASKS["fill-mask"],
    Embedding: TASKS["feature-extraction"], MultipleChoice: TASKS["multiple-choice"],
}  # fmt: skip
# Whose model's cost is a guess at a body of some size, before there was one.
PRICED: dict[str, type[Task]] = {facts.route: kind for kind, facts in KINDS.items()} | {"/summarize": Embedding}
BYTES_A_TOKEN = 4  # of JSON with English text, rather less than more: the first burst must not be promised too much
REMEMBERED = 64  # requests that say what a size costs


@dataclass(slots=True)
class SizePrice:
    """Seconds of device time by the size of a body, from a route's last requests: what a head tells of a request."""

    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def observe(self, size: int, seconds: float) -> None:
        self._recent.append((size, seconds))

    def seconds(self, size: int) -> float | None:
        """None before the first.

        What bodies of about that size took; of one that is larger than all, what the largest took and no more: a text
        may be cut, and then costs what its model can see.
        """
        alike = [seconds for other, seconds in self._recent if size <= 2 * other <= 4 * size]
        smaller = [seconds for other, seconds in self._recent if other < size]
        return quantile(alike, 0.5) if alike else max(smaller, default=None)


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    metrics: Metrics
    registry: Registry
    device: ComputingDevice
    submit: Submit
    encoding: EncodingStage
    aside: Aside
    files: DocumentReader
    life: Lifecycle
    bodies: BodyLimits
    reuse: Reuse
    prices: dict[str, SizePrice] = field(default_factory=dict)

    def check_text(self, text: str) -> None:
        if len(text) > self.settings.max_text_chars:
            raise TooLarge(
                f"a text of {len(text)} code points; at most {self.settings.max_text_chars} are taken "
                "(max_text_chars): send it in parts"
            )

    def not_ready_reason(self) -> str:
        """Why the service is not ready; empty where it is."""
        if self.life.ending:
            return f"the service is {self.life.state}"
        if self.device.down:
            return self.device.down
        if not self.registry.synced:
            return "the models are being loaded"
        loaded = {engine.ref.name for engine in self.registry.engines() if engine.available}
        missing = [name for name in self._required() if name not in loaded]
        if missing:
            return f"required models are not loaded: {', '.join(missing)} (required_models)"
        return ""

    def may_be_files(self, route: str, seconds: float, deadline: float) -> bool:
        """Text of this size could never be answered in time: it is files, or is refused once it is seen."""
        return route == "/qa" and seconds > deadline - time.monotonic() > 0

    def task_of(self, name: str) -> type[Task] | None:
        """What the model ``name`` does; None where it is not loaded."""
        return next((type(engine.task) for engine in self.registry.named(name)), None)

    def priced_as(self, name: str, otherwise: str) -> str:
        """The route whose requests say what one to the model ``name`` costs."""
        task = self.task_of(name)
        return otherwise if task is None else KINDS[task].route

    def default_model(self, task: type[Task]) -> str:
        """The model of a request that names none: the one in the settings, or the only one that does ``task``."""
        setting = KINDS[task].setting
        name: str = getattr(self.settings, setting)
        if setting in self.settings.model_fields_set or self.registry.knows(name):
            return name
        others = {engine.ref.name for engine in self.registry.engines() if isinstance(engine.task, task)}
        return others.pop() if len(others) == 1 else name

    def _required(self) -> list[str]:
        """The models without which the service is not ready."""
        if self.settings.required_models is not None:
            return self.settings.required_models
        names = {self.default_model(task): facts.setting for task, facts in KINDS.items()}
        wanted = [n for n, s in names.items() if s in self.settings.model_fields_set or self.registry.knows(n)]
        # A repository of other models alone is ready with these, one that has none never is.
        return wanted or ([] if self.registry.engines() else [self.settings.classify_model, self.settings.qa_model])

    def guess(self, route: str, size: int) -> float:
        """Seconds of device time for a body of ``size`` bytes; before there was one, by the route's default model.

        0 where a size says nothing: what an explanation costs its method decides.
        """
        if route not in PRICED:
            return 0.0
        seconds = self.prices.setdefault(route, SizePrice()).seconds(size)
        if seconds is not None:
            return seconds
        tokens = size / BYTES_A_TOKEN
        default = self.default_model(PRICED[route])
        engines = [engine for engine in self.registry.engines() if engine.ref.name == default]
        return max((engine.cost.marginal(tokens, engine.budget) for engine in engines), default=0.0)
