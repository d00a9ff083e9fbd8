"""Answers one event of OSCAR: a picture or a zip of pictures in, files of results out.

This is what `fdl/script.sh` runs for each object, and what a resident worker (`buoy.worker`) does over and
over: both call `attempt`, so their files and their log are the same. The contract with the supervisor is its
environment:

    INPUT_FILE_PATH     the object, downloaded
    TMP_OUTPUT_DIR      what is left there is uploaded, whatever the exit code
    STORAGE_OBJECT_KEY  the object's key in its bucket; absent for synchronous calls

and with the service its own variables:

    BUOY_MODEL          name or folder of the model
    BUOY_OUTPUTS        formats, by commas; json if unset
    BUOY_INPUT          the service's input path (`bucket/folder`); below it sub-folders are kept

The supervisor never reads the exit code of a script (faassupervisor/faas/binary/supervisor.py), so whatever
goes wrong is also written as `<name>.error.json`: a failed job that looks successful still shows its failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from buoy import outputs
from buoy.archive import is_zip, pictures_in
from buoy.engine import Engine, Input, Outcome
from buoy.errors import BuoyError, InputError, UsageError, as_buoy_error
from buoy.folders import find_folder
from buoy.manifest import Manifest
from buoy.model import Model, sha256_of
from buoy.results import Failure, InputInfo, ModelInfo, Result
from buoy.version import VERSION

__all__ = [
    "DONE",
    "ERROR",
    "FAILED_INPUTS",
    "Event",
    "Report",
    "Setup",
    "answer",
    "attempt",
    "give_up",
    "main",
    "model_info",
    "run",
]

#: Exit codes: all inputs done; our error; finished, but some inputs failed.
DONE, ERROR, FAILED_INPUTS = 0, 1, 3

#: Takes a line of the log.
Say = Callable[[str], None]


class Setup(NamedTuple):
    """What a service sets once, by its variables."""

    folder: Path
    formats: tuple[str, ...] = ("json",)
    #: `bucket/folder`, or empty.
    input_path: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Setup:
        """Take it from the environment.

        Raises:
            UsageError: a variable is missing, or names a model or format that there is not.
        """
        folder = find_folder(_variable(environ, "BUOY_MODEL", "set it to a model's name or folder"))
        names = [name.strip() for name in (environ.get("BUOY_OUTPUTS") or "json").split(",") if name.strip()]
        return cls(folder, tuple(outputs.check_formats(names)), environ.get("BUOY_INPUT", ""))

    @property
    def draws(self) -> bool:
        """Whether the decoded pictures are needed again."""
        return any(outputs.FORMATS[name].draws for name in self.formats)


class Event(NamedTuple):
    """One object to look at."""

    path: Path
    output_dir: Path
    #: Key of the object in its bucket, or empty.
    object_key: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Event:
        """Take it from the environment.

        Raises:
            UsageError: a variable is missing.
        """
        hint = "the supervisor of OSCAR sets it; to look at files yourself use: buoy predict"
        path = _variable(environ, "INPUT_FILE_PATH", hint)
        output_dir = _variable(environ, "TMP_OUTPUT_DIR", hint)
        return cls(Path(path), Path(output_dir), environ.get("STORAGE_OBJECT_KEY", ""))


class Report(NamedTuple):
    """How it went."""

    done: int
    failed: int
    written: list[Path]

    @property
    def exit_code(self) -> int:
        """0, or 3 if inputs failed."""
        return FAILED_INPUTS if self.failed else DONE


def main() -> int:
    """Answer the event that the environment describes; returns the exit code."""
    try:
        event = Event.read(os.environ)
    except UsageError as error:
        _say(f"buoy: {error}")
        return ERROR
    try:
        setup = Setup.read(os.environ)
        with _engine(setup, many=is_zip(event.path)) as engine:
            return attempt(engine, event, setup, _say)
    except Exception as error:  # the model cannot be loaded; `attempt` answers for all that comes later
        told = as_buoy_error(error, "buoy function")
        input_path = os.environ.get("BUOY_INPUT", "")
        return give_up(told, event, input_path, model_info(os.environ.get("BUOY_MODEL", "")), _say)


def run() -> NoReturn:
    """Answer the event, and end the process there and then.

    The usual way out takes Python 50 ms and more to free, object by object, what the kernel frees at once; in a
    process that lives for half a second that counts. Files are closed and threads have ended by now.
    """
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def attempt(engine: Engine, event: Event, setup: Setup, say: Say) -> int:
    """Answer an event whatever happens; returns the exit code and never raises."""
    try:
        say(_introduction(engine))
        report = answer(
            engine,
            event.path,
            event.output_dir,
            object_key=event.object_key,
            input_path=setup.input_path,
            formats=setup.formats,
            say=say,
        )
        return report.exit_code
    except Exception as error:
        told = as_buoy_error(error, "buoy function")
        return give_up(told, event, setup.input_path, engine.model.info, say)


def answer(
    engine: Engine,
    path: Path,
    output_dir: Path,
    *,
    object_key: str = "",
    input_path: str = "",
    formats: Sequence[str] = ("json",),
    say: Say = lambda line: None,
) -> Report:
    """Look at a picture, or at all pictures of a zip, and write the files of each.

    Args:
        engine: keeps pixels, if a format draws.
        path: the local copy; whether it is a zip is told from its content.
        output_dir: where the files go, and the only place that is written to.
        object_key: key of the object in its bucket, if it comes from one.
        input_path: the service's `bucket/folder`; the sub-folders of the key below it are kept.
        formats: see `buoy.outputs`.
        say: takes a line for each input.

    Raises:
        StoreError: a file cannot be written. Those written before are whole, and stay.
    """
    name = _name(path, object_key, input_path)
    done = failed = 0
    written: list[Path] = []
    for outcome in _outcomes(engine, path, name):
        written += outputs.write(outcome, formats, output_dir)
        failed += outcome.failed
        done += not outcome.failed
        say(_line(outcome))
    if done + failed > 1:
        say(f"{done} done, {failed} failed")
    return Report(done, failed, written)


def _outcomes(engine: Engine, path: Path, name: str) -> Iterator[Outcome]:
    if not is_zip(path):
        yield from engine.map([Input(name, path)])
        return
    broken: list[InputError] = []

    def entries() -> Iterator[Input]:
        try:
            for entry, content in pictures_in(path):
                yield Input(f"{name}/{entry}", content)
        except InputError as error:
            broken.append(error)

    yield from engine.map(entries())
    for error in broken:
        yield Outcome(Input(name, error), Failure.of(error, _describe(path, name), engine.model.info))


def _engine(setup: Setup, *, many: bool) -> Engine:
    """For many pictures as many lanes as cores; for one picture all cores on it, and no memory held back."""
    if many:
        return Engine.open(setup.folder, keep_pixels=setup.draws)
    return Engine(Model.load(setup.folder), keep_pixels=setup.draws)


def _name(path: Path, object_key: str, input_path: str) -> str:
    """What the input is called in results: its path below the service's input, or its file name.

    OSCAR takes an input path without a slash as a folder in the service's own bucket (pkg/handlers/create.go).
    """
    trimmed = input_path.strip(" /")
    folder = trimmed.partition("/")[2] if "/" in trimmed else trimmed
    below = object_key.removeprefix(f"{folder}/")
    parts = below.split("/")
    inside = bool(folder) and below != object_key and not {"", ".", ".."}.intersection(parts)
    return below if inside else path.name


def give_up(error: BuoyError, event: Event, input_path: str, model: ModelInfo, say: Say) -> int:
    """Say it, and leave a record of it where the result would have been, if that can be."""
    say(f"buoy: {error}")
    name = _name(event.path, event.object_key, input_path)
    try:
        failure = Failure.of(error, _describe(event.path, name), model)
        outputs.write(Outcome(Input(name, error), failure), (), event.output_dir)
    except (BuoyError, OSError) as second:
        say(f"buoy: the error record could not be written either: {second}")
    return ERROR


def _describe(path: Path, name: str) -> InputInfo:
    """Size and hash of a file of any size."""
    try:
        return InputInfo(name=name, size_bytes=path.stat().st_size, sha256=sha256_of(path))
    except OSError:
        return InputInfo(name=name, size_bytes=0, sha256="")


def model_info(model: str) -> ModelInfo:
    """What can be known of a model without loading it."""
    try:
        manifest = Manifest.load(find_folder(model))
    except BuoyError:
        return ModelInfo(name=model, version="unknown", weights_sha256="", maturity="demo")
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        weights_sha256=manifest.weights.sha256,
        maturity=manifest.maturity,
    )


def _introduction(engine: Engine) -> str:
    info = engine.model.info
    caveat = "demo weights: draw no conclusions from the results" if info.maturity == "demo" else info.maturity
    return f"buoy {VERSION}: {info.name} {info.version} ({caveat})"


def _line(outcome: Outcome) -> str:
    record = outcome.record
    if not isinstance(record, Result):
        return f"{record.input.name}: failed: {record.error.message}; {record.error.hint}".rstrip("; ")
    return f"{record.input.name}: {len(record.detections or [])} found, {record.run.total_ms:.0f} ms"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _variable(environ: Mapping[str, str], name: str, hint: str) -> str:
    if value := environ.get(name):
        return value
    raise UsageError(f"the environment variable {name} is not set", hint)
