"""Images and scans for judging and calibrating a rig: files whose n-th are one instant, or a bag."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage, RecordingError
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.clips import ClipSettings
from occ_perception.labeling.recording import Recording, points_in_base
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.recordings.clouds import decode_points
from occ_perception.recordings.create import instants
from occ_perception.recordings.frames import SensorEvent, sensor_events
from occ_perception.recordings.images import decode_image
from occ_perception.replay.rig_files import read_image
from occ_perception.types import PointCloud

Pair = tuple[NDArray[np.uint8], PointCloud]
"""An image, RGB [H, W, 3], and a scan in the LiDAR's frame."""

FILES_OR_BAG = "give both --images and --cloud, or else --bag"

_AT_REST_S = 1.0
"""Between pairs of a bag: a board is held still, and a second later somewhere else."""
_PAIRED_S = 0.2
_MOST_FRAMES = 40


def frames_of_files(rig: Rig, images: Mapping[str, Path], clouds: Mapping[str, Path]) -> list[LabelFrame]:
    """Instants at which robot and surroundings stood still; arguments as of `create_bag`, any sensors of the rig.

    Raises:
        RecordingError: files that are missing, unequal in number, unreadable, or of another size than the rig says.
    """
    files = instants(images, clouds)
    sensor_m = np.array([lidar.T_base_lidar[:3, 3] for lidar in rig.lidars]).reshape(-1, 3)
    frames = []
    for k in range(len(next(iter(files.values())))):
        points, sensor = points_in_base({name: read_cloud(files[name][k], name, k) for name in clouds}, rig)
        frames.append(LabelFrame(
            stamp_ns=k, images={name: read_image(files[name][k], rig.camera(name)) for name in images},
            points_m=points, point_sensor=sensor, sensor_m=sensor_m, T_world_base=np.eye(4)))
    return frames


def frames_of_drive(bag: Path, rig: Rig, topics: Mapping[str, str] | None = None) -> list[LabelFrame]:
    """Up to 40 keyframes of a drive, evenly spread, with deskewed scans.

    Raises:
        RecordingError: a bag that `Recording` refuses, or one without a scene.
    """
    settings = ClipSettings()
    with Recording(bag, rig, settings, topics=topics) as recording:
        seconds = sum(span.duration_s for span in recording.scenes.values())
        every = max(1, math.ceil(seconds * settings.keyframe_hz / _MOST_FRAMES))
        frames = [frame for clip in recording.clips() for frame in clip.frames[::every]]
        if not frames:
            left_out = recording.selection.dropped_s()
            raise RecordingError(f"no frame to be used: left out, in seconds, {left_out or 'nothing'}", where=str(bag),
                                 fix="Give a drive of some seconds; of a robot that stands, give files.")
    return frames


def pairs_of_files(rig: Rig, camera: str, images: Path, lidar: str, clouds: Path) -> list[Pair]:
    """The n-th image with the n-th scan; errors as of `frames_of_files`."""
    sensor, files = rig.camera(camera), instants({camera: images}, {lidar: clouds})
    return [(read_image(image, sensor), read_cloud(cloud, lidar, k))
            for k, (image, cloud) in enumerate(zip(files[camera], files[lidar]))]


def pairs_of_bag(bag: Path, rig: Rig, camera: str, lidar: str, topics: Mapping[str, str] | None = None) -> list[Pair]:
    """An image every second, each with the scan nearest to it, of a robot that stands.

    Raises:
        RecordingError: a bag without these two sensors, or without pairs.
    """
    both = rig.model_copy(update={"cameras": (rig.camera(camera),), "lidars": (rig.lidar(lidar),)})
    images: list[SensorEvent] = []
    scans: dict[int, SensorEvent] = {}  # by row of the image, the nearest so far
    with BagReader(bag) as reader:
        before: SensorEvent | None = None
        for event in sensor_events(reader, both, topics):
            if event.kind == "image" and (not images or event.stamp_ns - images[-1].stamp_ns >= _AT_REST_S * 1e9):
                images.append(event)
                if before is not None:
                    scans[len(images) - 1] = before
            elif event.kind == "cloud":
                before = event
                for row in range(max(0, len(images) - 2), len(images)):
                    now, best = images[row].stamp_ns, scans.get(row)
                    if best is None or abs(event.stamp_ns - now) < abs(best.stamp_ns - now):
                        scans[row] = event
    near = {row: scan for row, scan in scans.items() if abs(scan.stamp_ns - images[row].stamp_ns) <= _PAIRED_S * 1e9}
    pairs: list[Pair] = []
    bad = 0
    for row, scan in sorted(near.items()):
        try:
            pairs.append((decode_image(images[row].message), decode_points(scan.message, lidar)))
        except BadMessage:
            bad += 1
    if not pairs:
        raise RecordingError(f"no image of {camera} with a scan of {lidar} within {_PAIRED_S} s, {bad} bad ones",
                             where=str(bag), fix="Record both while the board is shown, on one clock.")
    return pairs


def only_lidar(rig: Rig) -> str:
    """Name of the one LiDAR of a rig; raises typer.BadParameter where there are others."""
    if len(rig.lidars) != 1:
        names = ", ".join(lidar.name for lidar in rig.lidars) or "none"
        raise typer.BadParameter(f"which one? The rig has: {names}", param_hint="--lidar")
    return rig.lidars[0].name


def named_topics(given: Sequence[str] | None) -> dict[str, str]:
    """`SENSOR=TOPIC` texts as a mapping."""
    pairs = [text.partition("=") for text in given or ()]
    if wrong := [sensor for sensor, separator, _ in pairs if not separator]:
        raise typer.BadParameter(f"{wrong[0]!r} is not SENSOR=TOPIC", param_hint="--topic")
    return {sensor: topic for sensor, _, topic in pairs}
