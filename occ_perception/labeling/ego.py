"""The robot's way from IMU and wheel odometry: an extended Kalman filter, smoothed backwards (WalkOCC F.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from occ_perception.errors import ConfigurationError, RecordingError
from occ_perception.geometry import se3
from occ_perception.pipelines import OdometryBuffer
from occ_perception.types import Odometry

Array = NDArray[np.float64]
Stamps = NDArray[np.int64]

GRAVITY_MPS2 = 9.80665
_ACCELERATION_S = 0.2
"""Wheels tell acceleration by the speeds this far apart: neighbouring ones differ by noise."""

# Slices of the state: see `estimate_ego`.
POSITION, ANGLES, VELOCITY, RATE = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
GYRO_BIAS, FORCE_BIAS, SCALE, HEADING = slice(12, 15), slice(15, 17), 17, 18
STATES = 19


@dataclass(frozen=True)
class EgoSettings:
    """Standard deviations of what the filter assumes; the defaults suit wheels and a MEMS IMU.

    Attributes:
        gyro_radps, force_mps2: white noise of one IMU sample.
        motion_force_mps2: what the accelerations of a robot at 1 m/s, less those of its wheels, add to `force_mps2`.
        gyro_bias_radps, force_bias_mps2: biases at the start, per axis.
        wheel_mps, wheel_radps: speed and turn rate from two wheel poses, at rest.
        wheel_slip, wheel_slip_radpm: what each m/s of speed adds to the two.
        wheel_scale, wheel_heading_radpm: constant relative error of the distance, heading error per metre.
        level_rad: slope of the ground, where no IMU tells.
        force_mps: random walk of the velocity in 1 s, `turn_radps` of the turn rate.
        gap_s: without wheel poses for longer there is no pose.
    """

    gyro_radps: float = 0.005
    force_mps2: float = 0.2
    motion_force_mps2: float = 0.3
    gyro_bias_radps: float = 0.01
    force_bias_mps2: float = 0.1
    wheel_mps: float = 0.01
    wheel_radps: float = 0.003
    wheel_slip: float = 0.05
    wheel_slip_radpm: float = 0.02
    wheel_scale: float = 0.02
    wheel_heading_radpm: float = 0.005
    level_rad: float = 0.05
    force_mps: float = 1.0
    turn_radps: float = 2.0
    gap_s: float = 0.5

    def __post_init__(self) -> None:
        faults = [f"{field.name} must be positive, got {getattr(self, field.name)}" for field in fields(self)
                  if not getattr(self, field.name) > 0]
        if faults:
            raise ConfigurationError(faults, where="EgoSettings")


@dataclass(frozen=True, eq=False)
class ImuSamples:
    """What an IMU measured, in its own axes, in order of stamp: int64 [N]; rad/s [N, 3]; specific force m/s2 [N, 3]."""

    stamps_ns: Stamps
    angular_radps: Array
    force_mps2: Array

    def __post_init__(self) -> None:
        faults = [f"{name} must be [{len(self.stamps_ns)}, 3], got {array.shape}" for name, array in (
            ("angular_radps", self.angular_radps), ("force_mps2", self.force_mps2))
            if array.shape != (len(self.stamps_ns), 3)]
        if (np.diff(self.stamps_ns) <= 0).any():
            faults.append("stamps must rise")
        if faults:
            raise ConfigurationError(faults, where="IMU samples")

    def between(self, from_ns: int, to_ns: int) -> ImuSamples:
        """Those with from_ns <= stamp <= to_ns."""
        first, last = np.searchsorted(self.stamps_ns, (from_ns, to_ns + 1))
        return ImuSamples(self.stamps_ns[first:last], self.angular_radps[first:last], self.force_mps2[first:last])

    def rotated(self, T_base_imu: Array) -> ImuSamples:
        """The same in the axes of the base."""
        R = T_base_imu[:3, :3]
        return ImuSamples(self.stamps_ns, self.angular_radps @ R.T, self.force_mps2 @ R.T)


NO_IMU = ImuSamples(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3)))


@dataclass(frozen=True, eq=False)
class EgoTrack:
    """Poses of the base at rising stamps, where there are wheel poses near by.

    Attributes:
        stamps_ns: int64 [N].
        T_world_base: [N, 4, 4]; the world has z against gravity, and the first wheel pose's position and heading.
        linear_mps, angular_radps: [N, 3] in the base frame.
        covariance: [N, 6, 6] of position (m) and roll, pitch, yaw (rad).
        gyro_bias_radps: [3] in the base frame, at the end.
        gap_s: between poses further apart than this nothing is interpolated.
    """

    stamps_ns: Stamps
    T_world_base: Array
    linear_mps: Array
    angular_radps: Array
    covariance: Array
    gyro_bias_radps: Array
    gap_s: float

    def buffer(self) -> OdometryBuffer:
        """The track as what pipelines take poses from: deskewing and frames go the way they go on the robot."""
        buffer = OdometryBuffer(keep_s=1e6, extrapolate_s=0.05, gap_s=self.gap_s)
        for sample in self.samples():
            buffer.push(sample)
        return buffer

    def samples(self) -> Iterator[Odometry]:
        """The poses with their velocities."""
        for stamp_ns, T, linear, angular in zip(self.stamps_ns.tolist(), self.T_world_base, self.linear_mps,
                                                self.angular_radps):
            yield Odometry(stamp_ns, T, linear, angular)


@dataclass(frozen=True, eq=False)
class _Wheels:
    """What each pair of neighbouring wheel poses says at the middle of its time: speed [M, 3] m/s, turn [M] rad/s."""

    stamps_ns: Stamps
    linear_mps: Array
    turn_radps: Array


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of the filter, as the smoother needs it: predicted and updated state [19] and covariance."""

    stamp_ns: int
    F: Array
    x_predicted: Array
    P_predicted: Array
    x: Array
    P: Array


def estimate_ego(wheels: Sequence[Odometry], imu: ImuSamples, T_base_imu: Array, settings: EgoSettings | None = None, *,
                 smooth: bool = True) -> EgoTrack:
    """Fuse wheel odometry and IMU.

    The state: position in the world, roll, pitch and yaw, velocity and turn rate in the base, biases of the gyroscope
    and of the horizontal force, relative error of the wheels' distance, and their heading error per metre. Between
    events velocity and turn rate persist (with random walks). What is measured:

    - each IMU sample: turn rate + bias, and gravity + turn rate x velocity + bias, which gives roll and pitch;
    - each pair of wheel poses: (1 + scale) velocity, turn rate about z + heading error x speed. Poses are used as
      differences only, so that an odometry which is planar serves as well as one in space.

    At rest the wheels' zero turn shows the bias of the gyroscope; in motion the gyroscope shows the wheels' heading
    error. Without an IMU (for more than 0.1 s) the ground counts as level, within `level_rad`.

    Args:
        wheels: poses in order of stamp; later ones that do not rise in stamp are left out.
        imu: in the IMU's axes; may be `NO_IMU`.
        T_base_imu: [4, 4].
        smooth: run a Rauch-Tung-Striebel pass back from the end, so that every pose knows all measurements.

    Raises:
        RecordingError: fewer than two usable wheel poses.
    """
    settings = settings or EgoSettings()
    rising: list[Odometry] = []
    for sample in wheels:
        if not rising or sample.stamp_ns > rising[-1].stamp_ns:
            rising.append(sample)
    measured = _wheels(rising, settings.gap_s)
    if not len(measured.stamps_ns):
        raise RecordingError(f"{len(wheels)} wheel poses give no motion", where="odometry",
                             fix="Record wheel odometry with rising stamps.")
    body = imu.between(rising[0].stamp_ns, rising[-1].stamp_ns).rotated(T_base_imu)
    steps = _filter(rising[0], measured, _without_acceleration(body, measured, settings.gap_s), settings)
    states = _smooth(steps) if smooth else [(step.x, step.P) for step in steps]
    stamps_ns = np.array([step.stamp_ns for step in steps])
    used = _near(stamps_ns, np.array([sample.stamp_ns for sample in rising]), settings.gap_s)
    used[:-1] &= np.diff(stamps_ns) > 0  # of events at one instant the last knows all
    x, P = (np.stack([state[i] for state in states])[used] for i in (0, 1))
    poses = np.tile(np.eye(4), (len(x), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("xyz", x[:, ANGLES]).as_matrix()
    poses[:, :3, 3] = x[:, POSITION]
    return EgoTrack(stamps_ns[used], poses, x[:, VELOCITY], x[:, RATE], P[:, :6, :6], x[-1, GYRO_BIAS],
                    settings.gap_s)


def _wheels(wheels: Sequence[Odometry], gap_s: float) -> _Wheels:
    stamps, linear, turns = [], [], []
    for before, after in pairwise(wheels):
        dt = (after.stamp_ns - before.stamp_ns) * 1e-9
        if dt > gap_s:
            continue
        moved = se3.invert(before.T_odom_base) @ after.T_odom_base
        turn = Rotation.from_matrix(moved[:3, :3]).as_rotvec() / dt
        stamps.append((before.stamp_ns + after.stamp_ns) // 2)
        # the chord of the turn, seen from its middle
        linear.append(Rotation.from_rotvec(-0.5 * dt * turn).apply(moved[:3, 3]) / dt)
        turns.append(turn[2])
    return _Wheels(np.array(stamps, np.int64), np.array(linear).reshape(-1, 3), np.array(turns))


def _without_acceleration(imu: ImuSamples, wheels: _Wheels, gap_s: float) -> ImuSamples:
    """The samples less the acceleration that the wheels tell: a robot that drives off feels as if it leant back."""
    if len(imu.stamps_ns) == 0 or len(wheels.stamps_ns) < 2:
        return imu
    half_ns = round(_ACCELERATION_S * 0.5e9)
    ends = [np.clip(imu.stamps_ns + side, wheels.stamps_ns[0], wheels.stamps_ns[-1]) for side in (-half_ns, half_ns)]
    before, after = (np.stack([np.interp(at, wheels.stamps_ns, column) for column in wheels.linear_mps.T], axis=1)
                     for at in ends)
    apart_s = np.maximum(ends[1] - ends[0], half_ns) * 1e-9
    known = _near(imu.stamps_ns, wheels.stamps_ns, gap_s)
    gained = np.where(known[:, None], (after - before) / apart_s[:, None], 0.0)
    return replace(imu, force_mps2=imu.force_mps2 - gained)


def _near(stamps_ns: Stamps, wheels_ns: Stamps, gap_s: float) -> NDArray[np.bool_]:
    """Which stamps lie between two wheel poses that are no further apart than the gap."""
    after = np.clip(np.searchsorted(wheels_ns, stamps_ns), 1, len(wheels_ns) - 1)
    inside = (stamps_ns >= wheels_ns[0]) & (stamps_ns <= wheels_ns[-1])
    return np.asarray(inside & (wheels_ns[after] - wheels_ns[after - 1] <= gap_s * 1e9))


def _filter(first: Odometry, wheels: _Wheels, imu: ImuSamples, settings: EgoSettings) -> list[_Step]:
    x, P = _start(first, imu, settings)
    # one step per second of each random walk; biases wander slowly
    walk = np.zeros(STATES)
    walk[VELOCITY], walk[RATE], walk[GYRO_BIAS], walk[FORCE_BIAS] = settings.force_mps, settings.turn_radps, 1e-4, 1e-3
    events = sorted([(int(t), 1, i) for i, t in enumerate(imu.stamps_ns)]
                    + [(int(t), 0, i) for i, t in enumerate(wheels.stamps_ns)])
    steps = []
    now_ns, imu_ns = first.stamp_ns, None
    for stamp_ns, is_imu, i in events:
        dt = (stamp_ns - now_ns) * 1e-9
        x_predicted, F = _transition(x, dt)
        P_predicted = F @ P @ F.T + np.diag(walk**2 * dt)
        x, P, now_ns = x_predicted, P_predicted, stamp_ns
        if is_imu:
            x, P = _update(x, P, *_felt(x, imu.angular_radps[i], imu.force_mps2[i], settings))
            imu_ns = stamp_ns
        else:
            x, P = _update(x, P, *_rolled(x, wheels.linear_mps[i], float(wheels.turn_radps[i]), settings))
            if imu_ns is None or stamp_ns - imu_ns > 100_000_000:
                x, P = _update(x, P, *_level(x, settings))
        steps.append(_Step(stamp_ns, F, x_predicted, P_predicted, x, P))
    return steps


def _start(first: Odometry, imu: ImuSamples, settings: EgoSettings) -> tuple[Array, Array]:
    """State at the first wheel pose; roll and pitch as the force of the first second tells."""
    x, sigma = np.zeros(STATES), np.zeros(STATES)
    x[POSITION], x[5] = first.T_odom_base[:3, 3], se3.yaw_of(first.T_odom_base)
    if len(imu.stamps_ns):
        fx, fy, fz = np.median(imu.force_mps2[imu.stamps_ns <= imu.stamps_ns[0] + 1_000_000_000], axis=0)
        x[3], x[4] = math.atan2(fy, fz), math.atan2(-fx, math.hypot(fy, fz))
    sigma[POSITION], sigma[ANGLES], sigma[VELOCITY], sigma[RATE] = 1e-4, (0.1, 0.1, 1e-4), 1.0, 0.5
    sigma[GYRO_BIAS], sigma[FORCE_BIAS] = settings.gyro_bias_radps, settings.force_bias_mps2
    sigma[SCALE], sigma[HEADING] = settings.wheel_scale, settings.wheel_heading_radpm
    return x, np.diag(sigma**2)


def _transition(x: Array, dt: float) -> tuple[Array, Array]:
    """State after `dt` seconds at constant velocity and turn rate, and its derivative [19, 19]."""
    (vx, vy, vz), (wx, wy, wz) = x[VELOCITY].tolist(), x[RATE].tolist()
    turn, to_angles, turn_angles = _angle_rates(x[ANGLES], wx, wy, wz)
    roll, pitch, yaw = (x[ANGLES] + 0.5 * dt * turn).tolist()
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
    # v turned about x, then y, then z
    uy, uz = cr * vy - sr * vz, sr * vy + cr * vz
    qx, qz = cp * vx + sp * uz, cp * uz - sp * vx
    dx, dy = cy * qx - sy * uy, sy * qx + cy * uy
    F = np.eye(STATES)
    F[POSITION, ANGLES] = dt * np.array([[cy * sp * uy + sy * uz, cy * qz, -dy],
                                         [sy * sp * uy - cy * uz, sy * qz, dx],
                                         [cp * uy, -qx, 0.0]])
    F[POSITION, VELOCITY] = dt * np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                                           [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                                           [-sp, cp * sr, cp * cr]])
    F[POSITION, RATE] = 0.5 * dt * F[POSITION, ANGLES] @ to_angles
    F[ANGLES, ANGLES] += dt * turn_angles
    F[ANGLES, RATE] = dt * to_angles
    after = x.copy()
    after[POSITION] += dt * np.array([dx, dy, qz])
    after[ANGLES] += dt * turn
    return after, F


def _angle_rates(angles: Array, wx: float, wy: float, wz: float) -> tuple[Array, Array, Array]:
    """Rates of roll, pitch, yaw [3] at a turn rate of the body; derivatives by the turn rate and by the angles."""
    cr, sr, cp, sp = (f(a) for a in angles[:2].tolist() for f in (math.cos, math.sin))
    tp, along, across = sp / cp, sr * wy + cr * wz, cr * wy - sr * wz
    rates = np.array([wx + tp * along, across, along / cp])
    by_turn = np.array([[1.0, sr * tp, cr * tp], [0.0, cr, -sr], [0.0, sr / cp, cr / cp]])
    by_angles = np.array([[tp * across, along / cp**2, 0.0], [-along, 0.0, 0.0], [across / cp, along * tp / cp, 0.0]])
    return rates, by_turn, by_angles


Measurement = tuple[Array, Array, Array]
"""Measured minus expected [m], derivative of the expected by the state [m, 19], standard deviations [m]."""


def _felt(x: Array, angular: Array, force: Array, settings: EgoSettings) -> Measurement:
    """One IMU sample, in the axes of the base."""
    roll, pitch, _ = x[ANGLES].tolist()
    cr, sr, cp, sp = (f(a) for a in (roll, pitch) for f in (math.cos, math.sin))
    v, w = x[VELOCITY], x[RATE]
    expected = GRAVITY_MPS2 * np.array([-sp, sr * cp, cr * cp]) + _skew(w) @ v
    expected[:2] += x[FORCE_BIAS]
    H = np.zeros((6, STATES))
    H[:3, RATE] = H[:3, GYRO_BIAS] = np.eye(3)
    H[3:, 3] = GRAVITY_MPS2 * np.array([0.0, cr * cp, -sr * cp])
    H[3:, 4] = GRAVITY_MPS2 * np.array([-cp, -sr * sp, -cr * sp])
    # none by velocity: sway, faster than the wheels' acceleration can tell, would pass for a slower drive
    H[3:, RATE] = -_skew(v)
    H[3:5, FORCE_BIAS] = np.eye(2)
    # a knock, such as a kerb's, shows as a force that is not gravity's size: by so much it is trusted less
    knocked = abs(float(np.linalg.norm(force)) - GRAVITY_MPS2)
    shaken = settings.force_mps2 + settings.motion_force_mps2 * min(float(np.linalg.norm(v)), 1.0) + knocked
    sigma = np.array([settings.gyro_radps] * 3 + [shaken] * 3)
    return np.concatenate([angular - w - x[GYRO_BIAS], force - expected]), H, sigma


def _rolled(x: Array, linear: Array, turn: float, settings: EgoSettings) -> Measurement:
    """One pair of wheel poses."""
    v, speed = x[VELOCITY], float(np.linalg.norm(x[VELOCITY]))
    H = np.zeros((4, STATES))
    H[:3, VELOCITY], H[:3, SCALE] = (1.0 + x[SCALE]) * np.eye(3), v
    H[3, 11], H[3, HEADING] = 1.0, speed
    H[3, VELOCITY] = x[HEADING] * v / max(speed, 1e-6)
    measured = float(np.linalg.norm(linear))  # what the wheels say, since a predicted speed may be far off
    sigma = np.array([settings.wheel_mps + settings.wheel_slip * measured] * 3
                     + [settings.wheel_radps + settings.wheel_slip_radpm * measured])
    return np.append(linear - (1.0 + x[SCALE]) * v, turn - x[11] - x[HEADING] * speed), H, sigma


def _level(x: Array, settings: EgoSettings) -> Measurement:
    """The robot stands on its wheels: no roll, no pitch, and no turn about either."""
    H = np.zeros((4, STATES))
    H[0, 3] = H[1, 4] = H[2, 9] = H[3, 10] = 1.0
    return -H @ x, H, np.full(4, settings.level_rad)


def _skew(v: Array) -> Array:
    x, y, z = v.tolist()
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _update(x: Array, P: Array, innovation: Array, H: Array, sigma: Array) -> tuple[Array, Array]:
    """State and covariance after a measurement (Joseph's form keeps the covariance symmetric and positive)."""
    PHt = P @ H.T
    K = np.linalg.solve(H @ PHt + np.diag(sigma**2), PHt.T).T
    keep = np.eye(STATES) - K @ H
    return x + K @ innovation, keep @ P @ keep.T + (K * sigma**2) @ K.T


def _smooth(steps: Sequence[_Step]) -> list[tuple[Array, Array]]:
    """States and covariances given all measurements (Rauch, Tung and Striebel 1965)."""
    x, P = steps[-1].x, steps[-1].P
    smoothed = [(x, P)]
    for step, following in zip(reversed(steps[:-1]), reversed(steps[1:])):
        gain = np.linalg.solve(following.P_predicted, following.F @ step.P).T
        x = step.x + gain @ (x - following.x_predicted)
        P = step.P + gain @ (P - following.P_predicted) @ gain.T
        smoothed.append((x, P))
    return smoothed[::-1]


@dataclass(frozen=True, eq=False)
class RegistrationCheck:
    """Poses against LiDAR registration.

    Attributes:
        apart_m: [N], distance between both positions of each scan, the first ones laid onto each other.
        travelled_m: length of the way.
        skipped: why there was no check; then `apart_m` is empty.
    """

    apart_m: Array
    travelled_m: float
    skipped: str = ""

    @property
    def share(self) -> float:
        """Distance between both ends per travelled metre; NaN where the robot stood or the check was skipped."""
        return float(self.apart_m[-1]) / self.travelled_m if len(self.apart_m) and self.travelled_m > 0.5 else math.nan


def check_registration(scans_m: Sequence[NDArray[np.float32]], T_world_base: Array, *,
                       voxel_m: float = 0.5) -> RegistrationCheck:
    """Lay deskewed scans onto each other by KISS-ICP (Vizzo et al. 2023) and compare with the poses.

    Needs the package kiss-icp; without it the check is skipped and says so. Registration drifts too: a share of a
    few per cent is agreement, more asks for a look at wheels and IMU.

    Args:
        scans_m: [P, 3] in the base frame, one for each pose.
        T_world_base: [N, 4, 4].
        voxel_m: cell of the map that scans are laid onto.
    """
    travelled_m = float(np.linalg.norm(np.diff(T_world_base[:, :3, 3], axis=0), axis=1).sum())
    try:
        settings, registration = import_module("kiss_icp.config"), import_module("kiss_icp.kiss_icp")
    except ImportError as error:
        return RegistrationCheck(np.zeros(0), travelled_m, f"LiDAR registration needs kiss-icp ({error})")
    icp = registration.KissICP(settings.KISSConfig(
        data={"deskew": False}, mapping={"voxel_size": voxel_m}, registration={"max_num_threads": 1}))
    apart = []
    for scan, T in zip(scans_m, T_world_base, strict=True):
        icp.register_frame(np.asarray(scan, float), np.zeros(0))
        moved = se3.invert(T_world_base[0]) @ T
        apart.append(float(np.linalg.norm(icp.last_pose[:3, 3] - moved[:3, 3])))
    return RegistrationCheck(np.array(apart), travelled_m)
