"""The offset between the clocks of a camera and the IMU, from how both turn (WalkOCC F.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation, Slerp

from occ_perception.errors import ConfigurationError, RecordingError
from occ_perception.geometry import Camera
from occ_perception.labeling.ego import ImuSamples, Stamps

Array = NDArray[np.float64]

_MIN_PAIRS = 10
_MIN_TRACKS = 30
_OUTLIER_RAD = 0.005  # a turn between two pictures that is off by more counts less and less
_SMALLEST_SIGMA_S = 1e-6


@dataclass(frozen=True, eq=False)
class CameraTurns:
    """How a camera turned between pairs of pictures.

    `from_ns`, `to_ns` int64 [K]: stamps of the pictures. `turn_rad` [K, 3]: rotation vector of R_from_to, which maps
    directions in the camera at the second picture into the camera at the first.
    """

    from_ns: Stamps
    to_ns: Stamps
    turn_rad: Array

    def __post_init__(self) -> None:
        faults = []
        if not len(self.from_ns) == len(self.to_ns) == len(self.turn_rad) or self.turn_rad.shape[1:] != (3,):
            faults.append(f"needs as many stamps as turns [K, 3], got {len(self.from_ns)}, {len(self.to_ns)} "
                          f"and {self.turn_rad.shape}")
        elif (self.to_ns <= self.from_ns).any():
            faults.append("the second picture of a pair must be the later one")
        if faults:
            raise ConfigurationError(faults, where="camera turns")


@dataclass(frozen=True, eq=False)
class TimeOffset:
    """What was found.

    Attributes:
        offset_s: to be added to the camera's stamps (`RigCamera.time_offset_s`) so that they are of the IMU's clock.
        sigma_s: its standard deviation, as the residuals tell.
        gyro_bias_radps: [3] in the IMU's axes.
        residual_rad: root mean square of what is left of a turn, per axis.
        pairs: number of pairs of pictures used.
    """

    offset_s: float
    sigma_s: float
    gyro_bias_radps: Array
    residual_rad: float
    pairs: int


def turns_of_poses(stamps_ns: Stamps, R_world_camera: Array, *, longest_s: float = 1.0) -> CameraTurns:
    """Turns between neighbouring poses [N, 3, 3] (of any structure from motion) at most `longest_s` apart."""
    near = np.flatnonzero(np.diff(stamps_ns) <= longest_s * 1e9)
    relative = R_world_camera[near].transpose(0, 2, 1) @ R_world_camera[near + 1]
    turns = Rotation.from_matrix(relative).as_rotvec() if len(near) else np.zeros((0, 3))
    return CameraTurns(stamps_ns[near], stamps_ns[near + 1], turns)


def turns_of_images(images: Iterable[tuple[int, NDArray[np.uint8]]], camera: Camera) -> CameraTurns:
    """Turns between neighbouring pictures (stamp, uint8 RGB [H, W, 3]), by corners tracked from one to the next.

    The rotation is that of the essential matrix of the corners' rays. Pairs with too few tracks are left out.
    """
    rows: list[tuple[int, int]] = []
    turns: list[Array] = []
    before: tuple[int, NDArray[np.uint8]] | None = None
    for stamp_ns, image in images:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        turn = _turn(before[1], grey, camera) if before is not None else None
        if before is not None and turn is not None:
            rows.append((before[0], stamp_ns))
            turns.append(turn)
        before = stamp_ns, grey
    stamps = np.array(rows, np.int64).reshape(-1, 2)
    return CameraTurns(stamps[:, 0], stamps[:, 1], np.array(turns).reshape(-1, 3))


def estimate_time_offset(turns: CameraTurns, imu: ImuSamples, R_imu_camera: Array, *, reach_s: float = 0.5,
                         largest_sigma_s: float = 0.005) -> TimeOffset:
    """Least squares over the differences between camera turns and the integrated gyroscope at shifted stamps.

    Args:
        turns: of the camera, with its own stamps.
        imu: in the IMU's axes.
        R_imu_camera: [3, 3], maps directions in the camera into the IMU.
        reach_s: offsets are looked for within plus and minus this.
        largest_sigma_s: an offset that is less certain is refused.

    Raises:
        RecordingError: too few pairs lie within the IMU's samples, the robot turned too little, or no offset within
            reach fits.
    """
    used = _inside(turns, imu, reach_s)
    if used.sum() < _MIN_PAIRS:
        raise RecordingError(f"only {int(used.sum())} pairs of pictures lie within the IMU's samples, "
                             f"needed are {_MIN_PAIRS}", where="time offset", fix="Record camera and IMU together.")
    origin_ns = int(imu.stamps_ns[0])
    start_s, end_s = (1e-9 * (stamps[used] - origin_ns) for stamps in (turns.from_ns, turns.to_ns))
    turned = turns.turn_rad[used] @ R_imu_camera.T
    attitude = _integrated(imu)

    def residuals(shift: float, bias: Array) -> Array:
        """Turn of the gyroscope, less that of its bias, minus that of the camera, [K, 3]."""
        gyro = (attitude(start_s + shift).inv() * attitude(end_s + shift)).as_rotvec()
        return np.asarray(gyro - bias * (end_s - start_s)[:, None] - turned)

    shifts = np.arange(-reach_s, reach_s + 1e-9, 0.01)[1:-1]
    coarse = shifts[int(np.argmin([_spread(residuals(shift, np.zeros(3))) for shift in shifts]))]
    # a shift beyond the reach would leave the integrated samples
    bounds = ([-reach_s - coarse] + [-np.inf] * 3, [reach_s - coarse] + [np.inf] * 3)
    fit = least_squares(lambda x: residuals(coarse + x[0], x[1:]).ravel(), np.zeros(4), loss="cauchy",
                        f_scale=_OUTLIER_RAD, x_scale=0.01, bounds=bounds)
    offset_s = float(coarse + fit.x[0])
    left = residuals(offset_s, fit.x[1:])
    information = fit.jac.T @ fit.jac
    variance = 2.0 * fit.cost / max(left.size - 4, 1)
    observed = np.linalg.cond(information) < 1e12
    sigma_s = float(np.sqrt(np.linalg.inv(information)[0, 0] * variance)) if observed else np.inf
    if abs(offset_s) > 0.98 * reach_s:
        raise RecordingError(f"no offset within {reach_s} s fits", where="time offset",
                             fix="Look for it further out, or check the axes of IMU and camera.")
    if sigma_s > largest_sigma_s:
        raise RecordingError(f"the robot turns too little to tell an offset (uncertain by {1e3 * sigma_s:.1f} ms)",
                             where="time offset", fix="Take a part of the drive with turns.")
    return TimeOffset(offset_s, max(sigma_s, _SMALLEST_SIGMA_S), fit.x[1:],
                      float(np.sqrt(np.mean(left**2))), int(used.sum()))


def _inside(turns: CameraTurns, imu: ImuSamples, reach_s: float) -> NDArray[np.bool_]:
    """Pairs whose time, shifted by up to the reach, has samples throughout."""
    if len(imu.stamps_ns) < 2:
        return np.zeros(len(turns.from_ns), np.bool_)
    reach_ns = round(reach_s * 1e9)
    first, last = turns.from_ns - reach_ns, turns.to_ns + reach_ns
    inside = (first >= imu.stamps_ns[0]) & (last <= imu.stamps_ns[-1])
    gaps = np.flatnonzero(np.diff(imu.stamps_ns) > 100_000_000)
    for gap in gaps:
        inside &= (last <= imu.stamps_ns[gap]) | (first >= imu.stamps_ns[gap + 1])
    return np.asarray(inside)


def _integrated(imu: ImuSamples) -> Slerp:
    """Attitude over the seconds since the first sample, from none at it; trapezoids between samples."""
    seconds = 1e-9 * (imu.stamps_ns - imu.stamps_ns[0])
    middle = 0.5 * (imu.angular_radps[1:] + imu.angular_radps[:-1])
    steps = Rotation.from_rotvec(middle * np.diff(seconds)[:, None])
    attitude = [Rotation.identity()]
    for step in steps:
        attitude.append(attitude[-1] * step)
    return Slerp(seconds, Rotation.concatenate(attitude))


def _spread(residuals: Array) -> float:
    """Mean length of residuals [K, 3], the bias taken out by the median; outliers do not sway it much."""
    return float(np.linalg.norm(residuals - np.median(residuals, axis=0), axis=1).mean())


def _turn(before: NDArray[np.uint8], after: NDArray[np.uint8], camera: Camera) -> Array | None:
    """Rotation vector of R_before_after, None where too few corners can be followed."""
    corners = cv2.goodFeaturesToTrack(before, 400, 0.01, 7)
    if corners is None or len(corners) < _MIN_TRACKS:
        return None
    guess: Any = None
    followed, there, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, guess, winSize=(15, 15))
    returned, back, _ = cv2.calcOpticalFlowPyrLK(after, before, followed, guess, winSize=(15, 15))
    apart = np.linalg.norm((returned - corners).reshape(-1, 2), axis=1)
    good = (there.ravel() == 1) & (back.ravel() == 1) & (apart < 0.5)
    rays = [camera.unproject(each.reshape(-1, 2)[good]) for each in (corners, followed)]
    front = (rays[0][:, 2] > 0.2) & (rays[1][:, 2] > 0.2)  # NaN compares false
    if front.sum() < _MIN_TRACKS:
        return None
    plane, other = (each[front, :2] / each[front, 2:] for each in rays)
    pixel = 1.0 / float(camera.parameters[0])
    essential, mask = cv2.findEssentialMat(plane, other, np.eye(3), cv2.USAC_MAGSAC, 0.999, 0.5 * pixel)
    if essential is None or essential.shape != (3, 3):
        return None
    _, R_after_before, shift, _ = cv2.recoverPose(essential, plane, other, np.eye(3), mask=mask)
    start = np.concatenate([Rotation.from_matrix(R_after_before).as_rotvec(), np.ravel(shift)])
    return -_aligned(rays[0][front], rays[1][front], start, 0.2 * pixel)[:3]


def _aligned(before: Array, after: Array, start: Array, scale_rad: float) -> Array:
    """Rotation vector of R_after_before and direction of the shift [6] with which rays meet best.

    Where most corners lie on one plane, a second motion fits nearly as well, and samples of five fall for it. All
    corners together tell the two apart, so the search starts from no turn and a drive straight on too.
    """
    def residuals(x: Array) -> Array:
        normal = np.cross(x[3:] / np.linalg.norm(x[3:]), before @ Rotation.from_rotvec(x[:3]).as_matrix().T)
        return np.asarray((after * normal).sum(axis=1) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9))

    straight = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
    fits = [least_squares(residuals, each, loss="cauchy", f_scale=scale_rad) for each in (start, straight)]
    return np.asarray(min(fits, key=lambda fit: float(fit.cost)).x)
