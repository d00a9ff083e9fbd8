"""Every error that buoy raises, named for who must act.

BuoyError
├── UsageError        the person at the command line or the caller of the API
├── ManifestError     the author of a model folder
├── WeightsError      the author of a model folder, or a broken download
├── InputError        whoever sent the picture; never retried
│   └── ArchiveError  the same, for a zip
├── StoreError        the operator of the store; `retry` tells whether trying again can help
│   ├── MissingError      no such bucket or object
│   ├── ExistsError       a create-only put found something there
│   └── ChangedError      an object is not any more what it was
├── SourceError       whoever runs the camera, or the network to it; tried again
│   └── RefusedError      the author of the stream: password, path, content
├── ServiceError      the author of a service definition (FDL)
├── BusyError         the caller, who may come again after `retry_after_s`
│   └── DeadlineError     the same, for an input that waited in vain
└── JobError          a run that ended badly: crash, memory, time
"""

from __future__ import annotations

import errno
from typing import TypedDict

__all__ = [
    "ArchiveError",
    "BuoyError",
    "BusyError",
    "ChangedError",
    "DeadlineError",
    "ErrorRecord",
    "ExistsError",
    "InputError",
    "JobError",
    "ManifestError",
    "MissingError",
    "RefusedError",
    "ServiceError",
    "SourceError",
    "StoreError",
    "UsageError",
    "WeightsError",
]

#: The one JSON form of an error, in result files, in `--json` output and over HTTP.
ErrorRecord = TypedDict("ErrorRecord", {"class": str, "message": str, "hint": str})


class BuoyError(Exception):
    """Something went wrong that a person can act on.

    Args:
        message: what happened, and where (file, key, line).
        hint: what to do next; empty if nothing can be done.
    """

    retry = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def record(self) -> ErrorRecord:
        """The error as JSON-ready data."""
        return {"class": type(self).__name__, "message": self.message, "hint": self.hint}


class UsageError(BuoyError):
    """The call itself is wrong: an unknown model, a flag that does not fit."""


class ManifestError(BuoyError):
    """A manifest that cannot be used as it stands."""


class WeightsError(BuoyError):
    """Weights that are absent, altered, or do not fit their manifest."""


class InputError(BuoyError):
    """A picture, or other input, that cannot be read. Trying again changes nothing."""


class ArchiveError(InputError):
    """A zip that cannot be read safely."""


_FULL = {
    "ENOSPC", "EDQUOT", "507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
}  # fmt: skip


class StoreError(BuoyError):
    """The store refused or failed; `retry` tells whether trying again can help.

    `code` is what the store or the system calls it, such as SlowDown or ENOSPC, if it has a word for it.
    """

    def __init__(self, message: str, hint: str = "", *, retry: bool = False, code: str = "") -> None:
        super().__init__(message, hint)
        self.retry, self.code = retry, code

    @property
    def full(self) -> bool:
        """Whether there is no room: it can pass, but not before somebody makes some."""
        return self.code in _FULL


class MissingError(StoreError):
    """There is no such bucket or object."""


class ExistsError(StoreError):
    """A create-only put found an object of that key."""


class ChangedError(StoreError):
    """The object has another content than the etag that was asked for."""


class SourceError(BuoyError):
    """The source of a stream cannot be reached, is silent, or broke off; it may come back by itself."""

    retry = True


class RefusedError(SourceError):
    """The source answers, and gives no pictures: a wrong password or path, or something that is no picture."""

    retry = False


class ServiceError(BuoyError):
    """A service definition that cannot be used."""


class BusyError(BuoyError):
    """No room for one more input now; nothing was done with it."""

    retry = True

    def __init__(self, message: str, hint: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint)
        #: When there is probably room, estimated from the queue and the measured rate.
        self.retry_after_s = retry_after_s


class DeadlineError(BusyError):
    """Its time was over before its turn came; nothing was done with it."""


class JobError(BuoyError):
    """A run that ended badly: crashed, over its memory, over its time."""

    def __init__(self, message: str, hint: str = "", *, retry: bool = False) -> None:
        super().__init__(message, hint)
        self.retry = retry


def as_buoy_error(error: BaseException, where: str) -> BuoyError:
    """Give any exception our shape, so that what is written or answered has one form."""
    if isinstance(error, BuoyError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        code = errno.errorcode.get(error.errno, "")
        return StoreError(f"{where}: {error.strerror or error}", _os_hint(error), retry=True, code=code)
    return JobError(f"{where}: {type(error).__name__}: {error}", "this is a fault of buoy: please report it")


def _os_hint(error: OSError) -> str:
    return {
        errno.ENOSPC: "the disk is full: free some space, then run it again",
        errno.EDQUOT: "the disk quota is used up: free some space, then run it again",
        errno.EACCES: "buoy may not write or read there: change the owner or the mode",
        errno.EPERM: "buoy may not write or read there: change the owner or the mode",
        errno.EROFS: "the file system is read-only: choose another folder",
    }.get(error.errno or 0, "")
