"""`Rig`: cameras, LiDARs and IMU of one robot, read from one YAML file that checks itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from occ_perception.errors import CalibrationError, OccPerceptionError
from occ_perception.geometry import se3
from occ_perception.geometry.cameras import Camera, make_camera
from occ_perception.geometry.tables import MountedCamera


def _numbers(value: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"must hold numbers only, got {value!r}") from None


def _parse_transform(value: Any) -> NDArray[np.float64]:
    """A rigid motion from a 4x4 matrix or from `{translation: [3], quaternion_xyzw: [4]}`."""
    if isinstance(value, Mapping):
        unknown = set(value) - {"translation", "quaternion_xyzw"}
        if unknown or "translation" not in value:
            raise ValueError("a transform is a 4x4 matrix or {translation: [x, y, z], quaternion_xyzw: [x, y, z, w]}")
        translation = _numbers(value["translation"])
        if translation.shape != (3,) or not np.isfinite(translation).all():
            raise ValueError(f"translation must be 3 finite numbers, got {value['translation']}")
        try:
            return se3.from_quaternion(_numbers(value.get("quaternion_xyzw", (0, 0, 0, 1))), translation)
        except OccPerceptionError as error:
            raise ValueError(str(error)) from None
    matrix = _numbers(value)
    if not se3.is_rigid(matrix):
        raise ValueError("the 4x4 matrix is singular or no rigid motion (orthonormal rotation, last row 0 0 0 1)")
    return matrix


def _dump_transform(T: NDArray[np.float64]) -> dict[str, list[float]]:
    return {"translation": [round(v, 9) for v in T[:3, 3].tolist()],
            "quaternion_xyzw": [round(v, 12) for v in se3.to_quaternion(T).tolist()]}


Transform = Annotated[NDArray[np.float64], BeforeValidator(_parse_transform), PlainSerializer(_dump_transform)]


SensorName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9]*(_[a-zA-Z0-9]+)*$")]
"""Names become parts of ROS topics, which take no double underscore and none at the end."""
RESERVED_NAMES = frozenset({"odometry"})
"""Streams that are no sensors of the rig."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


class RigCamera(_Part):
    """One camera: `model` and `parameters` as in `geometry.make_camera`; `T_base_camera` maps optical-frame points.

    `time_offset_s` is added to a message's stamp to get the middle of its exposure; `readout_s` is the rolling
    shutter's time from first to last row. `mask` is an image (white: the world, black: the robot itself).
    """

    name: SensorName
    frame: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    model: str
    parameters: tuple[float, ...]
    max_theta_rad: float | None = None
    T_base_camera: Transform
    mask: str | None = None
    time_offset_s: float = 0.0
    readout_s: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _check_lens(self) -> RigCamera:
        try:
            self.camera  # noqa: B018  (making it checks it)
        except CalibrationError as error:
            raise ValueError("; ".join(error.faults)) from None
        return self

    @cached_property
    def camera(self) -> Camera:
        """The lens."""
        return make_camera(self.model, self.width, self.height, self.parameters, self.max_theta_rad)

    @cached_property
    def _usable(self) -> NDArray[np.bool_] | None:
        if self.mask is None:
            return None
        image = cv2.imread(self.mask, cv2.IMREAD_GRAYSCALE)
        if image is None or image.shape != (self.height, self.width):
            got = "no readable image" if image is None else f"{image.shape[1]} x {image.shape[0]}"
            raise CalibrationError([f"mask must be an image of {self.width} x {self.height}, got {got}"],
                                   where=f"camera {self.name}: {self.mask}")
        return np.asarray(image > 127)

    def mounted(self) -> MountedCamera:
        """The lens with its place on the robot and its mask, as projection tables take it."""
        return MountedCamera(self.camera, self.T_base_camera, self._usable)

    def resized(self, height: int, width: int, mask: str | None = None) -> RigCamera:
        """The camera of the resized image; `mask` is the mask of that size (every lens starts with fx fy cx cy)."""
        su, sv = width / self.width, height / self.height
        fx, fy, cx, cy, *lens = self.parameters
        focal = (fx * su, fy * sv, (cx + 0.5) * su - 0.5, (cy + 0.5) * sv - 0.5)
        changed = {"width": width, "height": height, "parameters": (*focal, *lens), "mask": mask}
        return RigCamera(**{name: getattr(self, name) for name in RigCamera.model_fields} | changed)


class RigLidar(_Part):
    """One LiDAR. `time_offset_s` is added to a message's stamp; what is nearer than `minimum_range_m` is of the robot
    itself and left out."""

    name: SensorName
    frame: str
    T_base_lidar: Transform
    time_offset_s: float = 0.0
    minimum_range_m: float | None = Field(default=None, gt=0.0)


class RigImu(_Part):
    """The inertial unit."""

    frame: str
    T_base_imu: Transform
    time_offset_s: float = 0.0


class Rig(_Part):
    """All sensors of one robot. `footprint_radius_m` is the disk that must stay clear (WalkOCC A.2: 0.4 m)."""

    name: str
    base_frame: str = "base_link"
    odom_frame: str = "odom"
    footprint_radius_m: float = Field(default=0.4, gt=0.0)
    cameras: tuple[RigCamera, ...]
    lidars: tuple[RigLidar, ...] = Field(default=(), validate_default=True)
    imu: RigImu | None = None

    @field_validator("cameras")
    @classmethod
    def _some(cls, cameras: tuple[RigCamera, ...]) -> tuple[RigCamera, ...]:
        if not cameras:
            raise ValueError("a rig needs at least one camera")
        return cameras

    @field_validator("lidars")
    @classmethod
    def _unique(cls, lidars: tuple[RigLidar, ...], info: Any) -> tuple[RigLidar, ...]:
        names = [sensor.name for sensor in [*info.data.get("cameras", ()), *lidars]]
        reserved = sorted(RESERVED_NAMES & set(names))
        if reserved:
            raise ValueError(f"no sensor can be named {', '.join(reserved)}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sensor names must differ, {', '.join(twice)} occurs twice")
        return lidars

    def camera(self, name: str) -> RigCamera:
        """The camera of that name; raises CalibrationError naming those there are."""
        return _by_name(self.cameras, name, f"rig {self.name}")

    def lidar(self, name: str) -> RigLidar:
        """The LiDAR of that name; raises CalibrationError naming those there are."""
        return _by_name(self.lidars, name, f"rig {self.name}")

    def mounted(self) -> list[MountedCamera]:
        """All cameras in their order, as projection tables take them."""
        return [camera.mounted() for camera in self.cameras]


_Sensor = TypeVar("_Sensor", RigCamera, RigLidar)


def _by_name(sensors: tuple[_Sensor, ...], name: str, where: str) -> _Sensor:
    for sensor in sensors:
        if sensor.name == name:
            return sensor
    raise CalibrationError([f"no sensor named {name!r}"], where=where,
                           fix=f"There are: {', '.join(s.name for s in sensors) or 'none'}")


def rig_from_dict(data: Any, *, where: str) -> Rig:
    """A checked rig; raises CalibrationError with every fault of the description at once."""
    if not isinstance(data, Mapping):
        raise CalibrationError(["a rig is a mapping with name and cameras"], where=where)
    try:
        return Rig.model_validate(data)
    except ValidationError as error:
        faults = [f"{'.'.join(str(p) for p in e['loc']) or 'rig'}: {e['msg'].removeprefix('Value error, ')}"
                  for e in error.errors()]
        raise CalibrationError(faults, where=where) from None


def load_rig(path: str | Path) -> Rig:
    """Read a rig YAML; a relative `mask` is taken from the file's folder. Raises CalibrationError."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise CalibrationError(["no such rig file"], where=str(path),
                               fix=f"In that folder: {', '.join(beside) or 'no rigs'}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError([f"cannot be read as YAML: {error}"], where=str(path)) from None
    cameras = data.get("cameras") if isinstance(data, Mapping) else None
    for camera in cameras if isinstance(cameras, list) else []:
        if isinstance(camera, dict) and isinstance(camera.get("mask"), str):
            camera["mask"] = str((path.parent / camera["mask"]).resolve())  # so that a copy elsewhere finds it
    return rig_from_dict(data, where=str(path))


def save_rig(rig: Rig, path: str | Path) -> None:
    """Write a rig YAML, beside its place and renamed."""
    path = Path(path)
    data = rig.model_dump(mode="json", exclude_none=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120))
    os.replace(beside, path)
