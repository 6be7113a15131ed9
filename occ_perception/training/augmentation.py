"""What training changes at random in a sample: the bird's-eye view, colours, and scans of the LiDAR."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3

ROW_DEG = 1.0
"""Rings of LiDARs with 64 are about so far apart; scans are taken apart into such rows."""


@dataclass(frozen=True)
class AugmentationConfig:
    """What training changes at random.

    Attributes:
        flip: probability that left and right are exchanged, in image, table, labels, rays and waypoints alike.
        rotation_rad: largest turn of the bird's-eye view about the grid's origin, either way (WalkOCC A.1).
        scale: largest relative change of lengths in the bird's-eye view, either way; heights stay.
        log_gain_low, log_gain_high: range of the logarithm of a brightness factor (wide downwards: dusk and night).
        log_gamma: half width of the logarithm of an exponent.
        log_tint: standard deviation of the logarithm of a factor per colour.
        noise: largest amplitude of uniform noise per pixel, grey levels of 255.
        lidar_dropout: probability that a whole scan is missing, so that the network also works without a LiDAR.
        lidar_thinning: smallest share of a scan's points that is kept, each by chance, so that it takes sparser scans.
        lidar_rows: probability that a scan is thinned row by row instead, as LiDARs with few rings see.
        lidar_row_step: of rows a degree apart, at the least each of this number is kept then.
        lidar_lowest_rad: highest elevation, below the horizon, at which the lowest row may lie then.
        lidar_turn_rad, lidar_shift_m: standard deviations of wrong extrinsics, about and along each axis of the LiDAR.
    """

    flip: float = 0.5
    rotation_rad: float = 0.1
    scale: float = 0.05
    log_gain_low: float = -0.7
    log_gain_high: float = 0.35
    log_gamma: float = 0.3
    log_tint: float = 0.06
    noise: int = 12
    lidar_dropout: float = 0.5
    lidar_thinning: float = 0.1
    lidar_rows: float = 0.0
    lidar_row_step: int = 6
    lidar_lowest_rad: float = -0.25
    lidar_turn_rad: float = 0.0
    lidar_shift_m: float = 0.0

    def __post_init__(self) -> None:
        shares = ("flip", "lidar_dropout", "lidar_thinning", "lidar_rows")
        faults = [f"{name} must be in 0..1, got {getattr(self, name)}"
                  for name in shares if not 0 <= getattr(self, name) <= 1]
        if not 0 <= self.scale < 1:
            faults.append(f"scale must be in [0, 1), got {self.scale}")
        if not self.log_gain_low <= 0 <= self.log_gain_high:
            faults.append(f"the range of log gains must hold 0, got {self.log_gain_low}..{self.log_gain_high}")
        if self.lidar_row_step < 1:
            faults.append(f"lidar_row_step must be at least 1, got {self.lidar_row_step}")
        if not -math.pi / 2 <= self.lidar_lowest_rad <= 0:
            faults.append(f"lidar_lowest_rad must be in -pi/2..0, got {self.lidar_lowest_rad}")
        at_least_0 = ("rotation_rad", "log_gamma", "log_tint", "noise", "lidar_turn_rad", "lidar_shift_m")
        if min(getattr(self, name) for name in at_least_0) < 0:
            faults.append(f"{', '.join(at_least_0)} must be at least 0")
        if faults:
            raise ConfigurationError(faults, where="AugmentationConfig")


NO_AUGMENTATION = AugmentationConfig(
    flip=0.0, rotation_rad=0.0, scale=0.0, log_gain_low=0.0, log_gain_high=0.0, log_gamma=0.0, log_tint=0.0, noise=0,
    lidar_dropout=0.0, lidar_thinning=1.0,
)
WORN_SCANS = AugmentationConfig(lidar_rows=0.5, lidar_turn_rad=0.005, lidar_shift_m=0.02)
"""As usual, and scans as LiDARs with few rings see that hang a little otherwise than their calibration says."""


def bev_augmentation(config: AugmentationConfig, rng: np.random.Generator) -> tuple[NDArray[np.float64], bool]:
    """A random affine [4, 4] from the grid frame into the augmented one, and whether it exchanges left and right."""
    flip = bool(rng.random() < config.flip)
    turn = se3.from_euler(0.0, 0.0, rng.uniform(-config.rotation_rad, config.rotation_rad))
    scale = rng.uniform(1.0 - config.scale, 1.0 + config.scale)
    return turn @ np.diag([scale, -scale if flip else scale, 1.0, 1.0]), flip


def photometric(
    image: NDArray[np.uint8], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Random gain, gamma, tint and noise of an RGB image [H, W, 3]; a new image."""
    gain = np.exp(rng.uniform(config.log_gain_low, config.log_gain_high) + config.log_tint * rng.standard_normal(3))
    gamma = np.exp(rng.uniform(-config.log_gamma, config.log_gamma))
    curve = 255.0 * (np.arange(256) / 255.0) ** gamma
    table = np.clip(np.rint(curve[:, None] * gain), 0, 255).astype(np.uint8)
    changed = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    amplitude = int(rng.integers(0, config.noise + 1))
    if amplitude == 0:
        return changed
    noise = rng.integers(-amplitude, amplitude + 1, image.shape, dtype=np.int8)
    bright = cv2.add(changed, np.maximum(noise, 0).view(np.uint8))
    return np.asarray(cv2.subtract(bright, np.maximum(-noise, 0).view(np.uint8)), np.uint8)


def worn_scan(points_m: NDArray[np.float32], T_base_lidar: NDArray[np.float64] | None, config: AugmentationConfig,
              rng: np.random.Generator) -> NDArray[np.float32]:
    """A scan as a LiDAR with fewer points and rings sees it that is not where it should be.

    Of rows, the lowest of which lies anywhere up to `lidar_lowest_rad`, each second, third, ... is kept.

    Args:
        points_m: [P, 3] in the base frame; points that are not finite are left out.
        T_base_lidar: [4, 4] of the LiDAR. None: the points are of several, or of an unknown one. They are not thinned
            row by row then, and the wrong extrinsics are those of all as one, about the base.
    """
    if rng.random() < config.lidar_dropout:
        return points_m[:0]
    points_m = points_m[np.isfinite(points_m).all(1)]
    if T_base_lidar is not None and config.lidar_rows > 0 and rng.random() < config.lidar_rows:
        points_m = points_m[_in_rows(points_m, T_base_lidar, config, rng)]
    else:
        points_m = points_m[rng.random(len(points_m)) < rng.uniform(config.lidar_thinning, 1.0)]
    if not (config.lidar_turn_rad or config.lidar_shift_m):
        return points_m
    roll, pitch, yaw = rng.normal(0.0, config.lidar_turn_rad, 3)
    wrong = se3.from_euler(roll, pitch, yaw, rng.normal(0.0, config.lidar_shift_m, 3))
    if T_base_lidar is not None:
        wrong = T_base_lidar @ wrong @ se3.invert(T_base_lidar)
    return se3.apply(wrong, points_m).astype(np.float32)


def _in_rows(points_m: NDArray[np.float32], T_base_lidar: NDArray[np.float64], config: AugmentationConfig,
             rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether each point lies in a row that is kept."""
    x, y, z = se3.apply(se3.invert(T_base_lidar), points_m).T
    elevation = np.arctan2(z, np.hypot(x, y))
    step = int(rng.integers(1, config.lidar_row_step + 1))
    row = np.floor(np.degrees(elevation) / ROW_DEG).astype(int)
    lowest = rng.uniform(-math.pi / 2, config.lidar_lowest_rad)
    return np.asarray((row % step == rng.integers(step)) & (elevation >= lowest))
