"""`buoy put`, `buoy jobs`, `buoy logs`: what a running `buoy up` does, from another terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from buoy.cli.gateway import Gateway
from buoy.cli.group import FAILED_INPUTS
from buoy.cli.talk import progress, say
from buoy.errors import UsageError

__all__ = ["jobs", "logs", "put"]

#: `buoy up &` and `buoy put` right after it: so long may the first take.
_COMES_UP_S = 20.0

_data = click.option(
    "--data", type=click.Path(path_type=Path), default="buoy-data", show_default=True, help="Data folder of buoy up."
)
_json = click.option("--json", "as_json", is_flag=True, help="One line of JSON for each.")


class _Done(NamedTuple):
    """A file's job at its end, and the results that came with it."""

    job: dict[str, Any]
    results: list[dict[str, Any]]


@click.command()
@click.argument("service")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the results and print them.")
@_data
@_json
def put(service: str, files: tuple[Path, ...], wait: bool, data: Path, as_json: bool) -> int:
    """Upload FILES to SERVICE of a running buoy."""
    names = [path.name for path in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"several files are called {', '.join(twice)}", "one would replace the other: rename them")
    gateway = Gateway(data, wait_s=_COMES_UP_S)
    inputs = gateway.get(f"/system/services/{service}")["input"]
    if not inputs:
        raise UsageError(f"service {service} has no input path", f"post to {gateway.url}/job/{service} instead")
    bucket, _, folder = _place(service, inputs[0]["path"])
    keys = {f"{folder}/{path.name}" if folder else path.name: path for path in files}
    seq = int(gateway.get("/page/jobs", limit=1)["seq"])
    for key, path in progress(keys.items(), len(keys), "upload"):
        gateway.upload(bucket, key, path)
    if not wait:
        say(f"{len(keys)} files are in {bucket}/{folder}")
        return 0
    done = failed = 0
    for one in progress(_wait(gateway, service, set(keys), seq), len(keys), service):
        bad = one.job["state"] != "Succeeded"
        done, failed = done + (not bad), failed + bad
        click.echo(json.dumps(_record(one), ensure_ascii=False) if as_json else "\n".join(_lines(one)))
    say(f"{done} done, {failed} failed")
    return FAILED_INPUTS if failed else 0


@click.command()
@click.argument("service", default="")
@click.option("--state", type=click.Choice(["Pending", "Running", "Succeeded", "Failed"]), default=None)
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@_data
@_json
def jobs(service: str, state: str | None, limit: int, data: Path, as_json: bool) -> None:
    """List the jobs of a running buoy, the latest first."""
    found = Gateway(data).get("/page/jobs", service=service, state=state or "", limit=limit)
    for job in found["jobs"]:
        if as_json:
            click.echo(json.dumps(job, ensure_ascii=False))
            continue
        began = datetime.fromtimestamp(job["created"]).strftime("%H:%M:%S")
        took = "" if job["duration_s"] is None else f"{job['duration_s']:.2f} s"
        line = f"{began}  {job['state']:<9}  {took:>9}  {job['name']}  {job['key']}"
        click.echo(f"{line}  {job['reason']}".rstrip())
    counts = ", ".join(f"{number} {name}" for name, number in found["counts"].items())
    say(counts)


@click.command()
@click.argument("job")
@_data
def logs(job: str, data: Path) -> None:
    """Show the log of JOB (a name that `buoy jobs` shows)."""
    click.echo(Gateway(data).get(f"/page/jobs/{job}/log"), nl=False)


def _place(service: str, path: str) -> tuple[str, str, str]:
    """Bucket and folder of an input, by OSCAR's rule: one segment alone is a folder in the service's bucket."""
    trimmed = path.strip(" /")
    return (trimmed if "/" in trimmed else f"{service}/{trimmed}").partition("/")


def _wait(gateway: Gateway, service: str, keys: set[str], seq: int) -> Iterator[_Done]:
    """Each key's job when it is over, with its results, as told by the gateway's events."""
    ended: dict[str, _Done] = {}
    with gateway.events(seq) as events:
        for number, name, data in events:
            if name == "job" and data["service"] == service and data["key"] in keys:
                if data["state"] in ("Succeeded", "Failed"):
                    ended[data["key"]] = _Done(data, [])
            elif name == "result" and data["service"] == service and data["key"] in ended:
                ended[data["key"]].results.append(data)
            elif name == "heartbeat":
                # An S3 store gives the same content the same etag: sent again, it is no new job.
                for job in gateway.get("/page/jobs", service=service, limit=500)["jobs"]:
                    if job["key"] in keys and job["state"] in ("Succeeded", "Failed"):
                        keys.discard(job["key"])
                        yield _Done(job, [])
            if number is not None:  # a change is told completely
                for key in list(ended):
                    keys.discard(key)
                    yield ended.pop(key)
            if not keys:
                return


def _record(one: _Done) -> dict[str, Any]:
    results = [result["result"] for result in one.results]
    return {key: one.job[key] for key in ("key", "name", "state", "reason", "duration_s")} | {"results": results}


def _lines(one: _Done) -> list[str]:
    lines = [_line(result["name"], result["result"]) for result in one.results if result["result"]]
    if one.job["state"] != "Succeeded" and not any("error" in (result["result"] or {}) for result in one.results):
        lines.append(f"{one.job['key']}: failed: {one.job['reason']}")
    return lines or [f"{one.job['key']}: done"]


def _line(name: str, result: dict[str, Any]) -> str:
    if error := result.get("error"):
        return f"{name}: failed: {error['message']}; {error['hint']}"
    found = [f"{each['label']} {each['score']:.2f}" for each in result.get("detections") or []]
    return f"{name}: {', '.join(found) or 'nothing found'}"
