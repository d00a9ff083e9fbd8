"""What we depend on and what we ship."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from support.need import CHECKOUT

LOCKS = sorted((CHECKOUT / "requirements").glob("*.txt"))

#: Packages whose metadata names no licence, or puts its whole text there; read and found permissive.
REVIEWED = {
    "flatbuffers": "Apache-2.0",
    "jmespath": "MIT",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "numpy": "BSD-3-Clause",
    "onnxruntime": "MIT",
    "opencv-python-headless": "Apache-2.0; the FFmpeg that it bundles is LGPL-2.1, loaded dynamically",
    "protobuf": "BSD-3-Clause",
}
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|ISC|MPL|0BSD|MIT-CMU|HPND|Zlib|Unlicense)", re.I
)
FORBIDDEN = re.compile(r"\b(A?GPL|SSPL|BUSL|Business Source)", re.I)


def locked(lock: Path) -> list[str]:
    return re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.M)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_have_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert entry.startswith("#") or "--hash=sha256:" in entry, entry.splitlines()[0]


def test_what_runs_is_under_permissive_licences() -> None:
    for name in locked(CHECKOUT / "requirements" / "run.txt"):
        try:
            info = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        told = " ".join(
            [info.get("License-Expression") or "", (info.get("License") or "")[:200]]
            + [entry for entry in info.get_all("Classifier") or [] if entry.startswith("License")]
        )
        if name in REVIEWED:
            continue
        assert not FORBIDDEN.search(told), f"{name}: {told}"
        assert PERMISSIVE.search(told), f"{name} says {told!r}: read its licence and add it to REVIEWED"


def test_ultralytics_and_torch_are_only_in_the_export_lock() -> None:
    for lock in LOCKS:
        if lock.name != "export.txt":
            assert not {"torch", "ultralytics"} & set(locked(lock)), lock.name
