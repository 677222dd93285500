"""HRNet as its public repositories lay it out, written from the architecture's description: the oracle of imports.

Only the names of the modules and the arithmetic matter here; nothing is shared with the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu


def conv(source: int, target: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(source, target, kernel, stride, kernel // 2, bias=False)


class Basic(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + x)


class Neck(nn.Module):
    def __init__(self, source: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(source, 64, 1), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = conv(64, 256, 1), nn.BatchNorm2d(256)
        if source != 256:
            self.downsample = nn.Sequential(conv(source, 256, 1), nn.BatchNorm2d(256))

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return relu(self.bn3(self.conv3(y)) + shortcut)


class Exchange(nn.Module):
    """One HRNet module: blocks on every branch, then every branch into every other (or into the first alone)."""

    def __init__(self, channels: Sequence[int], blocks: int, *, only_first: bool, corners: bool | None) -> None:
        super().__init__()
        self.corners = corners
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(c) for _ in range(blocks))) for c in channels)
        targets = channels[:1] if only_first else channels
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(channels, j, i) for j in range(len(channels))) for i in range(len(targets))
        )

    def path(self, channels: Sequence[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return nn.Sequential(conv(channels[source], channels[target], 1), nn.BatchNorm2d(channels[target]))
        steps: list[nn.Module] = []
        for step in range(target - source):
            last = step == target - source - 1
            out = channels[target if last else source]
            norm: list[nn.Module] = [conv(channels[source], out, 3, 2), nn.BatchNorm2d(out)]
            steps.append(nn.Sequential(*norm, *([] if last else [nn.ReLU()])))
        return nn.Sequential(*steps)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs, strict=True)]
        fused = []
        for target, row in enumerate(self.fuse_layers):
            assert isinstance(row, nn.ModuleList)
            total = torch.zeros_like(xs[target])
            for source, path in enumerate(row):
                y = path(xs[source])
                total = total + (upsample(y, xs[target], self.corners) if source > target else y)
            fused.append(relu(total))
        return fused


def upsample(x: Tensor, like: Tensor, corners: bool | None) -> Tensor:
    size = like.shape[-2:]
    if corners is None:
        return interpolate(x, size=size, mode="nearest")
    return interpolate(x, size=size, mode="bilinear", align_corners=corners)


class PublicHRNet(nn.Module):
    """HRNet with the pose head (`corners` None: nearest upsampling) or the segmentation head (bilinear)."""

    def __init__(
        self,
        *,
        width: int,
        outputs: int,
        modules: tuple[int, int, int] = (1, 2, 1),
        blocks: int = 4,
        stage1: int = 4,
        corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.corners = corners
        self.conv1, self.bn1 = conv(3, 64, 3, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3, 2), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(*(Neck(256 if index else 64) for index in range(stage1)))
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.transition1 = nn.ModuleList([self.step(256, width, 1), nn.Sequential(self.step(256, 2 * width, 2))])
        for stage in (2, 3, 4):
            if stage > 2:
                row: list[nn.Module] = [nn.Identity() for _ in range(stage - 1)]
                row.append(nn.Sequential(self.step(widths[stage - 2], widths[stage - 1], 2)))
                setattr(self, f"transition{stage - 1}", nn.ModuleList(row))
            count = modules[stage - 2]
            parts = [
                Exchange(
                    widths[:stage],
                    blocks,
                    only_first=corners is None and stage == 4 and index == count - 1,
                    corners=corners,
                )
                for index in range(count)
            ]
            setattr(self, f"stage{stage}", nn.Sequential(*parts))
        if corners is None:
            self.final_layer = nn.Conv2d(width, outputs, 1)
        else:
            total = 15 * width
            self.last_layer = nn.Sequential(
                nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(), nn.Conv2d(total, outputs, 1)
            )

    @staticmethod
    def step(source: int, target: int, stride: int) -> nn.Sequential:
        return nn.Sequential(conv(source, target, 3, stride), nn.BatchNorm2d(target), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer1(relu(self.bn2(self.conv2(x))))
        xs = [path(x) for path in self.transition1]
        for stage in (2, 3, 4):
            if stage > 2:
                row = getattr(self, f"transition{stage - 1}")
                xs = [*xs, row[stage - 1](xs[-1])]
            xs = getattr(self, f"stage{stage}")(xs)
        if self.corners is None:
            heatmaps: Tensor = self.final_layer(xs[0])
            return heatmaps
        joined = torch.cat([xs[0], *(upsample(y, xs[0], self.corners) for y in xs[1:])], dim=1)
        logits: Tensor = self.last_layer(joined)
        return logits
