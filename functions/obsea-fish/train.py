"""Train the demo fish detector on the DeepFish subset and export it as ONNX.

    python functions/obsea-fish/train.py DATA_FOLDER

DATA_FOLDER holds `train_images.zip` and `train.coco.json`; only these two are read. The sites of
`val.coco.json` are for evaluate.py alone: no step, setting or stopping point here looks at them.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from frames import Mixer, read
from loss import detection_loss
from network import FishNet, cells
from torch import Tensor, nn

from export import export

TRAIN_PX = 512  # samples are dense in content, so smaller than the network input in use (640 px)
BATCH = 16
RATE, LAST_RATE = 2e-3, 2e-5
WARM_STEPS = 200
FLAT = 0.5  # share of the run at the full rate, before the cosine
DECAY = 0.03
AVERAGE = 0.999
MOST_BOXES = 60


def rate(step: int, steps: int) -> float:
    """Learning rate: rises over `WARM_STEPS`, stays, then falls as a half cosine to `LAST_RATE`."""
    if step < WARM_STEPS:
        return RATE * (step + 1) / WARM_STEPS
    late = max(0.0, (step / steps - FLAT) / (1 - FLAT))
    return LAST_RATE + (RATE - LAST_RATE) * (1 + math.cos(math.pi * late)) / 2


def batches(mixer: Mixer, first: int, last: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches `first` to `last - 1`, the next one being made while this one is learnt.

    Yields:
        Pictures (B, 3, S, S) float32 RGB 0-1, boxes (B, M, 4) float32 xyxy px padded with zeros, and
        which boxes are real (B, M) bool.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(batch, mixer, first)
        for number in range(first, last):
            ready = waiting.result()
            if number + 1 < last:
                waiting = pool.submit(batch, mixer, number + 1)
            images, truth, valid = ready
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # stays channels-last in memory
            yield x, torch.from_numpy(truth), torch.from_numpy(valid)


def batch(mixer: Mixer, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batch `number` as arrays: pictures (B, S, S, 3) uint8, boxes (B, M, 4) float32, real (B, M) bool."""
    images = np.empty((BATCH, mixer.size, mixer.size, 3), np.uint8)
    truth = np.zeros((BATCH, MOST_BOXES, 4), np.float32)
    valid = np.zeros((BATCH, MOST_BOXES), bool)
    for row in range(BATCH):
        images[row], boxes = mixer.sample(number * BATCH + row)
        count = min(len(boxes), MOST_BOXES)
        truth[row, :count], valid[row, :count] = boxes[:count], True
    most = max(1, int(valid.sum(1).max()))
    return images, truth[:, :most], valid[:, :most]


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, step: int) -> None:
    """Move the running average of weights and statistics towards `net`, faster in the first steps."""
    keep = AVERAGE * (1 - math.exp(-(step + 1) / 1000))
    for old, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def optimizer_for(net: nn.Module) -> torch.optim.AdamW:
    """AdamW that decays the convolution kernels and leaves biases and normalisations alone."""
    kernels = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE)


def train(args: argparse.Namespace) -> FishNet:
    """Run all epochs and return the averaged weights; write a checkpoint after each epoch if wanted."""
    torch.manual_seed(args.seed)
    mixer = Mixer(read(args.data, "train"), args.seed, TRAIN_PX)
    epoch_steps = math.ceil(len(mixer.frames) / BATCH)
    steps = args.epochs * epoch_steps
    net = FishNet().to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(net)
    optimizer = optimizer_for(net)
    first = 0
    if args.checkpoint and args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    points = cells(TRAIN_PX, TRAIN_PX)[0].T
    started, sums = time.monotonic(), np.zeros(2)
    for step, (images, truth, valid) in enumerate(batches(mixer, first * epoch_steps, steps), first * epoch_steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.fp32):
            boxes, logits = net(images)
        total, parts = detection_loss(boxes, logits, points, truth, valid)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        follow(average, net, step)
        sums += parts["box"], parts["score"]
        if (step + 1) % epoch_steps == 0:
            epoch, (box, score) = (step + 1) // epoch_steps, sums / epoch_steps
            spent = (time.monotonic() - started) / 60
            print(f"epoch {epoch}/{args.epochs} box {box:.3f} score {score:.3f} {spent:.1f} min", flush=True)
            sums[:] = 0
            if args.checkpoint:
                save(args.checkpoint, net, average, optimizer, epoch)
    return average


def save(path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.AdamW, epoch: int) -> None:
    """Write a checkpoint; a run stopped while writing keeps the old one."""
    state = {"net": net.state_dict(), "average": average.state_dict(), "epoch": epoch}
    partial = path.with_suffix(".partial")
    torch.save({**state, "optimizer": optimizer.state_dict()}, partial)
    partial.replace(path)


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train_images.zip and train.coco.json")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("fish.onnx"))
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--checkpoint", type=Path, help="written after each epoch; a run goes on from it")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 (slower on processors that have it)")
    args = parser.parse_args()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    boxes, scores = export(train(args), args.out)
    print(f"{args.out}: differs from PyTorch by {boxes:.1g} px and {scores:.1g} in score")


if __name__ == "__main__":
    main()
