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

    def load(self, context: ssl.SSLContext) -> Stamp:
        """New connections of ``context`` have it; which files these were.  UsageError where they cannot be read or do
        not fit."""
        try:
            stamp = self.stamp()  # before they are read: what changes meanwhile is seen as a change
            # A pair that does not fit leaves the context that is tried without a key: not the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
            context.load_cert_chain(self.chain, self.key)
            return stamp
        except OSError as error:  # ssl's own errors are of this kind
            raise UsageError(f"tls_certificate, tls_key: {self.chain}, {self.key}: {error}") from error

    def stamp(self) -> Stamp:
        return tuple((facts.st_mtime_ns, facts.st_ino) for facts in (self.chain.stat(), self.key.stat()))

    async def follow(self, context: ssl.SSLContext, seen: Stamp) -> None:
        """Read it again whenever its files are others than those ``seen``.  What cannot be read leaves the one before
        in use."""
        told = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self.stamp() == seen:
                    told = ""
                    continue
                seen, told = self.load(context), ""
                log.info("the certificate in %s was read again", self.chain)
            except (OSError, UsageError) as error:
                if str(error) != told:  # said once, however often it is looked at
                    log.error("the certificate stays as it was: %s", error)
                told = str(error)
