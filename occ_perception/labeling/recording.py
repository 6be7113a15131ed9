"""A bag as scenes: parts worth labelling, with poses, keyframes and deskewed scans, by the code a robot runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage, RecordingError
from occ_perception.geometry import se3
from occ_perception.labeling.clip import Clip, LabelFrame
from occ_perception.labeling.clips import ClipSettings, Selection, Span, keyframe_rows, nearest_rows, select
from occ_perception.labeling.ego import EgoSettings, EgoTrack, ImuSamples, Stamps, estimate_ego
from occ_perception.pipelines import FrameAssembler, OdometryBuffer, SyncedSet, deskew
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import decode_odometry, stamp_ns
from occ_perception.recordings.frames import IMU_TOPIC, sensor_events, sensor_topics
from occ_perception.types import Odometry, PointCloud

Array = NDArray[np.float64]

IMU = "imu"
"""Name of the IMU where topics are named by sensor."""
DROPS = {
    "bad_pose": "a wheel pose is no number",
    "bad_imu": "an IMU sample is no number",
    "stamp_went_back": "a stamp is not newer than the sensor's last one",
    "bad_stamp": "a stamp is off by more than 2 s from how the sensor's clock runs beside the bag's",
    "no_pose": "a keyframe has no wheel poses around it",
    "no_frames": "no keyframe of a scene could be used",
}
"""Why messages, keyframes and scenes are dropped; further reasons are those of `BadMessage`."""

_MARGIN_NS = 1_000_000_000  # poses before and after a scene, so that its first and last scan can be deskewed
_CLOCK_NS = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Survey:
    """What a first pass over a bag finds; nothing of images and scans but their stamps.

    Attributes:
        span: from the first to the last sensor message, by stamps.
        wheels: odometry with rising stamps.
        imu: in the axes of the base.
        stamps_ns: by camera and LiDAR, rising, corrected by the rig's offsets.
        rows: which of the sensor's messages each stamp belongs to.
        drops: messages left out, by reason (`DROPS`).
        ahead_ns: how far stamps run ahead of the bag's clock (median).
    """

    span: Span
    wheels: list[Odometry]
    imu: ImuSamples
    stamps_ns: Mapping[str, Stamps]
    rows: Mapping[str, NDArray[np.int64]]
    drops: Counter[str]
    ahead_ns: int


def survey(reader: BagReader, rig: Rig, topics: Mapping[str, str] | None = None, logged: Span | None = None) -> Survey:
    """Read the motion of a drive and the stamps of its images and scans.

    Args:
        topics: by sensor of the rig, `odometry` or `imu`, instead of the default ones.
        logged: only messages of these log times are read.

    Raises:
        RecordingError: a camera's topic is missing, the bag holds no odometry, or it is damaged.
    """
    found, imu_topic = _topics(reader, rig, topics)
    if not any(kind == "odometry" for _, kind in found.values()):
        raise RecordingError("no odometry", where=str(reader.path),
                             fix="Record wheel odometry, or name its topic with odometry=TOPIC.")
    wheels: list[Odometry] = []
    felt: list[NDArray[np.float64]] = []
    seen: dict[str, list[tuple[int, int]]] = {sensor: [] for sensor in (*(name for name, _ in found.values()), IMU)}
    drops: Counter[str] = Counter()
    for topic, log_ns, message in reader.messages([*found, *([imu_topic] if imu_topic else [])], **_log_times(logged)):
        sensor, kind = found.get(topic, (IMU, "imu"))
        try:
            if kind == "odometry":
                wheels.append(decode_odometry(message))
            elif kind == "imu":
                felt.append(_decode_imu(message))
        except BadMessage as error:
            drops[error.reason] += 1
            continue
        seen[sensor].append((stamp_ns(message.header), log_ns))
    offsets_s = {camera.name: camera.time_offset_s for camera in rig.cameras}
    offsets_s |= {lidar.name: lidar.time_offset_s for lidar in rig.lidars}
    offsets_s[IMU] = rig.imu.time_offset_s if rig.imu is not None else 0.0
    ahead_ns = int(np.median([stamp - log_ns for pairs in seen.values() for stamp, log_ns in pairs] or [0]))
    stamps, rows = {}, {}
    for sensor, pairs in seen.items():
        stamps[sensor], rows[sensor] = _rising(np.array(pairs, np.int64).reshape(-1, 2), drops)
        stamps[sensor] = stamps[sensor] + round(offsets_s.get(sensor, 0.0) * 1e9)
    [odometry] = [sensor for sensor, kind in found.values() if kind == "odometry"]
    values = np.array(felt).reshape(-1, 6)[rows[IMU]]
    imu = ImuSamples(stamps.pop(IMU), values[:, :3], values[:, 3:])  # none without an IMU in the rig
    ends = [end for each in stamps.values() if len(each) for end in (int(each[0]), int(each[-1]))]
    stamps.pop(odometry)
    return Survey(Span(min(ends, default=0), max(ends, default=0)), [wheels[row] for row in rows[odometry]],
                  imu.rotated(rig.imu.T_base_imu) if rig.imu is not None else imu, stamps, rows, drops, ahead_ns)


class Recording:
    """A bag for labelling. A context manager; opening it reads motion and stamps, not images and scans.

    Args:
        path: MCAP or sqlite3 bag.
        rig: its sensors; the first camera is the anchor of every frame.
        settings: what makes a scene.
        ego: what the filter of poses assumes.
        topics: by sensor of the rig, `odometry` or `imu`, instead of the default ones.
        logged: log times to which reading is confined, from `logged_around`: enough for `clip`.

    Raises:
        RecordingError: missing, damaged, without odometry, or without a camera of the rig.
    """

    def __init__(self, path: str | Path, rig: Rig, settings: ClipSettings | None = None, *,
                 ego: EgoSettings | None = None, topics: Mapping[str, str] | None = None,
                 logged: Span | None = None) -> None:
        self.path, self.rig, self._logged = Path(path), rig, logged
        self.name = self.path.stem if self.path.is_file() else self.path.name
        self._settings, self._ego, self._topics = settings or ClipSettings(), ego, dict(topics or {})
        self._reader = BagReader(path)
        try:
            self.survey = survey(self._reader, rig, topics, logged)
        except BaseException:
            self._reader.close()
            raise
        self.drops = self.survey.drops.copy()

    @cached_property
    def selection(self) -> Selection:
        """Scenes, and what is left out and why."""
        return select(self.survey.span, self.survey.wheels, self.survey.imu, self._settings)

    @property
    def scenes(self) -> dict[str, Span]:
        """Scenes by name, in order of time."""
        return {f"{self.name}-{k:04d}": span for k, span in enumerate(self.selection.scenes)}

    def ego(self, span: Span) -> EgoTrack:
        """Poses over a stretch of the drive, and a second around it; its world starts where the stretch does."""
        from_ns, to_ns = span.start_ns - _MARGIN_NS, span.end_ns + _MARGIN_NS
        wheels = [sample for sample in self.survey.wheels if from_ns <= sample.stamp_ns <= to_ns]
        return estimate_ego(wheels, self.survey.imu.between(from_ns, to_ns), np.eye(4), self._ego)

    def clips(self, names: Collection[str] | None = None) -> Iterator[Clip]:
        """The scenes of these names, or all, in one pass over the bag: at most a few are in memory at a time.

        Keyframes that cannot be used are left out and counted in `drops`; so are scenes without any.

        Raises:
            RecordingError: a part of the bag cannot be read.
        """
        yield from self._clips({name: span for name, span in self.scenes.items() if names is None or name in names})

    def clip(self, name: str, span: Span) -> Clip:
        """One scene that was found before, when the whole bag was open; without frames if none can be used."""
        return next(self._clips({name: span}), Clip(name=name, rig=self.rig, frames=[]))

    def logged_around(self, span: Span) -> Span:
        """Log times between which everything lies that a scene needs."""
        margin_ns = _MARGIN_NS + _CLOCK_NS
        return Span(span.start_ns - self.survey.ahead_ns - margin_ns, span.end_ns - self.survey.ahead_ns + margin_ns)

    def _clips(self, wanted: Mapping[str, Span]) -> Iterator[Clip]:
        waiting = [_Scene(name, span, self._keyframes(span)) for name, span in wanted.items()]
        takers: dict[tuple[str, int], list[_Scene]] = {}
        for scene in waiting:
            for key in scene.missing:
                takers.setdefault(key, []).append(scene)
        events = sensor_events(self._reader, self.rig, {k: v for k, v in self._topics.items() if k != IMU},
                               **_log_times(self._logged))
        counts: Counter[str] = Counter()
        for event in events if waiting else ():
            key = (event.sensor, counts[event.sensor])
            counts[event.sensor] += 1
            for scene in takers.pop(key, ()):
                scene.messages[key] = event.message
                scene.missing.discard(key)
                if not scene.missing:
                    clip = self._clip(scene)
                    scene.messages.clear()
                    if clip.frames:
                        yield clip
            if not takers:
                return

    def _keyframes(self, span: Span) -> list[dict[str, tuple[int, int]]]:
        """By keyframe and sensor (the anchor first): stamp, and row among the sensor's messages."""
        anchor = self.rig.cameras[0].name
        stamps, rows = self.survey.stamps_ns, self.survey.rows
        chosen = keyframe_rows(stamps[anchor], span, self._settings.keyframe_hz)
        wanted = stamps[anchor][chosen]
        found = {anchor: chosen}
        for camera in self.rig.cameras[1:]:
            found[camera.name] = nearest_rows(stamps[camera.name], wanted, self._settings.tolerance_s)
        for lidar in self.rig.lidars:
            if len(swept := stamps.get(lidar.name, np.zeros(0, np.int64))):
                # stamps are of first points: by its middle a scan is nearest to the picture of what moves
                half_ns = int(np.median(np.diff(swept))) // 2 if len(swept) > 1 else 0
                found[lidar.name] = nearest_rows(swept + half_ns, wanted, self._settings.lidar_age_s)
        return [{sensor: (int(stamps[sensor][at[k]]), int(rows[sensor][at[k]])) for sensor, at in found.items()
                 if at[k] >= 0} for k in range(len(chosen))]

    def _clip(self, scene: _Scene) -> Clip:
        poses = self.ego(scene.span).buffer()
        assembler = FrameAssembler(self.rig, poses)
        frames = []
        for keyframe in scene.keyframes:
            stamps = {sensor: stamp for sensor, (stamp, _) in keyframe.items()}
            payloads = {sensor: scene.messages[sensor, row] for sensor, (_, row) in keyframe.items()}
            try:
                frame = assembler.assemble(SyncedSet(next(iter(stamps.values())), payloads, stamps))
            except BadMessage as error:
                self.drops[error.reason] += 1
                continue
            if frame.T_odom_base is None:
                self.drops["no_pose"] += 1
                continue
            points, sensor = points_in_base(frame.clouds, self.rig)
            frames.append(LabelFrame(
                stamp_ns=frame.stamp_ns, images={name: image.pixels for name, image in frame.images.items()},
                points_m=points, point_sensor=sensor, T_world_base=frame.T_odom_base,
                sensor_m=np.array([lidar.T_base_lidar[:3, 3] for lidar in self.rig.lidars]).reshape(-1, 3),
                T_anchor_exposure=frame.T_anchor_exposure))
        self.drops.update(assembler.drops)
        if not frames:
            self.drops["no_frames"] += 1
        return Clip(name=scene.name, rig=self.rig, frames=frames)

    def close(self) -> None:
        """Release the files."""
        self._reader.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def deskew_errors(cloud: PointCloud, T_base_lidar: Array, at_ns: int, *, estimated: OdometryBuffer,
                  true: OdometryBuffer) -> tuple[Array, Array]:
    """How far each point is from where it belongs at `at_ns`: without deskewing, and deskewed by estimated poses.

    For drives whose true poses are known. Both [N], metres.

    Raises:
        BadMessage: `no_motion`, where poses do not reach over the scan.
    """
    right, deskewed = (deskew(cloud, poses, T_base_lidar, at_ns) for poses in (true, estimated))
    raw_m, deskewed_m = (np.linalg.norm(each.points_m.astype(float) - right.points_m, axis=1)
                         for each in (cloud, deskewed))
    return raw_m, deskewed_m


@dataclass(eq=False)
class _Scene:
    """A scene whose messages are being gathered. `missing`: (sensor, row) of those still to come."""

    name: str
    span: Span
    keyframes: list[dict[str, tuple[int, int]]]
    messages: dict[tuple[str, int], Any] = field(default_factory=dict)
    missing: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.missing = {(sensor, row) for keyframe in self.keyframes for sensor, (_, row) in keyframe.items()}


def _topics(reader: BagReader, rig: Rig, topics: Mapping[str, str] | None) -> tuple[dict[str, Any], str | None]:
    """Sensors by topic, and the topic of the IMU if there is one."""
    named = dict(topics or {})
    imu = None
    if rig.imu is not None:  # its axes are not known otherwise
        imu = named.pop(IMU, IMU_TOPIC if IMU_TOPIC in reader.topics else None)
        reader.require([imu] if imu else [])
    return sensor_topics(reader, rig, named), imu


def _log_times(logged: Span | None) -> dict[str, int]:
    return {} if logged is None else {"start_ns": logged.start_ns, "end_ns": logged.end_ns}


def _decode_imu(message: Any) -> Array:
    """Turn rate and force [6] of a sensor_msgs Imu."""
    values = np.array([getattr(vector, axis) for vector in (message.angular_velocity, message.linear_acceleration)
                       for axis in "xyz"], float)
    if not np.isfinite(values).all():
        raise BadMessage("bad_imu", f"{values.tolist()}", where="imu")
    return values


def _rising(pairs: NDArray[np.int64], drops: Counter[str]) -> tuple[Stamps, NDArray[np.int64]]:
    """Stamps that rise, and their rows, of (stamp, log time) [N, 2]; a stamp far off the clock spoils no later one."""
    stamps, log = pairs[:, 0], pairs[:, 1]
    ahead = stamps - log
    sane = np.abs(ahead - (int(np.median(ahead)) if len(ahead) else 0)) <= _CLOCK_NS
    rows = np.flatnonzero(sane)
    before = np.maximum.accumulate(np.concatenate([[-1], stamps[rows]]))[:-1]
    newer = stamps[rows] > before
    drops["bad_stamp"] += int((~sane).sum())
    drops["stamp_went_back"] += int((~newer).sum())
    return stamps[rows[newer]], rows[newer]


def points_in_base(clouds: Mapping[str, PointCloud], rig: Rig) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """All points of a frame in the base, float32 [P, 3], and which LiDAR of the rig measured each, uint8 [P]."""
    points, sensors = [np.zeros((0, 3), np.float32)], [np.zeros(0, np.uint8)]
    for row, lidar in enumerate(rig.lidars):
        if (cloud := clouds.get(lidar.name)) is not None:
            points.append(se3.apply(lidar.T_base_lidar, cloud.points_m).astype(np.float32))
            sensors.append(np.full(len(cloud.points_m), row, np.uint8))
    return np.concatenate(points), np.concatenate(sensors)
