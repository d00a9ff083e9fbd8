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

import msgspec
import onnxruntime

from buoy import machine
from buoy.manifest import Manifest
from buoy.tasks import Thresholds, make_task


def main(kind: str, model: str, pictures: list[str]) -> None:
    """Run one baseline and print its loop's seconds as JSON."""
    if kind in ("plain", "bare"):
        callers, options = 1, onnxruntime.SessionOptions()
    else:
        machine.pin_allocator()
        callers, threads = (int(part) for part in kind.split("x"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
    manifest = Manifest.load(model)
    session = onnxruntime.InferenceSession(
        str(Path(model) / manifest.weights.file), options, providers=["CPUExecutionProvider"]
    )
    task, thresholds = make_task(manifest), Thresholds(manifest.output.score, manifest.output.iou)
    name = session.get_inputs()[0].name

    def loop(paths: list[str]) -> None:
        for path in paths:
            tensors, context = task.prepare(task.read(Path(path).read_bytes()))
            values = session.run(None, {name: tensors[0]})
            msgspec.json.encode(task.decode([{"output": values[0]}], context, thresholds))

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
