"""A world as a bag: what the robot's sensors would have published, with the truth beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import track

from occ_perception.calibration import Rig, load_rig
from occ_perception.errors import ConfigurationError
from occ_perception.recordings import frames
from occ_perception.recordings.bag import BagReader, BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.messages import make
from occ_perception.simulation.cards import save_card
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import World
from occ_perception.simulation.sim import SensorErrors, SidewalkSim
from occ_perception.simulation.splits import RIGS, get_split
from occ_perception.simulation.world import make_world
from occ_perception.taxonomy import SIDEWALK
from occ_perception.types import CameraImage


@dataclass(frozen=True)
class BagSettings:
    """What goes into a bag.

    Attributes:
        duration_s: length; None takes all of the track that has a future of 5 s.
        image_hz, odometry_hz, imu_hz: rates of the sensors.
        truth_hz: truth belongs to the first image at or after every 1 / truth_hz seconds.
        jpeg_quality: 1 to 100.
        lidar: model and rate of every LiDAR of the rig.
        errors: clock offsets, extrinsic errors, drift.
        start_ns: stamp of the first instant.
    """

    duration_s: float | None = None
    image_hz: float = 10.0
    odometry_hz: float = 50.0
    imu_hz: float = 100.0
    truth_hz: float = 2.0
    jpeg_quality: int = 90
    lidar: LidarModel = field(default_factory=LidarModel)
    errors: SensorErrors = field(default_factory=SensorErrors)
    start_ns: int = 1_700_000_000_000_000_000

    def __post_init__(self) -> None:
        rates = {name: getattr(self, name) for name in ("image_hz", "odometry_hz", "imu_hz", "truth_hz")}
        faults = [f"{name} must be positive, got {rate}" for name, rate in rates.items() if not rate > 0]
        if self.duration_s is not None and self.duration_s <= 0:
            faults.append(f"duration_s must be positive, got {self.duration_s}")
        if not 1 <= self.jpeg_quality <= 100:
            faults.append(f"jpeg_quality must be in 1..100, got {self.jpeg_quality}")
        if faults:
            raise ConfigurationError(faults, where="BagSettings")


SAMPLE_LIDAR = LidarModel(rings=16, columns=320, low_deg=-35.0, high_deg=10.0, rate_hz=5.0)
SAMPLE_SETTINGS = BagSettings(duration_s=11.0, image_hz=5.0, jpeg_quality=88, lidar=SAMPLE_LIDAR)
SAMPLE_SCENE = get_split("test").scenes[0]
"""The recording in `sample/`: this street (a longer drive, so with other traffic), small enough for a repository."""

_SAMPLE_TRACK_S = 17.0  # every instant has a future of 5 s

Event = tuple[float, str, Callable[[], Any]]
"""When a message is published (seconds of the world), its topic, and how to make it."""


def write_bag(world: World, rig: Rig, path: Path | str, settings: BagSettings | None = None, *,
              overwrite: bool = False, progress: bool = False) -> dict[str, int]:
    """Writes a bag (folder, or one .mcap file), and its card; returns the number of messages by topic.

    Raises:
        ConfigurationError: the track is shorter than what is asked for.
        RecordingError: the path exists or cannot be written.
    """
    settings = settings or BagSettings()
    sim = SidewalkSim(world, rig, lidar=settings.lidar, errors=settings.errors, start_ns=settings.start_ns)
    longest_s = world.robot.duration_s
    duration_s = settings.duration_s if settings.duration_s is not None else max(longest_s - 5.0, 1.0)
    if duration_s > longest_s:
        raise ConfigurationError([f"a bag of {duration_s} s needs a track as long, this one has {longest_s} s"],
                                 where="write_bag", fix="Make the world with a longer duration_s")
    encoder = MessageEncoder(make, base_frame=rig.base_frame, odom_frame=rig.odom_frame)
    events = sorted(_events(sim, settings, encoder, duration_s), key=lambda event: event[0])
    with BagWriter(path, overwrite=overwrite) as bag:
        for time_s, topic, build in track(events, f"bag {Path(path).name}", disable=not progress):
            bag.write(topic, settings.start_ns + round(time_s * 1e9), build())
    save_card(sim, Path(path))
    with BagReader(path) as written:
        return written.counts


def write_sample(path: Path | str, rigs: Path, *, overwrite: bool = False, progress: bool = False) -> dict[str, int]:
    """Writes the recording of `sample/` again, and beside it the card by which scores name it.

    `rigs` is the folder of the rig files.
    """
    scene = SAMPLE_SCENE
    world = make_world(scene.seed, scene.district, scene.night, scene.embodiment, _SAMPLE_TRACK_S)
    rig = load_rig(Path(rigs) / f"{RIGS[scene.embodiment]}.yaml")
    counts = write_bag(world, rig, path, SAMPLE_SETTINGS, overwrite=overwrite, progress=progress)
    sim = SidewalkSim(world, rig, lidar=SAMPLE_SETTINGS.lidar, start_ns=SAMPLE_SETTINGS.start_ns)
    save_card(sim, Path(path), split="sample", scene=scene.name)
    return counts


def _times(rate_hz: float, duration_s: float) -> list[float]:
    return [k / rate_hz for k in range(math.floor(duration_s * rate_hz + 1e-9))]


def _events(sim: SidewalkSim, settings: BagSettings, encoder: MessageEncoder, duration_s: float) -> Iterator[Event]:
    rig, start_ns = sim.rig, settings.start_ns
    yield 0.0, frames.STATIC_TRANSFORMS_TOPIC, lambda: encoder.static_transforms(rig, start_ns)
    image_times = _times(settings.image_hz, duration_s)
    for camera in rig.cameras:
        for t in image_times:
            stamp_ns = sim.stamp_ns(t, camera.name)
            yield t, frames.camera_info_topic(camera.name), _later(encoder.camera_info, camera, stamp_ns)
            yield t, frames.compressed_image_topic(camera.name), _later(
                _image, sim, encoder, camera.name, camera.frame, t, settings.jpeg_quality)
    for lidar in rig.lidars:
        for t in _times(settings.lidar.rate_hz, duration_s - settings.lidar.sweep_s):
            # a sweep is published when it is complete; its stamp is that of its first point
            yield t + settings.lidar.sweep_s, frames.points_topic(lidar.name), _later(
                _cloud, sim, encoder, lidar.name, lidar.frame, t)
    for odometry in sim.odometry(settings.odometry_hz):
        t = (odometry.stamp_ns - start_ns) * 1e-9
        if t < duration_s:
            yield t, frames.ODOMETRY_TOPIC, _later(encoder.odometry, odometry)
    for sample in sim.imu(settings.imu_hz) if rig.imu is not None else ():
        t = (sample.stamp_ns - start_ns) * 1e-9
        if t < duration_s and rig.imu is not None:
            yield t, frames.IMU_TOPIC, _later(
                encoder.imu, sample.stamp_ns, sample.angular_radps, sample.force_mps2, frame=rig.imu.frame,
                orientation_xyzw=sample.quaternion_xyzw)
    for t in _truth_times(image_times, settings.truth_hz):
        yield from _truth_events(sim, encoder, t)


def _truth_times(image_times: list[float], truth_hz: float) -> list[float]:
    """The first image at or after every 1 / truth_hz seconds."""
    chosen: dict[int, float] = {}
    for t in image_times:
        chosen.setdefault(math.floor(t * truth_hz + 1e-9), t)
    return list(chosen.values())


def _truth_events(sim: SidewalkSim, encoder: MessageEncoder, time_s: float) -> Iterator[Event]:
    truth = sim.truth(time_s)
    grid = truth.grid
    yield time_s, frames.TRUTH_OCCUPANCY_TOPIC, _later(encoder.voxel_grid, grid)
    yield time_s, frames.TRUTH_FLOW_TOPIC, _later(encoder.flow_field, truth.flow)
    yield time_s, frames.TRUTH_INSTANCES_TOPIC, _later(
        encoder.tracked_instances, grid.stamp_ns, truth.instances, taxonomy=SIDEWALK.name, model_id=grid.model_id)
    if truth.trajectory is not None:
        yield time_s, frames.TRUTH_TRAJECTORY_TOPIC, _later(encoder.planned_trajectory, truth.trajectory)


def _later(function: Callable[..., Any], *args: Any, **fields: Any) -> Callable[[], Any]:
    """A call that is made when its turn comes, so that a bag never lies in memory as a whole."""
    return lambda: function(*args, **fields)


def _image(sim: SidewalkSim, encoder: MessageEncoder, camera: str, frame: str, time_s: float, quality: int) -> Any:
    image = CameraImage(camera, sim.stamp_ns(time_s, camera), sim.view(camera, time_s).image)
    return encoder.compressed_image(image, quality, frame=frame)


def _cloud(sim: SidewalkSim, encoder: MessageEncoder, lidar: str, frame: str, start_s: float) -> Any:
    return encoder.point_cloud(sim.cloud(lidar, start_s), frame=frame)
