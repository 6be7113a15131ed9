"""MonoScene's way (Cao and de Charette 2022): a small 3D U-Net over the lifted volume, and a head per voxel.

Volumes are [B, C, nz, ny, nx] with the channels last in memory: planes and columns of such a volume are views of it
that 2D convolutions take as they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.networks.backbone import conv_bn
from occ_perception.networks.bev import OccupancyHead
from occ_perception.networks.lifting import lift


class InPlanes(nn.Module):
    """A 2D module on every horizontal plane of a volume."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, nz, ny, nx] to [B, C', nz, ny', nx']."""
        planes: Tensor = self.module(x.transpose(1, 2).flatten(0, 1))
        return planes.view(x.shape[0], x.shape[2], *planes.shape[1:]).transpose(1, 2)


class InColumns(nn.Module):
    """A 2D module on a volume whose second axis is all columns: kernels of (k, 1) work along the height."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, nz, ny, nx] to [B, C', nz', ny, nx]."""
        columns: Tensor = self.module(x.flatten(3))
        return columns.view(*columns.shape[:3], *x.shape[3:])


def volume_conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Module:
    """`conv_bn` for volumes: kernel x kernel in the plane, then kernel along the height.

    This is the dimensional decomposition (Li et al. 2019) of which MonoScene's U-Net is made: 12 weights instead of
    27 per pair of channels.
    """
    if kernel == 1 and stride == 1:
        return InPlanes(conv_bn(inputs, outputs, 1, relu=relu))
    in_plane = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    along_height = nn.Conv2d(outputs, outputs, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False)
    layers: list[nn.Module] = [along_height, nn.BatchNorm2d(outputs)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(InPlanes(in_plane), InColumns(nn.Sequential(*layers)))


class LiftToVolume(nn.Module):
    """Lifted samples to a volume; every sample keeps its place and meets one layer of weights.

    Args:
        lifted_channels: channels of a lifted sample (see `lift`).
        size: cells of the lift grid, (nx, ny, nz).
        channels: of the volume.
    """

    def __init__(self, lifted_channels: int, size: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.size = size
        self.embed = volume_conv_bn(lifted_channels, channels, 1)

    def forward(self, context: Tensor, depth: Tensor | None, rows: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
        """Arguments as in `lift`, samples in message order (x fastest). Returns [B, channels, nz, ny, nx]."""
        samples = lift(context, depth, rows, bins, weights)
        return torch.as_tensor(self.embed(samples.view(len(rows), *self.size[::-1], -1).permute(0, 4, 1, 2, 3)))


class VoxelHead(OccupancyHead):
    """Classes of every lifted cell, carried to the heights of the output grid by a learned linear map.

    The map starts as the linear interpolation between the centres of the two grids.
    """

    def __init__(self, inputs: int, classes: int, lift_grid: VoxelGridSpec, output_grid: VoxelGridSpec) -> None:
        super().__init__()
        self.hidden = volume_conv_bn(inputs, inputs)
        self.last = nn.Linear(inputs, classes, bias=False)
        self.heights = nn.Linear(lift_grid.shape[2], output_grid.shape[2], bias=False)
        self.bias = nn.Parameter(torch.zeros(classes, output_grid.shape[2]))
        lifted_m, output_m = (grid.centres()[0, 0, :, 2] for grid in (lift_grid, output_grid))
        hats = np.stack([np.interp(output_m, lifted_m, hat) for hat in np.eye(len(lifted_m))], 1)
        with torch.no_grad():
            self.heights.weight.copy_(torch.from_numpy(hats))

    def forward(self, volume: Tensor) -> Tensor:
        """[B, inputs, nz of the lift grid, ny, nx] to logits [B, classes, nz of the output grid, ny, nx]."""
        by_class = self.last(self.hidden(volume).permute(0, 3, 4, 2, 1)).transpose(3, 4)
        logits = torch.as_tensor(self.heights(by_class))
        logits = logits + self.bias.to(logits.dtype)
        return logits.permute(0, 3, 4, 1, 2)

    @property
    def height_bias(self) -> Tensor:
        """The bias [classes, nz] itself."""
        return self.bias
