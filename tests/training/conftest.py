"""A tiny world for the training tests: coloured blocks before one camera, small enough to be learned in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import RigCamera
from occ_perception.datasets.sample import Sample
from occ_perception.geometry import RangeBins, VoxelGridSpec, se3
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.taxonomy import Sidewalk

GRID = VoxelGridSpec((0, -2, -1), (4, 2, 1), 0.25)


@pytest.fixture(scope="session")
def small() -> WalkOccConfig:
    """64x96 images, 8x12 features, 16x16x8 voxels."""
    return WalkOccConfig(
        image_size=(64, 96), stem_channels=8, stage_channels=(8, 12, 16, 16), neck_channels=16, context_channels=8,
        bins=RangeBins(0.2, 6.2, 0.5), lift_grid=VoxelGridSpec((0, -2, -0.6), (4, 2, 0.6), (0.25, 0.25, 0.3)),
        output_grid=GRID, bev_channels=(12, 16), trajectory_channels=8,
    )


@pytest.fixture(scope="session")
def rig() -> Rig:
    """One pinhole camera at the origin of the base, looking forward."""
    camera = RigCamera(
        name="front", frame="front_optical", width=96, height=64, model="pinhole",
        parameters=(46.7, 46.9, 47.5, 31.5, 0, 0, 0, 0, 0), T_base_camera=se3.make(se3.OPTICAL_IN_BODY, [0, 0, 0]),
    )
    return Rig(name="tiny", cameras=(camera,))


def make_sample(rig: Rig, index: int) -> Sample:
    """A road at the bottom and one block of a class on one side, which is painted where the camera sees it."""
    rng = np.random.default_rng(index)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = 255
    labels[:, :, 1] = Sidewalk.ROAD
    label = (Sidewalk.PERSON, Sidewalk.VEHICLE)[index % 2]
    near, left = int(rng.integers(6, 11)), int(rng.integers(2, 11))
    labels[near : near + 3, left : left + 3, 2:6] = label
    camera = rig.cameras[0].camera
    image = np.full((64, 96, 3), 120, np.uint8)
    range_m, semantics = np.zeros((64, 96), np.float32), np.zeros((64, 96), np.uint8)
    image[40:], semantics[40:], range_m[40:] = (90, 90, 100), Sidewalk.ROAD, 2.5
    points = GRID.centres()[labels == label] @ se3.OPTICAL_IN_BODY
    pixels, valid = camera.project(points)
    low, high = pixels[valid].min(0).astype(int), pixels[valid].max(0).astype(int)
    region = slice(max(low[1], 0), high[1] + 1), slice(max(low[0], 0), high[0] + 1)
    image[region], semantics[region] = ((220, 40, 40), (40, 60, 220))[index % 2], label
    range_m[region] = np.linalg.norm(points, axis=1).min()
    future = np.stack([np.linspace(0.2, 2, 10), np.full(10, 0.1 * (left - 6))], 1).astype(np.float32)
    return Sample(
        scene="tiny", index=index, stamp_ns=index, rig=rig, spec=GRID, images={"front": image}, T_grid_base=np.eye(4),
        T_world_grid=np.eye(4), labels=labels, visible=np.ones(GRID.shape, bool), semantics={"front": semantics},
        range_m={"front": range_m}, waypoints_m=None if index == 3 else future,
    )


@pytest.fixture(scope="session")
def samples(rig: Rig) -> Sequence[Sample]:
    """Four samples; the last has no future."""
    return [make_sample(rig, index) for index in range(4)]
