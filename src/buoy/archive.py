"""Pictures out of a zip that nobody vouches for: one at a time, in memory, within limits.

Nothing is extracted to disk, so no name in the zip is ever used as a path; names only become the names of
results, made harmless first. Every entry is answered, with its bytes or with the reason why not, except
folders and what operating systems leave behind (`__MACOSX/`, `._*`, `.DS_Store`, `Thumbs.db`, `desktop.ini`).

Format: APPNOTE.TXT of PKWARE, sections 4.3 and 4.4. Only the methods stored and deflate are read: the
decompressors of the others give no bound on the memory they take.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buoy.errors import ArchiveError, InputError

__all__ = ["MAX_ENTRY_BYTES", "is_zip", "picture_in", "pictures_in"]

#: Of one zip, uncompressed. Both limits can be set from the environment.
MAX_BYTES = int(os.environ.get("BUOY_ZIP_MAX_BYTES") or 4 << 30)
MAX_ENTRIES = int(os.environ.get("BUOY_ZIP_MAX_ENTRIES") or 10_000)

#: Of one entry, uncompressed.
MAX_ENTRY_BYTES = 256 << 20

#: Pictures hardly shrink; a drawing in PNG or TIFF may. Above this an entry of some size is a bomb.
MAX_RATIO = 200
_RATIO_FROM_BYTES = 16 << 20

#: The list of entries, which the zip module reads at once: room for MAX_ENTRIES with names of 1 KiB and more.
_MAX_READ_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20

#: A file name has 255 bytes, and results append `.error.json` or `~2`.
_MAX_NAME_BYTES = 200
_MAX_PATH_BYTES = 700

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")
_DRIVE = re.compile(r"[A-Za-z]:")
_REPACK = "make the zip again without that entry"


def is_zip(path: Path) -> bool:
    """Tells whether a file starts as a zip does; its name does not matter, and `False` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def pictures_in(path: Path) -> Iterator[tuple[str, bytes | InputError]]:
    """The entries of a zip in their order: a name of its own, and the content or why there is none.

    Names have `/` between folders, never `..`, a leading dot or slash, and never come twice: the second
    `a.jpg` is called `a.jpg~2`. One entry is held in memory at a time.

    Raises:
        ArchiveError: it is broken as a whole, over a limit as a whole, or has no entry to answer.
        InputError: the file cannot be read.
    """
    with _entries(path) as (archive, entries):
        for name, entry in entries:
            yield name, _content(archive, entry)


def picture_in(path: Path, name: str) -> bytes:
    """One picture of a zip, by the name that `pictures_in` gives it, without reading the others.

    Raises:
        InputError: the zip or the entry cannot be read, or there is none of that name.
    """
    with _entries(path) as (archive, entries):
        for each, entry in entries:
            if each == name:
                content = _content(archive, entry)
                if isinstance(content, InputError):
                    raise content
                return content
    raise InputError(f"there is no picture {name} in the zip", "the zip was replaced since")


@contextmanager
def _entries(path: Path) -> Iterator[tuple[zipfile.ZipFile, Iterator[tuple[str, zipfile.ZipInfo]]]]:
    """The open archive, and its entries that are to be answered with the names that they go by."""
    try:
        file = _Bounded(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "check the path and its mode") from error
    with file, _open(path, file) as archive:
        entries = [entry for entry in archive.infolist() if not _is_skipped(entry)]
        _check_whole(path, archive, entries)
        taken: dict[str, int] = {}
        yield archive, ((_unique(_harmless(_raw_name(entry)), taken), entry) for entry in entries)


class _Bounded(io.FileIO):
    """A file that refuses to be read in very large pieces: the zip module reads its whole list of entries at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_READ_BYTES:
            raise ArchiveError(
                f"the zip's list of entries has {size >> 20} MiB; the limit is {_MAX_READ_BYTES >> 20}",
                f"send at most {MAX_ENTRIES:,} pictures in one zip",
            )
        return super().read(size)


def _open(path: Path, file: _Bounded) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except ArchiveError:
        raise
    except Exception as error:  # BadZipFile, struct.error, ValueError, OSError, ...: whatever broken headers lead to
        raise ArchiveError(
            f"{path.name} is not a whole zip: {error}", "the copy was probably interrupted: upload it again"
        ) from error


def _check_whole(path: Path, archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> None:
    count = len(archive.infolist())
    if count > MAX_ENTRIES:
        raise ArchiveError(
            f"{path.name} has {count:,} entries; the limit is {MAX_ENTRIES:,}",
            "send several smaller zips, or raise BUOY_ZIP_MAX_ENTRIES",
        )
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES:
        raise ArchiveError(
            f"{path.name} holds {total >> 20:,} MiB uncompressed; the limit is {MAX_BYTES >> 20:,} MiB",
            "send several smaller zips, or raise BUOY_ZIP_MAX_BYTES",
        )
    if sum(entry.compress_size for entry in entries) > path.stat().st_size:
        raise ArchiveError(f"{path.name} is not a whole zip: its entries overlap", "make it again with another program")
    if not entries:
        raise ArchiveError(f"{path.name} has no pictures in it", "put JPEG, PNG, TIFF or WebP files into the zip")


def _is_skipped(entry: zipfile.ZipInfo) -> bool:
    """Folders, and what operating systems leave behind."""
    name = _raw_name(entry)
    if name.endswith(("/", "\\")) or not (parts := _parts(name)):
        return True
    return not _LITTER.isdisjoint((parts[0], parts[-1])) or parts[-1].startswith("._")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | InputError:
    """The bytes of an entry, counted while they are read: what the headers say is only a claim."""
    if fault := _fault(entry):
        return fault
    data = io.BytesIO()  # whose getvalue() copies nothing
    try:
        with archive.open(entry) as file:
            while piece := file.read(_CHUNK_BYTES):
                data.write(piece)
                if _is_too_large(data.tell(), entry):
                    return _too_large(entry, data.tell())
    except Exception as error:  # BadZipFile, zlib.error, EOFError, struct.error, ...: whatever broken data leads to
        if isinstance(error, MemoryError):
            raise
        return InputError(f"the entry in the zip is damaged: {error}", "make the zip again and upload it again")
    content = data.getvalue()
    return _nested(entry) if content[:4] in _MAGIC else content


def _fault(entry: zipfile.ZipInfo) -> InputError | None:
    """What the headers already say against reading an entry."""
    name = _raw_name(entry)
    parts = _parts(name)
    shown = name[:200]
    if name[0] in "/\\" or _DRIVE.match(name) or ".." in parts:
        return InputError(f"the zip has an entry that points outside it: {shown!r}", _REPACK)
    if stat.S_ISLNK(entry.external_attr >> 16):
        return InputError(f"{shown!r} is a symbolic link in the zip", "put the picture itself into the zip")
    if any(part.startswith(".") for part in parts):
        return InputError(f"{shown!r} is a hidden file in the zip", "rename it without the leading dot")
    if entry.flag_bits & 0x1:
        return InputError(f"{shown!r} is encrypted in the zip", "make the zip without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return InputError(
            f"{shown!r} is compressed with method {entry.compress_type} in the zip", "make the zip with deflate"
        )
    if shown.lower().endswith(_ARCHIVES):
        return _nested(entry)
    if _is_too_large(entry.file_size, entry):
        return _too_large(entry, entry.file_size)
    return None


def _is_too_large(size_bytes: int, entry: zipfile.ZipInfo) -> bool:
    bomb = size_bytes > _RATIO_FROM_BYTES and size_bytes > MAX_RATIO * max(1, entry.compress_size)
    return bomb or size_bytes > MAX_ENTRY_BYTES


def _too_large(entry: zipfile.ZipInfo, size_bytes: int) -> InputError:
    return InputError(
        f"{_raw_name(entry)[:200]!r} unpacks from {entry.compress_size:,} to {size_bytes:,} bytes; the limits are "
        f"{MAX_ENTRY_BYTES >> 20} MiB and {MAX_RATIO} to 1",
        "send the picture by itself",
    )


def _nested(entry: zipfile.ZipInfo) -> InputError:
    return InputError(
        f"{_raw_name(entry)[:200]!r} is an archive inside the zip", "send it by itself, unpacked from there"
    )


def _raw_name(entry: zipfile.ZipInfo) -> str:
    """The name as its author meant it: programs that write UTF-8 without saying so are common (macOS)."""
    if entry.flag_bits & 0x800:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _parts(name: str) -> list[str]:
    # Zips made on Windows may have backslashes, against 4.4.17.1 of the format.
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _harmless(name: str) -> str:
    """A name that any store and file system takes, and that leads nowhere."""
    parts = [
        _clipped(_printable(part).strip().lstrip("."), _MAX_NAME_BYTES) for part in _parts(_DRIVE.sub("", name, 1))
    ]
    kept = [part for part in parts if part]
    while len("/".join(kept).encode()) > _MAX_PATH_BYTES:
        del kept[0]
    return "/".join(kept) or "unnamed"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "_" for letter in text)


def _clipped(text: str, size_bytes: int) -> str:
    """The last bytes of a name, where its ending is."""
    return text.encode("utf-8", "replace")[-size_bytes:].decode("utf-8", "ignore").lstrip(".")


def _unique(name: str, taken: dict[str, int]) -> str:
    """A name that is not taken, which is then taken; `taken` has the last number that was tried for each."""
    if name not in taken:
        taken[name] = 1
        return name
    while True:
        taken[name] += 1
        if (free := f"{name}~{taken[name]}") not in taken:
            taken[free] = 1
            return free
