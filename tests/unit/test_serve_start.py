"""What the service loads in which process: both start at once, and neither pays for the other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from buoy.errors import UsageError
from buoy.serve.start import need

NETWORK = {"numpy", "cv2", "onnxruntime", "PIL", "msgspec", "yaml", "buoy.model", "buoy.engine"}
EXTRAS = {"grpc", "google.protobuf", "joserfc", "opentelemetry", "httpx2"}
WEB = {"starlette", "uvicorn", "httptools", "asyncio", "python_multipart", "ssl", "click"}


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}\nprint(*sys.modules, sep='\\n')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ended.stdout.splitlines())


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("buoy.serve.server", NETWORK | EXTRAS),
        ("buoy.serve.start", NETWORK | WEB | EXTRAS),
        ("buoy.serve.child", WEB - {"asyncio", "ssl"} | EXTRAS),
    ],
)
def test_each_process_loads_only_its_own_half(module: str, without: set[str]) -> None:
    assert loaded_by(module) & without == set()


def test_an_extra_that_is_not_installed_is_named() -> None:
    need("grpc", "grpc", "gRPC calls")
    with pytest.raises(UsageError, match=r"need the extra grpc.*buoy\[grpc\]"):
        need("no_such_module", "grpc", "gRPC calls")
