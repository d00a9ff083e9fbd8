"""The baselines without HTTP, kept warm: `python -m bench.serve.direct KIND MODEL PICTURE...`.

plain    one caller, ONNX Runtime with its own default threads (all cores): as most people write it
2x1      callers x threads in a loop each

Each line on stdin is a number of seconds; the answer is a line of JSON: pictures looked at, in how many seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from bench.work import Work

__all__: list[str] = []


def main(kind: str, model: str, pictures: list[str]) -> None:
    """Answer until stdin ends."""
    callers, threads = (1, None) if kind == "plain" else (int(part) for part in kind.split("x"))
    work, bodies = Work(model, threads), [Path(path).read_bytes() for path in pictures]
    work(bodies[0])
    print(json.dumps({"count": 1}), flush=True)
    for line in sys.stdin:
        counts, begin = [0] * callers, time.perf_counter()
        end = begin + float(line)

        def loop(at: int, counts: list[int] = counts, end: float = end) -> None:
            while time.perf_counter() < end:
                work(bodies[(at + counts[at] * callers) % len(bodies)])
                counts[at] += 1

        workers = [threading.Thread(target=loop, args=(at,)) for at in range(callers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(json.dumps({"count": sum(counts), "seconds": time.perf_counter() - begin}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
