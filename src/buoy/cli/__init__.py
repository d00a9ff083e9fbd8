"""The command line: thin, and each command's code is imported only when it runs."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run `buoy`: exit code 0 done, 1 an error of ours, 2 wrong usage, 3 finished with failed inputs."""
    # Nothing here multiplies large matrices, and each process would begin with threads that spin for 0.1 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.argv[1:] == ["function"]:
        # What OSCAR starts for every picture: not even the parser of the command line is loaded.
        if os.environ.get("EVENT", "").startswith("eyJidW95LmJhdGNo"):  # buoy.batch.pointer.MARK
            from buoy.cli.batch_pilot import become_pilot

            become_pilot(os.environ["EVENT"])
        from buoy.function import run as function

        function()
    from buoy.cli.group import run

    sys.exit(run(sys.argv[1:]))
