"""A tiny world for the training tests: coloured blocks before one camera, small enough to be learned in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import RigCamera
from occ_perception.datasets.sample import ImageSample, Sample
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


@pytest.fixture(scope="session")
def other_rig() -> Rig:
    """A robot without LiDAR: a fisheye of another size, higher up and looking down a little."""
    rotation = se3.from_euler(0, 0.1, 0)[:3, :3] @ se3.OPTICAL_IN_BODY
    camera = RigCamera(
        name="eye", frame="eye_optical", width=120, height=80, model="equidistant",
        parameters=(45.0, 45.0, 59.5, 39.5, -0.01, 0, 0, 0), T_base_camera=se3.make(rotation, [0, 0, 0.3]),
    )
    return Rig(name="other", cameras=(camera,))


def make_labels(index: int) -> np.ndarray:
    """A road at the bottom and one block of a class on one side."""
    rng = np.random.default_rng(index)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 0] = 255
    labels[:, :, 1] = Sidewalk.ROAD
    near, left = int(rng.integers(6, 11)), int(rng.integers(2, 11))
    labels[near : near + 3, left : left + 3, 2:6] = (Sidewalk.PERSON, Sidewalk.VEHICLE)[index % 2]
    return labels


def block_class(labels: np.ndarray) -> int:
    return int(labels[labels < 254].max())


def paint(rig: Rig, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the rig's camera sees of it, roughly: image, classes, range."""
    mounted = rig.cameras[0].mounted()
    camera, size = mounted.camera, (mounted.camera.height, mounted.camera.width)
    image = np.full((*size, 3), 120, np.uint8)
    range_m, semantics = np.zeros(size, np.float32), np.zeros(size, np.uint8)
    road = size[0] * 5 // 8
    image[road:], semantics[road:], range_m[road:] = (90, 90, 100), Sidewalk.ROAD, 2.5
    label = block_class(labels)
    points = se3.apply(se3.invert(mounted.T_base_camera), GRID.centres()[labels == label])
    pixels, valid = camera.project(points)
    low, high = pixels[valid].min(0).astype(int), pixels[valid].max(0).astype(int)
    region = slice(max(low[1], 0), high[1] + 1), slice(max(low[0], 0), high[0] + 1)
    image[region], semantics[region] = {11: (220, 40, 40), 7: (40, 60, 220)}[label], label
    range_m[region] = np.linalg.norm(points, axis=1).min()
    return image, semantics, range_m


def make_sample(rig: Rig, index: int) -> Sample:
    """A paired sample: its labels, what its camera sees of them, and a return of its LiDAR in every third pixel."""
    labels = make_labels(index)
    image, semantics, range_m = paint(rig, labels)
    mounted = rig.cameras[0].mounted()
    points = mounted.camera.rays()[1::3, 1::3] * range_m[1::3, 1::3, None]
    points_m = se3.apply(mounted.T_base_camera, points[range_m[1::3, 1::3] > 0])
    left = int(np.argwhere(labels == block_class(labels))[:, 1].min())
    future = np.stack([np.linspace(0.2, 2, 10), np.full(10, 0.1 * (left - 6))], 1).astype(np.float32)
    return Sample(
        scene="tiny", index=index, stamp_ns=index, rig=rig, spec=GRID, images={"front": image}, T_grid_base=np.eye(4),
        T_world_grid=np.eye(4), labels=labels, visible=np.ones(GRID.shape, bool), semantics={"front": semantics},
        range_m={"front": range_m}, points_m=points_m.astype(np.float32), waypoints_m=None if index == 3 else future,
    )


@pytest.fixture(scope="session")
def samples(rig: Rig) -> Sequence[Sample]:
    """Four samples; the last has no future."""
    return [make_sample(rig, index) for index in range(4)]


@pytest.fixture(scope="session")
def image_samples(other_rig: Rig) -> Sequence[ImageSample]:
    """Four images of another robot with 2D labels alone."""
    made = []
    for index in range(10, 14):
        image, semantics, _ = paint(other_rig, make_labels(index))
        made.append(ImageSample(scene="flat", index=index, stamp_ns=index, rig=other_rig, images={"eye": image},
                                semantics={"eye": semantics}, T_grid_base=se3.from_euler(0.02, -0.03, 0)))
    return made
