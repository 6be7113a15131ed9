"""Odometry drifts as told, and the IMU feels gravity, turns and its bias."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from occ_perception.geometry import se3
from occ_perception.simulation.motion import GRAVITY_MPS2, PERFECT, MotionErrors, body_rates, imu, odometry
from occ_perception.simulation.scene import World


def test_perfect_odometry_is_the_track(make_yard: Callable[..., World]) -> None:
    track = make_yard(speed_mps=1.0, turn_radps=0.2).robot
    poses = list(odometry(track, PERFECT, 50.0, np.random.default_rng(0), start_ns=7))
    assert [poses[0].stamp_ns, poses[1].stamp_ns, len(poses)] == [7, 20_000_007, 601]
    for k in (0, 100, 600):
        assert np.allclose(poses[k].T_odom_base, track.pose_at(k / 50.0), atol=1e-9)
    assert np.allclose(poses[300].linear_mps, [1.0, 0.0, 0.0], atol=0.01)
    assert np.allclose(poses[300].angular_radps, [0.0, 0.0, 0.2], atol=1e-6)


def test_drift_grows_with_distance_by_the_stated_share(make_yard: Callable[..., World]) -> None:
    track = make_yard(speed_mps=1.0).robot
    errors = MotionErrors(scale=0.02, yaw_drift_radpm=0.01, speed_sigma=0.0)
    poses = list(odometry(track, errors, 50.0, np.random.default_rng(0)))
    truth = [track.pose_at(k / 50.0) for k in range(len(poses))]
    off = [float(np.linalg.norm(p.T_odom_base[:3, 3] - T[:3, 3])) for p, T in zip(poses, truth, strict=True)]
    assert off[0] == 0
    assert off[100] < off[300] < off[-1]
    travelled = np.linalg.norm(np.diff([p.T_odom_base[:3, 3] for p in poses], axis=0), axis=1).sum()
    assert travelled == pytest.approx(1.02 * 12.0, rel=1e-3)
    assert abs(se3.yaw_of(poses[-1].T_odom_base)) == pytest.approx(0.12, rel=1e-2)


def test_a_standing_imu_feels_gravity_and_its_bias_only(make_yard: Callable[..., World]) -> None:
    errors = MotionErrors(gyro_bias_radps=0.01, accel_bias_mps2=0.2, gyro_sigma_radps=0.001, accel_sigma_mps2=0.01)
    samples = list(imu(make_yard().robot, errors, 100.0, np.eye(4), np.random.default_rng(3)))
    force = np.array([s.force_mps2 for s in samples])
    turn = np.array([s.angular_radps for s in samples])
    bias = force.mean(axis=0) - (0.0, 0.0, GRAVITY_MPS2)
    assert 0.02 < np.abs(bias).max() < 0.8
    assert force.std(axis=0).max() < 0.02
    assert 0.001 < np.abs(turn.mean(axis=0)).max() < 0.04
    assert turn.std(axis=0).max() < 0.002


def test_the_gyro_integrates_to_the_heading(make_yard: Callable[..., World]) -> None:
    track = make_yard(speed_mps=1.0, turn_radps=0.3).robot
    samples = list(imu(track, PERFECT, 100.0, se3.from_euler(0.0, 0.0, 1.0), np.random.default_rng(0)))
    heading = sum(s.angular_radps[2] for s in samples[1:-1]) / 100.0
    assert heading == pytest.approx(0.3 * 12.0, rel=0.01)
    assert np.allclose(se3.to_quaternion(track.pose_at(1.0) @ se3.from_euler(0.0, 0.0, 1.0)),
                       samples[100].quaternion_xyzw)
    # on an arc of radius v / w the base is pulled inwards by v w
    inwards = samples[600].force_mps2
    assert np.hypot(*inwards[:2]) == pytest.approx(0.3, abs=0.05)


def test_body_rates_are_in_the_body(make_yard: Callable[..., World]) -> None:
    linear, angular = body_rates(make_yard(speed_mps=1.2, heading=2.0, turn_radps=-0.1).robot, 5.0)
    assert np.allclose(linear, [1.2, 0.0, 0.0], atol=0.02)
    assert np.allclose(angular, [0.0, 0.0, -0.1], atol=1e-6)
