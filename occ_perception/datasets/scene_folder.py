"""A scene on disk: `scene.yaml`, `rig.yaml`, and per frame JPEG images, PNG truth and one compressed array file.

    000_front.jpg            image
    000_front_classes.png    uint8 classes
    000_front_range.png      uint16 range in millimetres, 0 no return, 65535 this far or farther
    000.npz                  labels, visibility, instances, flow, poses, waypoints
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.datasets.sample import Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.types import FlowField

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
_FARTHEST_MM = 65535
_ARRAYS = ("stamp_ns", "grid", "labels", "visible", "instance_cells", "instance_rows", "track_ids", "flow_cells",
           "flow_mps", "T_grid_base", "T_world_grid", "waypoints_m")


def write_sample(folder: Path, sample: Sample) -> None:
    """Writes the files of one frame into an existing folder."""
    stem = f"{sample.index:03d}"
    for camera, image in sample.images.items():
        _write_image(folder / f"{stem}_{camera}.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)
        _write_image(folder / f"{stem}_{camera}_classes.png", sample.semantics[camera], _PNG)
        millimetres = np.minimum(sample.range_m[camera] * 1000.0 + 0.5, _FARTHEST_MM).astype(np.uint16)
        _write_image(folder / f"{stem}_{camera}_range.png", millimetres, _PNG)
    spec = sample.spec
    rows = np.zeros(spec.shape, np.uint16) if sample.instance_rows is None else sample.instance_rows
    cells = np.flatnonzero(rows).astype(np.int32)
    empty = FlowField(spec, 0, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    flow = sample.flow or empty
    np.savez_compressed(
        folder / f"{stem}.npz", stamp_ns=np.int64(sample.stamp_ns),
        grid=np.array([spec.minimum_m, spec.maximum_m, spec.cell]), labels=sample.labels,
        visible=np.packbits(sample.visible), instance_cells=cells, instance_rows=rows.ravel()[cells],
        track_ids=sample.track_ids, flow_cells=flow.cells.astype(np.int16), flow_mps=flow.velocity_mps,
        T_grid_base=sample.T_grid_base, T_world_grid=sample.T_world_grid,
        waypoints_m=np.zeros((0, 2), np.float32) if sample.waypoints_m is None else sample.waypoints_m)


def read_sample(folder: Path, index: int, rig: Rig) -> Sample:
    """The frame `index` of the scene in `folder`. Raises DatasetError that names the file."""
    stem = f"{index:03d}"
    arrays = _read_arrays(folder / f"{stem}.npz")
    low, high, cell = arrays["grid"].tolist()
    spec = VoxelGridSpec(tuple(low), tuple(high), tuple(cell))
    images: dict[str, NDArray[np.uint8]] = {}
    semantics: dict[str, NDArray[np.uint8]] = {}
    range_m: dict[str, NDArray[np.float32]] = {}
    for camera in rig.cameras:
        size = camera.height, camera.width
        bgr = _read_image(folder / f"{stem}_{camera.name}.jpg", (*size, 3), np.uint8)
        images[camera.name] = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        semantics[camera.name] = _read_image(folder / f"{stem}_{camera.name}_classes.png", size, np.uint8)
        millimetres = _read_image(folder / f"{stem}_{camera.name}_range.png", size, np.uint16)
        range_m[camera.name] = millimetres.astype(np.float32) * np.float32(1e-3)
    try:
        rows = np.zeros(spec.size, np.uint16)
        rows[arrays["instance_cells"]] = arrays["instance_rows"]
        flow_mps = arrays["flow_mps"]
        return Sample(
            folder.name, index, int(arrays["stamp_ns"]), rig, spec, images, arrays["T_grid_base"],
            arrays["T_world_grid"], arrays["labels"],
            np.unpackbits(arrays["visible"], count=spec.size).astype(np.bool_).reshape(spec.shape), semantics, range_m,
            arrays["waypoints_m"] if len(arrays["waypoints_m"]) else None, rows.reshape(spec.shape),
            arrays["track_ids"], FlowField(spec, int(arrays["stamp_ns"]), arrays["flow_cells"].astype(np.int64),
                                           flow_mps, np.ones(len(flow_mps), np.float32)))
    except (ValueError, IndexError) as error:
        raise DatasetError(f"its arrays do not fit each other: {error}", where=str(folder / f"{stem}.npz"),
                           fix="Remove the scene's folder and generate the split again") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises DatasetError that names the file."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise DatasetError(f"must hold a mapping, got {type(content).__name__}", where=str(path))
    return content


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
