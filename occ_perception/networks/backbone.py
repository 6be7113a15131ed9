"""Image encoders: ResNet with basic or bottleneck blocks, and the feature pyramid that fuses its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""He et al. 2016, table 1: residual blocks in each of the four stages."""


class Convolution(Protocol):
    """Makes a convolution with normalisation and optional ReLU: `conv_bn` in the plane, `volume_conv_bn` in space."""

    def __call__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *,
                 relu: bool = True) -> nn.Module: ...


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch normalisation, optional ReLU; same size at stride 1."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """`relu(body(x) + shortcut(x))`: two 3x3 convolutions, or 1x1-3x3-1x1 when `bottleneck`.

    The last normalisation starts at zero, so that a deep stack starts as the identity.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, bottleneck: bool = False,
                 conv: Convolution = conv_bn) -> None:
        super().__init__()
        if bottleneck:
            inner = outputs // 4
            last = conv(inner, outputs, 1, relu=False)
            self.body = nn.Sequential(conv(inputs, inner, 1), conv(inner, inner, 3, stride), last)
        else:
            last = conv(outputs, outputs, 3, relu=False)
            self.body = nn.Sequential(conv(inputs, outputs, 3, stride), last)
        self.shortcut = (
            nn.Identity() if inputs == outputs and stride == 1 else conv(inputs, outputs, 1, stride, relu=False)
        )
        norms = [module for module in last.modules() if isinstance(module, nn.BatchNorm2d)]
        nn.init.zeros_(norms[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Four residual stages at strides 4, 8, 16 and 32 of their input.

    Args:
        layers: 18 (basic blocks) or 50 (bottlenecks).
        stem: channels after the first convolution.
        channels: output channels of the four stages.
    """

    def __init__(self, layers: int, stem: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        inputs = stem
        for stage, (outputs, count) in enumerate(zip(channels, BLOCKS_PER_STAGE[layers], strict=True)):
            strides = [1 if stage == 0 else 2, *[1] * (count - 1)]
            self.stages.append(
                nn.Sequential(*[
                    ResidualBlock(inputs if i == 0 else outputs, outputs, stride, bottleneck=layers >= 50)
                    for i, stride in enumerate(strides)
                ])
            )
            inputs = outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [N, 3, H, W] to the four stages' features, finest first."""
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class FeaturePyramid(nn.Module):
    """Top-down sum of stages (Lin et al. 2017), returned only at the finest of the given stages."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, outputs, 1) for count in channels)
        self.smooth = conv_bn(outputs, outputs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Stages, finest first, to one map [N, outputs, H, W] at the finest size."""
        x: Tensor = self.laterals[-1](features[-1])
        for lateral, feature in zip(self.laterals[-2::-1], features[-2::-1], strict=True):
            x = lateral(feature) + functional.interpolate(x, size=feature.shape[-2:], mode="nearest")
        return torch.as_tensor(self.smooth(x))
