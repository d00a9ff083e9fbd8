"""Write trained weights as ONNX in the layout of `output0`, and check the file against PyTorch."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from network import FishNet

INPUT_PX = 640
OPSET = 17
TOLERANCE_PX = 1e-2  # boxes go up to 640 px, where float32 resolves 6e-5
TOLERANCE_SCORE = 1e-4


def export(net: FishNet, out: Path, size: int = INPUT_PX) -> tuple[float, float]:
    """Write `net` to `out` as fp32 ONNX, static batch of one.

    Args:
        net: weights to export; not changed.
        out: the file; `images` (1, 3, size, size) float32 in, `output0` (1, 4 + nc, A) float32 out.
        size: side of the square input, px, a multiple of 32.

    Returns:
        Largest difference between ONNX Runtime and PyTorch, of the boxes (px) and of the scores.

    Raises:
        RuntimeError: if either difference is above its tolerance.
    """
    fused = net.fused().float().to(memory_format=torch.contiguous_format)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript path warns that it is the older one
        torch.onnx.export(
            fused,
            (images,),
            str(out),
            input_names=["images"],
            output_names=["output0"],
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
        want = net.eval()(images).numpy()
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    have = session.run(["output0"], {"images": images.numpy()})[0]
    boxes = float(np.abs(have[:, :4] - want[:, :4]).max())
    scores = float(np.abs(have[:, 4:] - want[:, 4:]).max())
    if boxes > TOLERANCE_PX or scores > TOLERANCE_SCORE:
        raise RuntimeError(f"{out}: ONNX differs from PyTorch by {boxes:.2g} px and {scores:.2g} in score")
    return boxes, scores


def main() -> None:
    """Export a checkpoint of train.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint written by train.py")
    parser.add_argument("--out", type=Path, default=Path("fish.onnx"))
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    net = FishNet()
    net.load_state_dict(state["average"])
    boxes, scores = export(net, args.out)
    size = args.out.stat().st_size
    print(f"{args.out}: {size} bytes, epoch {state['epoch']}, differs by {boxes:.1g} px, {scores:.1g} score")


if __name__ == "__main__":
    main()
