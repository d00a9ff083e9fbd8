"""What the detector is punished for: task-aligned matching, box loss and score loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TOP_CELLS = 10  # cells matched to one fish
SMALLEST_PX = 14.0  # a fish narrower than this is matched as if it were this wide: it may hold no cell centre
SCORE_POWER, IOU_POWER = 0.5, 6.0  # alignment = score^0.5 * iou^6, as in the paper named at `match`
BOX_GAIN, SCORE_GAIN = 7.5, 0.7


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes (..., 4) xyxy, at most 1, can be negative.

    Source: Zheng et al., Distance-IoU loss, AAAI 2020, doi 10.1609/aaai.v34i07.6999, equations 7 to 11.
    """
    plain = iou(a, b)
    wa, ha = (a[..., 2:] - a[..., :2]).unbind(-1)
    wb, hb = (b[..., 2:] - b[..., :2]).unbind(-1)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    diagonal = hull.square().sum(-1) + 1e-7
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]).square().sum(-1) / 4
    angle = torch.atan(wb / (hb + 1e-7)) - torch.atan(wa / (ha + 1e-7))
    shape = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = shape / (1 - plain + shape + 1e-7)
    return plain - centres / diagonal - weight * shape


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) xyxy, broadcast over the leading axes, 0-1."""
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    return inter / (area_a + area_b - inter + 1e-7)


@torch.no_grad()
def match(scores: Tensor, boxes: Tensor, points: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the cells that answer for each fish.

    Args:
        scores: (B, A) float, 0-1, the predicted score of the class fish.
        boxes: (B, A, 4) float, predicted, xyxy px.
        points: (A, 2) float, cell centres, px.
        truth: (B, M, 4) float, xyxy px, padded with zeros.
        valid: (B, M) bool, false on padding.

    Returns:
        The index of the fish of each cell (B, A) int64, and the wanted score (B, A) float, 0 where the
        cell is background.
    Source: Feng et al., TOOD, ICCV 2021, doi 10.1109/ICCV48922.2021.00349, section 3.2.
    """
    middle, half = (truth[..., :2] + truth[..., 2:]) / 2, (truth[..., 2:] - truth[..., :2]) / 2
    half = half.clamp(min=SMALLEST_PX / 2)
    apart = (points[None, None] - middle[:, :, None]).abs()  # (B, M, A, 2)
    inside = (apart < half[:, :, None]).all(-1) & valid[..., None]
    overlap = iou(truth[:, :, None], boxes[:, None]) * inside
    aligned = scores[:, None].clamp(min=1e-6) ** SCORE_POWER * overlap**IOU_POWER
    kept = torch.zeros_like(inside)
    best = aligned.topk(TOP_CELLS, -1).indices
    kept.scatter_(2, best, True)
    kept &= inside
    # A cell wanted by two fish goes to the one it overlaps most.
    owner = torch.where(kept, overlap, overlap.new_full((), -1.0)).argmax(1)  # (B, A)
    kept &= F.one_hot(owner, truth.shape[1]).transpose(1, 2).bool()
    aligned = aligned * kept
    top_aligned = aligned.amax(-1, keepdim=True)
    top_overlap = (overlap * kept).amax(-1, keepdim=True)
    wanted = (aligned * top_overlap / (top_aligned + 1e-9)).amax(1)
    return owner, wanted


def detection_loss(
    boxes: Tensor, logits: Tensor, points: Tensor, truth: Tensor, valid: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The scalar to minimise, and its two parts for the log.

    Args:
        boxes: (B, A, 4) float32 xyxy px, from `FishNet` in training.
        logits: (B, A, 1) float32, scores before the sigmoid.
        points: (A, 2) float32, cell centres, px.
        truth: (B, M, 4) float32 xyxy px, padded with zeros.
        valid: (B, M) bool, false on padding.
    """
    score = logits[..., 0]
    owner, wanted = match(score.detach().sigmoid(), boxes.detach(), points, truth, valid)
    total = wanted.sum().clamp(min=1.0)
    score_loss = F.binary_cross_entropy_with_logits(score, wanted, reduction="sum") / total
    mine = wanted > 0
    goal = truth.gather(1, owner[..., None].expand(-1, -1, 4))[mine]
    box_loss = ((1 - ciou(boxes[mine], goal)) * wanted[mine]).sum() / total
    parts = {"box": float(box_loss.detach()), "score": float(score_loss.detach())}
    return BOX_GAIN * box_loss + SCORE_GAIN * score_loss, parts
