"""Actors and tracks are exact about where they are."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.simulation.scene import Actor, Motion, RobotTrack
from occ_perception.simulation.solids import Solid, Texture, pose
from occ_perception.taxonomy import Sidewalk


def track() -> RobotTrack:
    t = np.arange(0, 8.001, 0.02)
    xyz = np.column_stack([2.0 + t, np.sin(t), 0.1 * t])
    yaw = np.arctan(np.cos(t))
    return RobotTrack("quadruped", Motion(t, xyz, yaw), 0.05 * np.sin(9 * t), 0.03 * np.cos(5 * t))


def test_waypoints_are_the_future_poses_seen_from_the_gravity_aligned_base() -> None:
    robot = track()
    t = 1.23
    x, y, _, yaw = robot.motion.sample(t)
    T_grid_world = np.linalg.inv(pose(x, y, 0.0, yaw))
    waypoints = robot.future_waypoints(t)
    assert waypoints is not None
    assert waypoints.shape == (10, 2)
    for k, waypoint in enumerate(waypoints):
        there = T_grid_world @ robot.pose_at(t + 0.5 * (k + 1))[:, 3]
        np.testing.assert_allclose(waypoint, there[:2], atol=1e-12)


def test_waypoints_are_none_when_the_track_ends_too_soon() -> None:
    robot = track()
    assert robot.future_waypoints(3.0) is not None
    assert robot.future_waypoints(3.02) is None


def test_pose_holds_pitch_and_roll() -> None:
    robot = track()
    T = robot.pose_at(2.0)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert -np.arcsin(T[2, 0]) == pytest.approx(np.interp(2.0, robot.motion.times_s, robot.pitch_rad))
    assert np.arctan2(T[2, 1], T[2, 2]) == pytest.approx(np.interp(2.0, robot.motion.times_s, robot.roll_rad))


def test_motion_moves_by_its_velocity_and_rests_outside_its_times() -> None:
    motion = Motion(np.array([0.0, 1.0, 2.0]), np.array([[0, 0, 0], [1, 2, 0], [1, 2, 4.0]]), np.zeros(3))
    np.testing.assert_allclose(motion.velocity_mps(0.5), [1, 2, 0])
    np.testing.assert_allclose(motion.velocity_mps(1.0), [0, 0, 4])
    np.testing.assert_allclose(motion.velocity_mps(2.5), 0)
    assert motion.sample(-1.0) == (0.0, 0.0, 0.0, 0.0)
    assert motion.sample(9.0) == (1.0, 2.0, 4.0, 0.0)


def test_limbs_swing_about_their_pivot() -> None:
    leg = Solid("cylinder", (0.15, 0.15, 0.8), pose(0, 0.1, 0.4), int(Sidewalk.PERSON), (0, 0, 0), Texture.CLOTH)
    walk = Motion(np.array([0.0, 10.0]), np.array([[0.0, 0, 0], [12.0, 0, 0]]), np.zeros(2))
    actor = Actor(1, int(Sidewalk.PERSON), (leg,), (0.5, 0.5, 1.7), walk, np.array([[0.45, 0.0, 0.4]]))
    hips = np.array([part @ [0, 0, 0.4, 1] for t in np.linspace(0, 2, 9) for part in actor.part_poses(t)])
    feet = np.array([part @ [0, 0, -0.4, 1] for t in np.linspace(0, 2, 9) for part in actor.part_poses(t)])
    np.testing.assert_allclose(hips, np.tile([0, 0.1, 0.8, 1], (9, 1)), atol=1e-12)
    assert np.ptp(feet[:, 0]) > 0.4
