"""What the tests need of ultralytics, in a process of its own: python ultralytics_side.py WHAT ARGUMENTS...

checkpoints FOLDER CLASSES SIDE YAML...   networks with fixed random weights whose scores spread over 0-1
letterbox OUT                             ultralytics' own letterbox of pictures of many sizes, as an npz
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from buoy.image import decode
from buoy.image import letterbox as fit
from buoy.scaffold import draw_samples

#: (picture height, width), (frame height, width)
LETTERBOXES = [
    (picture, frame)
    for picture in [(1080, 1920), (480, 640), (511, 333), (1, 700), (37, 41), (721, 1281), (640, 640), (333, 1000)]
    for frame in [(640, 640), (512, 512), (384, 640)]
]

#: In pixels of the frame; every one lies in every frame.
BOXES = [[0.0, 0.0, 384.0, 384.0], [100.0, 50.0, 300.0, 380.0], [200.25, 190.5, 260.75, 200.5]]


def picture(seed: int, height: int, width: int) -> Any:
    """(height, width, 3) uint8: smooth shapes, so that a resize that differs shows."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width].copy()


def checkpoints(folder: str, classes: str, side: str, *yamls: str) -> None:
    """Save networks built from ultralytics' own yaml files, as NAME.pt."""
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    for yaml in yamls:
        torch.manual_seed(7)
        network = YOLO(yaml)
        if network.task == "detect":
            torch.manual_seed(7)
            module = network.model = DetectionModel(yaml, nc=int(classes), verbose=False)
            module.names = {index: f"kind {index}" for index in range(int(classes))}
            spread(module, int(side))
            network.ckpt = {"train_args": {"imgsz": int(side)}}
        network.save(Path(folder) / f"{Path(yaml).stem}.pt")


def spread(module: Any, side: int) -> None:
    """Set what training would have set: the statistics of the batch norms, logits around -4, boxes of some size.

    Untouched random weights score everything 0.00001, where every network is like every other.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        pictures = [decode(path.read_bytes()) for path in draw_samples(Path(folder))]
    frames = np.stack([fit(pixels, (side, side))[0] for pixels in pictures])
    batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
    module.train()
    head = module.model[-1]
    with torch.no_grad():
        module(batch)
        module.eval()
        for prefix in ("", "one2one_"):
            for branch in getattr(head, f"{prefix}cv3", None) or []:
                branch[-1].register_forward_hook(partial(rescale, mean=-4.0, deviation=1.2))
            if head.reg_max == 1:  # its outputs are distances, in cells
                for branch in getattr(head, f"{prefix}cv2", None) or []:
                    branch[-1].register_forward_hook(partial(rescale, mean=2.5, deviation=0.3))
        module(batch)
    for layer in norms:
        layer.momentum = 0.03
    for layer in module.modules():
        layer._forward_hooks.clear()


def rescale(layer: Any, inputs: Any, output: Any, *, mean: float, deviation: float) -> None:
    """After a forward pass, set the layer so that its outputs would have had this mean and deviation."""
    factor = deviation / output.std()
    layer.bias.data = (layer.bias.data - output.mean(dim=(0, 2, 3))) * factor + mean
    layer.weight.data *= factor


def letterbox(out: str) -> None:
    """What ultralytics makes of the pictures of `LETTERBOXES`, in their order, and of `BOXES` on the way back."""
    import torch
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    found = {}
    for index, (size, frame) in enumerate(LETTERBOXES):
        found[f"frame{index}"] = LetterBox(frame, auto=False)(image=picture(index, *size))
        found[f"boxes{index}"] = scale_boxes(frame, torch.tensor(BOXES), size).numpy()
    np.savez(out, **found)


if __name__ == "__main__":
    {"checkpoints": checkpoints, "letterbox": letterbox}[sys.argv[1]](*sys.argv[2:])
