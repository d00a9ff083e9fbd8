"""The `expose` block of a definition, checked: how a service is started, probed, scaled and protected.

A service is exposed when its block names a port, as upstream decides it (pkg/handlers/lifecycle.go of grycap/oscar);
oscar-cli sends an empty block with every service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Exposure", "exposure_of", "prefix_of"]

#: On OSCAR `basic` is checked by the ingress, `forward` by the manager.
Access = Literal["none", "basic", "forward"]


@dataclass(frozen=True)
class Exposure:
    """How a service is exposed."""

    #: Where it is found: `/system/services/<name>/exposed`.
    prefix: str
    min_scale: int
    max_scale: int
    #: Whether it sees the whole path; otherwise the prefix is taken away.
    whole_path: bool
    #: Run what the image runs, not the script.
    default_command: bool
    access: Access
    health_path: str


def prefix_of(name: str) -> str:
    """The path below which an exposed service is found."""
    return f"/system/services/{name}/exposed"


def exposure_of(name: str, expose: Mapping[str, Any], variables: Mapping[str, str]) -> Exposure | None:
    """What the block means; `None` where the service is not exposed.

    Args:
        name: of the service.
        expose: the normalised block.
        variables: the environment of the service.

    Raises:
        ValueError: it cannot be run like that; the text says why.
    """
    if not expose.get("api_port"):
        return None
    least, most = expose["min_scale"], expose["max_scale"]
    if not 0 <= least <= most:
        raise ValueError(f"min_scale {least} and max_scale {most}: expected 0 <= min_scale <= max_scale")
    kind = expose.get("auth_type", "")
    if kind not in ("", "basic", "forward"):
        raise ValueError(f"auth_type {kind!r}: expected basic or forward")
    if expose["default_command"] and not variables.get("BUOY_MODEL"):
        raise ValueError(
            "default_command: images do not run here, and without BUOY_MODEL it is not known what the image would run"
        )
    prefix, health = prefix_of(name), "/" + expose["health_path"].lstrip("/")
    legacy = expose.get("probe_mode") == "legacy" and expose["rewrite_target"]
    return Exposure(
        prefix=prefix,
        min_scale=least,
        max_scale=most,
        whole_path=expose["rewrite_target"],
        default_command=expose["default_command"],
        access="forward" if kind == "forward" else "basic" if expose["set_auth"] or kind else "none",
        health_path=prefix + health if legacy else health,
    )
