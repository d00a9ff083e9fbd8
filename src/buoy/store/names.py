"""Which names buckets and keys may have, on S3 and in a folder."""

from __future__ import annotations

import re

from buoy.errors import MissingError, StoreError

__all__ = ["check_bucket", "check_key", "hidden", "is_bucket", "key_fault", "unfinished"]

# docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")

_KEY_BYTES = 1024
_SEGMENT_BYTES = 255  # NAME_MAX of every Linux file system

#: What browsers, FileZilla, rsync, editors and curl scripts call a file that is not finished.
_UNFINISHED = (b".part", b".partial", b".filepart", b".crdownload", b".download", b".tmp", b".swp", b"~")


def is_bucket(name: str) -> bool:
    """Whether a bucket can have that name by the rules of S3."""
    return _BUCKET.fullmatch(name) is not None


def check_bucket(bucket: str, *, read: bool) -> None:
    """Refuse a name that no bucket can have.

    Args:
        bucket: its name.
        read: whether it is only looked for, so that it is simply not there.

    Raises:
        MissingError: a reader asks for it.
        StoreError: a writer does.
    """
    if is_bucket(bucket):
        return
    if read:
        raise MissingError(f"there is no bucket {bucket!r}: no bucket has such a name")
    raise StoreError(
        f"{bucket!r} is no name for a bucket",
        "use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends",
    )


def check_key(key: str, *, file: bool, read: bool) -> None:
    """Refuse a key that nothing can have.

    Args:
        key: the key of an object.
        file: whether it has to be the name of a file as well.
        read: whether it is only looked for, so that it is simply not there.

    Raises:
        MissingError: a reader asks for it.
        StoreError: a writer does.
    """
    fault = key_fault(key, file=file)
    if fault and read:
        raise MissingError(f"there is no object {key!r}: {fault}")
    if fault:
        raise StoreError(f"{key!r} is no key for an object: {fault}", "choose another name")


def key_fault(key: str, *, file: bool) -> str:
    """Say what is wrong with a key; empty if nothing is.

    `.` and `..` are refused for S3 too: HTTP libraries and servers resolve them on the way, so
    that `a/../b` would be another object than the one that was checked.
    """
    try:
        name = key.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not Unicode"
    if not 1 <= len(name) <= _KEY_BYTES:
        return f"it has {len(name)} bytes, and 1 to {_KEY_BYTES} are possible"
    if b"\0" in name:
        return "it has a NUL byte"
    segments = name.split(b"/")
    if any(segment in (b".", b"..") for segment in segments):
        return "it has a `.` or `..` between slashes"
    return _file_fault(segments) if file else ""


def _file_fault(segments: list[bytes]) -> str:
    marker = segments[-1] == b""  # a folder marker, as OSCAR and the S3 consoles make them
    if marker:
        segments = segments[:-1]
    if not all(segments):
        return "it has nothing before or between slashes, which no file can have"
    if any(len(segment) > _SEGMENT_BYTES for segment in segments):
        return f"a part of it has more than {_SEGMENT_BYTES} bytes, which no file can have"
    if any(map(hidden, segments)):
        return "a part of it starts with a dot, and hidden files are no objects"
    if not marker and unfinished(segments[-1]):
        return "a file of this name counts as not yet finished"
    return ""


def hidden(name: bytes) -> bool:
    """Whether a file or folder of that name is no business of ours."""
    return name.startswith(b".")


def unfinished(name: bytes) -> bool:
    """Whether a program says by the name that it is still writing."""
    return name.lower().endswith(_UNFINISHED)
