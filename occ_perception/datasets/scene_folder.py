"""A scene on disk: `scene.yaml`, `rig.yaml`, and per frame JPEG images, PNG truth and one compressed array file.

    000_front.jpg            image
    000_front_classes.png    uint8 classes
    000_front_range.png      uint16 range in millimetres, 0 no return, 65535 this far or farther
    000.npz                  labels, visibility, LiDAR points, instances, flow, poses, waypoints

A scene of images alone has only the first two per camera; `scene.yaml` then lists the `tilts` of the base.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from occ_perception.calibration import Rig, RigCamera
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import OCCLUSION, SIDEWALK
from occ_perception.types import FlowField

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_FARTHEST_MM = 65535
_FARTHEST_POINT_M = 32.0
_ARRAYS = ("stamp_ns", "grid", "labels", "visible", "points_mm", "instance_cells", "instance_rows", "track_ids",
           "flow_cells", "flow_mps", "T_grid_base", "T_world_grid", "waypoints_m")


def write_images(folder: Path, sample: ImageSample) -> None:
    """Writes the images of one frame and their classes into an existing folder."""
    for camera, image in sample.images.items():
        stem = f"{sample.index:03d}_{camera}"
        _write_image(folder / f"{stem}.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)
        _write_image(folder / f"{stem}_classes.png", sample.semantics[camera], _PNG)


def write_sample(folder: Path, sample: Sample) -> None:
    """Writes the files of one frame into an existing folder. LiDAR points from 32 m on are left out."""
    write_images(folder, sample)
    stem = f"{sample.index:03d}"
    for camera, range_m in sample.range_m.items():
        millimetres = np.minimum(range_m * 1000.0 + 0.5, _FARTHEST_MM).astype(np.uint16)
        _write_image(folder / f"{stem}_{camera}_range.png", millimetres, _PNG)
    points = np.zeros((0, 3), np.float32) if sample.points_m is None else sample.points_m
    near = points[(np.abs(points) < _FARTHEST_POINT_M).all(1)]
    spec = sample.spec
    rows = np.zeros(spec.shape, np.uint16) if sample.instance_rows is None else sample.instance_rows
    cells = np.flatnonzero(rows).astype(np.int32)
    empty = FlowField(spec, 0, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    flow = sample.flow or empty
    np.savez_compressed(
        folder / f"{stem}.npz", stamp_ns=np.int64(sample.stamp_ns),
        grid=np.array([spec.minimum_m, spec.maximum_m, spec.cell]), labels=sample.labels,
        visible=np.packbits(sample.visible), points_mm=np.rint(near * 1000.0).astype(np.int16), instance_cells=cells,
        instance_rows=rows.ravel()[cells], track_ids=sample.track_ids,
        flow_cells=flow.cells.astype(np.int16), flow_mps=flow.velocity_mps,
        T_grid_base=sample.T_grid_base, T_world_grid=sample.T_world_grid,
        waypoints_m=np.zeros((0, 2), np.float32) if sample.waypoints_m is None else sample.waypoints_m)


def read_sample(folder: Path, index: int, rig: Rig) -> Sample:
    """The frame `index` of the scene in `folder`. Raises DatasetError that names the file."""
    path = folder / f"{index:03d}.npz"
    arrays = _read_arrays(path)
    low, high, cell = arrays["grid"].tolist()
    spec = VoxelGridSpec(tuple(low), tuple(high), tuple(cell))
    images, semantics = read_images(folder, index, rig.cameras)
    range_m: dict[str, NDArray[np.float32]] = {}
    for camera in rig.cameras:
        size = camera.height, camera.width
        millimetres = _read_image(folder / f"{index:03d}_{camera.name}_range.png", size, np.uint16)
        range_m[camera.name] = millimetres.astype(np.float32) * np.float32(1e-3)
    try:
        rows = np.zeros(spec.size, np.uint16)
        rows[arrays["instance_cells"]] = arrays["instance_rows"]
        stamp_ns, flow_mps = int(arrays["stamp_ns"]), arrays["flow_mps"]
        return Sample(
            scene=folder.name, index=index, stamp_ns=stamp_ns, rig=rig, images=images, semantics=semantics,
            T_grid_base=arrays["T_grid_base"], spec=spec, T_world_grid=arrays["T_world_grid"],
            labels=arrays["labels"],
            visible=np.unpackbits(arrays["visible"], count=spec.size).astype(np.bool_).reshape(spec.shape),
            range_m=range_m,
            points_m=np.divide(points, 1000.0, dtype=np.float32) if len(points := arrays["points_mm"]) else None,
            waypoints_m=arrays["waypoints_m"] if len(arrays["waypoints_m"]) else None,
            instance_rows=rows.reshape(spec.shape), track_ids=arrays["track_ids"],
            flow=FlowField(spec, stamp_ns, arrays["flow_cells"].astype(np.int64), flow_mps,
                           np.ones(len(flow_mps), np.float32)))
    except (ValueError, IndexError) as error:
        raise DatasetError(f"its arrays do not fit each other: {error}", where=str(path),
                           fix="Remove the scene's folder and generate the split again") from error


def read_image_sample(folder: Path, index: int, rig: Rig, tilt_rad: tuple[float, float]) -> ImageSample:
    """The frame `index` of a scene of images alone; `tilt_rad` is roll and pitch of the base.

    Raises:
        DatasetError: a file is absent or broken, or an image carries a class that the taxonomy does not have.
    """
    images, semantics = read_images(folder, index, rig.cameras)
    return ImageSample(scene=folder.name, index=index, stamp_ns=index, rig=rig, images=images, semantics=semantics,
                       T_grid_base=se3.from_euler(*tilt_rad, 0.0))


def read_images(folder: Path, index: int, cameras: Iterable[RigCamera]
                ) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]:
    """Images and classes by camera of the frame `index`; errors as of `read_image_sample`."""
    images: dict[str, NDArray[np.uint8]] = {}
    semantics: dict[str, NDArray[np.uint8]] = {}
    for camera in cameras:
        size, stem = (camera.height, camera.width), f"{index:03d}_{camera.name}"
        bgr = _read_image(folder / f"{stem}.jpg", (*size, 3), np.uint8)
        images[camera.name] = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        classes = _read_image(folder / f"{stem}_classes.png", size, np.uint8)
        if classes.max() > OCCLUSION:
            foreign = np.unique(classes[classes > OCCLUSION]).tolist()
            raise DatasetError(f"has the classes {foreign}; {SIDEWALK.name} has 0..{OCCLUSION} in images",
                               where=str(folder / f"{stem}_classes.png"),
                               fix="Map the labels to the taxonomy's classes first")
        semantics[camera.name] = classes
    return images, semantics


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises DatasetError that names the file."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise DatasetError(f"must hold a mapping, got {type(content).__name__}", where=str(path))
    return content


def require_sidewalk(taxonomy: str, path: Path) -> None:
    """DatasetError that names the file unless its labels are the sidewalk classes."""
    if taxonomy != SIDEWALK.name:
        raise DatasetError(f"its labels are of the taxonomy {taxonomy!r}, not {SIDEWALK.name!r}", where=str(path),
                           fix="Map the labels to the sidewalk classes first")


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in _ARRAYS if name not in stored.files]
            if not missing:
                return {name: stored[name] for name in _ARRAYS}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path),
                           fix="Remove the scene's folder and generate the split again") from error
    raise DatasetError(f"lacks the arrays {', '.join(missing)}", where=str(path))


def _write_image(path: Path, image: NDArray[Any], options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise DatasetError("cannot be written", where=str(path), fix="Is the disk full?")


def _read_image(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    content = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    # OpenCV decodes a JPEG that was cut off to what there is and grey: only its end marker tells
    whole = len(content) > 2 and (path.suffix != ".jpg" or content[-2:].tobytes() == b"\xff\xd9")
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if whole else None
    if image is None or image.shape != shape or image.dtype != dtype:
        got = "no readable image" if image is None else f"{image.dtype} {image.shape}"
        raise DatasetError(f"must be an image {np.dtype(dtype).name} {shape}, got {got}", where=str(path),
                           fix="Remove the scene's folder and generate the split again")
    return image
