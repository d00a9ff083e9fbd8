"""`buoy batch`: a model over a whole bucket or folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from buoy.cli.batch_caps import cap_options, more_options, raised
from buoy.cli.batch_engine import Choice, choose, crew_of, engine_options, last_choice, open_engine, share_of
from buoy.cli.batch_filters import base_of, filter_options, filters_of
from buoy.cli.batch_terminal import survive
from buoy.cli.group import FAILED_INPUTS
from buoy.cli.talk import say
from buoy.errors import StoreError

if TYPE_CHECKING:
    from buoy.batch.pilot import Pace
    from buoy.batch.run import Found
    from buoy.batch.spec import Spec

#: Exit codes of a run that did not come to its end.
PAUSED, CANCELLED = 4, 5

_Run = click.argument("run", metavar="RUN")
_Json = click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")


@click.group()
def batch() -> None:
    """Run a model over a whole bucket or folder, each object exactly once, whatever dies on the way.

    A run is named by its place, OUT/NAME, or by OUT alone if there is only one. S3 is reached with
    BUOY_S3_ENDPOINT, BUOY_S3_ACCESS_KEY and BUOY_S3_SECRET_KEY, or as AWS's tools are.
    """


@batch.command()
@click.argument("model")
@click.argument("source")
@click.option("--out", required=True, help="Where results go: a folder, or s3://bucket/prefix.")
@filter_options
@click.option("--key-pattern", default="", help="{station}/{camera}/{time:%Y%m%d_%H%M%S}.jpg, or a regular expression.")
@click.option(
    "--every", type=click.FloatRange(0.01), default=1.0, show_default=True, help="Seconds between frames of a video."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="At most; on this machine they share the cores.",
)
@cap_options
@engine_options
@click.option("--item-timeout", type=click.FloatRange(0.1), default=120.0, show_default=True,
              help="Seconds after which a picture is a failed one.")  # fmt: skip
@click.option("--again", type=click.IntRange(0), default=0, help="Raise it to do again what was done.")
@click.option("--dry-run", is_flag=True, help="Say what there is and what it will take, and stop.")
@_Json
def run(
    model: str, source: str, out: str, key_pattern: str, every: float, workers: int, max_hours: float | None,
    max_core_hours: float | None, engine: str, image: str, namespace: str, service: str, cluster: str, again: int,
    item_timeout: float, dry_run: bool, as_json: bool, listed: str | None, new_since: str | None, **chosen: Any,
) -> int:  # fmt: skip
    """Run MODEL over SOURCE, a folder or s3://bucket/prefix.

    The same command again takes over where the last one was killed, or shows what came out. Closing the terminal
    stops nothing.
    """
    from msgspec.structs import replace

    from buoy.batch.area import Home
    from buoy.batch.list_source import pin_list
    from buoy.batch.run import prepare
    from buoy.batch.spec import Handling, Spec, pin_model

    source = source if source.startswith("s3://") else str(Path(source).absolute())
    spec = Spec(
        source=source,
        model=pin_model(model),
        filters=filters_of(chosen),
        listed=pin_list(listed, source) if listed else None,
        key_pattern=key_pattern,
        every_s=every,
        again=again,
        handling=Handling(
            item_timeout_s=item_timeout, memory_bytes=int(os.environ.get("BUOY_BATCH_CHILD_MIB") or 0) << 20
        ),
        pace=_pace(),
    )
    home, choice = Home(out), choose(engine, image, namespace, service, cluster)
    spec = replace(spec, base=base_of(new_since, spec, home))
    if spec.model.maturity == "demo":
        say(f"{spec.model.name}: demo weights, draw no conclusions from the results")
    survive(spec.run)
    found = prepare(spec, home, say)
    _introduce(spec, home, found, choice, workers, as_json)
    if dry_run:
        return 0
    caps = {"max_hours": max_hours, "max_core_hours": max_core_hours}
    return _coordinate(spec, home, found, choice, workers, as_json, **caps)


def _coordinate(
    spec: Spec, home: Any, found: Found, choice: Choice, workers: int, as_json: bool, **caps: float | None
) -> int:
    from buoy.batch.pilot import Ending
    from buoy.batch.run import coordinate
    from buoy.cli.batch_display import Display

    engine = open_engine(choice, spec, home, workers)
    share = share_of(choice, spec, found.estimate.cores, workers)
    with Display(found.manifest, spec, home.where, as_json=as_json) as display:
        survive(spec.run, display.leave)
        look_s = min(2.0, spec.pace.idle_s)
        try:
            ending = coordinate(
                spec, home, found, engine, about=choice, share=share, pilots=workers, show=display.show, look_s=look_s,
                **caps,
            )  # fmt: skip
        except StoreError as error:
            if error.retry and not error.full:
                raise
            say(f"stopped: {error}; once that is mended, the same command goes on")
            return PAUSED
        except KeyboardInterrupt:
            say(f"the workers go on; watch them: buoy batch watch {home.where}/{spec.run}")
            return 130
    if ending is Ending.DONE:
        display.conclude()
        return _conclude(found.ledger, as_json)
    order = _order(found.ledger)
    place = f"{home.where}/{spec.run}"
    if ending is Ending.PAUSED:
        more = ""
        if "it may take" in order.reason:  # a cap
            more = " --max-core-hours N" if "core hours" in order.reason else " --max-hours N"
        left = f"{display.left:,} of {found.manifest.rows:,} objects are left"
        say(f"paused: {order.reason or 'by ' + order.by}; {left}; go on with: buoy batch resume {place}{more}")
        return PAUSED
    if ending is Ending.CANCELLED:
        say("cancelled")
        return CANCELLED
    say(f"another coordinator took over; watch it: buoy batch watch {place}")
    return 0


@batch.command()
@_Run
@click.option("--prometheus", is_flag=True, help="As Prometheus text on stdout.")
@_Json
def status(run: str, prometheus: bool, as_json: bool) -> int:
    """Where RUN stands, and what each worker does."""
    return _follow(run, as_json, once=True, prometheus=prometheus)


@batch.command()
@_Run
@_Json
def watch(run: str, as_json: bool) -> int:
    """Show the progress of RUN until it ends. Stopping to watch stops nothing."""
    return _follow(run, as_json, once=False)


@batch.command()
@_Run
def pause(run: str) -> None:
    """Have the workers finish what they have in hand, and leave."""
    _give(run, "paused")


@batch.command()
@_Run
@click.option("--anyway", is_flag=True, help="Go on even if everything fails the same way.")
@click.option("--workers", type=click.IntRange(1, 1000), help="Processes.  [default: as before]")
@more_options
@_Json
def resume(
    run: str, anyway: bool, workers: int | None, max_hours: float | None, max_core_hours: float | None, as_json: bool
) -> int:
    """Go on with RUN."""
    from buoy.batch.run import prepare

    home, spec, ledger = _open(run)
    caps = raised(ledger, max_hours, max_core_hours)
    order, choice = _give(run, "running", anyway=anyway, pilots=workers, **caps), last_choice(ledger)
    return _coordinate(spec, home, prepare(spec, home, say), choice, order.pilots, as_json)


@batch.command()
@_Run
@click.option("--workers", type=click.IntRange(1, 1000), default=1, show_default=True, help="Processes.")
@click.option("--item-timeout", type=click.FloatRange(0.1), help="Seconds.  [default: as before]")
@click.option("--dry-run", is_flag=True, help="Say what there is, and stop.")
@_Json
def retry(run: str, workers: int, item_timeout: float | None, dry_run: bool, as_json: bool) -> int:
    """Do the objects of RUN again that failed, changed or were gone, as they are now.

    It is a run of its own; in its results the new rows are laid over those of RUN.
    """
    from buoy.batch.bases import retry_spec
    from buoy.batch.find import find_run
    from buoy.batch.run import open_ledger, prepare

    home, name = find_run(run)
    spec = retry_spec(home, name, item_timeout_s=item_timeout)
    if spec is None:
        say("every object has a result: there is nothing to do again")
        return 0
    found = prepare(spec, home, say)
    choice = last_choice(open_ledger(home, name))
    _introduce(spec, home, found, choice, workers, as_json)
    return 0 if dry_run else _coordinate(spec, home, found, choice, workers, as_json)


@batch.command()
@_Run
def cancel(run: str) -> None:
    """End RUN for good. What was done stays in its ledger."""
    _give(run, "cancelled")
    home, spec, ledger = _open(run)
    open_engine(last_choice(ledger), spec, home, 1).cancel()


@batch.command()
@_Run
@_Json
def report(run: str, as_json: bool) -> int:
    """Show what came out of RUN."""
    return _conclude(_open(run)[2], as_json)


def _open(text: str) -> Any:
    from buoy.batch.find import find_run
    from buoy.batch.run import open_ledger
    from buoy.batch.work import read_spec

    home, name = find_run(text)
    ledger = open_ledger(home, name)
    return home, read_spec(ledger), ledger


def _order(ledger: Any) -> Any:
    from buoy.batch.control import Control

    return Control(ledger).look()


def _give(run: str, state: Any, **options: Any) -> Any:
    from buoy.batch.control import Control

    order = Control(_open(run)[2]).give(state, by="the command line", **options)
    say(state)
    return order


def _follow(run: str, as_json: bool, *, once: bool, prometheus: bool = False) -> int:
    from buoy.batch.beats import Beats
    from buoy.batch.clock import SystemClock
    from buoy.batch.control import Control
    from buoy.batch.layout import DONE
    from buoy.batch.manifest import read_index
    from buoy.batch.overview import Overview
    from buoy.cli.batch_display import Display

    home, spec, ledger = _open(run)
    clock, control, index = SystemClock(), Control(ledger), read_index(ledger)
    if index is None:
        say("the source is still being listed")
        return 0
    overview, beats = Overview(ledger, clock, spec.pace.lease_s), Beats(ledger, spec.pace.beat_s)
    with Display(index, spec, home.where, as_json=as_json, plain=once) as display:
        while True:
            order = control.look()
            overview.view.refresh()
            overview.read(mend=False)
            done = ledger.read(DONE) is not None
            progress = overview.progress(order, index.rows, beats=beats.read())
            if prometheus:
                from buoy.batch.metrics import exposition

                click.echo(exposition(spec.run, progress, done=done), nl=False)
                return 0
            display.show(progress, done=done)
            ended = done or order.state == "cancelled"
            if once or ended:
                break
            clock.sleep(2.0)
    return _conclude(ledger, as_json) if ended and order.state != "cancelled" else 0


def _conclude(ledger: Any, as_json: bool) -> int:
    from buoy.batch.layout import DONE

    done = ledger.read(DONE)
    if done is None:
        say("it is not done yet")
        return 0
    counts = done["counts"]
    if as_json:
        click.echo(json.dumps({"done": {name: done[name] for name in ("results", "seal", "counts", "report")}}))
    else:
        say(", ".join(f"{number:,} {status}" for status, number in counts.items()))
        click.echo(done["results"])
    bad = sum(counts.get(status, 0) for status in ("failed", "changed", "deleted"))
    if bad and not as_json:
        say(f"{bad:,} have no result, see failures.csv there; again: {done['report']['retry']}")
    return FAILED_INPUTS if bad else 0


def _introduce(spec: Spec, home: Any, found: Found, choice: Choice, workers: int, as_json: bool) -> None:
    manifest, estimate = found.manifest, found.estimate
    hours = estimate.total_s / 3600 * estimate.cores
    crew = crew_of(choice, spec, home, estimate.cores, workers)
    low_s, high_s = crew.longer * estimate.total_p10_s, crew.longer * estimate.total_p90_s
    facts = {
        "run": f"{home.where}/{spec.run}",
        "objects": manifest.todo,
        "bytes": manifest.todo_bytes,
        "empty": manifest.fates.get("empty", 0),
        "skipped": manifest.fates.get("skipped", 0),
        "outside_filters": manifest.outside,
        "known": manifest.known,
        "deleted": manifest.fates.get("deleted", 0),
        "bad_lines": manifest.notes.bad,
        "older_versions": manifest.notes.old,
        "repeated": manifest.notes.repeated,
        "sampled": estimate.sampled,
        "seconds_per_object": round(estimate.mean_s * estimate.cores, 4),
        "workers": workers,
        "workers_that_fit": min(workers, crew.fit.pilots),
        "finish_s": {"p10": round(low_s, 1), "p90": round(high_s, 1)},
        "core_hours": round(hours, 3),
        "keys_read": round(found.matched, 3) if spec.key_pattern else None,
    }
    if as_json:
        click.echo(json.dumps({"found": facts}))
        return
    say(f"{facts['run']}")
    others = [f"{facts[name]:,} {word}" for name, word in _WORDS.items() if facts[name]]
    say(f"  {manifest.todo:,} objects, {_size(manifest.todo_bytes)}" + "".join(f"; {other}" for other in others))
    for told in manifest.notes.told[:10]:
        say(f"  {told}")
    say(
        f"  {facts['seconds_per_object']:.3f} core seconds for each ({estimate.sampled} tried): {_span(low_s)} to "
        f"{_span(high_s)} {crew.where}, {hours:.2f} core hours"
    )
    if crew.fit.pilots < workers:
        say(f"  room for {crew.fit.pilots} of {workers} workers: {crew.fit.why}")
    if spec.key_pattern:
        say(f"  the key pattern reads {found.matched:.0%} of the keys")


_WORDS = {
    "empty": "empty", "skipped": "that are no pictures", "outside_filters": "left out by the filters",
    "known": "that an earlier run had", "deleted": "that are still gone", "older_versions": "older versions",
    "repeated": "lines said twice", "bad_lines": "bad lines in the list",
}  # fmt: skip


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.2f} TiB"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _pace() -> Pace:
    """How patient the run is. Tests are less patient: `BUOY_BATCH_LEASE_S`."""
    from buoy.batch.pilot import Pace

    lease_s = float(os.environ.get("BUOY_BATCH_LEASE_S") or Pace().lease_s)
    return Pace(lease_s=lease_s, beat_s=lease_s / 3, look_s=lease_s / 4.5, idle_s=lease_s / 18)
