"""A tiny robot, a stand-in engine that answers with the brightness of the image, and a recording with truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.engines import EngineDescription, Manifest, State
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.pipelines.bench import InstantEngine
from occ_perception.recordings import BagWriter, MessageEncoder, make
from occ_perception.recordings.frames import (
    ODOMETRY_TOPIC,
    TRUTH_OCCUPANCY_TOPIC,
    TRUTH_TRAJECTORY_TOPIC,
    compressed_image_topic,
    points_topic,
)
from occ_perception.types import CameraImage, Odometry, PointCloud, Trajectory, VoxelGrid

GRID = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), 0.2)
LIFT = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), (0.2, 0.2, 0.5))
HEIGHT, WIDTH = 48, 64
BRIGHTNESS = 16
"""An image of brightness 16 c makes the engine label every cell with class c."""
WAYPOINTS_M = np.array([[1.0, 0.0], [2.0, 0.1]], np.float32)


def stamp_of(frame: int) -> int:
    return 1_000_000_000 + frame * 100_000_000


class BrightnessEngine(InstantEngine):
    """Labels every cell with the image's brightness over 16."""

    def __init__(self) -> None:
        super().__init__(manifest())

    def describe(self) -> EngineDescription:
        return EngineDescription("brightness@1", "none", "none", "cpu", "fp32", "fp32", 0.0)

    def run(self, inputs: Mapping[str, np.ndarray], state: State) -> tuple[dict[str, np.ndarray], State]:
        label = round(float(inputs["images"].mean()) / BRIGHTNESS)
        return {"labels": np.full(GRID.shape[::-1], label, np.uint8), "waypoints": WAYPOINTS_M.copy()}, state


def manifest() -> Manifest:
    nx, ny, nz = GRID.shape
    return Manifest.model_validate({
        "name": "brightness", "version": "1", "tasks": ("occupancy", "trajectory"), "taxonomy": "sidewalk14",
        "output_grid": {"minimum_m": GRID.minimum_m, "maximum_m": GRID.maximum_m, "cell_m": 0.2},
        "lift_grid": {"minimum_m": LIFT.minimum_m, "maximum_m": LIFT.maximum_m, "cell_m": (0.2, 0.2, 0.5)},
        "range_bins": {"minimum_m": 0.0, "maximum_m": 6.0, "step_m": 0.5}, "image_size": (HEIGHT, WIDTH),
        "feature_size": (12, 16), "waypoint_times_s": (0.5, 1.0),
        "inputs": [{"name": "rows", "shape": ("hits", LIFT.size), "dtype": "int32", "meaning": ""}],
        "outputs": [{"name": "labels", "shape": (nz, ny, nx), "dtype": "uint8", "meaning": ""}],
        "variants": {"fp32": {"file": "x", "sha256": "0" * 64, "precision": "fp32", "devices": ("cpu",)}},
        "training": {"data": "none", "data_version": "0", "data_hash": "0", "commit": "", "seed": 7, "steps": 0},
        "licence": "Apache-2.0",
    })


@pytest.fixture
def engine() -> BrightnessEngine:
    return BrightnessEngine()


@pytest.fixture(scope="session")
def rig() -> Rig:
    T = se3.make(se3.OPTICAL_IN_BODY, (0.1, 0.0, 0.3))
    return Rig.model_validate({"name": "tiny", "cameras": [{
        "name": "front", "frame": "front", "width": WIDTH, "height": HEIGHT, "model": "equidistant",
        "parameters": [22.0, 22.0, 31.5, 23.5], "max_theta_rad": 1.4, "T_base_camera": T.tolist(),
    }]})


def true_grid(frame: int, near: int, far: int) -> VoxelGrid:
    """Class `near` in the nearer half of the grid and `far` in the rest; only the nearer half was seen."""
    labels, seen = np.full(GRID.shape, far, np.uint8), np.zeros(GRID.shape, np.uint8)
    labels[:10], seen[:10] = near, 255
    return VoxelGrid(GRID, stamp_of(frame), labels, confidence=seen, model_id="truth")


Record = Callable[..., Path]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """record(classes, truth={frame: (near, far)}): images whose brightness stands for a class, odometry, truth.

    `scans` are the frames at which the LiDAR `top` saw one point, 2 m ahead of it.
    """

    def write(classes: list[int | None], truth: Mapping[int, tuple[int, int]], name: str = "drive.mcap",
              scans: Sequence[int] = (), **damaged: Any) -> Path:
        encoder, path = MessageEncoder(make), tmp_path / name
        with BagWriter(path) as bag:
            for frame, label in enumerate(classes):
                stamp = stamp_of(frame)
                for at in range(stamp - 80_000_000, stamp + 1, 20_000_000):
                    pose = se3.from_euler(0.0, 0.0, 0.3, (frame * 0.1, 0, 0))
                    bag.write(ODOMETRY_TOPIC, at, encoder.odometry(Odometry(at, pose)))
                pixels = np.full((HEIGHT, WIDTH, 3), BRIGHTNESS * (label or 0), np.uint8)
                message = encoder.compressed_image(CameraImage("front", stamp, pixels), 95)
                if label is None:
                    message.data = np.frombuffer(b"no picture at all", np.uint8)
                if frame in scans:
                    scan = PointCloud("top", stamp, np.float32([[2.0, 0.0, 0.0]]))
                    bag.write(points_topic("top"), stamp, encoder.point_cloud(scan))
                bag.write(damaged.get("topic", compressed_image_topic("front")), stamp, message)
                if frame in truth:
                    bag.write(TRUTH_OCCUPANCY_TOPIC, stamp, encoder.voxel_grid(true_grid(frame, *truth[frame])))
                    path_message = encoder.planned_trajectory(
                        Trajectory(stamp, WAYPOINTS_M + np.float32(0.5), np.array([0.5, 1.0], np.float32)))
                    bag.write(TRUTH_TRAJECTORY_TOPIC, stamp, path_message)
        return path

    return write


