"""Poses from wheels and IMU: less drift than wheels alone, honest covariances, gaps and missing sensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occ_perception.errors import ConfigurationError, RecordingError
from occ_perception.geometry import se3
from occ_perception.labeling.ego import (
    NO_IMU,
    EgoSettings,
    EgoTrack,
    ImuSamples,
    _transition,
    check_registration,
    estimate_ego,
)
from occ_perception.simulation.motion import PERFECT, MotionErrors
from occ_perception.simulation.scene import Motion, RobotTrack

Feel = Callable[[RobotTrack, MotionErrors, int], Any]
START_NS = 10**18
T_BASE_IMU = se3.from_euler(0.02, -0.03, 1.2, (0.0, 0.0, 0.3))
"""As the drives of conftest.py have them."""


def truth_at(track: RobotTrack, stamps_ns: Sequence[int]) -> np.ndarray:
    return np.stack([track.pose_at((int(s) - START_NS) * 1e-9) for s in stamps_ns])


def errors_of(track: RobotTrack, ego: EgoTrack) -> tuple[np.ndarray, np.ndarray]:
    """Errors of position (m) and of roll, pitch, yaw (rad), [N, 3] each."""
    true = truth_at(track, ego.stamps_ns)
    angles = [Rotation.from_matrix(T[:, :3, :3]).as_euler("xyz") for T in (ego.T_world_base, true)]
    apart = angles[0] - angles[1]
    return ego.T_world_base[:, :3, 3] - true[:, :3, 3], (apart + np.pi) % (2 * np.pi) - np.pi


@pytest.fixture(scope="module")
def drifting(drive: RobotTrack, feel: Feel) -> tuple[list[Any], ImuSamples, EgoTrack]:
    wheels, imu = feel(drive, MotionErrors(), 0)
    return wheels, imu, estimate_ego(wheels, imu, T_BASE_IMU)


def test_it_drifts_less_than_the_wheels_alone(drive: RobotTrack, drifting: tuple[list[Any], ImuSamples, EgoTrack],
                                              ) -> None:
    wheels, _, ego = drifting
    end = truth_at(drive, [wheels[-1].stamp_ns])[0]
    wheels_off_m = np.linalg.norm(wheels[-1].T_odom_base[:2, 3] - end[:2, 3])
    wheels_turned = abs(se3.yaw_of(se3.invert(wheels[-1].T_odom_base) @ end))
    position, angles = errors_of(drive, ego)
    assert wheels_off_m > 0.8
    assert wheels_turned > 0.05
    # what is left is the wheels' scale, 1 % of 30 m, which an IMU does not tell
    assert np.linalg.norm(position[-1, :2]) < 0.5 * wheels_off_m
    assert np.abs(angles[:, 2]).max() < 0.1 * wheels_turned
    assert np.abs(angles[:, :2]).max() < 0.03


def test_driving_off_is_no_slope(feel: Feel) -> None:
    """A robot that accelerates feels as if it leant back: for the first seconds nothing else tells."""
    t = np.arange(round(4.0 * 50) + 1) / 50.0
    x = np.cumsum(0.9 * (1.0 - np.exp(-t / 0.25))) / 50.0
    level = np.zeros(len(t))
    track = RobotTrack("wheeled", Motion(t, np.column_stack([x, level, level]), level), level, level)
    wheels, imu = feel(track, PERFECT, 0)
    _, angles = errors_of(track, estimate_ego(wheels, imu, T_BASE_IMU))
    assert np.degrees(np.abs(angles[:, :2]).max()) < 0.5


def test_sway_does_not_shorten_the_way(feel: Feel) -> None:
    t = np.arange(round(10.0 * 50) + 1) / 50.0
    level = np.zeros(len(t))
    sway = 0.03 * np.sin(2.0 * np.pi * 3.0 * t)
    track = RobotTrack("wheeled", Motion(t, np.column_stack([1.4 * t, level, level]), level), sway, level)
    wheels, imu = feel(track, PERFECT, 0)
    position, _ = errors_of(track, estimate_ego(wheels, imu, T_BASE_IMU))
    assert np.abs(position[:, 0]).max() < 0.01 * 14.0


def test_errors_are_as_large_as_the_covariance_says(drive: RobotTrack, feel: Feel) -> None:
    """Normalised squared errors of 6 numbers are 6 on average where the filter knows how good it is.

    The defaults allow for sensors several times worse than the simulated ones, so that here they are below 1.
    """
    nees = []
    for seed in (1, 2, 3):
        wheels, imu = feel(drive, MotionErrors(), seed)
        ego = estimate_ego(wheels, imu, T_BASE_IMU, smooth=False)
        error = np.concatenate(errors_of(drive, ego), axis=1)[400::400]
        nees.append(np.einsum("ni,nij,nj->n", error, np.linalg.inv(ego.covariance[400::400]), error))
    assert 0.2 < np.mean(nees) < 6.0
    assert np.isfinite(nees).all()


def test_without_errors_it_stays_within_half_a_percent_of_the_way(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    ego = estimate_ego(wheels, imu, T_BASE_IMU)
    position, angles = errors_of(drive, ego)
    assert np.abs(position[:, :2]).max() < 0.15
    assert np.abs(angles[:, 2]).max() < 0.003
    assert (np.diff(ego.stamps_ns) > 0).all()


def test_smoothing_brings_the_tilt_nearer(drive: RobotTrack, drifting: tuple[list[Any], ImuSamples, EgoTrack]) -> None:
    wheels, imu, smoothed = drifting
    filtered = estimate_ego(wheels, imu, T_BASE_IMU, smooth=False)
    rms = [np.sqrt((errors_of(drive, ego)[1][:, :2] ** 2).mean()) for ego in (filtered, smoothed)]
    assert rms[1] < 0.7 * rms[0]
    np.testing.assert_allclose(filtered.T_world_base[-1], smoothed.T_world_base[-1], atol=1e-12)


def test_knocks_do_not_tilt_it(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    imu.force_mps2[[0, 1, 900, 901, 1500]] += [25.0, -8.0, 3.0]
    ego = estimate_ego(wheels[:800], imu, T_BASE_IMU, smooth=False)
    assert np.abs(errors_of(drive, ego)[1][:, :2]).max() < 0.05


def test_a_standing_robot_shows_the_bias_of_its_gyroscope(make_still: Callable[[], RobotTrack], feel: Feel) -> None:
    wheels, imu = feel(make_still(), replace(MotionErrors(), gyro_bias_radps=0.008), 4)
    ego = estimate_ego(wheels, imu, T_BASE_IMU)
    measured = imu.rotated(T_BASE_IMU).angular_radps.mean(axis=0)
    np.testing.assert_allclose(ego.gyro_bias_radps, measured, atol=5e-4)
    assert np.linalg.norm(ego.T_world_base[-1, :3, 3] - ego.T_world_base[0, :3, 3]) < 0.01


def test_without_an_imu_it_follows_the_wheels_on_level_ground(drive: RobotTrack, feel: Feel) -> None:
    wheels, _ = feel(drive, PERFECT, 0)
    ego = estimate_ego(wheels, NO_IMU, np.eye(4))
    position, angles = errors_of(drive, ego)
    assert np.abs(position[:, :2]).max() < 0.15
    assert np.abs(angles[:, :2]).max() < 0.02
    assert np.abs(angles[:, 2]).max() < 0.02


def test_an_imu_that_falls_silent_leaves_the_wheels(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    ego = estimate_ego(wheels, imu.between(START_NS, START_NS + 10 * 10**9), T_BASE_IMU)
    position, angles = errors_of(drive, ego)
    assert np.linalg.norm(position[-1, :2]) < 0.5
    assert np.abs(angles[:, :2]).max() < 0.05


def test_where_wheels_are_missing_there_is_no_pose(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    wheels = [w for w in wheels if not 12e9 < w.stamp_ns - START_NS < 13e9]
    buffer = estimate_ego(wheels, imu, T_BASE_IMU).buffer()
    assert buffer.pose_at(START_NS + 12_500_000_000) is None
    for second in (11.9, 13.1, 30.0):
        T = buffer.pose_at(START_NS + round(second * 1e9))
        assert T is not None
        assert np.linalg.norm(T[:2, 3] - drive.pose_at(second)[:2, 3]) < 0.3


def test_stamps_that_do_not_rise_are_left_out(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    shuffled = [*wheels[:300], wheels[100], wheels[299], *wheels[300:400]]
    ego, clean = (estimate_ego(w, imu, T_BASE_IMU, smooth=False) for w in (shuffled, wheels[:400]))
    np.testing.assert_array_equal(ego.T_world_base, clean.T_world_base)


def test_no_motion_at_all_is_refused_with_what_to_do(drive: RobotTrack, feel: Feel) -> None:
    wheels, imu = feel(drive, PERFECT, 0)
    for few in ([], wheels[:1], [wheels[0], wheels[0]]):
        with pytest.raises(RecordingError, match="Record wheel odometry"):
            estimate_ego(few, imu, T_BASE_IMU)


def test_faulty_settings_and_samples_are_listed() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)force_mps2 must be positive, got -1.0.*gap_s") as caught:
        EgoSettings(gap_s=0.0, force_mps2=-1.0)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigurationError, match="stamps must rise"):
        ImuSamples(np.array([2, 1]), np.zeros((2, 3)), np.zeros((2, 3)))


def test_the_derivative_of_the_motion_is_that_of_differences() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=19) * 0.3
    _, F = _transition(x, 0.01)
    step = 1e-6
    numeric = np.stack([(_transition(x + step * e, 0.01)[0] - _transition(x - step * e, 0.01)[0]) / (2 * step)
                        for e in np.eye(19)], axis=1)
    np.testing.assert_allclose(F, numeric, atol=3e-5)  # the angles' own turn within half a step is second order


def test_registration_agrees_or_says_why_it_was_skipped() -> None:
    rng = np.random.default_rng(0)
    walls = np.concatenate([np.column_stack([rng.uniform(-20, 30, 4000), np.full(4000, y), rng.uniform(0, 3, 4000)])
                            for y in (-6.0, 7.0)] + [rng.uniform([-20, -6, 0], [30, 7, 0.01], (4000, 3))])
    posts = np.concatenate([rng.uniform([x, y, 0], [x + 0.3, y + 0.3, 3], (150, 3))
                            for x, y in rng.uniform([-15, -5], [25, 6], (25, 2))])
    world = np.concatenate([walls, posts])
    poses = np.stack([se3.from_euler(0.0, 0.0, 0.02 * k, (0.4 * k, 0.1 * k, 0.0)) for k in range(12)])
    scans = [se3.apply(se3.invert(T), world).astype(np.float32) for T in poses]
    check = check_registration(scans, poses)
    if importlib.util.find_spec("kiss_icp") is None:
        assert "needs kiss-icp" in check.skipped
        assert np.isnan(check.share)
    else:
        assert not check.skipped
        assert check.share < 0.02
        wrong = poses.copy()
        wrong[:, :3, 3] *= 1.2
        assert check_registration(scans, wrong).share > 0.1
