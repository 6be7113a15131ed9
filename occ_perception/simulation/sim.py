"""`SidewalkSim`: a world and a rig become camera images, LiDAR clouds, odometry, IMU and truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec, se3
from occ_perception.simulation import lidar as lidars
from occ_perception.simulation import motion
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.motion import ImuSample, MotionErrors
from occ_perception.simulation.rendering import CameraView, Renderer
from occ_perception.simulation.scene import World
from occ_perception.simulation.surfaces import Instant, WorldCaster
from occ_perception.simulation.truth import Truth, TruthMaker
from occ_perception.types import Odometry, PointCloud


@dataclass(frozen=True)
class SensorErrors:
    """How the real sensors differ from what the rig says.

    Attributes:
        clock_offset_s: by sensor name; added to the time of measurement gives its stamp.
        extrinsic: by sensor name, T_nominal_true [4, 4] between the pose in the rig and the true one.
        motion: of odometry and IMU.
    """

    clock_offset_s: Mapping[str, float] = field(default_factory=dict)
    extrinsic: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    motion: MotionErrors = field(default_factory=MotionErrors)


@dataclass(frozen=True)
class SimFrame:
    """Everything at one instant: views by camera, clouds by LiDAR, truth."""

    time_s: float
    stamp_ns: int
    views: Mapping[str, CameraView]
    clouds: Mapping[str, PointCloud]
    truth: Truth


class SidewalkSim:
    """One robot in one world.

    Args:
        world: from `make_world`.
        rig: its sensors; any camera model, one or several cameras and LiDARs.
        lidar: what every LiDAR of the rig does.
        spec: the grid of the truth.
        errors: clock offsets, extrinsic errors, drift.
        start_ns: stamp of the world's time 0.
        seed: of all sensor noise; by default the world's.

    Raises:
        ConfigurationError: `errors` names a sensor the rig does not have.
    """

    def __init__(self, world: World, rig: Rig, *, lidar: LidarModel | None = None,
                 spec: VoxelGridSpec = SIDEWALK_GRID, errors: SensorErrors | None = None, start_ns: int = 0,
                 seed: int | None = None) -> None:
        self.world, self.rig, self.start_ns = world, rig, start_ns
        self.lidar = lidar or LidarModel()
        self.errors = errors or SensorErrors()
        names = {camera.name for camera in rig.cameras} | {lidar.name for lidar in rig.lidars}
        foreign = sorted((set(self.errors.clock_offset_s) | set(self.errors.extrinsic)) - names)
        if foreign:
            raise ConfigurationError([f"no sensor {name!r} in the rig" for name in foreign], where="SensorErrors",
                                     fix=f"Sensors of {rig.name}: {', '.join(sorted(names))}")
        self._seed = world.seed if seed is None else seed
        self._caster = WorldCaster(world)
        self._renderers = {camera.name: Renderer(camera.camera) for camera in rig.cameras}
        self._truth = TruthMaker(world, rig, self.lidar, spec)

    def stamp_ns(self, time_s: float, sensor: str | None = None) -> int:
        """The stamp a sensor (or a perfect clock) gives to a time of the world."""
        offset = self.errors.clock_offset_s.get(sensor, 0.0) if sensor else 0.0
        return self.start_ns + round((time_s + offset) * 1e9)

    def instant(self, time_s: float) -> Instant:
        """The world frozen at a time, around the robot."""
        return self._caster.at(time_s, self.world.robot.pose_at(time_s)[:3, 3])

    def view(self, camera: str, time_s: float, instant: Instant | None = None) -> CameraView:
        """The picture of one camera with its truth."""
        nominal = self.rig.camera(camera).T_base_camera
        T = self.world.robot.pose_at(time_s) @ nominal @ self.errors.extrinsic.get(camera, np.eye(4))
        return self._renderers[camera].render(T, instant or self.instant(time_s), self.world.lighting,
                                              self.world.actors, time_s, self._rng(time_s, camera))

    def cloud(self, lidar: str, start_s: float, instant: Instant | None = None) -> PointCloud:
        """One turn of a LiDAR that starts at `start_s`, each column from where the robot is then."""
        nominal = self.rig.lidar(lidar).T_base_lidar @ self.errors.extrinsic.get(lidar, np.eye(4))
        return lidars.sweep(self.lidar, lidar, lambda t: self.world.robot.pose_at(t) @ nominal, start_s,
                            self.stamp_ns(start_s, lidar),
                            instant or self.instant(start_s + self.lidar.sweep_s / 2), self._rng(start_s, lidar))

    def points_m(self, time_s: float, instant: Instant | None = None) -> NDArray[np.float32]:
        """One turn of all LiDARs as a perfect deskewing leaves it, in the base frame at `time_s`, float32 [P, 3]."""
        instant = instant or self.instant(time_s)
        T_world_base, parts = self.world.robot.pose_at(time_s), [np.zeros((0, 3), np.float32)]
        for lidar in self.rig.lidars:
            T_base_lidar = lidar.T_base_lidar @ self.errors.extrinsic.get(lidar.name, np.eye(4))
            standing = _constant(T_world_base @ T_base_lidar)
            cloud = lidars.sweep(self.lidar, lidar.name, standing, time_s, self.stamp_ns(time_s, lidar.name), instant,
                                 self._rng(time_s, lidar.name))
            parts.append(se3.apply(T_base_lidar, cloud.points_m).astype(np.float32))
        return np.concatenate(parts)

    def truth(self, time_s: float) -> Truth:
        """The truth in the grid; its stamp is that of the first camera, the anchor."""
        return self._truth.at(time_s, self.stamp_ns(time_s, self.rig.cameras[0].name))

    def frame(self, time_s: float, clouds: bool = True) -> SimFrame:
        """All cameras, one turn of every LiDAR from `time_s` on (if asked), and the truth."""
        instant = self.instant(time_s)
        return SimFrame(
            time_s, self.stamp_ns(time_s),
            {camera.name: self.view(camera.name, time_s, instant) for camera in self.rig.cameras},
            {lidar.name: self.cloud(lidar.name, time_s, instant) for lidar in self.rig.lidars} if clouds else {},
            self.truth(time_s))

    def odometry(self, rate_hz: float = 50.0) -> Iterator[Odometry]:
        """Wheel odometry along the whole track."""
        return motion.odometry(self.world.robot, self.errors.motion, rate_hz, self._rng(0.0, "odometry"),
                               self.start_ns)

    def imu(self, rate_hz: float = 100.0) -> Iterator[ImuSample]:
        """IMU samples along the whole track, at the IMU of the rig (at the base where it has none)."""
        T_base_imu = self.rig.imu.T_base_imu if self.rig.imu is not None else np.eye(4)
        return motion.imu(self.world.robot, self.errors.motion, rate_hz, T_base_imu, self._rng(0.0, "imu"),
                          self.start_ns)

    def _rng(self, time_s: float, sensor: str) -> np.random.Generator:
        """Noise that depends on seed, sensor and time alone, whatever was asked before."""
        return np.random.default_rng([self._seed, round(time_s * 1e6), *sensor.encode()])


def _constant(T: NDArray[np.float64]) -> Callable[[float], NDArray[np.float64]]:
    """A pose that does not move."""
    return lambda time_s: T
