"""API keys: who asks, and what it may.  Kept as SHA-256 digests; from settings, and from a file that may change.

A key is long and random (``albert-serve key``), so a fast hash is enough: there is nothing to guess.  Looking a digest
up takes a time that tells of the digest and nothing of the key.

The file is TOML::

    [keys.shop]
    sha256 = "..."   # of the key
    rate = 20        # requests a second, averaged over ten seconds; without it as many as come
    share = 0.3      # of the device's time until a deadline, at most
    admin = true     # may load and unload models
"""

import asyncio
import hashlib
import logging
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..errors import RateLimited, UsageError
from ..settings import Settings

log = logging.getLogger(__name__)
HASHED = re.compile(r"sha256:([0-9a-f]{64})")
LOOK_SECONDS = 1.0  # between two looks at the file
RATE_SECONDS = 10  # over which a rate is averaged
NAME = r"[A-Za-z0-9._-]{1,64}"
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    rate: float | None = Field(None, gt=0)
    share: float | None = Field(None, gt=0, le=1)
    admin: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: dict[Name, _Entry]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``rate`` in requests a second, ``share`` of the device's time; None: no limit of its own."""

    name: str
    rate: float | None = None
    share: float | None = None
    admin: bool = False


@dataclass(slots=True)
class Keys:
    """All keys, by digest.  Used in the event loop's thread."""

    settings: Settings
    _fixed: dict[str, ApiKey] = field(default_factory=dict)
    _from_file: dict[str, ApiKey] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=dict)  # by name
    _seen: tuple[int, int, int] | None = None
    _told: str = ""  # of the last look
    _limiter: SlidingWindowCounterRateLimiter = field(
        default_factory=lambda: SlidingWindowCounterRateLimiter(MemoryStorage())
    )

    def __post_init__(self) -> None:
        """UsageError where the file cannot be read or says nothing that is a key."""
        for kind, given in (("key", self.settings.api_keys), ("admin key", self.settings.admin_keys)):
            for number, one in enumerate(given, 1):
                self._fixed[_digest(one)] = ApiKey(f"{kind} {number}", admin=kind == "admin key")
        if self.settings.api_key_file is not None:
            self._read(self.settings.api_key_file)

    @property
    def wanted(self) -> bool:
        """Does a request need a key?  Not where there are none, nor where there is one for the administration only."""
        return bool(self.settings.api_keys) or self.settings.api_key_file is not None

    @property
    def administered(self) -> bool:
        """Is there a key that may load and unload models?"""
        return any(key.admin for key in self.all())

    def all(self) -> list[ApiKey]:
        return [*self._fixed.values(), *self._from_file.values()]

    def find(self, given: bytes) -> ApiKey | None:
        digest = hashlib.sha256(given).hexdigest()
        return self._fixed.get(digest) or self._from_file.get(digest)

    def share(self, client: str) -> float:
        """The most of the device's time that ``client``, a key's name, may have; inf where nothing is said of it."""
        return self._shares.get(client, math.inf)

    def count(self, key: ApiKey) -> None:
        """One request of ``key``.  RateLimited above its rate, of which each worker has its part."""
        if key.rate is None:
            return
        amount = max(1, round(key.rate * RATE_SECONDS / self.settings.workers))
        limit = RateLimitItemPerSecond(amount, RATE_SECONDS)
        if not self._limiter.hit(limit, key.name):
            # On average one of its requests fits again after so long.
            wait = max(1.0, RATE_SECONDS / amount)
            raise RateLimited(
                f"the key {key.name!r} may ask {key.rate:g} times a second; come back after Retry-After", wait
            )

    def look(self) -> None:
        """Read the file again where it changed.  One that is wrong changes nothing, and the log says why."""
        path = self.settings.api_key_file
        if path is None:
            return
        try:
            if _stamp(path) != self._seen:
                self._read(path)
                log.info("%s: %d keys", path, len(self._from_file))
            self._told = ""
        except (UsageError, OSError) as error:
            if str(error) != self._told:  # a file that is gone is looked for each second, and said once
                log.error("the keys stay as they were: %s", error)
            self._told = str(error)

    def _read(self, path: Path) -> None:
        try:
            stamp, text = _stamp(path), path.read_text(encoding="utf-8")
            self._seen = stamp  # what cannot be read is tried again, what is wrong is not until it changes
            read = _File.model_validate(tomllib.loads(text))
        except OSError as error:
            raise UsageError(f"api_key_file: {path}: {error.strerror}") from error
        except ValidationError as error:
            # Not what stands there: it may be a key.
            told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
            raise UsageError(f"api_key_file: {path}: {told}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"api_key_file: {path}: no TOML: {str(error)[:100]}") from None
        found = {one.sha256: ApiKey(name, one.rate, one.share, one.admin) for name, one in read.keys.items()}
        if len(found) < len(read.keys):
            raise UsageError(f"api_key_file: {path}: one sha256 stands there twice")
        self._from_file = found
        self._shares = {one.name: one.share for one in found.values() if one.share is not None}


async def follow_keys(keys: Keys) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        keys.look()


def _digest(given: str) -> str:
    """Of a key from the settings, which is one or the digest of one."""
    hashed = HASHED.fullmatch(given)
    return hashed[1] if hashed else hashlib.sha256(given.encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
