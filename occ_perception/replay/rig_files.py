"""Rigs checked against pictures and clouds, and rigs made from other calibration files. Behind `occ-perception rig`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.table import Table

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.calibration.formats import from_camera_info, from_kalibr, from_kitti, from_nuscenes
from occ_perception.errors import CalibrationError, RecordingError
from occ_perception.geometry import se3
from occ_perception.geometry.grid import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.recordings.cloud_files import read_cloud
from occ_perception.replay import overlay
from occ_perception.replay.pictures import write_picture

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def files_by_sensor(given: Sequence[str] | None, sensors: Sequence[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """Which file or folder belongs to which sensor.

    Args:
        given: `NAME=PATH` pairs; or a folder that holds one file (or folder) per sensor, named after it; or one plain
            file where there is only one sensor.
        sensors: names of the rig's sensors of this kind.
        suffixes: endings of fitting files.

    Raises:
        RecordingError: a sensor that the rig lacks, a file that is not there, or a path that names no sensor.
    """
    found: dict[str, Path] = {}
    for text in given or ():
        name, separator, rest = text.partition("=")
        path = Path(rest if separator else text)
        if not path.exists():
            raise RecordingError("does not exist", where=str(path), fix="Give NAME=PATH, a folder, or a file.")
        if separator:
            found[name] = path
        elif path.is_dir():
            inside = {p.stem.lower(): p for p in sorted(path.iterdir()) if p.is_dir() or p.suffix.lower() in suffixes}
            found |= {sensor: inside[sensor.lower()] for sensor in sensors if sensor.lower() in inside}
        elif len(sensors) == 1:
            found[sensors[0]] = path
        else:
            raise RecordingError("belongs to which sensor?", where=str(path), fix=f"Give {'|'.join(sensors)}={path}.")
    if foreign := sorted(found.keys() - set(sensors)):
        raise RecordingError(f"the rig has no {', '.join(foreign)}", fix=f"It has: {', '.join(sensors) or 'none'}.")
    return found


def check_pictures(rig: Rig, images: Mapping[str, Path], clouds: Mapping[str, Path],
                   spec: VoxelGridSpec = SIDEWALK_GRID) -> dict[str, tuple[NDArray[np.uint8], int]]:
    """By camera: its image with LiDAR points coloured by range and the grid's ground, and the points drawn.

    Raises:
        RecordingError: an image that cannot be read or is not of the rig's size.
    """
    scans = [(rig.lidar(name), read_cloud(path, name, 0)) for name, path in clouds.items()]
    drawn = {}
    for name, path in images.items():
        camera = rig.camera(name)
        picture = read_image(path, camera)
        points = 0
        mounted = camera.mounted()
        for lidar, cloud in scans:
            picture = overlay.draw_cloud(picture, mounted, cloud, lidar.T_base_lidar)
            in_camera = se3.apply(se3.invert(camera.T_base_camera) @ lidar.T_base_lidar, cloud.points_m)
            points += int(mounted.camera.project(in_camera)[1].sum())
        drawn[name] = overlay.draw_ground(picture, mounted, spec), points
    return drawn


def read_image(path: Path, camera: RigCamera) -> NDArray[np.uint8]:
    """RGB pixels [H, W, 3] of an image file; raises RecordingError unless it is an image of the camera's size."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise RecordingError("cannot be read as an image", where=str(path))
    if image.shape[:2] != (camera.height, camera.width):
        size = f"{image.shape[1]}x{image.shape[0]} pixels, the rig says {camera.width}x{camera.height}"
        raise RecordingError(size, where=str(path), fix="Give the image as the camera made it, or correct the rig.")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)


def save_pictures(pictures: Mapping[str, tuple[NDArray[np.uint8], int]], folder: Path) -> None:
    """Write what `check_pictures` gave as CAMERA.png into `folder`."""
    for name, (picture, _) in pictures.items():
        write_picture(picture, folder / f"{name}.png")


def rig_table(rig: Rig, pictures: Mapping[str, tuple[NDArray[np.uint8], int]]) -> Table:
    """Where the cameras of a rig sit and look, and how many LiDAR points each one sees."""
    table = Table(title=f"rig {rig.name}: {len(rig.cameras)} cameras, {len(rig.lidars)} LiDARs")
    for column in ("camera", "model", "size", "height", "yaw", "pitch", "field", "points"):
        table.add_column(column, justify="left" if column in ("camera", "model") else "right")
    for camera in rig.cameras:
        place = mounting(camera)
        angles = (f"{place[name]:.1f}°" for name in ("yaw_deg", "pitch_deg", "field_deg"))
        points = str(pictures[camera.name][1]) if camera.name in pictures else ""
        size, height = f"{camera.width}x{camera.height}", f"{place['height_m']:.2f} m"
        table.add_row(camera.name, camera.model, size, height, *angles, points)
    return table


def mounting(camera: RigCamera) -> dict[str, float]:
    """Height (m), yaw and pitch (degrees, up is positive) and widest field of view (degrees) of a camera."""
    forward = camera.T_base_camera[:3, 2]
    return {
        "height_m": float(camera.T_base_camera[2, 3]),
        "yaw_deg": math.degrees(math.atan2(forward[1], forward[0])),
        "pitch_deg": math.degrees(math.asin(float(np.clip(forward[2], -1, 1)))),
        "field_deg": 2 * math.degrees(camera.camera.max_theta_rad),
    }


def parse_pose(text: str, *, optical: bool) -> NDArray[np.float64]:
    """T_base_sensor from `x,y,z,roll,pitch,yaw` in metres and degrees (fixed axes; pitch down is positive, REP-103).

    The angles are those of a body frame (x forward, y left, z up); with `optical` the result maps a camera's optical
    frame.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6 or not np.isfinite(numbers).all():
        raise CalibrationError([f"a pose is x,y,z,roll,pitch,yaw (metres, degrees), got {text!r}"])
    roll, pitch, yaw = np.radians(numbers[3:]).tolist()
    T = se3.from_euler(roll, pitch, yaw, numbers[:3])
    return se3.make(T[:3, :3] @ se3.OPTICAL_IN_BODY, T[:3, 3]) if optical else T


def convert(kind: str, sources: Mapping[str, Path], poses: Mapping[str, str], name: str,
            image_size: tuple[int, int] | None = None) -> Rig:
    """A rig from calibration files of other tools.

    Args:
        kind: `camera_info` (a YAML per camera), `kalibr` (camchain.yaml), `kitti` (calibration text) or `nuscenes`
            (JSON list of calibrated_sensor records joined with channel, width and height).
        sources: file by sensor name; kinds that hold all sensors in one file take a single one.
        poses: pose on the base by sensor name, see `parse_pose`: every camera for camera_info, cam0 for kalibr, the
            LiDAR (`velodyne`) for kitti.
        name: of the rig.
        image_size: (height, width) of the images, for kitti.

    Raises:
        CalibrationError: a missing pose or file, or content that does not fit.
    """
    cameras: tuple[RigCamera, ...]
    lidars: tuple[RigLidar, ...] = ()
    path = next(iter(sources.values()))
    if kind == "camera_info":
        cameras = tuple(from_camera_info(_yaml(file), sensor, _pose(poses, sensor, optical=True))
                        for sensor, file in sources.items())
    elif kind == "kalibr":
        cameras = from_kalibr(_yaml(path), _pose(poses, "cam0", optical=True))
    elif kind == "kitti":
        if image_size is None:
            raise CalibrationError(["KITTI's file does not tell the size of the images"], where=str(path),
                                   fix="Give it with --size HEIGHTxWIDTH.")
        cameras, lidar = from_kitti(_kitti_numbers(path), image_size, _pose(poses, "velodyne", optical=False))
        lidars = (lidar,)
    elif kind == "nuscenes":
        cameras, lidars = from_nuscenes(_json_records(path))
    else:
        raise CalibrationError([f"unknown kind of calibration {kind!r}"],
                               fix="Known: camera_info, kalibr, kitti, nuscenes.")
    return Rig(name=name, cameras=cameras, lidars=lidars)


def _pose(poses: Mapping[str, str], sensor: str, *, optical: bool) -> NDArray[np.float64]:
    if sensor not in poses:
        raise CalibrationError([f"the pose of {sensor} on the base is not given"],
                               fix=f"Give --pose {sensor}=x,y,z,roll,pitch,yaw (metres, degrees).")
    return parse_pose(poses[sensor], optical=optical)


def _yaml(path: Path) -> Any:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError([f"cannot be read as YAML: {error}"], where=str(path)) from None
    if not isinstance(content, dict):
        raise CalibrationError(["is no mapping"], where=str(path))
    return content


def _json_records(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError([f"cannot be read as JSON: {error}"], where=str(path)) from None
    if not isinstance(content, list):
        raise CalibrationError(["is no list of sensor records"], where=str(path))
    return content


def _kitti_numbers(path: Path) -> dict[str, list[float]]:
    try:
        lines = [line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line]
        return {key.strip(): [float(number) for number in numbers.split()] for key, numbers in lines}
    except (OSError, ValueError) as error:
        raise CalibrationError([f"cannot be read as KITTI calibration: {error}"], where=str(path)) from None
