"""Measured ranges as features: a sparse range image, as a LiDAR gives it, beside the images (beyond the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from occ_perception.geometry.tables import RangeBins
from occ_perception.networks.backbone import conv_bn

RANGE_CHANNELS = 16
"""Coarse range bins: less than a metre apart, and interpolated between."""
HIDDEN_CHANNELS = 32


class RangeEncoder(nn.Module):
    """A range image to features that are added to those of the images.

    A range becomes weights of the two bin centres beside it (linear interpolation, so nothing is rounded), and one
    channel says whether there is a measurement at all. All weights are between 0 and 1, which 8 bits hold to 1/255 of
    the centres' distance. One 3x3 and one 1x1 convolution follow: a scan of a robot's LiDAR reaches most pixels at
    stride 8, so they need not carry measurements far.

    Args:
        bins: the ranges that the network knows; the first and last centre are its ends.
        channels: of the features.
    """

    centres_m: Tensor

    def __init__(self, bins: RangeBins, channels: int) -> None:
        super().__init__()
        self.first_m, self.last_m = bins.minimum_m, bins.maximum_m
        self.step_m = (self.last_m - self.first_m) / (RANGE_CHANNELS - 1)
        centres = torch.linspace(self.first_m, self.last_m, RANGE_CHANNELS)
        self.register_buffer("centres_m", centres.view(1, -1, 1, 1), persistent=False)
        self.layers = nn.Sequential(
            conv_bn(RANGE_CHANNELS + 1, HIDDEN_CHANNELS), conv_bn(HIDDEN_CHANNELS, channels, 1, relu=False)
        )

    def spread(self, ranges: Tensor) -> Tensor:
        """Ranges [N, h, w], metres, 0 for none, to weights [N, RANGE_CHANNELS + 1, h, w]; the last is validity."""
        ranges = ranges.unsqueeze(1)
        measured = (ranges > 0).to(ranges.dtype)
        distance = (ranges.clamp(self.first_m, self.last_m) - self.centres_m).abs()
        weights = (1 - distance / self.step_m).clamp(min=0)
        return torch.cat([weights * measured, measured], 1)

    def forward(self, ranges: Tensor) -> Tensor:
        """Ranges [N, h, w], metres, 0 for none, to features [N, channels, h, w]."""
        return torch.as_tensor(self.layers(self.spread(ranges)))
