"""The LiDAR turns while the robot moves: every point is taken at its own time."""

from __future__ import annotations

from collections.abc import Callable

import embreex  # noqa: F401
import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import World
from occ_perception.simulation.sim import SidewalkSim
from occ_perception.types import PointCloud

EXACT = LidarModel(rings=32, columns=512, range_sigma_m=0.0, dropout=0.0)


def in_world(sim: SidewalkSim, cloud: PointCloud, start_s: float, frozen: bool = False) -> np.ndarray:
    """Points in the world, each from the pose at its own time (or all from the pose at the start)."""
    assert cloud.time_ns is not None
    mount = sim.rig.lidars[0].T_base_lidar
    points = np.empty((len(cloud.points_m), 3))
    for time_ns in np.unique(cloud.time_ns):
        own = cloud.time_ns == time_ns
        at = start_s if frozen else start_s + time_ns * 1e-9
        points[own] = se3.apply(sim.world.robot.pose_at(at) @ mount, cloud.points_m[own])
    return points


def off_the_wall(sim: SidewalkSim, points: np.ndarray) -> np.ndarray:
    """Distance to the wall of the points near it and above ground."""
    wall = sim.world.static[1]
    local = points - wall.T_parent_solid[:3, 3]
    near = (np.abs(wall.signed_distance_m(local)) < 0.4) & (points[:, 2] > 0.1)
    return np.abs(wall.signed_distance_m(local[near]))


def test_points_lie_on_surfaces_only_with_the_pose_at_their_own_time(make_yard: Callable[..., World],
                                                                     small_rig: Rig) -> None:
    sim = SidewalkSim(make_yard(speed_mps=1.5, turn_radps=0.6), small_rig, lidar=EXACT)
    cloud = sim.cloud("top", 0.3)
    right, wrong = in_world(sim, cloud, 0.3), in_world(sim, cloud, 0.3, frozen=True)
    assert len(off_the_wall(sim, right)) > 300
    assert off_the_wall(sim, right).max() < 3e-3
    assert np.median(off_the_wall(sim, wrong)) > 0.05
    assert np.abs(right[:, 2]).min() < 1e-3


def test_times_run_through_one_turn(make_yard: Callable[..., World], small_rig: Rig) -> None:
    cloud = SidewalkSim(make_yard(), small_rig, lidar=EXACT, start_ns=10**15).cloud("top", 0.5)
    assert cloud.stamp_ns == 10**15 + 500_000_000
    assert cloud.time_ns is not None
    assert cloud.time_ns[0] == 0
    assert (np.diff(cloud.time_ns) >= 0).all()
    assert 99_000_000 < cloud.time_ns[-1] < 100_000_000
    azimuth = np.arctan2(cloud.points_m[:, 1], cloud.points_m[:, 0])
    expected = np.pi - 2 * np.pi * cloud.time_ns / 1e8
    assert np.abs((azimuth - expected + np.pi) % (2 * np.pi) - np.pi).max() < 1e-4


def test_noise_dropout_and_reach_are_those_of_the_model(make_yard: Callable[..., World], small_rig: Rig) -> None:
    world = make_yard()
    exact = SidewalkSim(world, small_rig, lidar=EXACT).cloud("top", 0.0)
    noisy_model = LidarModel(rings=32, columns=512, range_sigma_m=0.05, dropout=0.25)
    noisy = SidewalkSim(world, small_rig, lidar=noisy_model).cloud("top", 0.0)
    assert len(noisy.points_m) / len(exact.points_m) == pytest.approx(0.75, abs=0.02)
    ground = noisy.points_m[np.abs(noisy.points_m[:, 2] + 0.95) < 0.3]
    assert len(ground) > 1000
    beam = ground / np.linalg.norm(ground, axis=1, keepdims=True)
    error_m = np.linalg.norm(ground, axis=1) + 0.95 / beam[:, 2]
    near = np.abs(error_m) < 0.3
    assert np.std(error_m[near]) == pytest.approx(0.05, rel=0.15)
    short = SidewalkSim(world, small_rig, lidar=LidarModel(rings=32, columns=512, reach_m=5.0, blind_m=2.0,
                                                           range_sigma_m=0.0)).cloud("top", 0.0)
    distance = np.linalg.norm(short.points_m, axis=1)
    assert distance.min() > 2.0
    assert distance.max() < 5.0
    assert exact.intensity is not None
    assert 0 <= exact.intensity.min() < exact.intensity.max() <= 1


def test_an_impossible_lidar_is_refused_with_every_fault() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LidarModel(rings=0, low_deg=20.0, high_deg=-20.0, rate_hz=0.0, dropout=2.0)
    assert len(caught.value.faults) == 4
