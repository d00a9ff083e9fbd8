"""Other ways to serve the same work, in an environment of their own: LitServe and DEEPaaS.

`scripts/bench serve --others` installs them from requirements/bench.txt below .tools. Both get one worker, with which
they start on a machine without a GPU, and the plain work: ONNX Runtime with all cores, the allocator pinned.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.serve.candidates import Kind
from bench.work import PIN
from support.need import CHECKOUT

__all__ = ["others"]

_PYTHON = CHECKOUT / ".tools" / "bench" / "bin" / "python"
#: What LitServe and DEEPaaS are told which model to load by.
MODEL = "BENCH_MODEL"


def others(folder: Path) -> list[Kind]:
    """LitServe and DEEPaaS; `folder` gets the metadata by which DEEPaaS finds a model."""
    if not _PYTHON.exists():
        raise SystemExit(f"{_PYTHON} is absent: scripts/bench serve --others installs it")
    metadata = folder / "entry" / "bench_deepaas-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-deepaas\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[deepaas.v2.model]\nbench = bench.serve.deepaas_model\n")
    paths = os.pathsep.join([str(CHECKOUT / "tests"), str(metadata.parent)])
    return [
        Kind("litserve", _litserve, body="form", env={PIN: "1"}, allocator="pinned"),
        Kind(
            "deepaas", _deepaas, body="form", path="/v2/models/bench/predict/",
            env={PIN: "1", "PYTHONPATH": paths}, allocator="pinned",
        ),
    ]  # fmt: skip


def _litserve(model: Path, port: int) -> list[str]:
    return [str(_PYTHON), "-m", "bench.serve.litserve_app", str(model), str(port)]


def _deepaas(model: Path, port: int) -> list[str]:
    run = f"import os, sys; os.environ[{MODEL!r}] = {str(model)!r}; from deepaas.cmd.run import main; sys.exit(main())"
    return [str(_PYTHON), "-c", run, "--listen-port", str(port), "--model-name", "bench", "--workers", "1"]
