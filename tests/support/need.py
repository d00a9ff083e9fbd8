"""Components that tests need: found, or the test is skipped with a reason (with CI=true: failed)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def samples() -> Path:
    """The folder with real data beside the checkout, or where `BUOY_SAMPLES` says."""
    folder = Path(os.environ.get("BUOY_SAMPLES") or CHECKOUT.parent / "shared" / "samples")
    if not folder.is_dir():
        absent("the real samples", "set BUOY_SAMPLES to their folder")
    return folder


def program(name: str) -> str:
    """The path of a program that `scripts/test` installs into `.tools/bin`, or of one on PATH."""
    tools = os.environ.get("BUOY_TOOLS") or str(CHECKOUT / ".tools" / "bin")
    found = shutil.which(name, path=os.pathsep.join([tools, os.environ.get("PATH", "")]))
    if found is None:
        absent(name, "run scripts/test, which installs it")
    assert found is not None
    return found


def absent(what: str, remedy: str) -> None:
    """Skip the test, or fail it where everything has to be there."""
    reason = f"{what} is not on this machine: {remedy}"
    if os.environ.get("CI") == "true" and what != "the real samples":
        pytest.fail(reason)
    pytest.skip(reason)
