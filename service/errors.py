"""Every error that this project raises on purpose.

ServiceError                 base: a code for machines, an HTTP status, a message that says what to do
├── InvalidRequest           422  a value is of the right type and still cannot be served
│   ├── MalformedBody        400  the body is not JSON
│   └── TextTooLong          422  the text does not fit and the request asked for an error then
├── Unauthorized             401  an API key is wanted and missing or wrong
├── Forbidden                403  the key is good, and not for this
├── ModelNotFound            404  no such model or version is loaded
├── RouteNotFound            404  this port does not have the path
├── WrongTask                409  the model is there and does another task
├── TooLarge                 413  body, text or list above a configured limit
├── UnsupportedEncoding      415  the body is compressed in a way that is not read here
├── HeadersTooLarge          431  the head of a request above a configured limit
├── QueueFull                429  the device has more waiting than it may hold; says when to come back
│   └── RateLimited          429  a key has asked more often than it may
├── Unavailable              503  starting, draining, or the device is down
│   └── DeviceLost           503  the device computes nothing any more; it is being restarted
├── RequestTimeout           408  the request's body did not come in time
├── DeadlineExceeded         504  the deadline passed, or cannot be met; the work was dropped
├── Cancelled                499  the client left; nobody reads this answer
├── InferenceFailed          500  the model failed on this sequence; the cause is in the log
│   └── OutOfMemory          500  the device has no memory for a step of this size; a smaller one may do
├── UsageError               500  a flag, a variable or a setting cannot mean anything; the process exits with 2
├── RepositoryError          500  a folder of the model repository is missing, damaged or unreadable
├── DeviceError              500  the device asked for does not work here
├── CheckpointError          500  a checkpoint cannot be converted; says why
├── ParityError              500  the converted model does not answer as the original does
├── DataError                500  a training or evaluation file is wrong; names file and line
├── TrainingError            500  a run cannot go on: interrupted, diverged, or the disk is full; says how to go on
└── QualityError             500  a lower precision, or an early exit, loses more than its gate allows
"""

from collections.abc import Mapping


class ServiceError(Exception):
    """Base of all: ``code`` is stable and for machines, ``message`` is for people."""

    code = "internal"
    status = 500
    retry_after: float | None = None

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        """``headers`` of the answer that tells it."""
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class InvalidRequest(ServiceError):
    code = "invalid_request"
    status = 422


class MalformedBody(InvalidRequest):
    code = "malformed_body"
    status = 400


class TextTooLong(InvalidRequest):
    code = "text_too_long"


class Unauthorized(ServiceError):
    code = "unauthorized"
    status = 401


class Forbidden(ServiceError):
    code = "forbidden"
    status = 403


class ModelNotFound(ServiceError):
    code = "model_not_found"
    status = 404


class RouteNotFound(ServiceError):
    code = "not_found"
    status = 404


class WrongTask(ServiceError):
    code = "wrong_task"
    status = 409


class TooLarge(ServiceError):
    code = "too_large"
    status = 413


class UnsupportedEncoding(ServiceError):
    code = "unsupported_encoding"
    status = 415


class HeadersTooLarge(ServiceError):
    code = "headers_too_large"
    status = 431


class QueueFull(ServiceError):
    """``retry_after`` is in seconds, computed from what waits and what a token costs."""

    code = "queue_full"
    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(QueueFull):
    code = "rate_limited"


class Unavailable(ServiceError):
    code = "unavailable"
    status = 503

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeviceLost(Unavailable):
    code = "device_lost"


class RequestTimeout(ServiceError):
    code = "request_timeout"
    status = 408


class DeadlineExceeded(ServiceError):
    code = "deadline_exceeded"
    status = 504


class Cancelled(ServiceError):
    code = "cancelled"
    status = 499


class InferenceFailed(ServiceError):
    code = "inference_failed"


class OutOfMemory(InferenceFailed):
    code = "out_of_memory"


class UsageError(ServiceError):
    code = "usage"


class RepositoryError(ServiceError):
    code = "repository"


class DeviceError(ServiceError):
    code = "device"


class CheckpointError(ServiceError):
    code = "checkpoint"


class ParityError(ServiceError):
    code = "parity"


class DataError(ServiceError):
    code = "data"


class TrainingError(ServiceError):
    code = "training"


class QualityError(ServiceError):
    code = "quality"


def error_of(code: str, message: str) -> ServiceError:
    """An error that was told by its ``code``, such as that of one text, as an error again."""
    kinds: list[type[ServiceError]] = [ServiceError]
    for kind in kinds:  # which grows by what is made of each
        if kind.code == code:
            return kind(message)
        kinds += kind.__subclasses__()
    return ServiceError(message)
