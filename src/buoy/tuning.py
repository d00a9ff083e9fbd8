"""How a network is run on this machine when many pictures come: callers x threads, and how many in a batch.

It is measured once for each network, machine and runtime, in a process of its own so that the memory of what was
tried is gone with it, and remembered in the user's cache folder. A single picture has no use for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from buoy import machine
from buoy.manifest import Manifest

if TYPE_CHECKING:  # those who only recall have no use for the runtime
    from buoy.session import Session

__all__ = ["Tuning", "choose", "recall", "rule"]

#: Another way must be so much faster than the rule to be worth differing from it.
_GAIN = 1.05
#: How long each way is tried, and how often it runs at least.
_TRIAL_S, _RUNS = 0.25, 2
_BATCHES = (2, 4, 8, 16)
#: Longer than any measurement of a network that can serve: then the rule is used.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Tuning:
    """How a network is run."""

    callers: int
    threads: int
    batch: int = 1

    @property
    def lanes(self) -> int:
        """Inputs on their way at once that keep the callers busy."""
        return self.callers * self.batch


def rule(callers: int | None = None, cores: int | None = None) -> Tuning:
    """What is best for most networks: one caller for each core, with one thread."""
    cores = cores or machine.cores()
    callers = callers or cores
    return Tuning(callers, max(1, cores // callers))


def choose(folder: Path, manifest: Manifest, callers: int | None = None, cores: int | None = None) -> Tuning:
    """What the caller and the manifest say; for the rest what was measured here before, else what is measured now."""
    if callers or cores:
        return _as_told(rule(callers, cores), manifest)
    if UNSET not in (manifest.run.callers, manifest.run.threads):
        return _as_told(rule(), manifest)
    return _as_told(_recall(manifest) or _measured(folder, manifest), manifest)


def recall(manifest: Manifest, callers: int | None = None, cores: int | None = None) -> Tuning:
    """The same, without measuring: the rule where nothing is known, as with some of the cores."""
    known = None if callers or cores else _recall(manifest)
    return _as_told(known or rule(callers, cores), manifest)


def _as_told(tuning: Tuning, manifest: Manifest) -> Tuning:
    told = {name: value for name in ("callers", "threads", "batch") if (value := getattr(manifest.run, name)) != UNSET}
    return replace(tuning, **told)


def _measured(folder: Path, manifest: Manifest) -> Tuning:
    """Measure in a process of its own; the rule if that fails, as loading the model will tell why."""
    weights = folder / manifest.weights.file
    with _alone():
        if known := _recall(manifest):  # another process has measured while we waited
            return known
        tuning = _in_a_process(weights)
        # A machine that was busy with something else may have misled us: to differ from the rule takes two votes.
        if tuning is None or (tuning != rule() and _in_a_process(weights) != tuning):
            return rule()
        _remember(manifest, tuning)
    return tuning


def _in_a_process(weights: Path) -> Tuning | None:
    import subprocess  # most starts only recall

    command = [sys.executable, "-m", "buoy.tuning", str(weights)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=True)
        return Tuning(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def _place(manifest: Manifest) -> Path:
    """The file that remembers it, named by all that it depends on."""
    known = (manifest.weights.sha256, str(machine.cores()), machine.processor(), *_runtime())
    name = hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]
    return _folder() / f"{name}.json"


def _runtime() -> list[str]:
    """Name and version of ONNX Runtime without importing it (importlib.metadata would cost a tenth of a cold start)."""
    spec = find_spec("onnxruntime")
    packages = Path(spec.origin).parents[1] if spec and spec.origin else None
    return sorted(each.name for each in packages.glob("onnxruntime*.dist-info")) if packages else []


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "buoy" / "tuning"


def _recall(manifest: Manifest) -> Tuning | None:
    try:
        return Tuning(**json.loads(_place(manifest).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _remember(manifest: Manifest, tuning: Tuning) -> None:
    with suppress(OSError):  # a read-only home costs the next start a second
        place = _place(manifest)
        part = place.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(tuning)), encoding="utf-8")
        part.replace(place)


@contextmanager
def _alone() -> Iterator[None]:
    """One measurement at a time: two at once would measure each other."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        lock = open(_folder() / "lock", "w")  # noqa: SIM115 - closed below
    except OSError:
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _measure(weights: Path) -> Tuning:
    """Try the ways that use all cores, then batches of the best."""
    from buoy.session import Session

    machine.pin_allocator()
    cores = machine.cores()
    best, best_rate, batchable = rule(), 0.0, False
    for callers in (count for count in range(cores, 0, -1) if cores % count == 0):
        tuning = Tuning(callers, cores // callers)
        session = Session(weights, threads=tuning.threads, callers=callers)
        rate = _rate(session, 1)
        batchable = session.batchable
        if rate > best_rate * (_GAIN if best_rate else 1):
            best, best_rate = tuning, rate
    if batchable:
        session = Session(weights, threads=best.threads, callers=best.callers, batch=max(_BATCHES))
        for batch in _BATCHES:
            rate = _rate(session, batch)
            if rate < best_rate * _GAIN:
                break
            best, best_rate = replace(best, batch=batch), rate
    return best


def _rate(session: Session, batch: int) -> float:
    """Inputs a second with all callers busy, each running `batch` inputs at once."""
    tensors = [session.noise() for _ in range(batch)]
    done, end_s = [0] * session.callers, 0.0

    def call(number: int) -> None:
        while done[number] < _RUNS or time.perf_counter() < end_s:
            session.run_all(tensors)
            done[number] += 1

    session.run_all(tensors)  # the first run allocates
    began_s = time.perf_counter()
    end_s = began_s + _TRIAL_S
    callers = [threading.Thread(target=call, args=(number,)) for number in range(session.callers)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return batch * sum(done) / (time.perf_counter() - began_s)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Path(sys.argv[1])))))
