"""`buoy serve`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buoy.errors import UsageError

if TYPE_CHECKING:
    from buoy.serve.settings import Oidc

__all__ = ["serve"]

_File = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--port", envvar="BUOY_PORT", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="0 takes a free one.  [$BUOY_PORT]")  # fmt: skip
@click.option(
    "--host", envvar="BUOY_HOST", default="127.0.0.1", show_default=True, help="Where to listen.  [$BUOY_HOST]"
)
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Also answer gRPC there; 0 takes a free one.")
@click.option("--tls-cert", type=_File, help="Certificate, PEM.")
@click.option("--tls-key", type=_File, help="Its key, PEM.")
@click.option("--tls", type=click.Choice(["self"]), help="self: make a certificate for development.")
@click.option("--token-file", type=_File, help="The token to ask for.  [default: $BUOY_TOKEN or $OSCAR_SERVICE_TOKEN]")
@click.option("--oidc-issuer", envvar="BUOY_OIDC_ISSUER", metavar="URL", help="Believe tokens of this OpenID provider.")
@click.option("--oidc-audience", envvar="BUOY_OIDC_AUDIENCE", metavar="NAME", help="Whom those tokens must be for.")
@click.option("--oidc-jwks", envvar="BUOY_OIDC_JWKS", metavar="URL", help="Its keys.  [default: as it says itself]")
@click.option("--oidc-require", envvar="BUOY_OIDC_REQUIRE", metavar="CLAIM=VALUE", multiple=True,
              help="What those tokens must say besides; repeatable.")  # fmt: skip
@click.option("--rate", envvar="BUOY_RATE", default="", metavar="N/s", help="Requests of each caller: N/s, N/min, N/h.")
@click.option("--cors", envvar="BUOY_CORS", metavar="ORIGIN", multiple=True,
              help="Let pages of this origin ask from a browser; repeatable.")  # fmt: skip
@click.option("--streams", envvar="BUOY_STREAMS", type=_File, help="Cameras and videos to look at: a YAML list.")
@click.option("--data", envvar="BUOY_SERVE_DATA", type=click.Path(file_okay=False, path_type=Path),
              help="Where streams and what they have seen are kept.")  # fmt: skip
@click.option("--max-upload", envvar="BUOY_MAX_UPLOAD", type=click.FloatRange(0.001, 4096), default=64.0,
              show_default=True, help="Largest upload, MiB.")  # fmt: skip
@click.option("--max-wait", type=click.FloatRange(0.01, 3600), default=0.3, show_default=True,
              help="Seconds of queue above which requests are refused (429).")  # fmt: skip
@click.option("--callers", type=click.IntRange(1, 256), help="Runs of a network at once.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print where it runs as one line of JSON.")
def serve(
    models: tuple[str, ...], port: int, host: str, grpc_port: int | None,
    tls_cert: Path | None, tls_key: Path | None, tls: str | None, token_file: Path | None,
    oidc_issuer: str | None, oidc_audience: str | None, oidc_jwks: str | None,
    oidc_require: tuple[str, ...], rate: str, cors: tuple[str, ...], streams: Path | None, data: Path | None,
    max_upload: float, max_wait: float, callers: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Keep each MODEL (a name or a folder) in memory and answer requests over HTTP."""
    from buoy.serve.access import read_token
    from buoy.serve.settings import Settings
    from buoy.serve.start import serve as run

    if (tls_cert is None) != (tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if tls_cert else ("--tls-key", "--tls-cert")
        raise UsageError(f"{given} without {missing}", "a certificate and its key belong together: give both")
    if tls and tls_cert:
        raise UsageError(f"--tls {tls} with --tls-cert", "give one of them")
    base_path = os.environ.get("OSCAR_SERVICE_BASE_PATH", "").rstrip("/")
    settings = Settings(
        models,
        host,
        port,
        read_token(token_file),
        f"/{base_path.lstrip('/')}" if base_path else "",
        int(max_upload * (1 << 20)),
        max_wait,
        callers,
        (tls_cert, tls_key) if tls_cert and tls_key else None,
        _oidc(oidc_issuer, oidc_audience, oidc_jwks, oidc_require),
        rate,
        cors,
        grpc_port,
        streams,
        data,
    )

    def started(url: str, rpc: str) -> None:
        if as_json:
            where = {"url": url} | ({"grpc": rpc} if rpc else {})
            click.echo(json.dumps({**where, "models": list(models), "pid": os.getpid()}))
        else:
            click.echo(f"buoy serves {', '.join(models)}: {url}{f' and gRPC at {rpc}' * bool(rpc)}", err=True)

    run(settings, started, self_signed=tls == "self")


def _oidc(issuer: str | None, audience: str | None, jwks: str | None, require: tuple[str, ...]) -> Oidc | None:
    if not issuer and not audience:
        return None
    if not issuer or not audience:
        raise UsageError(
            "a provider and an audience belong together", "give --oidc-issuer URL with --oidc-audience NAME"
        )
    from buoy.serve.settings import Oidc

    pairs = [each.partition("=") for each in require]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(f"--oidc-require is {wrong[0][:40]!r}", "give CLAIM=VALUE")
    return Oidc(issuer, audience, jwks or "", tuple((name, value) for name, _, value in pairs))
