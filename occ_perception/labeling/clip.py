"""What labelling works on: a stretch of a drive as frames with images, one deskewed scan and the pose of the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3


def _faults_of(name: str, array: Any, dtype: Any, shape: tuple[int | None, ...]) -> list[str]:
    """What is wrong with an array that should have that dtype and shape (None: any length)."""
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape)
    ):
        return []
    got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
    wanted = "x".join("N" if n is None else str(n) for n in shape)
    return [f"{name} must be {np.dtype(dtype).name} [{wanted}], got {got}"]


@dataclass(frozen=True)
class WorldBox:
    """A moving thing at one instant: `T_world_object` [4, 4] is its box centre, `size_m` [3] along its axes.

    `label` is a class of the sidewalk taxonomy; `velocity_mps` [3] is in the world frame; `track_id` is the same in
    all frames of a clip.

    Raises:
        ConfigurationError: an array that does not fit; all faults listed.
    """

    track_id: int
    label: int
    T_world_object: NDArray[np.float64]
    size_m: NDArray[np.float64]
    velocity_mps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        faults = [] if se3.is_rigid(self.T_world_object) else ["T_world_object must be a rigid motion [4, 4]"]
        faults += _faults_of("size_m", self.size_m, np.float64, (3,))
        faults += _faults_of("velocity_mps", self.velocity_mps, np.float64, (3,))
        if faults:
            raise ConfigurationError(faults, where=f"box of track {self.track_id}")


@dataclass(frozen=True, kw_only=True)
class LabelFrame:
    """One keyframe (2 Hz, WalkOCC F.1).

    Attributes:
        stamp_ns: of the anchor camera, mid-exposure.
        images: uint8 RGB [H, W, 3] by camera.
        points_m: float32 [P, 3], one scan of all LiDARs in the base frame at `stamp_ns`, deskewed.
        sensor_m: float64 [S, 3], origins of the LiDARs in the base frame.
        point_sensor: uint8 [P], row of `sensor_m` that measured each point.
        T_world_base: [4, 4] at `stamp_ns`; the world is any frame that stands still and has z against gravity.
        T_anchor_exposure: by camera, [4, 4] that maps points of the base at that camera's exposure into the base at
            `stamp_ns`; absent cameras did not move.
        boxes: moving things, or None where nobody knows them.

    Raises:
        ConfigurationError: arrays that do not fit each other; all faults listed.
    """

    stamp_ns: int
    images: Mapping[str, NDArray[np.uint8]]
    points_m: NDArray[np.float32]
    sensor_m: NDArray[np.float64]
    point_sensor: NDArray[np.uint8]
    T_world_base: NDArray[np.float64]
    T_anchor_exposure: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    boxes: Sequence[WorldBox] | None = None

    def __post_init__(self) -> None:
        faults = [fault for camera, image in self.images.items()
                  for fault in _faults_of(f"image of {camera}", image, np.uint8, (None, None, 3))]
        faults += _faults_of("points_m", self.points_m, np.float32, (None, 3))
        faults += _faults_of("sensor_m", self.sensor_m, np.float64, (None, 3))
        faults += _faults_of("point_sensor", self.point_sensor, np.uint8, (len(self.points_m),))
        if not faults and self.point_sensor.max(initial=0) >= max(len(self.sensor_m), 1):
            faults.append(f"point_sensor goes up to {self.point_sensor.max()}, there are {len(self.sensor_m)} LiDARs")
        motions = {"T_world_base": self.T_world_base} | {
            f"T_anchor_exposure of {camera}": T for camera, T in self.T_anchor_exposure.items()}
        faults += [f"{name} must be a rigid motion [4, 4]" for name, T in motions.items() if not se3.is_rigid(T)]
        if faults:
            raise ConfigurationError(faults, where=f"frame at {self.stamp_ns} ns")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One scene: frames of one drive in order of stamp. `frames` may make them as they are asked for."""

    name: str
    rig: Rig
    frames: Sequence[LabelFrame]
