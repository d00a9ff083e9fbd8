"""What the operator of the service chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Oidc", "Settings", "traced"]


@dataclass(frozen=True)
class Oidc:
    """The OpenID provider whose tokens are believed, and what they must say."""

    issuer: str
    audience: str
    #: Where its keys are; empty to ask its discovery document.
    jwks: str = ""
    #: Claims that a token must have, each with its value or with a list that holds it.
    require: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the operator chooses."""

    models: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    #: Where a proxy shows us, such as /system/services/fish-live/exposed; requests come with it or without.
    base_path: str = ""
    max_upload_bytes: int = 64 << 20
    #: An expected wait above this is refused, as soon as each lane has a few pictures waiting.
    max_wait_s: float = 0.3
    callers: int | None = None
    #: Files of a certificate and its key, PEM.
    certificate: tuple[Path, Path] | None = None

    oidc: Oidc | None = None
    #: How often each caller may ask, such as 100/min; empty for no limit.
    rate: str = ""
    #: Origins whose pages may ask from a browser.
    cors: tuple[str, ...] = ()
    #: 0 for a free one, `None` for no gRPC.
    grpc_port: int | None = None
    #: The operator's file of streams.
    streams: Path | None = None
    #: Where streams and what they have seen are kept; without it they end with the service.
    data: Path | None = None

    @property
    def scheme(self) -> str:
        """Of our URLs."""
        return "https" if self.certificate else "http"


def traced(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables of OpenTelemetry ask for traces."""
    where = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return bool(where) and not off
