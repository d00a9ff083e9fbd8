"""Notes about the batch runs that this machine's user has started or looked at: how far each is, for whoever shows it.

The command writes them, `buoy up` reads them; neither knows the other. They are hints: the truth is in the ledgers.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["read_notes", "state_folder", "write_note"]

#: A run that nobody has looked at for so long is not shown any more.
_KEEP_S = 14 * 86400.0


def state_folder() -> Path:
    """Where this user's notes and logs are: `$XDG_STATE_HOME/buoy`, by default `~/.local/state/buoy`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "buoy"


def write_note(run: str, facts: dict[str, Any]) -> None:
    """Replace the note of a run; one that cannot be written is no reason to stop anything."""
    path = state_folder() / "runs" / f"{run}.json"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"run": run, "at": round(time.time(), 3), **facts}), encoding="utf-8")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)


def read_notes() -> list[dict[str, Any]]:
    """All notes, the latest first; `age_s` says how long ago each was written."""
    found, now_s = [], time.time()
    for path in (state_folder() / "runs").glob("[!.]*.json"):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            note["age_s"] = round(max(0.0, now_s - float(note["at"])), 1)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being removed, or not ours
        if note["age_s"] < _KEEP_S:
            found.append(note)
    return sorted(found, key=lambda note: (note["age_s"], note["run"]))
