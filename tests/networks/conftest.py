"""A WalkOCC network small enough to be run many times."""

from __future__ import annotations

import pytest

from occ_perception.geometry import RangeBins, VoxelGridSpec
from occ_perception.networks.walkocc import WalkOccConfig


@pytest.fixture(scope="session")
def small() -> WalkOccConfig:
    """64x96 images, 8x12 features, 16x16 columns."""
    return WalkOccConfig(
        image_size=(64, 96), stem_channels=8, stage_channels=(8, 12, 16, 16), neck_channels=16, context_channels=8,
        bins=RangeBins(0.2, 6.2, 0.5), lift_grid=VoxelGridSpec((0, -2, -0.6), (4, 2, 0.6), (0.25, 0.25, 0.3)),
        output_grid=VoxelGridSpec((0, -2, -1), (4, 2, 1), 0.25), bev_channels=(12, 16), trajectory_channels=8,
    )
