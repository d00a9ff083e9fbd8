"""Starts the service: what can be wrong is found first, the models begin to load, then the web is imported."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from buoy.errors import UsageError
from buoy.serve.access import is_loopback, safe_url
from buoy.serve.rate import Rate
from buoy.serve.settings import Settings, traced
from buoy.serve.spawn import spawn
from buoy.web.listen import listen, url_of

__all__ = ["serve"]


def serve(settings: Settings, started: Callable[[str, str], None], *, self_signed: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what was asked for.
        started: called with the URL and the address for gRPC, if there is one, when every model is ready.
        self_signed: make a certificate for this run, for development.

    Raises:
        UsageError: the port is taken, or it is not safe to listen there.
        BuoyError: a model cannot be loaded.
    """
    names = [Path(model).resolve().name for model in settings.models]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise UsageError(f"two models are called {twice}", "serve each of them once")
    _check_access(settings)
    if settings.certificate:
        from buoy.serve.certificate import check  # loads OpenSSL

        check(*settings.certificate)
    if settings.grpc_port is not None:
        need("grpc", "grpc", "gRPC calls")
    if traced(os.environ):
        need("opentelemetry.sdk", "otel", "traces for OpenTelemetry")
    with ExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port))
        if self_signed:
            from buoy.serve.certificate import make

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="buoy-tls-"))
            settings = replace(settings, certificate=make(Path(folder), settings.host))
        processes = [spawn(model, settings.callers) for model in settings.models]
        for process in processes:
            stack.callback(process.end, 0.0)
        from buoy.serve.server import run  # while the models load

        url = url_of(listener, settings.host, settings.scheme) + settings.base_path
        if name := os.environ.get("OSCAR_SERVICE_NAME"):
            names.append(name)
        run(settings, processes, listener, names, lambda rpc: started(url, rpc))


def _check_access(settings: Settings) -> None:
    """Refuse what is not safe, or cannot work, before anything is started."""
    if not settings.token and settings.oidc is None and not is_loopback(settings.host):
        raise UsageError(
            f"listening on {settings.host} without a token is refused: anybody could use the service",
            "set BUOY_TOKEN, or give --token-file, or --oidc-issuer with --oidc-audience",
        )
    if settings.oidc is not None:
        safe_url("--oidc-issuer", settings.oidc.issuer)
        if settings.oidc.jwks:
            safe_url("--oidc-jwks", settings.oidc.jwks)
        need("joserfc", "oidc", "tokens of an OpenID provider")
    if settings.rate:
        Rate.parse(settings.rate)
    for origin in settings.cors:
        if not re.fullmatch(r"https?://[^/?#@\s*]+", origin):
            raise UsageError(f"--cors is {origin[:80]!r}", "give an origin, such as https://example.org")


def need(module: str, extra: str, what: str) -> None:
    """Say which extra a part of the service needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # not even the package that it is in
        found = None
    if found is None:
        raise UsageError(f"{what} need the extra {extra}", f"pip install 'buoy[{extra}]'")
