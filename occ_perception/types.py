"""What flows through the system: sensor data in, grids and trajectories out. Arrays check themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.taxonomy import SIDEWALK


def _require(where: str, array: Any, dtype: Any, shape: tuple[int | None, ...]) -> None:
    """Raise ShapeError unless `array` is an ndarray of that dtype and shape (None: any length)."""
    fits = (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and array.ndim == len(shape)
        and all(want is None or want == got for want, got in zip(shape, array.shape, strict=True))
    )
    if not fits:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        wanted = "x".join("N" if n is None else str(n) for n in shape)
        raise ShapeError(f"must be {np.dtype(dtype).name} [{wanted}], got {got}", where=where)


@dataclass(frozen=True)
class CameraImage:
    """One decoded image. `stamp_ns` is mid-exposure; `pixels` uint8 RGB [H, W, 3]."""

    camera: str
    stamp_ns: int
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _require(f"image of {self.camera}", self.pixels, np.uint8, (None, None, 3))


@dataclass(frozen=True)
class PointCloud:
    """One LiDAR scan in the frame of the LiDAR.

    Attributes:
        lidar: name of the LiDAR in the rig.
        stamp_ns: stamp of the message.
        points_m: float32 [N, 3]; no NaN, no empty returns.
        intensity: float32 [N] or None.
        time_ns: int64 [N], time of each point relative to `stamp_ns`, or None when unknown.
    """

    lidar: str
    stamp_ns: int
    points_m: NDArray[np.float32]
    intensity: NDArray[np.float32] | None = None
    time_ns: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        _require(f"cloud of {self.lidar}: points_m", self.points_m, np.float32, (None, 3))
        n = len(self.points_m)
        if self.intensity is not None:
            _require(f"cloud of {self.lidar}: intensity", self.intensity, np.float32, (n,))
        if self.time_ns is not None:
            _require(f"cloud of {self.lidar}: time_ns", self.time_ns, np.int64, (n,))


@dataclass(frozen=True)
class Odometry:
    """Pose and motion of the base. `T_odom_base` [4, 4]; velocities [3] in the base frame, m/s and rad/s."""

    stamp_ns: int
    T_odom_base: NDArray[np.float64]
    linear_mps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    angular_radps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        _require("odometry: T_odom_base", self.T_odom_base, np.float64, (4, 4))
        _require("odometry: linear_mps", self.linear_mps, np.float64, (3,))
        _require("odometry: angular_radps", self.angular_radps, np.float64, (3,))


@dataclass(frozen=True)
class SensorFrame:
    """Everything the sensors gave around one anchor stamp.

    Attributes:
        stamp_ns: stamp of the anchor camera (mid-exposure, its time offset applied).
        images: by camera name.
        clouds: by LiDAR name, deskewed to `stamp_ns` (a scan that cannot be is left out); still in the LiDAR's frame.
        T_odom_base: pose of the base at `stamp_ns`, or None without odometry.
        T_anchor_exposure: by camera, [4, 4] that maps points of the base at that camera's exposure
            into the base at `stamp_ns`; absent cameras did not move.
    """

    stamp_ns: int
    images: Mapping[str, CameraImage]
    clouds: Mapping[str, PointCloud] = field(default_factory=dict)
    T_odom_base: NDArray[np.float64] | None = None
    T_anchor_exposure: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def sensor_stamps_ns(self) -> dict[str, int]:
        """Stamp of every sensor that went into this frame."""
        stamps = {name: image.stamp_ns for name, image in self.images.items()}
        return stamps | {name: cloud.stamp_ns for name, cloud in self.clouds.items()}


@dataclass(frozen=True)
class VoxelGrid:
    """A labelled grid at one instant.

    Attributes:
        spec: geometry.
        stamp_ns: instant it describes.
        labels: uint8 [nx, ny, nz] in `taxonomy`; 0 free, 254 occupied without class, 255 unknown.
        confidence: uint8 [nx, ny, nz], P(occupied) * 255, or None. In a ground truth: 255 where the
            sensors saw the cell, else 0.
        instance_rows: uint16 [nx, ny, nz], 0 none, else 1 + row of `track_ids`; or None.
        track_ids: uint64 [M].
        taxonomy: name of the taxonomy.
        model_id: which model (and version) made it, or `truth`.
        T_odom_grid: pose of the grid's frame (base origin and yaw, z against gravity) in odom, or None.
        sensor_stamps_ns: stamps of the sensors used.
        flags: what the reader must know, such as `no_odometry`.
    """

    spec: VoxelGridSpec
    stamp_ns: int
    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None = None
    instance_rows: NDArray[np.uint16] | None = None
    track_ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    taxonomy: str = SIDEWALK.name
    model_id: str = ""
    T_odom_grid: NDArray[np.float64] | None = None
    sensor_stamps_ns: Mapping[str, int] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _require("voxel grid: labels", self.labels, np.uint8, self.spec.shape)
        if self.confidence is not None:
            _require("voxel grid: confidence", self.confidence, np.uint8, self.spec.shape)
        _require("voxel grid: track_ids", self.track_ids, np.uint64, (None,))
        if self.instance_rows is not None:
            _require("voxel grid: instance_rows", self.instance_rows, np.uint16, self.spec.shape)
            if self.instance_rows.max(initial=0) > len(self.track_ids):
                raise ShapeError(
                    f"rows go up to {self.instance_rows.max()} but there are {len(self.track_ids)} track ids",
                    where="voxel grid: instance_rows",
                )


@dataclass(frozen=True)
class FlowField:
    """Velocity of the matter in some voxels, ego motion removed, in the axes of the grid's frame.

    `cells` int64 [N, 3]; `velocity_mps` float32 [N, 3]; `confidence` float32 [N] in 0..1.
    """

    spec: VoxelGridSpec
    stamp_ns: int
    cells: NDArray[np.int64]
    velocity_mps: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.cells)
        _require("flow field: cells", self.cells, np.int64, (n, 3))
        _require("flow field: velocity_mps", self.velocity_mps, np.float32, (n, 3))
        _require("flow field: confidence", self.confidence, np.float32, (n,))

    def dense(self) -> NDArray[np.float32]:
        """Velocities as an array [nx, ny, nz, 3], 0 where nothing moves."""
        field_mps = np.zeros((*self.spec.shape, 3), np.float32)
        field_mps[tuple(self.cells.T)] = self.velocity_mps
        return field_mps


@dataclass(frozen=True)
class TrackedInstance:
    """One thing over time in the grid frame: `T_grid_object` [4, 4] is its box centre, `size_m` [3] along its axes."""

    track_id: int
    label: int
    score: float
    T_grid_object: NDArray[np.float64]
    velocity_mps: NDArray[np.float64]
    size_m: NDArray[np.float64]
    age_s: float = 0.0
    unseen_s: float = 0.0

    def __post_init__(self) -> None:
        _require("instance: T_grid_object", self.T_grid_object, np.float64, (4, 4))
        _require("instance: velocity_mps", self.velocity_mps, np.float64, (3,))
        _require("instance: size_m", self.size_m, np.float64, (3,))


class WaypointFlag(IntFlag):
    """What holds at a waypoint and on the way to it, the bits of PlannedTrajectory.waypoint_flags; 0 is free way."""

    BLOCKED = 1
    TIGHT = 2
    UNKNOWN = 4
    OFF_LIMITS = 8
    OUTSIDE = 16


class PathStatus(IntEnum):
    """What holds of a path as a whole, PlannedTrajectory.status."""

    UNCHECKED = 0
    CLEAR = 1
    CAUTION = 2
    BLOCKED = 3


@dataclass(frozen=True)
class PathCheck:
    """What was found when the T waypoints of a path were laid into a voxel grid.

    Attributes:
        clearance_m: float32 [T], from the rim of the footprint, at the waypoint or on the way to it, to the nearest
            obstacle; inf where there is none, NaN where there is none but the waypoint is unknown.
        ruling_label: uint8 [T], class in `taxonomy` of the surface or obstacle that decided the judgement of the
            waypoint; 255 where there was none.
        flags: uint8 [T], sums of `WaypointFlag`.
        taxonomy: name of the taxonomy of `ruling_label`.
    """

    clearance_m: NDArray[np.float32]
    ruling_label: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    taxonomy: str = SIDEWALK.name

    def __post_init__(self) -> None:
        n = len(self.flags)
        _require("path check: flags", self.flags, np.uint8, (n,))
        _require("path check: clearance_m", self.clearance_m, np.float32, (n,))
        _require("path check: ruling_label", self.ruling_label, np.uint8, (n,))

    @property
    def status(self) -> PathStatus:
        """Blocked where any waypoint is, clear where no waypoint has a flag."""
        if (self.flags & WaypointFlag.BLOCKED).any():
            return PathStatus.BLOCKED
        return PathStatus.CAUTION if self.flags.any() else PathStatus.CLEAR


@dataclass(frozen=True)
class Trajectory:
    """Waypoints of the base in the grid frame: `positions_m` float32 [T, 2]; `times_s` float32 [T] from `stamp_ns`.

    `check` tells what was found when they were laid into a grid; None where they were not.
    """

    stamp_ns: int
    positions_m: NDArray[np.float32]
    times_s: NDArray[np.float32]
    check: PathCheck | None = None

    def __post_init__(self) -> None:
        _require("trajectory: positions_m", self.positions_m, np.float32, (None, 2))
        _require("trajectory: times_s", self.times_s, np.float32, (len(self.positions_m),))
        if self.check is not None:
            _require("trajectory: flags of its check", self.check.flags, np.uint8, (len(self.positions_m),))

    @property
    def status(self) -> PathStatus:
        """Status of the check, `UNCHECKED` without one."""
        return PathStatus.UNCHECKED if self.check is None else self.check.status
