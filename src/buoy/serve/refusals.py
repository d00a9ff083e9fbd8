"""What the service answers instead of a result: errors and their HTTP status."""

from __future__ import annotations

from buoy.errors import (
    BuoyError,
    BusyError,
    DeadlineError,
    ErrorRecord,
    InputError,
    JobError,
    UsageError,
)

__all__ = [
    "Conflict",
    "Denied",
    "Foreign",
    "IssuerDown",
    "NotAcceptable",
    "NotReady",
    "Refusal",
    "Remote",
    "TooLarge",
    "TooOften",
    "TooSlow",
    "Unknown",
    "Unsupported",
    "WrongMethod",
    "status_of",
]


class Refusal(BuoyError):
    """A request that is refused for what it is, whatever the picture."""

    status = 400


class Denied(Refusal):
    """The caller did not prove who they are."""

    status = 401


class Foreign(Refusal):
    """Another site's page had a browser send it."""

    status = 403


class Unknown(Refusal):
    """There is nothing at that address."""

    status = 404


class WrongMethod(Refusal):
    """The address takes other methods."""

    status = 405


class NotAcceptable(Refusal):
    """None of the media types that the caller accepts can be had."""

    status = 406


class TooSlow(Refusal):
    """The body did not come in time."""

    status = 408


class Conflict(Refusal):
    """What is there already stands in the way."""

    status = 409


class TooLarge(Refusal):
    """A body above the limit."""

    status = 413


class Unsupported(Refusal):
    """A body that is neither a picture nor a form with one."""

    status = 415


class NotReady(Refusal):
    """The model is being loaded, or the service is about to end."""

    status = 503
    retry_after_s = 1.0


class IssuerDown(Refusal):
    """Whether a token is right cannot be found out now."""

    status = 503

    def __init__(self, issuer: str, why: str, retry_after_s: float = 5.0) -> None:
        super().__init__(f"the keys of {issuer} cannot be had: {why}", "try again later: Retry-After says when")
        self.retry_after_s = retry_after_s


class TooOften(Refusal):
    """The caller's allowance is used up."""

    status = 429

    def __init__(self, message: str, hint: str, *, retry_after_s: float) -> None:
        super().__init__(message, hint)
        self.retry_after_s = retry_after_s


class Remote(BuoyError):
    """An error of the inference process, which keeps its class, message and hint."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(record["message"], record["hint"])
        self._record = record

    def record(self) -> ErrorRecord:
        """As it was told."""
        return self._record


#: The first class that fits decides.
_STATUS: tuple[tuple[type[BuoyError], int], ...] = (
    (DeadlineError, 504),
    (BusyError, 429),
    (InputError, 422),
    (UsageError, 400),
    (JobError, 500),
)
#: The same for errors that come as records.
_BY_NAME = {
    "InputError": 422,
    "ArchiveError": 422,
    "UsageError": 400,
    "BusyError": 429,
    "DeadlineError": 504,
    "ManifestError": 409,
    "WeightsError": 409,
}


def status_of(error: BuoyError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Refusal):
        return error.status
    if isinstance(error, Remote):
        return _BY_NAME.get(error.record()["class"], 500)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
