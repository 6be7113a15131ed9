"""What the robot feels of its own motion: wheel odometry that drifts and an IMU with bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.geometry import se3
from occ_perception.simulation.scene import RobotTrack
from occ_perception.types import Odometry

GRAVITY_MPS2 = 9.81
_STEP_S = 0.02


@dataclass(frozen=True)
class MotionErrors:
    """Errors of odometry and IMU; all 0 is a perfect one.

    Attributes:
        scale: relative error of the travelled distance (wheel radius).
        yaw_drift_radpm: heading error that grows per metre.
        speed_sigma: relative noise of each odometry step.
        gyro_bias_radps, accel_bias_mps2: constant over a recording, standard deviation per axis.
        gyro_sigma_radps, accel_sigma_mps2: white noise of a sample.
    """

    scale: float = 0.01
    yaw_drift_radpm: float = 0.002
    speed_sigma: float = 0.02
    gyro_bias_radps: float = 0.003
    accel_bias_mps2: float = 0.05
    gyro_sigma_radps: float = 0.002
    accel_sigma_mps2: float = 0.05


PERFECT = MotionErrors(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ImuSample:
    """Angular velocity [3] rad/s and specific force [3] m/s2 (with gravity) in the IMU's axes; attitude xyzw [4]."""

    stamp_ns: int
    angular_radps: NDArray[np.float64]
    force_mps2: NDArray[np.float64]
    quaternion_xyzw: NDArray[np.float64]


def body_rates(track: RobotTrack, time_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear and angular velocity of the base [3], [3], in the base frame."""
    before, after = track.pose_at(time_s - _STEP_S / 2), track.pose_at(time_s + _STEP_S / 2)
    now = track.pose_at(time_s)
    linear = now[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / _STEP_S
    spin = now[:3, :3].T @ (after[:3, :3] - before[:3, :3]) / _STEP_S
    return linear, np.array([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]) / 2


def odometry(track: RobotTrack, errors: MotionErrors, rate_hz: float, rng: np.random.Generator,
             start_ns: int = 0) -> Iterator[Odometry]:
    """Dead reckoning along the whole track; odom starts as the world does at the base's first pose.

    Position and heading drift; pitch and roll come from gravity and do not.
    """
    position = track.pose_at(0.0)[:3, 3].copy()
    heading_error = 0.0
    drift = errors.yaw_drift_radpm * rng.choice((-1.0, 1.0))
    previous = track.pose_at(0.0)
    for k in range(int(track.duration_s * rate_hz) + 1):
        time_s = k / rate_hz
        now = track.pose_at(time_s)
        moved = now[:3, 3] - previous[:3, 3]
        length = float(np.linalg.norm(moved))
        heading_error += drift * length
        turn = se3.from_euler(0.0, 0.0, heading_error)[:3, :3]
        position = position + turn @ moved * (1.0 + errors.scale + errors.speed_sigma * rng.standard_normal())
        linear, angular = body_rates(track, time_s)
        yield Odometry(start_ns + round(time_s * 1e9), se3.make(turn @ now[:3, :3], position),
                       linear * (1.0 + errors.scale), angular)
        previous = now


def imu(track: RobotTrack, errors: MotionErrors, rate_hz: float, T_base_imu: NDArray[np.float64],
        rng: np.random.Generator, start_ns: int = 0) -> Iterator[ImuSample]:
    """Samples of an IMU along the whole track."""
    gyro_bias = errors.gyro_bias_radps * rng.standard_normal(3)
    accel_bias = errors.accel_bias_mps2 * rng.standard_normal(3)
    # the track is piecewise linear: over two of its steps the corners of its lines average out
    h = 2 * float(track.motion.times_s[1] - track.motion.times_s[0])

    def position(time_s: float) -> NDArray[np.float64]:
        return np.asarray((track.pose_at(time_s) @ T_base_imu)[:3, 3])

    for k in range(int(track.duration_s * rate_hz) + 1):
        time_s = k / rate_hz
        T_world_imu = track.pose_at(time_s) @ T_base_imu
        acceleration = (position(time_s + h) - 2 * position(time_s) + position(time_s - h)) / h**2
        force = T_world_imu[:3, :3].T @ (acceleration + (0.0, 0.0, GRAVITY_MPS2))
        angular = T_base_imu[:3, :3].T @ body_rates(track, time_s)[1]
        yield ImuSample(start_ns + round(time_s * 1e9),
                        angular + gyro_bias + errors.gyro_sigma_radps * rng.standard_normal(3),
                        force + accel_bias + errors.accel_sigma_mps2 * rng.standard_normal(3),
                        se3.to_quaternion(T_world_imu))
