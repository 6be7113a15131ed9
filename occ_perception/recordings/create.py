"""Bags from files: images and clouds of a rig become a recording that nodes and replay read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from occ_perception.calibration import Rig
from occ_perception.errors import BadMessage, RecordingError
from occ_perception.recordings import cloud_files, frames
from occ_perception.recordings.bag import BagReader, BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.images import decode_image
from occ_perception.recordings.messages import make

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def create_bag(
    output: str | Path,
    rig: Rig,
    images: Mapping[str, str | Path],
    clouds: Mapping[str, str | Path] | None = None,
    *,
    rate_hz: float = 10.0,
    start_ns: int = 1_000_000_000,
    repeat: int = 1,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write a bag from one file, or one folder of files in the order of their names, per sensor.

    The n-th files of all sensors belong to one instant, `n / rate_hz` after the start. Image files go in
    as they are, after a look whether they decode to the rig's size. Without odometry in it, the bag tells of a
    robot that stands level.

    Args:
        output: folder, or .mcap file.
        images: file or folder by camera; every camera of the rig.
        clouds: file or folder by LiDAR (.npz, .npy, .pcd, .bin), any of the rig's.
        start_ns: stamp of the first instant.
        repeat: how often the series is told; its files then stand for a robot that looks again.
        overwrite: replace an existing bag.

    Returns:
        Number of messages by topic.

    Raises:
        RecordingError: sensors or files that do not fit the rig or each other; nothing is written then.
    """
    if rate_hz <= 0 or repeat < 1:
        raise RecordingError(f"rate_hz must be positive and repeat at least 1, got {rate_hz} and {repeat}")
    clouds = dict(clouds or {})
    _check_names("camera", {camera.name for camera in rig.cameras}, set(images), complete=True)
    _check_names("LiDAR", {lidar.name for lidar in rig.lidars}, set(clouds), complete=False)
    files = instants(images, clouds)
    counts = {name: len(paths) for name, paths in files.items()}
    encoder = MessageEncoder(make, base_frame=rig.base_frame, odom_frame=rig.odom_frame)
    with BagWriter(output, overwrite=overwrite) as bag:
        bag.write(frames.STATIC_TRANSFORMS_TOPIC, start_ns, encoder.static_transforms(rig, start_ns))
        for instant in range(repeat * next(iter(counts.values()))):
            stamp_ns = start_ns + round(instant * 1e9 / rate_hz)
            for camera in rig.cameras:
                path = files[camera.name][instant % counts[camera.name]]
                bag.write(frames.camera_info_topic(camera.name), stamp_ns, encoder.camera_info(camera, stamp_ns))
                bag.write(frames.compressed_image_topic(camera.name), stamp_ns,
                          _image_message(encoder, path, (camera.width, camera.height), stamp_ns, camera.frame))
            for lidar in rig.lidars:
                if lidar.name in clouds:
                    path = files[lidar.name][instant % counts[lidar.name]]
                    cloud = cloud_files.read_cloud(path, lidar.name, stamp_ns)
                    bag.write(frames.points_topic(lidar.name), stamp_ns, encoder.point_cloud(cloud, frame=lidar.frame))
    with BagReader(output) as written:
        return written.counts


def instants(images: Mapping[str, str | Path], clouds: Mapping[str, str | Path]) -> dict[str, list[Path]]:
    """The files of every sensor from one file or folder each; the n-th of all belong to one instant.

    Raises:
        RecordingError: a sensor without a file, or sensors with different numbers of them.
    """
    files = {name: _series(path, IMAGE_SUFFIXES) for name, path in images.items()}
    files |= {name: _series(path, cloud_files.SUFFIXES) for name, path in clouds.items()}
    if len({len(paths) for paths in files.values()}) > 1:
        listed = ", ".join(f"{name} {len(paths)}" for name, paths in files.items())
        raise RecordingError(f"the sensors have different numbers of files: {listed}",
                             fix="The n-th files of all sensors belong to one instant; remove what has no counterpart.")
    return files


def _check_names(kind: str, there: set[str], given: set[str], *, complete: bool) -> None:
    foreign, missing = sorted(given - there), sorted(there - given) if complete else []
    if foreign or missing:
        faults = [f"the rig has no {kind} {name}" for name in foreign] + [f"no files for {kind} {n}" for n in missing]
        raise RecordingError("; ".join(faults), fix=f"The rig's: {', '.join(sorted(there)) or 'none'}.")


def _series(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file, or the files of a folder in the order of their names; raises RecordingError where there is none."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.suffix.lower() in suffixes)
    if not files:
        raise RecordingError(f"no file ending in {', '.join(suffixes)}", where=str(path), fix="Check the path.")
    return files


def _image_message(encoder: MessageEncoder, path: Path, size: tuple[int, int], stamp_ns: int, frame: str) -> Any:
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    message = encoder.make(
        "sensor_msgs/msg/CompressedImage", header=encoder.header(stamp_ns, frame),
        format=f"rgb8; {kind} compressed bgr8", data=np.fromfile(path, np.uint8),
    )
    try:
        height, width, _ = decode_image(message).shape
    except BadMessage as error:
        raise RecordingError(error.what, where=str(path)) from error
    if (width, height) != size:
        raise RecordingError(f"{width}x{height} pixels, the rig says {size[0]}x{size[1]}", where=str(path),
                             fix="Give the images as the camera made them, or correct the rig.")
    return message
