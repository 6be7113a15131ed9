"""What happens after lifting: the residual U-shape, the channel-to-height head and the trajectory head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from occ_perception.networks.backbone import Convolution, ResidualBlock, conv_bn


class UShape(nn.Module):
    """A residual U-shape: one block per scale on the way down, one fusing convolution per scale on the way up.

    Args:
        channels: of the scales, finest first.
        conv: the convolution it is made of; `conv_bn` for a bird's-eye view, `volume_conv_bn` for a volume.
    """

    def __init__(self, channels: Sequence[int], conv: Convolution = conv_bn) -> None:
        super().__init__()
        self.first = ResidualBlock(channels[0], channels[0], conv=conv)
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(
            nn.Sequential(conv(fine, coarse, 3, 2), ResidualBlock(coarse, coarse, conv=conv)) for fine, coarse in pairs
        )
        self.reduce = nn.ModuleList(conv(coarse, fine, 1, relu=False) for fine, coarse in pairs)
        self.fuse = nn.ModuleList(conv(fine, fine) for fine, _ in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels[0], ny, nx] or [B, channels[0], nz, ny, nx] to the same shape."""
        x = self.first(x)
        scales = [x]
        for down in self.down:
            scales.append(down(scales[-1]))
        x = scales.pop()
        for reduce, fuse in zip(self.reduce[::-1], self.fuse[::-1], strict=True):
            fine = scales.pop()
            x = fuse(fine + functional.interpolate(reduce(x), size=fine.shape[2:], mode="nearest"))
        return x


class OccupancyHead(nn.Module):
    """A head whose logits have their own bias per class and height, which starts from label frequencies."""

    last: nn.Conv2d | nn.Linear
    """The layer behind which the bias stands."""

    @property
    def height_bias(self) -> Tensor:
        """The bias as a view [classes, nz]."""
        raise NotImplementedError

    def set_prior(self, frequencies: Tensor) -> None:
        """Start from the frequencies [classes, nz] of the labels at each height instead of from chance."""
        with torch.no_grad():
            self.height_bias.copy_(frequencies.clamp(min=1e-6).log())
            self.last.weight.mul_(0.1)

    def add_offsets(self, offsets: Tensor) -> None:
        """Add offsets [classes] to the logits of the classes at all heights."""
        with torch.no_grad():
            self.height_bias.add_(offsets[:, None])


class ChannelToHeight(OccupancyHead):
    """FlashOcc's occupancy head: 3x3 convolution, then per column C -> 2C -> classes * heights."""

    def __init__(self, inputs: int, classes: int, heights: int, *, softplus: bool) -> None:
        super().__init__()
        self.classes, self.heights = classes, heights
        self.hidden = nn.Sequential(
            conv_bn(inputs, inputs), nn.Conv2d(inputs, 2 * inputs, 1), nn.Softplus() if softplus else nn.ReLU()
        )
        self.last = nn.Conv2d(2 * inputs, classes * heights, 1)

    def forward(self, bev: Tensor) -> Tensor:
        """[B, inputs, ny, nx] to logits [B, classes, nz, ny, nx]."""
        logits: Tensor = self.last(self.hidden(bev))
        batch, _, ny, nx = logits.shape
        return logits.view(batch, self.classes, self.heights, ny, nx)

    @property
    def height_bias(self) -> Tensor:
        """The last bias as a view [classes, nz]."""
        return cast(Tensor, self.last.bias).view(self.classes, self.heights)


class TrajectoryHead(nn.Module):
    """WalkOCC A.1: two 3x3 convolutions (the second of stride 2), 4x4 pooling and a three-layer MLP."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int], waypoints: int) -> None:
        super().__init__()
        self.waypoints = waypoints
        self.convolutions = nn.Sequential(conv_bn(inputs, channels), conv_bn(channels, channels, 3, 2))
        # Windows of one fixed size stand for adaptive pooling, which exporters only take when the size divides.
        halved = [(count + 1) // 2 for count in size]
        stride = [count // 4 for count in halved]
        kernel = [count - 3 * step for count, step in zip(halved, stride, strict=True)]
        self.pool = nn.AvgPool2d((kernel[0], kernel[1]), (stride[0], stride[1]))
        self.mlp = nn.Sequential(
            nn.Linear(16 * channels, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2 * waypoints)
        )

    def forward(self, bev: Tensor) -> Tensor:
        """[B, inputs, ny, nx] to waypoints [B, waypoints, 2], metres, x forward and y left."""
        waypoints: Tensor = self.mlp(self.pool(self.convolutions(bev)).flatten(1))
        return waypoints.view(-1, self.waypoints, 2)
