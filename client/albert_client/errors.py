"""Every error that the client raises on purpose.

AlbertError      base
├── Refused      the service answered with an error: its status, code, message and request id
└── Unanswered   nobody answered: no connection, a broken one, no answer in time, or one that albert-serve never gives
"""

AGAIN = frozenset({429, 503})  # statuses that may be others in a moment


class AlbertError(Exception):
    """Base of all: ``message`` is for people.

    ``passing``: it may be otherwise in a moment; ``retry_after`` in seconds, where a time was named.
    """

    def __init__(self, message: str, *, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.passing = passing
        self.retry_after = retry_after


class Refused(AlbertError):
    """``code`` is stable and for machines."""

    def __init__(
        self, message: str, *, status: int, code: str, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, passing=status in AGAIN, retry_after=retry_after)
        self.status = status
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.code})"


class Unanswered(AlbertError):
    """The cause is its ``__cause__``, where httpx gave one."""
