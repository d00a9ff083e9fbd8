"""`buoy up`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from buoy.cli.talk import say

__all__ = ["up"]


_Seconds = click.FloatRange(0.1)
_Folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--data", type=_Folder, default="buoy-data", show_default=True, help="Folder for buckets, jobs and logs.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--store", default="folder", show_default=True, help="folder, minio (started here), or an S3 URL.")
@click.option("--workers", type=click.IntRange(1), help="Most jobs at once.  [default: by cores and memory]")
@click.option("--fdl", type=_Folder, help="Folder of FDL files.  [default: ./fdl]")
@click.option("--job-timeout", type=_Seconds, default=3600.0, show_default=True, help="Seconds a job may take.")
@click.option(
    "--idle", type=_Seconds, default=300.0, show_default=True, help="Seconds after which an idle worker leaves."
)
@click.option("--json", "as_json", is_flag=True, help="Print where it runs as one line of JSON.")
def up(
    data: Path,
    port: int,
    host: str,
    store: str,
    workers: int | None,
    fdl: Path | None,
    job_timeout: float,
    idle: float,
    as_json: bool,
) -> None:
    """Serve models on this machine: a small OSCAR with buckets, jobs and a page.

    Drop a file into DATA/buckets/<bucket>/input/ and its results appear beside it, in output/.
    """
    import logging

    from buoy.gateway.node import Node, Settings
    from buoy.gateway.serve import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("botocore", "uvicorn", "watchfiles"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = Settings(data.absolute(), host, port, store, workers, fdl, job_timeout, idle)

    def started(node: Node, url: str) -> None:
        drop = node.drop_folders()
        if as_json:
            found = {
                "url": url,
                "data": str(settings.data),
                "credentials": str(settings.data / "credentials.yaml"),
                "services": sorted(node.services),
                "input": drop,
            }
            click.echo(json.dumps(found, ensure_ascii=False))
            return
        say(f"buoy is up: {url}")
        for service, folder in drop.items():
            say(f"  {service}: drop files into {folder}")
        say(f"  user and password: {settings.data / 'credentials.yaml'}")
        say("  Ctrl-C stops it; nothing gets lost.")

    serve(settings, started)
