"""TLS: a certificate that is read again when its files change, so that one that is renewed needs no restart."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its key, in PEM."""

    chain: Path
    key: Path

    def load(self, context: ssl.SSLContext) -> None:
        """New connections of ``context`` have it.  UsageError where it cannot be read or does not fit."""
        try:
            # A pair that does not fit leaves the context that is tried without a key: not the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
            context.load_cert_chain(self.chain, self.key)
        except OSError as error:  # ssl's own errors are of this kind
            raise UsageError(f"tls_certificate, tls_key: {self.chain}, {self.key}: {error}") from error

    def stamp(self) -> Stamp:
        return tuple((facts.st_mtime_ns, facts.st_ino) for facts in (self.chain.stat(), self.key.stat()))

    async def follow(self, context: ssl.SSLContext) -> None:
        """Read it again whenever its files change.  What cannot be read leaves the one before in use."""
        seen, told = self.stamp(), ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if (now := self.stamp()) == seen:
                    told = ""
                    continue
                self.load(context)
                seen, told = now, ""
                log.info("the certificate in %s was read again", self.chain)
            except (OSError, UsageError) as error:
                if str(error) != told:  # said once, however often it is looked at
                    log.error("the certificate stays as it was: %s", error)
                told = str(error)
