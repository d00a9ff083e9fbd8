"""A small anchor-free fish detector in plain PyTorch.

The outline is the usual one of one-stage detectors: a convolutional trunk with cross-stage-partial
blocks, a top-down and bottom-up neck, and one head a level (strides 8, 16, 32) that predicts for every
cell the distances to the four sides of a box and one score a class.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
GREATEST_EXPONENT = 6.0  # a side is at most e^6 = 403 strides away: keeps exp() finite early in training


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU: (B, cin, H, W) -> (B, cout, H / stride, W / stride)."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the normalisation into the convolution: y = (w * x - mean) * gamma / std + beta."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        old = self.conv
        new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, groups=old.groups)
        new.weight.data = old.weight.data * scale.data[:, None, None, None]
        assert new.bias is not None
        new.bias.data = (norm.bias - norm.running_mean * scale).data
        self.conv, self.norm = new, nn.Identity()


class Split(nn.Module):
    """Cross-stage-partial block: half the channels go through residual 3x3 pairs, all are mixed again.

    Source of the idea: Wang et al., CSPNet, CVPR workshops 2020, doi 10.1109/CVPRW50498.2020.00203.
    """

    def __init__(self, cin: int, cout: int, depth: int = 1, residual: bool = True) -> None:
        super().__init__()
        half = cout // 2
        self.enter = Conv(cin, cout, 1)
        self.pairs = nn.ModuleList(nn.Sequential(Conv(half, half), Conv(half, half)) for _ in range(depth))
        self.leave = Conv(cout + half * depth, cout, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for pair in self.pairs:
            y = pair(parts[-1])
            parts.append(parts[-1] + y if self.residual else y)
        return self.leave(torch.cat(parts, 1))


class Pools(nn.Module):
    """Three chained 5x5 maximum pools (fields of 5, 9 and 13 cells) joined: context for the last level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = Conv(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = Conv(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Head(nn.Module):
    """Two branches on one level: (B, cin, h, w) -> sides (B, 4, h, w) as logarithms, scores (B, nc, h, w)."""

    def __init__(self, cin: int, width: int, classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(Conv(cin, width), Conv(width, width, groups=4), nn.Conv2d(width, 4, 1))
        self.score = nn.Sequential(Conv(cin, width), Conv(width, width, groups=4), nn.Conv2d(width, classes, 1))
        box, score = self.box[-1], self.score[-1]
        assert isinstance(box, nn.Conv2d)
        assert isinstance(score, nn.Conv2d)
        assert box.bias is not None
        assert score.bias is not None
        nn.init.constant_(box.bias, math.log(1.5))
        # Start from about five objects in a 640 px picture, so that the first steps are not all background
        # (prior of Lin et al., focal loss, ICCV 2017, doi 10.1109/ICCV.2017.324, section 4.1).
        nn.init.constant_(score.bias, math.log(5 / classes / (640 / stride) ** 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.box(x), self.score(x)


class FishNet(nn.Module):
    """The detector. In training it returns raw maps, in evaluation the decoded `output0`.

    Input: (B, 3, H, W) float32, RGB, 0-1, H and W multiples of 32.
    """

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), Split(32, 32, 1))
        self.down3 = nn.Sequential(Conv(32, 64, 3, 2), Split(64, 64, 2))
        self.down4 = nn.Sequential(Conv(64, 96, 3, 2), Split(96, 96, 2))
        self.down5 = nn.Sequential(Conv(96, 128, 3, 2), Split(128, 128, 1), Pools(128))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top4 = Split(128 + 96, 80, 1, residual=False)
        self.top3 = Split(80 + 64, 64, 1, residual=False)
        self.fall4 = Conv(64, 64, 3, 2)
        self.out4 = Split(64 + 80, 80, 1, residual=False)
        self.fall5 = Conv(80, 80, 3, 2)
        self.out5 = Split(80 + 128, 96, 1, residual=False)
        widths = (64, 80, 96)
        self.heads = nn.ModuleList(Head(w, 48, classes, s) for w, s in zip(widths, STRIDES, strict=True))

    def maps(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Raw sides and scores of each level."""
        p3 = self.down3(self.stem(x))
        p4 = self.down4(p3)
        p5 = self.down5(p4)
        t4 = self.top4(torch.cat([self.up(p5), p4], 1))
        n3 = self.top3(torch.cat([self.up(t4), p3], 1))
        n4 = self.out4(torch.cat([self.fall4(n3), t4], 1))
        n5 = self.out5(torch.cat([self.fall5(n4), p5], 1))
        return [head(level) for head, level in zip(self.heads, (n3, n4, n5), strict=True)]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Training: (boxes (B, A, 4) xyxy px, logits (B, A, nc)). Evaluation: see `output0`."""
        maps = self.maps(x)
        height, width = int(x.shape[2]), int(x.shape[3])
        points, strides = cells(height, width)
        points, strides = points.to(x.device), strides.to(x.device)
        sides = torch.cat([box.flatten(2) for box, _ in maps], 2).float()  # (B, 4, A)
        logits = torch.cat([score.flatten(2) for _, score in maps], 2).float()  # (B, nc, A)
        sides = sides.clamp(max=GREATEST_EXPONENT).exp() * strides
        low, high = points - sides[:, :2], points + sides[:, 2:]
        if self.training:
            return torch.cat([low, high], 1).transpose(1, 2), logits.transpose(1, 2)
        return output0(low, high, logits)

    def fused(self) -> FishNet:
        """A copy for inference, its normalisations folded into the convolutions."""
        net = copy.deepcopy(self).eval()
        for module in net.modules():
            if isinstance(module, Conv):
                module.fuse()
        return net


def output0(low: Tensor, high: Tensor, logits: Tensor) -> Tensor:
    """Join corners (B, 2, A) px and logits (B, nc, A) to (B, 4 + nc, A): cx, cy, w, h px, scores 0-1."""
    return torch.cat([(low + high) / 2, high - low, logits.sigmoid()], 1)


def cells(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Centres (2, A) of all cells as x, y px, and their strides (1, A); levels in the order of `STRIDES`."""
    points, strides = [], []
    for stride in STRIDES:
        h, w = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()]) * stride)
        strides.append(torch.full((1, h * w), float(stride)))
    return torch.cat(points, 1), torch.cat(strides, 1)
