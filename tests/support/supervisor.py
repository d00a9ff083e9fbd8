"""The real supervisor of OSCAR (faas-supervisor 1.5.8), run as OSCAR's jobs run it: an event on stdin, a script."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.minio import MinioServer
from support.need import CHECKOUT

__all__ = ["python", "run_supervisor", "with_storage"]


def python() -> Path:
    """The Python that has the supervisor; skips the test where `scripts/install-supervisor` has not run."""
    tools = Path(os.environ.get("BUOY_TOOLS") or CHECKOUT / ".tools" / "bin")
    found = tools.parent / "supervisor" / "bin" / "python"
    if not found.exists():
        reason = f"the supervisor is not in {found.parents[1]}: run scripts/install-supervisor"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def with_storage(service: Mapping[str, Any], server: MinioServer) -> dict[str, Any]:
    """A service definition with the keys of the store, where this version of the supervisor looks for them."""
    access = {
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "region": "us-east-1",
        "verify": False,
    }
    return {**service, "storage_providers": {"minio": {"default": access}}}


def run_supervisor(
    event: Mapping[str, Any] | str, service: Mapping[str, Any], script: str, folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the supervisor on one event.

    Args:
        event: JSON of a storage event, or the body of a synchronous call.
        service: the definition, as OSCAR writes it to function_config.yaml.
        script: the text of the user script; `buoy` is on its PATH.
        folder: for its temporary files.
        env: more environment of the container; the service's own variables are in it already.
    """
    body = event if isinstance(event, str) else json.dumps(event)
    container = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder),
        # Stand in for /oscar/config/function_config.yaml and /oscar/config/script.sh.
        "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(dict(service)).encode()).decode(),
        "SCRIPT": base64.b64encode(script.encode()).decode(),
        **service["environment"]["Variables"],
        **env,
    }
    command = [str(python()), "-W", "ignore", "-m", "faassupervisor.supervisor"]
    return subprocess.run(command, input=body, env=container, capture_output=True, text=True, timeout=180)
