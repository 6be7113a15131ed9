"""Levelling: tilt and height come from ground that frames share and from what stands; good poses stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occ_perception.geometry import se3
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.levelling import level

LIDAR_M = np.array([0.0, 0.0, 1.0])
TRUE = np.stack([se3.from_euler(0.01 * np.sin(3.0 * k), 0.008 * np.cos(2.0 * k), 0.05 * k,
                                (0.6 * k, 0.1 * k, 0.012 * k)) for k in range(6)])
"""The way of a robot that sways, up the slope of the ground."""


def walls(built: bool) -> list[tuple[np.ndarray, float, tuple[float, float]]]:
    """Planes as normal, offset, and the x or y between which they stand: the ground first."""
    ground = (np.array([-0.02, 0.0, 1.0]), 0.0, (-99.0, 99.0))
    leaning = np.array([0.0, np.cos(0.05), np.sin(0.05)])
    return [ground] if not built else [
        ground, (np.array([0.0, 1.0, 0.0]), -6.0, (-15.0, 4.0)), (leaning, -6.0, (4.0, 9.0)),
        (np.array([0.0, 1.0, 0.0]), 9.0, (-15.0, 15.0)), (np.array([1.0, 0.0, 0.0]), 15.5, (-6.0, 9.0))]


def scan(T: np.ndarray, built: bool, seed: int) -> np.ndarray:
    """What a LiDAR on the robot measures, float32 [P, 3] in the base."""
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 600), np.radians(np.linspace(-40.0, 15.0, 48)))
    rays = np.column_stack([(np.cos(elevation) * np.cos(azimuth)).ravel(),
                            (np.cos(elevation) * np.sin(azimuth)).ravel(), np.sin(elevation).ravel()])
    origin, directions = se3.apply(T, LIDAR_M[None])[0], rays @ T[:3, :3].T
    range_m = np.full(len(rays), np.inf)
    for normal, offset, (low, high) in walls(built):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (offset - normal @ origin) / (directions @ normal)
            met = origin + t[:, None] * directions
        along = met[:, 1] if abs(normal[0]) > 0.5 else met[:, 0]
        range_m = np.where((t > 0) & (along > low) & (along < high) & (met[:, 2] < 4.0) & (t < range_m), t, range_m)
    range_m += np.random.default_rng(seed).normal(0.0, 0.015, len(rays))
    return np.asarray((LIDAR_M + rays * range_m[:, None])[np.isfinite(range_m)].astype(np.float32))


def frames_of(believed: np.ndarray, built: bool = True) -> list[LabelFrame]:
    """Scans from the true poses, in frames of other ones."""
    frames = []
    for k, (true, T) in enumerate(zip(TRUE, believed)):
        points = scan(true, built, k)
        frames.append(LabelFrame(stamp_ns=k * 500_000_000, images={}, points_m=points, sensor_m=LIDAR_M[None],
                                 point_sensor=np.zeros(len(points), np.uint8), T_world_base=T))
    return frames


def tilted(roll_deg: Sequence[float] | np.ndarray, pitch_deg: Sequence[float] | np.ndarray) -> np.ndarray:
    """The true poses, each turned about the world's axes by so much."""
    turns = Rotation.from_euler("xy", np.column_stack([roll_deg, pitch_deg]), degrees=True).as_matrix()
    wrong = TRUE.copy()
    wrong[:, :3, :3] = turns @ TRUE[:, :3, :3]
    return wrong


def tilt_deg(frames: Sequence[LabelFrame]) -> np.ndarray:
    """Errors of tilt about the world's x and y, [N, 2]."""
    turns = np.stack([frame.T_world_base[:3, :3] for frame in frames]) @ TRUE[:, :3, :3].transpose(0, 2, 1)
    return np.asarray(np.degrees(Rotation.from_matrix(turns).as_rotvec()[:, :2]))


def height_m(frames: Sequence[LabelFrame]) -> np.ndarray:
    """Errors of height, less their mean, [N]."""
    off = np.array([frame.T_world_base[2, 3] for frame in frames]) - TRUE[:, 2, 3]
    return np.asarray(off - off.mean())


def test_tilts_and_heights_of_a_filter_are_corrected() -> None:
    wrong = tilted(np.linspace(0.4, 0.2, 6), np.linspace(-0.1, -0.5, 6))
    wrong[:, 2, 3] += np.linspace(0.0, 0.04, 6)
    levelled = level(frames_of(wrong))
    assert not levelled.skipped
    assert levelled.walls > 20
    assert np.abs(tilt_deg(levelled.frames)).max() < 0.05
    assert np.abs(height_m(levelled.frames)).max() < 0.004
    assert levelled.to_dict()["tilt_deg"] == pytest.approx(0.54, abs=0.06)
    for before, frame in zip(wrong, levelled.frames):
        np.testing.assert_allclose(frame.T_world_base[:2, 3], before[:2, 3])
        assert abs(se3.yaw_of(frame.T_world_base) - se3.yaw_of(before)) < 1e-3


def test_true_poses_stay() -> None:
    levelled = level(frames_of(TRUE))
    assert not levelled.skipped
    assert np.degrees(levelled.tilt_rad.max()) < 0.03
    assert np.abs(levelled.rise_m).max() < 0.002


def test_where_nothing_is_built_the_mean_tilt_is_that_of_gravity() -> None:
    wrong = tilted(np.linspace(0.4, 0.2, 6), np.linspace(-0.1, -0.5, 6))
    levelled = level(frames_of(wrong, built=False))
    assert levelled.walls == 0
    assert tilt_deg(levelled.frames).std(axis=0).max() < 0.02
    np.testing.assert_allclose(tilt_deg(levelled.frames).mean(axis=0), [0.3, -0.3], atol=0.01)


def test_without_ground_in_common_nothing_moves() -> None:
    few = [LabelFrame(stamp_ns=frame.stamp_ns, images={}, points_m=frame.points_m[:200], sensor_m=frame.sensor_m,
                      point_sensor=frame.point_sensor[:200], T_world_base=frame.T_world_base)
           for frame in frames_of(TRUE)]
    for frames in (few, few[:1], []):
        levelled = level(frames)
        assert "too little ground in common" in levelled.skipped
        assert levelled.frames is frames
        assert levelled.to_dict()["tilt_deg"] == 0.0


def test_more_than_a_filter_can_be_off_is_refused() -> None:
    frames = frames_of(tilted(np.full(6, 3.0), np.zeros(6)))
    levelled = level(frames)
    assert "more than the poses can be off" in levelled.skipped
    assert levelled.frames is frames
