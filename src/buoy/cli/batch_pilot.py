"""`buoy function` on an event that points to a batch run: the process becomes a pilot of it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from buoy import machine
from buoy.batch.naming import PLACE
from buoy.batch.pointer import Pointer
from buoy.errors import UsageError

__all__ = ["become_pilot", "command_of", "store_variables"]

#: Where OSCAR mounts the keys of the user that a job belongs to, and the definition of the service.
_KEYS = Path("/var/run/secrets/providers/minio.default")
_SERVICE = Path("/oscar/config/function_config.yaml")
#: Pilots that began together do not end together.
_JITTER = 0.2


def become_pilot(event: str) -> NoReturn:
    """Replace this process, so that signals reach the pilot itself."""
    try:
        pointer = Pointer.decode(event)
    except UsageError as error:
        sys.exit(f"buoy: {error}")
    given = {PLACE: pointer.pilot, **store_variables(os.environ, _KEYS, _SERVICE)}
    command = command_of(pointer, machine.cores(), random.SystemRandom().uniform(1 - _JITTER, 1 + _JITTER))
    sys.stderr.flush()
    os.execve(command[0], command, {**os.environ, **given})


def command_of(pointer: Pointer, cores: int, jitter: float) -> list[str]:
    """The pilot's command line; where jobs see the whole machine, it takes the part that it was promised."""
    command = [sys.executable, "-m", "buoy.batch.work", pointer.out, pointer.run]
    if pointer.cpu:
        command += ["--share", str(max(1, int(cores // pointer.cpu)))]
    if pointer.budget_s is not None:
        command += ["--budget", f"{pointer.budget_s * jitter:.0f}"]
    return command


def store_variables(environ: Mapping[str, str], keys: Path, service: Path) -> dict[str, str]:
    """How the store is reached: by the service's own variables, else by what OSCAR gives each job."""
    found: dict[str, str] = {}
    if not environ.get("BUOY_S3_ACCESS_KEY") and (keys / "accessKey").is_file():
        found["BUOY_S3_ACCESS_KEY"] = (keys / "accessKey").read_text().strip()
        found["BUOY_S3_SECRET_KEY"] = (keys / "secretKey").read_text().strip()
    if not environ.get("BUOY_S3_ENDPOINT") and service.is_file():
        import yaml

        providers = (yaml.safe_load(service.read_text()) or {}).get("storage_providers") or {}
        endpoint = ((providers.get("minio") or {}).get("default") or {}).get("endpoint")
        found |= {"BUOY_S3_ENDPOINT": str(endpoint)} if endpoint else {}
    return found
