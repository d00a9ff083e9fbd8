"""The baselines, each a process of its own: `python -m bench.baselines KIND MODEL PICTURE...`.

Both decode, prepare and post-process with the same functions as buoy, and make the JSON of each result.

plain   one thread, ONNX Runtime with its own default threads (all cores), default allocator: as most people write it
limit   callers x threads in a plain loop each, allocator pinned, no queue, no files (CALLERSxTHREADS as KIND: 2x1)
bare    import, session, first run of one picture: what a cold start cannot avoid
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from bench.work import Work


def main(kind: str, model: str, pictures: list[str]) -> None:
    """Run one baseline and print its loop's seconds as JSON."""
    callers, threads = (1, None) if kind in ("plain", "bare") else (int(part) for part in kind.split("x"))
    work = Work(model, threads, pin=threads is not None)

    def loop(paths: list[str]) -> None:
        for path in paths:
            work(Path(path).read_bytes())

    begin = time.perf_counter()
    shares = [pictures[start::callers] for start in range(callers)]
    workers = [threading.Thread(target=loop, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"loop_s": time.perf_counter() - begin}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
