"""What was seen in a minute, and how minutes add up to longer windows. Pure; times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

__all__ = ["MINUTE_S", "Animals", "Gap", "Window", "add", "merge"]

MINUTE_S = 60


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time without frames, and so without knowledge."""

    begin_s: float
    #: `None` while it goes on.
    end_s: float | None
    reason: str


class Animals(msgspec.Struct, kw_only=True):
    """One label in one window; frames with flags are left out."""

    #: Sum over frames, the most in one frame, and the frames with any.
    n: int = 0
    maxn: int = 0
    present: int = 0

    def add(self, count: int) -> None:
        """One frame has so many."""
        self.n += count
        self.maxn = max(self.maxn, count)
        self.present += 1


class Window(msgspec.Struct, kw_only=True):
    """One window."""

    #: Effort: frames without flags, and the seconds between them.
    frames: int = 0
    seconds: float = 0.0
    #: Frames that were looked at and left out, and why.
    flagged: int = 0
    flags: dict[str, int] = {}
    animals: dict[str, Animals] = {}
    #: Name of a line, a direction, a label: tracks.
    lines: dict[str, dict[str, dict[str, int]]] = {}
    #: Name of a region, a label: the most at once.
    regions: dict[str, dict[str, int]] = {}
    #: Of those that looked, the latest last.
    models: dict[str, str] = {}
    score: float | None = None

    def seen(self, counts: Mapping[str, int]) -> None:
        """A frame without flags."""
        self.frames += 1
        for label, count in counts.items():
            self.animals.setdefault(label, Animals()).add(count)

    def crossed(self, line: str, direction: str, label: str, count: int = 1) -> None:
        """Tracks have crossed a line."""
        add(self.lines.setdefault(line, {}).setdefault(direction, {}), {label: count})

    def within(self, region: str, counts: dict[str, int]) -> None:
        """So many are in a region."""
        most = self.regions.setdefault(region, {})
        for label, count in counts.items():
            most[label] = max(most.get(label, 0), count)

    def tracks(self, line: str, direction: str, label: str) -> int:
        """How many tracks of a label crossed a line in a direction."""
        return self.lines.get(line, {}).get(direction, {}).get(label, 0)


def add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Add numbers to those that stand under the same keys."""
    for key, number in more.items():
        counts[key] = counts.get(key, 0) + number


def merge(windows: Iterable[Window]) -> Window:
    """Windows that follow each other as one."""
    whole = Window()
    for each in windows:
        whole.frames += each.frames
        whole.seconds += each.seconds
        whole.flagged += each.flagged
        add(whole.flags, each.flags)
        whole.models |= each.models
        whole.score = whole.score if each.score is None else each.score
        for label, animals in each.animals.items():
            into = whole.animals.setdefault(label, Animals())
            into.n += animals.n
            into.maxn = max(into.maxn, animals.maxn)
            into.present += animals.present
        for line, ways in each.lines.items():
            for direction, counts in ways.items():
                for label, count in counts.items():
                    whole.crossed(line, direction, label, count)
        for region, most in each.regions.items():
            whole.within(region, most)
    return whole
