"""The pieces of MonoScene's 3D U-Net: a factorised convolution is a 3D one, and heights are carried over truly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from occ_perception.geometry import VoxelGridSpec
from occ_perception.networks.bev import UShape
from occ_perception.networks.volume import VoxelHead, volume_conv_bn

LIFT = VoxelGridSpec((0, -2, -0.6), (4, 2, 0.6), (0.25, 0.25, 0.3))
OUTPUT = VoxelGridSpec((0, -2, -1), (4, 2, 1), 0.25)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_factorised_convolution_is_a_3d_convolution(stride: int) -> None:
    module = volume_conv_bn(3, 5, 3, stride, relu=False).eval()
    in_plane, along_height = (m.weight for m in module.modules() if isinstance(m, nn.Conv2d))
    kernel = torch.einsum("omz,miyx->oizyx", along_height[..., 0], in_plane)
    x = torch.randn(2, 3, 4, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = functional.conv3d(x, kernel, stride=stride, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)


def test_pointwise_convolutions_see_one_cell() -> None:
    module = volume_conv_bn(3, 5, 1).eval()
    x = torch.randn(1, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    cell = module(x[:, :, 1:, 2:, 3:])
    torch.testing.assert_close(module(x)[:, :, 1:, 2:, 3:], cell)


def test_the_u_shape_keeps_odd_sizes_and_sees_the_whole_volume() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # by chance no channel of the voxel below may be above the last ReLU's zero
        network = UShape((4, 6, 8), volume_conv_bn)
        x = torch.randn(2, 4, 5, 9, 11, requires_grad=True)
    y = network(x)
    assert y.shape == x.shape
    y[0, :, 2, 4, 5].sum().backward()
    reached = x.grad.abs().sum((0, 1)) > 0
    assert reached.any((1, 2)).all()
    assert reached.any((0, 1)).all()


def test_heights_start_as_an_interpolation() -> None:
    """A feature that grows with height grows on in the output grid, up to the last centres."""
    head = VoxelHead(2, 3, LIFT, OUTPUT)
    lifted_m, output_m = LIFT.centres()[0, 0, :, 2], OUTPUT.centres()[0, 0, :, 2]
    carried = head.heights(torch.from_numpy(lifted_m).float())
    expected = output_m.clip(lifted_m[0], lifted_m[-1])
    np.testing.assert_allclose(carried.detach().numpy(), expected, atol=1e-6)


def test_the_head_answers_per_class_and_height_and_starts_from_a_prior() -> None:
    head = VoxelHead(4, 3, LIFT, OUTPUT).eval()
    volume = torch.randn(2, 4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    before = head(volume)
    assert before.shape == (2, 3, 8, 16, 16)
    frequencies = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) + 0.1
    frequencies /= frequencies.sum(0)
    head.set_prior(frequencies)
    after = head(volume)
    torch.testing.assert_close(after - frequencies.log()[:, :, None, None], 0.1 * before, atol=1e-5, rtol=1e-4)
    head.add_offsets(torch.tensor([0.0, 1.0, -2.0]))
    offsets = (head(volume) - after).amax((0, 2, 3, 4))
    torch.testing.assert_close(offsets, torch.tensor([0.0, 1.0, -2.0]), atol=1e-5, rtol=1e-5)
