"""The odometry buffer: poses between and just beyond samples, and none where there can be none."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.geometry import se3
from occ_perception.pipelines import OdometryBuffer
from occ_perception.types import Odometry

SECOND = 1_000_000_000


def turning(t_s: float, yaw_rate: float = 0.8, speed: float = 1.2) -> Odometry:
    """A robot that drives a circle from the origin."""
    radius, yaw = speed / yaw_rate, yaw_rate * t_s
    T = se3.from_euler(0.0, 0.0, yaw, (radius * np.sin(yaw), radius * (1 - np.cos(yaw)), 0.0))
    return Odometry(round((100 + t_s) * SECOND), T, np.array([speed, 0.0, 0.0]), np.array([0.0, 0.0, yaw_rate]))


def filled(until_s: float = 1.0, step_s: float = 0.02) -> OdometryBuffer:
    buffer = OdometryBuffer()
    for t_s in np.arange(0.0, until_s + 1e-9, step_s):
        buffer.push(turning(float(t_s)))
    return buffer


@pytest.mark.parametrize("t_s", [0.5, 0.503, 0.511, 0.9999])
def test_between_samples_it_interpolates(t_s: float) -> None:
    pose = filled().pose_at(round((100 + t_s) * SECOND))
    np.testing.assert_allclose(pose, turning(t_s).T_odom_base, atol=1e-4)


@pytest.mark.parametrize("t_s", [1.15, -0.15])
def test_just_beyond_the_samples_it_extrapolates_at_constant_twist(t_s: float) -> None:
    pose = filled().pose_at(round((100 + t_s) * SECOND))
    np.testing.assert_allclose(pose, turning(t_s).T_odom_base, atol=5e-4)


@pytest.mark.parametrize("t_s", [1.21, -0.21])
def test_far_beyond_them_there_is_no_pose(t_s: float) -> None:
    assert filled().pose_at(round((100 + t_s) * SECOND)) is None


def test_an_empty_buffer_has_no_pose() -> None:
    assert OdometryBuffer().pose_at(0) is None


def test_a_gap_in_the_odometry_has_no_pose() -> None:
    buffer = OdometryBuffer()
    buffer.push(turning(0.0))
    buffer.push(turning(0.6))
    assert buffer.pose_at(round(100.3 * SECOND)) is None


def test_motion_maps_the_base_at_one_instant_into_the_base_at_another() -> None:
    motion = filled().motion(round(100.2 * SECOND), round(100.6 * SECOND))
    expected = se3.invert(turning(0.6).T_odom_base) @ turning(0.2).T_odom_base
    np.testing.assert_allclose(motion, expected, atol=1e-9)


def test_bad_samples_are_dropped_and_counted() -> None:
    buffer = filled()
    nan = np.full((4, 4), np.nan)
    buffer.push(Odometry(101 * SECOND + 1, nan))
    buffer.push(Odometry(101 * SECOND + 1, np.eye(4), np.array([np.inf, 0, 0])))
    buffer.push(turning(1.0))
    buffer.push(turning(0.7))
    assert buffer.drops == {"bad_odometry": 2, "duplicate": 1, "stamp_went_back": 1}
    assert len(buffer) == 51


def test_a_backward_jump_of_the_clock_starts_anew() -> None:
    buffer = filled(until_s=3.0)
    buffer.push(turning(0.0))
    assert buffer.resets == {"clock_jump": 1}
    assert len(buffer) == 1


def test_nothing_is_interpolated_across_a_relocalisation() -> None:
    buffer = filled()
    moved = turning(1.02)
    T = moved.T_odom_base.copy()
    T[0, 3] += 40.0
    buffer.push(Odometry(moved.stamp_ns, T, moved.linear_mps, moved.angular_radps))
    assert buffer.resets == {"pose_jump": 1}
    pose = buffer.pose_at(round(101.01 * SECOND))
    assert pose is not None
    assert pose[0, 3] > 39.0


def test_memory_is_bounded() -> None:
    buffer = OdometryBuffer(keep_s=1.0)
    for i in range(5000):
        buffer.push(Odometry((100 + i) * SECOND // 100, np.eye(4)))
    assert len(buffer) < 200
