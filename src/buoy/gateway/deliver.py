"""Brings a job its input and takes its outputs away, with a folder of its own in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from buoy.errors import MissingError, StoreError
from buoy.gateway.events import storage_event
from buoy.gateway.services import Service
from buoy.gateway.state import Job, State
from buoy.store import Object, Store

__all__ = ["Workplace", "files_below", "stage", "upload"]

#: Linux refuses an environment string above 128 KiB, and with it the whole process.
_EVENT_LIMIT_BYTES = 120_000


@dataclass(frozen=True)
class Workplace:
    """The folders of one running job, and the event it answers."""

    folder: Path
    input: Path | None
    output_dir: Path
    event: str

    def clear(self) -> None:
        """Remove everything the job had here."""
        shutil.rmtree(self.folder, ignore_errors=True)


def stage(job: Job, service: Service, store: Store, folder: Path, payloads: Path) -> Workplace:
    """Make the job's folders and bring its input there.

    The input is a copy, also where a hard link could do: so that neither a script that edits its input
    nor somebody who writes into the bucket meanwhile changes what the other sees.

    Raises:
        MissingError: the object is gone, or another one is there now.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    if not job.bucket:
        path = folder / "in" / job.key
        shutil.copyfile(payloads / job.name, path)
        event = job.event or ""
        return Workplace(folder, path, folder / "out", event)
    event = job.event or storage_event(_event_object(job))
    if service.skip_fetch:
        return Workplace(folder, None, folder / "out", event)
    path = folder / "in" / job.key.rpartition("/")[2]
    fetched = store.fetch(job.bucket, job.key, path)
    if fetched.etag != job.etag:
        raise MissingError(
            f"{job.bucket}/{job.key} was replaced before the job ran", "the new object has a job of its own"
        )
    return Workplace(folder, path, folder / "out", event)


def environment(job: Job, service: Service, place: Workplace) -> dict[str, str]:
    """What the supervisor and OSCAR put into a script's environment."""
    found = {
        "TMP_INPUT_DIR": str(place.folder / "in"),
        "TMP_OUTPUT_DIR": str(place.output_dir),
        "JOB_UUID": job.name,
        "OSCAR_SERVICE_NAME": service.name,
        "OSCAR_SERVICE_TOKEN": service.token,
        "OSCAR_SERVICE_BASE_PATH": f"/system/services/{service.name}/exposed",
    }
    if place.input is not None:
        found["INPUT_FILE_PATH"] = str(place.input)
    if len(place.event.encode()) < _EVENT_LIMIT_BYTES and "\0" not in place.event:
        found["EVENT"] = place.event
    if job.bucket:
        found["STORAGE_OBJECT_KEY"] = job.key
        found["EVENT_TIME"] = _event_time(place.event)
    return found


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Regular files with their path relative to the folder; links are not followed."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path


def upload(job: Job, service: Service, store: Store, state: State, output_dir: Path, pool: Executor) -> list[Object]:
    """Put what the job wrote under every output path that takes it; returns the objects.

    As the supervisor does: the path below TMP_OUTPUT_DIR is kept, existing objects are overwritten.
    The state notes the writer before the first byte goes out, so that no event can overtake it.
    """
    targets = [
        (path.bucket, path.key_prefix + relative, file)
        for relative, file in files_below(output_dir)
        for path in service.outputs
        if path.takes(relative)
    ]
    if not targets:
        return []
    state.begin_upload(job, [(bucket, key) for bucket, key, _ in targets])
    try:
        if len(targets) == 1:
            return [store.put(*targets[0])]
        return list(pool.map(lambda target: store.put(*target), targets))
    except StoreError:
        state.forget_upload(job)
        raise


def _event_object(job: Job) -> Object:
    return Object(job.bucket, job.key, job.size_bytes, job.etag, job.created)


def _event_time(event: str) -> str:
    import json

    try:
        return str(json.loads(event)["Records"][0]["eventTime"])
    except (ValueError, LookupError, TypeError):
        return ""
