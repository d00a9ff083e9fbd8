"""Measure fish.onnx on the held-out sites, and draw what it finds so that a person can look.

    python functions/obsea-fish/evaluate.py DATA_FOLDER fish.onnx [--draw OUT] [--look PICTURE ...]

Plain ONNX Runtime, NumPy and OpenCV. DATA_FOLDER holds `val_images.zip` and `val.coco.json`, whose
recording sites are none of the training sites.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from frames import GREY, Frame, read
from numpy.typing import NDArray

SCORE, IOU = 0.25, 0.5  # report threshold; overlap from which a find counts as right
NMS_IOU = 0.45
LOWEST = 0.001  # scores below this play no part in the precision-recall curve
MOST = 100

Found = NDArray[np.float32]  # (n, 5): xyxy px of the original picture, score 0-1; best first


class Detector:
    """fish.onnx with the arithmetic around it."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self.size = int(self.session.get_inputs()[0].shape[2])

    def find(self, image: NDArray[np.uint8], lowest: float = LOWEST) -> Found:
        """Fish in a picture (h, w, 3) uint8 RGB with scores of at least `lowest`."""
        tensor, scale, left, top = letterbox(image, self.size)
        output = self.session.run(["output0"], {"images": tensor})[0][0]  # (4 + 1, A)
        output = output[:, output[4] >= lowest]
        cx, cy, w, h, score = output
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
        boxes = (boxes - (left, top, left, top)) / scale
        height, width = image.shape[:2]
        boxes = boxes.clip(0, (width, height, width, height))
        found = np.column_stack([boxes, score]).astype(np.float32)
        return suppress(found[np.argsort(-score, kind="stable")])


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.float32], float, int, int]:
    """Scale a picture into a square, centred on grey.

    Returns:
        The (1, 3, size, size) float32 input, 0-1; the scale; the left and top margins, px.
    """
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    w, h = round(width * scale), round(height * scale)
    left, top = (size - w) // 2, (size - h) // 2
    canvas = np.full((size, size, 3), GREY, np.uint8)
    canvas[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    tensor = canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255
    return tensor, scale, left, top


def overlaps(one: NDArray[np.float32], many: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of one box (4,) with boxes (n, 4), xyxy: (n,) 0-1."""
    size = np.minimum(one[2:], many[:, 2:]) - np.maximum(one[:2], many[:, :2])
    inter = size.clip(0).prod(1)
    areas = (many[:, 2:] - many[:, :2]).prod(1) + (one[2:] - one[:2]).prod()
    return inter / (areas - inter + 1e-7)


def suppress(found: Found) -> Found:
    """Greedy non-maximum suppression of finds sorted best first; at most `MOST` stay."""
    kept = []
    while len(found) and len(kept) < MOST:
        kept.append(found[0])
        found = found[1:][overlaps(found[0, :4], found[1:, :4]) <= NMS_IOU]
    return np.array(kept, np.float32).reshape(-1, 5)


def judge(found: Found, truth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each find is right: best first, it takes the free true box it overlaps most, if IoU >= 0.5.

    Source: Everingham et al., Pascal VOC, 2010, doi 10.1007/s11263-009-0275-4, section 4.2.
    """
    free = np.ones(len(truth), bool)
    right = np.zeros(len(found), bool)
    for row, item in enumerate(found):
        match = overlaps(item[:4], truth) * free
        if len(match) and match.max() >= IOU:
            free[match.argmax()] = False
            right[row] = True
    return right


@dataclass(frozen=True)
class Figures:
    """Scores of one group of frames."""

    images: int
    boxes: int
    ap50: float
    precision: float
    recall: float
    best_score: float
    best_precision: float
    best_recall: float
    false_on_empty: float  # share of the frames without fish that hold a find of at least `SCORE`


def measure(frames: list[Frame], finds: list[Found]) -> Figures:
    """Precision and recall at `SCORE` and at the best F1, and AP at IoU 0.5 with 101 recall points.

    Source of the AP: COCO, `pycocotools/cocoeval.py`: precision made non-increasing, read at the recalls
    0, 0.01 ... 1, zero beyond the last one reached; all areas, at most 100 finds a frame.
    """
    right = np.concatenate([judge(f, frame.boxes) for f, frame in zip(finds, frames, strict=True)])
    score = np.concatenate([f[:, 4] for f in finds])
    order = np.argsort(-score, kind="stable")
    right, score = right[order], score[order]
    total = sum(len(f.boxes) for f in frames)
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(total, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    ap50 = float(np.append(envelope, 0.0)[place].mean())
    best = int(np.argmax(2 * precision * recall / (precision + recall + 1e-9)))
    last = int((score >= SCORE).sum()) - 1
    empty = [f for f, frame in zip(finds, frames, strict=True) if len(frame.boxes) == 0]
    return Figures(
        len(frames),
        total,
        ap50,
        float(precision[last]) if last >= 0 else 0.0,
        float(recall[last]) if last >= 0 else 0.0,
        float(score[best]),
        float(precision[best]),
        float(recall[best]),
        float(np.mean([bool((f[:, 4] >= SCORE).any()) for f in empty])) if empty else 0.0,
    )


def table(frames: list[Frame], finds: list[Found]) -> str:
    """Figures of all frames and by site, as Markdown."""
    lines = [
        f"| site | frames | boxes | AP@0.5 | precision at {SCORE} | recall at {SCORE} "
        "| best-F1 score | precision there | recall there | empty frames with a find |",
        "| --- " * 10 + "|",
    ]
    for site in ["all", *sorted({f.site for f in frames})]:
        rows = [i for i, f in enumerate(frames) if site in ("all", f.site)]
        m = measure([frames[i] for i in rows], [finds[i] for i in rows])
        lines.append(
            f"| {site} | {m.images} | {m.boxes} | {m.ap50:.3f} | {m.precision:.2f} | {m.recall:.2f} "
            f"| {m.best_score:.2f} | {m.best_precision:.2f} | {m.best_recall:.2f} | {m.false_on_empty:.0%} |"
        )
    return "\n".join(lines)


def sketch(frame: Frame, found: Found, lowest: float) -> NDArray[np.uint8]:
    """The frame with true boxes in yellow and finds in red with their scores; (h, w, 3) uint8 BGR."""
    scale = max(1.0, 720 / frame.image.shape[1])
    image = cv2.resize(frame.image[..., ::-1], None, fx=scale, fy=scale)
    for x1, y1, x2, y2 in (frame.boxes * scale).astype(int).tolist():
        cv2.rectangle(image, (x1, y1), (x2, y2), (0, 230, 255), 1)
    for *box, score in found[found[:, 4] >= lowest].tolist():
        x1, y1, x2, y2 = (int(v * scale) for v in box)
        cv2.rectangle(image, (x1, y1), (x2, y2), (40, 40, 255), 2)
        cv2.putText(image, f"{score:.2f}", (x1, max(12, y1 - 4)), 0, 0.5, (40, 40, 255), 1, cv2.LINE_AA)
    return image


def look(detector: Detector, paths: list[Path], out: Path | None, lowest: float) -> None:
    """Print, and draw, the finds in other pictures."""
    for path in paths:
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        found = detector.find(image)
        shown = found[found[:, 4] >= lowest].round(2).tolist()
        print(json.dumps({"picture": path.name, "fish": shown}))
        if out:
            none = np.zeros((0, 4), np.float32)
            picture = sketch(Frame(image, none, path.name, ""), found, lowest)
            cv2.imwrite(str(out / f"{path.stem}.png"), picture)


def main() -> None:
    """Print the table, and draw frames if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with val_images.zip and val.coco.json")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--draw", type=Path, help="folder for drawn frames (PNG)")
    parser.add_argument("--every", type=int, default=12, help="draw every n-th frame")
    parser.add_argument("--look", type=Path, nargs="*", default=[], help="other pictures, without truth")
    parser.add_argument("--score", type=float, default=SCORE, help="lowest score drawn or printed")
    args = parser.parse_args()
    detector = Detector(args.weights)
    frames = read(args.data, "val")
    finds = [detector.find(frame.image) for frame in frames]
    print(table(frames, finds))
    if args.draw:
        args.draw.mkdir(parents=True, exist_ok=True)
        for frame, found in list(zip(frames, finds, strict=True))[:: args.every]:
            cv2.imwrite(str(args.draw / f"{Path(frame.name).stem}.png"), sketch(frame, found, args.score))
    look(detector, args.look, args.draw, args.score)


if __name__ == "__main__":
    main()
