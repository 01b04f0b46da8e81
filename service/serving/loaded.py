"""One version in the registry: loaded and perhaps leased, or why it did not load."""

import asyncio
from dataclasses import dataclass, field

from ..repository.store import Fingerprint
from .engine import Engine


@dataclass(slots=True)
class Loaded:
    engine: Engine
    files: Fingerprint
    missing: int = 0  # looks in a row that did not find it
    seen: float = 0.0  # when a look found it, or could not tell
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    files: Fingerprint
    tries: int
    retry_at: float
