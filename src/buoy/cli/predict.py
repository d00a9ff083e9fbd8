"""`buoy predict`: files in, results out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from buoy import outputs
from buoy.archive import is_zip, pictures_in
from buoy.cli.group import FAILED_INPUTS
from buoy.cli.talk import progress, say
from buoy.engine import Engine, Input, Outcome
from buoy.errors import InputError, UsageError
from buoy.folders import find_folder
from buoy.results import Record, Result
from buoy.tasks import Thresholds

_TABLES = {"csv": "results", "coco": "results"}
_PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".zip")


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the results.  [default: none are kept]"
)
@click.option("--format", "formats", default="json,csv", show_default=True,
              help="json, drawn, obsea: a file for each picture; csv, coco: one table.")  # fmt: skip
@click.option("--score", type=click.FloatRange(0, 1), help="Least score of a detection; the manifest has the default.")
@click.option("--iou", type=click.FloatRange(0, 1), help="Greatest overlap of two detections of a class.")
@click.option("--json", "as_json", is_flag=True, help="The records on stdout, one a line.")
def predict(
    model: str, files: tuple[Path, ...], output: Path | None, formats: str, score: float | None, iou: float | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Run MODEL (a name or a folder) over FILES: pictures, zips of pictures, or folders of both."""
    names = outputs.check_formats([name.strip() for name in formats.split(",") if name.strip()])
    paths = list(_expand(files))
    single = len(paths) == 1 and not is_zip(paths[0][1])
    draws = output is not None and any(outputs.FORMATS[name].draws for name in names)
    folder = find_folder(model)
    with Engine.open(folder, callers=1 if single else None, keep_pixels=draws) as engine:
        default = engine.model.thresholds
        engine.thresholds = Thresholds(default.score if score is None else score, default.iou if iou is None else iou)
        if engine.model.info.maturity == "demo":
            say(f"{engine.model.info.name}: demo weights, draw no conclusions from the results")
        outcomes = progress(engine.map(_inputs(paths)), len(paths), engine.model.info.name)
        return _deliver(outcomes, output, names, as_json)


def _deliver(outcomes: Iterable[Outcome], output: Path | None, names: list[str], as_json: bool) -> int:
    """Write and print what comes, as it comes; tables at the end."""
    each = [name for name in names if name not in _TABLES]
    tables = [name for name in names if name in _TABLES] if output else []
    records: list[Record] = []
    done = failed = 0
    for outcome in outcomes:
        if output:
            outputs.write(outcome, each, output)
        if tables:
            records.append(outcome.record)
        click.echo(msgspec.json.encode(outcome.record).decode() if as_json else _line(outcome.record))
        failed += outcome.failed
        done += not outcome.failed
    for name in tables:
        assert output
        kind = outputs.COLLECTED[name]
        outputs.save(output / f"{_TABLES[name]}{kind.suffix}", b"".join(kind.encode(records)))
    say(f"{done} done, {failed} failed" + (f"; results in {output}" if output else ""))
    return FAILED_INPUTS if failed else 0


def _line(record: Record) -> str:
    if not isinstance(record, Result):
        return f"{record.input.name}: failed: {record.error.message}; {record.error.hint}"
    found = [f"{each.label} {each.score:.2f}" for each in record.detections or []]
    return f"{record.input.name}: {', '.join(found) or 'nothing found'} ({record.run.total_ms:.0f} ms)"


def _expand(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Names and paths of the files; those of a folder are named by their path inside it."""
    plain = [path for path in files if not path.is_dir()]
    twice = len({path.name for path in plain}) < len(plain)
    common = os.path.commonpath([path.absolute().parent for path in plain]) if twice else ""
    for path in plain:
        yield (str(path.absolute().relative_to(common)) if twice else path.name), path
    for folder in (path for path in files if path.is_dir()):
        inside = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES and path.is_file())
        if not inside:
            raise UsageError(f"{folder}: no pictures in it", f"looked for {', '.join(_PICTURES)}")
        yield from ((str(path.relative_to(folder)), path) for path in inside)


def _inputs(paths: Iterable[tuple[str, Path]]) -> Iterator[Input]:
    for name, path in paths:
        if not is_zip(path):
            yield Input(name, path)
            continue
        try:
            yield from (Input(f"{name}/{entry}", source) for entry, source in pictures_in(path))
        except InputError as error:  # the zip as a whole; what was read of it before stands
            yield Input(name, error)
