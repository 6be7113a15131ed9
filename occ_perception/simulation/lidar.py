"""A rotating LiDAR: every column is fired from where the sensor is at that moment."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError
from occ_perception.geometry.lens import jit
from occ_perception.simulation.solids import Texture
from occ_perception.simulation.surfaces import Instant
from occ_perception.types import PointCloud

_KNOTS = 17


@dataclass(frozen=True)
class LidarModel:
    """What a LiDAR does.

    Attributes:
        rings, columns: beams, and firings in one turn.
        low_deg, high_deg: elevation of the lowest and the highest beam.
        rate_hz: turns in a second.
        reach_m, blind_m: farthest and nearest return.
        range_sigma_m: standard deviation of a range.
        dropout: share of returns that are lost.
    """

    rings: int = 64
    columns: int = 1024
    low_deg: float = -45.0
    high_deg: float = 15.0
    rate_hz: float = 10.0
    reach_m: float = 50.0
    blind_m: float = 0.4
    range_sigma_m: float = 0.015
    dropout: float = 0.03

    def __post_init__(self) -> None:
        faults = []
        if self.rings < 1 or self.columns < 1:
            faults.append(f"needs at least one ring and column, got {self.rings} x {self.columns}")
        if not -90 <= self.low_deg <= self.high_deg <= 90:
            faults.append(f"elevations must be ordered within -90..90 deg, got {self.low_deg} and {self.high_deg}")
        if self.rate_hz <= 0 or not 0 <= self.blind_m < self.reach_m:
            faults.append("rate_hz must be positive and 0 <= blind_m < reach_m")
        if not 0 <= self.dropout <= 1 or self.range_sigma_m < 0:
            faults.append("dropout must be in 0..1 and range_sigma_m not negative")
        if faults:
            raise ConfigurationError(faults, where="LidarModel")

    @property
    def low_rad(self) -> float:
        """Elevation of the lowest beam."""
        return math.radians(self.low_deg)

    @property
    def high_rad(self) -> float:
        """Elevation of the highest beam."""
        return math.radians(self.high_deg)

    @property
    def sweep_s(self) -> float:
        """Time of one turn."""
        return 1.0 / self.rate_hz

    def column_times_s(self) -> NDArray[np.float64]:
        """When each column fires, from the start of the turn, [columns]."""
        return np.arange(self.columns) / self.columns * self.sweep_s

    def beams(self) -> NDArray[np.float32]:
        """Unit directions in the LiDAR's frame, [columns, rings, 3]; it turns clockwise and starts at the back."""
        azimuth = math.pi - 2 * math.pi * np.arange(self.columns) / self.columns
        elevation = np.linspace(self.low_rad, self.high_rad, self.rings)
        flat, up = np.cos(elevation), np.sin(elevation)
        return np.stack([np.cos(azimuth)[:, None] * flat, np.sin(azimuth)[:, None] * flat,
                         np.broadcast_to(up, (self.columns, self.rings))], axis=-1).astype(np.float32)


@jit
def fired(columns: Any, beams: Any) -> Any:
    """Origins and unit directions, float32 [C * R, 3], of beams [C, R, 3] from the poses [C, 3, 4] of their columns."""
    rings = beams.shape[1]
    origins = np.empty((len(columns) * rings, 3), np.float32)
    directions = np.empty_like(origins)
    for c in range(len(columns)):
        T = columns[c]
        for r in range(rings):
            b, i = beams[c, r], c * rings + r
            x = T[0, 0] * b[0] + T[0, 1] * b[1] + T[0, 2] * b[2]
            y = T[1, 0] * b[0] + T[1, 1] * b[1] + T[1, 2] * b[2]
            z = T[2, 0] * b[0] + T[2, 1] * b[1] + T[2, 2] * b[2]
            norm = np.sqrt(x * x + y * y + z * z)
            directions[i, 0], directions[i, 1], directions[i, 2] = x / norm, y / norm, z / norm
            origins[i, 0], origins[i, 1], origins[i, 2] = T[0, 3], T[1, 3], T[2, 3]
    return origins, directions


def sweep(model: LidarModel, name: str, pose_at: Callable[[float], NDArray[np.float64]], start_s: float,
          stamp_ns: int, instant: Instant, rng: np.random.Generator) -> PointCloud:
    """One turn that starts at `start_s`; points in the frame the LiDAR has when each is taken (not deskewed).

    Args:
        pose_at: T_world_lidar [4, 4] at a time.
        stamp_ns: stamp of the cloud, the clock's reading at `start_s`; times of points are relative to it.
        instant: the world; things stand still during a turn, the LiDAR does not.
    """
    beams = model.beams()
    times = model.column_times_s()
    knots = np.linspace(0.0, model.sweep_s, _KNOTS)
    poses = np.stack([pose_at(start_s + t) for t in knots])
    # between knots a few milliseconds apart a rotation is linear to 1e-6
    columns = np.stack([np.interp(times, knots, poses[:, i, j]) for i in range(3) for j in range(4)], axis=1)
    columns = columns.reshape(-1, 3, 4).astype(np.float32)
    origins, directions = fired(columns, beams)
    range_m, index = instant.cast(origins, directions)
    kept = np.flatnonzero((index >= 0) & (range_m > model.blind_m) & (range_m < model.reach_m)
                          & (rng.random(len(index)) >= model.dropout))
    triangle = index[kept]
    measured = range_m[kept] + rng.normal(0.0, model.range_sigma_m, len(kept)).astype(np.float32)
    points = beams.reshape(-1, 3)[kept] * measured[:, None]
    surfaces = instant.surfaces
    albedo = surfaces.colour[triangle].mean(axis=1)
    # glass and polished metal answer weakly, everything fades with range
    weak = np.where(surfaces.texture[triangle] == Texture.GLASS, np.float32(0.3), np.float32(1.0))
    intensity = np.clip(albedo * weak * np.exp(-measured / np.float32(60.0))
                        * rng.normal(1.0, 0.05, len(kept)), 0, 1).astype(np.float32)
    time_ns = np.round(times * 1e9).astype(np.int64)[kept // model.rings]
    return PointCloud(name, stamp_ns, points.astype(np.float32), intensity, time_ns)
