r"""Time, station and camera out of keys, by a pattern that a person gives and that is tried before the run.

Two ways to write one: a format, `{station}/{camera}/{time:%Y%m%d_%H%M%S}.jpg`, in which `*` is anything but a slash;
or a regular expression with groups of those names, `(?P<time>\d{8}T\d{6})`. Both may match anywhere in the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from buoy.errors import UsageError

__all__ = ["KeyPattern", "Place"]

_NAMES = ("time", "station", "camera")
_DIRECTIVES = {
    "Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}", "f": r"\d{1,6}",
    "j": r"\d{3}", "y": r"\d{2}", "b": r"[A-Za-z]{3}", "Z": r"[A-Z]{3}",
}  # fmt: skip
_FIELD = re.compile(r"\{(\w+)(?::([^}]*))?\}|(\*)")
#: How times in regular expressions are read.
_TIMES = ("%Y%m%dT%H%M%S", "%Y%m%d_%H%M%S", "%Y%m%d-%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y%m%d")


class Place(NamedTuple):
    """When and where a picture was taken, as far as its key says; empty where it does not."""

    #: ISO 8601, without a zone: as in the key.
    time: str = ""
    station: str = ""
    camera: str = ""


class KeyPattern:
    """A pattern, compiled.

    Raises:
        UsageError: it cannot be read, or has none of the names.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._formats: tuple[str, ...] = _TIMES
        try:
            self._pattern = re.compile(text if "(?P<" in text else self._from_format(text)) if text else None
        except re.error as error:
            raise UsageError(f"the key pattern {text!r} cannot be read: {error}", _hint()) from error
        if self._pattern is not None:
            names = set(self._pattern.groupindex)
            if not names or not names <= set(_NAMES):
                raise UsageError(f"the key pattern {text!r} names {sorted(names) or 'nothing'}", _hint())

    def read(self, key: str) -> Place:
        """What a key says; nothing if it does not match, or its time is none."""
        found = self._pattern.search(key) if self._pattern else None
        if found is None:
            return Place()
        named = found.groupdict(default="")
        time = named.get("time", "")
        when = self._time(time) if time else ""
        return Place(when, named.get("station", ""), named.get("camera", "")) if when or not time else Place()

    def check(self, keys: Iterable[str]) -> float:
        """Try it on some keys; the fraction of them that it can read.

        Raises:
            UsageError: it reads none.
        """
        tried = list(keys)
        if self._pattern is None or not tried:
            return 1.0
        matched = sum(self.read(key) != Place() for key in tried)
        if not matched:
            raise UsageError(
                f"the key pattern {self.text!r} reads none of {len(tried)} keys, such as {tried[0]!r}", _hint()
            )
        return matched / len(tried)

    def _from_format(self, text: str) -> str:
        parts, last = [], 0
        for field in _FIELD.finditer(text):
            parts.append(re.escape(text[last : field.start()]))
            last = field.end()
            name, form, star = field.groups()
            if star:
                parts.append("[^/]*")
            elif name == "time" and form:
                self._formats = (form,)
                parts.append(f"(?P<time>{_directives(form)})")
            elif form is not None:
                raise UsageError(f"{field[0]} in the key pattern: only time has a form", _hint())
            else:
                # As little as lets the rest match; at the end nothing is left to match.
                parts.append(f"(?P<{name}>[^/]+{'?' if last < len(text) else ''})")
        return "".join(parts) + re.escape(text[last:])

    def _time(self, text: str) -> str:
        for form in self._formats:
            try:
                return datetime.strptime(text, form).isoformat()
            except ValueError:
                continue
        try:
            return datetime.fromisoformat(text).replace(tzinfo=None).isoformat()
        except ValueError:
            return ""


def _directives(form: str) -> str:
    """A strptime format as a regular expression."""
    parts, letters, seen = [], iter(form), set[str]()
    for letter in letters:
        if letter != "%":
            parts.append(re.escape(letter))
            continue
        name = next(letters, "")
        if name not in _DIRECTIVES:
            raise UsageError(
                f"%{name} in the key pattern is not known", f"known: {' '.join('%' + d for d in _DIRECTIVES)}"
            )
        if name in seen:
            raise UsageError(f"the key pattern has %{name} twice", "it may begin anywhere in the key: leave one away")
        seen.add(name)
        parts.append(_DIRECTIVES[name])
    return "".join(parts)


def _hint() -> str:
    return "write it as {station}/{camera}/{time:%Y%m%d_%H%M%S}.jpg, or as a regular expression with such groups"
