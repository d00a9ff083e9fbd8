"""Time series of one stream: by label and minute, with the effort beside every value.

Runs in the service's process and imports neither decoder nor array. A window without effort is missing, not zero, and
every window between the first and the last has its rows.

    columns of a row    see `columns`
    n, mean_count       sum over frames of what was found in each, and that divided by the frames
    maxn                the most that were found in one frame
    presence            1 if any was found, 0 if none
    frames              effort: frames that were looked at and have no flag
    seconds_observed    effort: the seconds between those that follow each other, up to a minute and without a gap
    gap_seconds         seconds of the window for which an outage is known
    flags               what befell the window: dark, blurred, frozen (some of its frames), gap
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from buoy.errors import UsageError
from buoy.streams.spec import StreamSpec
from buoy.streams.window import MINUTE_S, Gap, Window, add, merge

__all__ = ["KEEP_MINUTES", "WINDOWS", "Series", "columns"]

#: Minutes that are kept in memory.
KEEP_MINUTES = 48 * 60
_MOST_GAPS = 10_000
#: Frames further apart are pictures of moments: nothing is known of the time between them.
_REACH_S = 60.0
#: Windows that are offered, in minutes.
WINDOWS = (1, 15, 60)

_COLUMNS = (
    "time_utc", "window_s", "station", "camera", "taxon", "aphia_id", "n", "maxn", "mean_count", "presence", "frames",
    "seconds_observed", "frames_flagged", "gap_seconds", "conf_threshold", "model", "model_sha256", "flags",
)  # fmt: skip


class _Frame(msgspec.Struct):
    captured: datetime
    flags: list[str] = []


class _Input(msgspec.Struct):
    frame: _Frame


class _Model(msgspec.Struct):
    name: str
    version: str
    weights_sha256: str


class _Found(msgspec.Struct):
    label: str
    taxon: dict[str, int | str] = {}


class _Record(msgspec.Struct):
    """What counts of a record."""

    input: _Input
    model: _Model
    parameters: dict[str, Any] = {}
    detections: list[_Found] = []
    error: dict[str, str] | None = None


class _State(msgspec.Struct, kw_only=True):
    version: int = 1
    aphia: dict[str, int] = {}
    labels: list[str] = []
    last_s: float | None = None
    windows: dict[int, Window] = {}
    gaps: list[Gap] = []


_records = msgspec.json.Decoder(_Record)


class Series:
    """Counts what a stream's records say, minute by minute, in bounded memory. Not safe from several threads.

    Args:
        spec: the stream: its station, camera, lines and regions.
        labels: of the model, all of which get rows; with the AphiaID, where that is known.
        keep_minutes: how many windows are kept.
        old: told of the rows of each window that is no longer kept, for whoever writes them.
    """

    def __init__(
        self,
        spec: StreamSpec,
        labels: Sequence[str] | Mapping[str, int | None],
        *,
        keep_minutes: int = KEEP_MINUTES,
        old: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
    ) -> None:
        self._spec = spec
        self._labels = dict.fromkeys(labels)
        known = labels.items() if isinstance(labels, Mapping) else ()
        self._aphia: dict[str, int] = {label: number for label, number in known if number is not None}
        self._keep = keep_minutes
        self._old = old
        #: By their beginning.
        self._windows: dict[int, Window] = {}
        self._gaps: deque[Gap] = deque(maxlen=_MOST_GAPS)
        #: Time of the latest frame, if it has no flag and no gap has begun since then.
        self._last_s: float | None = None
        #: Frames of a time whose window is no longer kept; they count nowhere.
        self.late = 0

    def frame(self, record: bytes | Mapping[str, Any], crossings: Mapping[str, Any] | None = None) -> None:
        """Count a frame.

        Args:
            record: as JSON, or decoded; one of a failure is no effort.
            crossings: what the message of the frame says under that key (`buoy.streams.host`).

        Raises:
            msgspec.ValidationError: it is no record of a stream's frame.
        """
        seen = _records.decode(record) if isinstance(record, bytes) else msgspec.convert(record, _Record)
        captured_s = seen.input.frame.captured.timestamp()
        window = self._window(captured_s)
        if window is None:
            self.late += 1
            return
        window.models.pop(name := f"{seen.model.name} {seen.model.version}", None)
        window.models[name] = seen.model.weights_sha256
        window.score = seen.parameters.get("score", window.score)
        flags = ["unreadable"] if seen.error is not None else seen.input.frame.flags
        if flags:
            window.flagged += 1
            add(window.flags, Counter(flags))
            self._last_s = None
        else:
            self._count(window, seen, captured_s)
        self._cross(window, crossings or {}, counts=not flags)
        self._shorten()

    def gap(self, begin: str, end: str | None, reason: str) -> None:
        """An outage, once when it begins (`end` is `None`) and once when it is over, or only then.

        Args:
            begin: RFC 3339.
            end: RFC 3339.
            reason: for people.

        Raises:
            ValueError: that is no time.
        """
        begin_s = _seconds(begin)
        gap = Gap(begin_s=begin_s, end_s=None if end is None else max(begin_s, _seconds(end)), reason=reason)
        while self._gaps and self._gaps[-1].end_s is None:
            self._gaps.pop()  # the one that is over now, or that was never said to be
        self._gaps.append(gap)
        self._last_s = None

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The outages that are remembered, as JSON-ready data."""
        return [
            {"begin": _utc(gap.begin_s), "end": None if gap.end_s is None else _utc(gap.end_s), "reason": gap.reason}
            for gap in self._gaps
        ]

    def rows(self, window_minutes: int = 1, since: str | None = None) -> list[dict[str, Any]]:
        """A row for each window and label, in the order of time; the window that is not over yet is the last.

        Args:
            window_minutes: length of the windows, which begin at multiples of it since midnight UTC.
            since: RFC 3339; windows that end before are left out.

        Returns:
            Values by `columns`; `None` is a missing value.

        Raises:
            UsageError: a day cannot be divided into such windows, or `since` is no time.
        """
        if window_minutes < 1 or (24 * 60) % window_minutes:
            raise UsageError(f"a day cannot be divided into windows of {window_minutes} minutes", "try 1, 15 or 60")
        try:
            since_s = -math.inf if since is None else _seconds(since)
        except ValueError:
            raise UsageError(f"since is {since!r}", "give a time such as 2026-01-31T12:00:00Z") from None
        bounds = self._bounds()
        if bounds is None:
            return []
        length_s = window_minutes * MINUTE_S
        first_s, last_s = (int(bound // length_s) * length_s for bound in bounds)
        if since_s > first_s:
            first_s += int((since_s - first_s) // length_s) * length_s
        rows: list[dict[str, Any]] = []
        gaps = self._outages()
        for begin_s in range(first_s, last_s + 1, length_s):
            minutes = range(begin_s, begin_s + length_s, MINUTE_S)
            whole = merge(self._windows[at] for at in minutes if at in self._windows)
            rows += self._rows(begin_s, length_s, whole, gaps)
        return rows

    def columns(self) -> list[str]:
        """The columns of this stream's rows."""
        return columns(self._spec)

    def save(self) -> bytes:
        """All that is known, as JSON."""
        state = _State(
            aphia=self._aphia,
            labels=list(self._labels),
            last_s=self._last_s,
            windows=self._windows,
            gaps=list(self._gaps),
        )
        return msgspec.json.encode(state)

    def load(self, data: bytes) -> None:
        """Go on from what was saved.

        Raises:
            UsageError: it was not saved by us.
        """
        try:
            state = msgspec.json.decode(data, type=_State)
        except msgspec.MsgspecError as error:
            raise UsageError(f"this is no saved series: {error}", "move it away to begin a new one") from None
        self._labels |= dict.fromkeys(state.labels)
        self._aphia = state.aphia | self._aphia
        self._windows = dict(sorted(state.windows.items()))
        self._gaps = deque(state.gaps, maxlen=_MOST_GAPS)
        self._last_s = state.last_s
        self._shorten()

    def _count(self, window: Window, seen: _Record, captured_s: float) -> None:
        for found in seen.detections:
            self._labels.setdefault(found.label)
            if isinstance(number := found.taxon.get("aphia_id"), int):
                self._aphia[found.label] = number
        window.seen(Counter(found.label for found in seen.detections))
        last_s, self._last_s = self._last_s, captured_s
        if last_s is None or not 0 <= captured_s - last_s <= _REACH_S:
            return
        begin_s = _minute(captured_s)
        _observe(window, captured_s - max(last_s, begin_s))
        if last_s < begin_s and (before := self._windows.get(_minute(last_s))):
            _observe(before, min(begin_s, _minute(last_s) + MINUTE_S) - last_s)

    def _cross(self, window: Window, crossings: Mapping[str, Any], *, counts: bool) -> None:
        for event in crossings.get("events", ()):
            window.crossed(event["line"], event["direction"], event["label"])
        for region, within in crossings.get("regions", {}).items():
            if counts:
                window.within(region, within["now"])

    def _window(self, moment_s: float) -> Window | None:
        """The window of a time; `None` if that is older than all that are kept, and there is no room."""
        begin_s = _minute(moment_s)
        window = self._windows.get(begin_s)
        if window is None:
            if len(self._windows) >= self._keep and begin_s < min(self._windows):
                return None
            newest = begin_s > next(reversed(self._windows), -1)
            window = self._windows[begin_s] = Window()
            if not newest:
                self._windows = dict(sorted(self._windows.items()))
        return window

    def _shorten(self) -> None:
        while len(self._windows) > self._keep:
            begin_s = next(iter(self._windows))
            self._old(self._rows(begin_s, MINUTE_S, self._windows.pop(begin_s), self._outages()))

    def _bounds(self) -> tuple[float, float] | None:
        """From when to when there are rows: what is kept, and outages up to the same length before its end."""
        moments = [float(moment) for at in (min, max) if self._windows for moment in [at(self._windows)]]
        moments += [moment for gap in self._gaps for moment in (gap.begin_s, gap.end_s) if moment is not None]
        if self._gaps and self._gaps[-1].end_s is None:
            moments.append(datetime.now(UTC).timestamp())
        if not moments:
            return None
        last_s = max(moments)
        return max(min(moments), last_s - (self._keep - 1) * MINUTE_S), last_s

    def _outages(self) -> list[tuple[float, float]]:
        """Begin and end of every outage, in order, those that overlap as one."""
        now_s = datetime.now(UTC).timestamp()
        found: list[tuple[float, float]] = []
        for begin_s, end_s in sorted((gap.begin_s, now_s if gap.end_s is None else gap.end_s) for gap in self._gaps):
            if found and begin_s <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], end_s))
            else:
                found.append((begin_s, end_s))
        return found

    def _rows(
        self, begin_s: int, length_s: int, window: Window, gaps: list[tuple[float, float]]
    ) -> list[dict[str, Any]]:
        gap_s = _overlap_s(gaps, begin_s, begin_s + length_s)
        flags = [*sorted(window.flags), *(["gap"] if gap_s or not window.frames + window.flagged else [])]
        effort = window.frames
        common = {
            "time_utc": _utc(begin_s, "seconds"),
            "window_s": length_s,
            "station": self._spec.station,
            "camera": self._spec.camera or self._spec.name,
            "frames": effort,
            "seconds_observed": round(window.seconds, 3),
            "frames_flagged": window.flagged,
            "gap_seconds": round(gap_s, 3),
            "conf_threshold": window.score,
            "model": " ".join(window.models),
            "model_sha256": " ".join(window.models.values()),
            "flags": " ".join(flags),
        }
        return [
            {key: (common | self._values(label, window)).get(key) for key in self.columns()} for label in self._labels
        ]

    def _values(self, label: str, window: Window) -> dict[str, Any]:
        """What depends on the label; all missing without effort."""
        values: dict[str, Any] = {"taxon": label, "aphia_id": self._aphia.get(label)}
        if not window.frames:
            return values
        found = window.animals.get(label)
        n, maxn = (found.n, found.maxn) if found else (0, 0)
        values |= {"n": n, "maxn": maxn, "mean_count": round(n / window.frames, 6), "presence": int(n > 0)}
        for line in self._spec.lines:
            for direction in ("in", "out"):
                values[f"line_{line.name}_{direction}"] = window.tracks(line.name, direction, label)
        for region in self._spec.regions:
            values[f"region_{region.name}_maxn"] = window.regions.get(region.name, {}).get(label, 0)
        return values


def columns(spec: StreamSpec) -> list[str]:
    """The columns of a stream's rows: those that all have, then its lines and regions by name."""
    lines = [f"line_{line.name}_{direction}" for line in spec.lines for direction in ("in", "out")]
    return [*_COLUMNS, *lines, *(f"region_{region.name}_maxn" for region in spec.regions)]


def _overlap_s(spans: list[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """How much of a window is covered by spans that are in order and do not overlap."""
    covered_s = 0.0
    for at in range(bisect_left(spans, begin_s, key=lambda span: span[1]), len(spans)):
        if spans[at][0] >= end_s:
            break
        covered_s += min(end_s, spans[at][1]) - max(begin_s, spans[at][0])
    return covered_s


def _observe(window: Window, seconds: float) -> None:
    """Add to a minute, which no clock that was set back makes longer than it is."""
    window.seconds = min(MINUTE_S, window.seconds + seconds)


def _minute(moment_s: float) -> int:
    return int(moment_s // MINUTE_S) * MINUTE_S


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _utc(moment_s: float, precision: str = "milliseconds") -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
