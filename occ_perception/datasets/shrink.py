"""A smaller copy of a split: smaller images, coarser voxels, the same format; for small networks and quick trials."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from occ_perception.calibration import Rig, save_rig
from occ_perception.datasets.files import new_file, new_folder
from occ_perception.datasets.images import ImageDataset
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.datasets.scene_folder import read_yaml, write_images, write_sample
from occ_perception.datasets.simulated import SimulatedDataset
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.geometry.lens import jit
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN
from occ_perception.types import FlowField

Size = tuple[int, int]
S = TypeVar("S", bound=ImageSample)
SHRINK_VERSION = 1
"""Of what becomes of a sample; to be raised with every change of it, since splits are known by it. 1 is not written."""


@jit
def _represent(labels: Any, fx: int, fy: int, fz: int, chosen: Any) -> None:
    votes, first = np.zeros(256, np.int64), np.zeros(256, np.int64)
    _, ny, nz = labels.shape
    for bx in range(chosen.shape[0]):
        for by in range(chosen.shape[1]):
            for bz in range(chosen.shape[2]):
                votes[:] = 0
                for x in range(bx * fx, bx * fx + fx):
                    for y in range(by * fy, by * fy + fy):
                        for z in range(bz * fz, bz * fz + fz):
                            label = labels[x, y, z]
                            if votes[label] == 0:
                                first[label] = (x * ny + y) * nz + z
                            votes[label] += 1
                winner = -1
                for label in range(1, OCCUPIED):
                    if votes[label] > 0 and (winner < 0 or votes[label] >= votes[winner]):
                        winner = label
                for label in (OCCUPIED, FREE, UNKNOWN):
                    if winner < 0 and votes[label] > 0:
                        winner = label
                chosen[bx, by, bz] = first[winner]


def representatives(labels: NDArray[np.uint8], factors: tuple[int, int, int]) -> NDArray[np.int64]:
    """For each block of `factors` voxels the flat (C order) index of the voxel that stands for it.

    A block is what most of its classified voxels are; ties go to the higher id, so that kerbs and gutters outlast the
    pavement beside them. Without a class it is occupied, else free, else unknown.

    Args:
        labels: uint8 [nx, ny, nz]; what fills no whole block at the upper ends is left out.
    """
    shape = tuple(n // f for n, f in zip(labels.shape, factors, strict=True))
    chosen = np.zeros(shape, np.int64)
    _represent(np.ascontiguousarray(labels), *factors, chosen)
    return chosen


def coarser(sample: Sample, cell_m: float) -> Sample:
    """The sample on a grid of `cell_m` cubes; a voxel is visible when any part of it is.

    The grid ends where the last whole cube does: 5 m are 12 cubes of 0.4 m.

    Raises:
        ConfigurationError: the cells are no whole number of the sample's.
    """
    spec = sample.spec
    factors = np.maximum(np.rint(cell_m / spec.cell).astype(int), 1)
    if not np.isclose(factors * spec.cell, cell_m).all():
        raise ConfigurationError([f"cells of {cell_m} m are not made of whole cells of {spec.cell.tolist()} m"],
                                 where="coarser grid")
    fx, fy, fz = (int(f) for f in factors)
    nx, ny, nz = (np.asarray(spec.shape) // factors).tolist()
    low = np.asarray(spec.minimum_m)
    high = low + np.array([nx, ny, nz]) * cell_m
    grid = VoxelGridSpec(spec.minimum_m, tuple(np.round(high, 6).tolist()), cell_m)
    chosen = representatives(sample.labels, (fx, fy, fz))
    whole = sample.visible[: nx * fx, : ny * fy, : nz * fz]
    visible = np.asarray(whole.reshape(nx, fx, ny, fy, nz, fz).any(axis=(1, 3, 5)))
    flow = None if sample.flow is None else _flow_at(sample.flow, chosen, grid)
    rows = None if sample.instance_rows is None else sample.instance_rows.ravel()[chosen]
    return replace(sample, spec=grid, labels=sample.labels.ravel()[chosen], visible=visible, instance_rows=rows,
                   flow=flow)


def _flow_at(flow: FlowField, chosen: NDArray[np.int64], grid: VoxelGridSpec) -> FlowField:
    row_of = np.full(flow.spec.size, -1, np.int64)
    row_of[np.ravel_multi_index(tuple(flow.cells.T), flow.spec.shape)] = np.arange(len(flow.cells))
    rows = row_of[chosen]
    cells = np.argwhere(rows >= 0)
    kept = rows[rows >= 0]
    return FlowField(grid, flow.stamp_ns, cells, flow.velocity_mps[kept], flow.confidence[kept])


def smaller_images(sample: S, rig: Rig) -> S:
    """The sample as the cameras of `rig` (the same ones, of another size) would have taken it.

    LiDAR points that no camera sees are left out.
    """
    images, semantics, range_m = {}, {}, {}
    for camera in rig.cameras:
        size = camera.width, camera.height
        images[camera.name] = np.asarray(cv2.resize(sample.images[camera.name], size, interpolation=cv2.INTER_AREA),
                                         np.uint8)
        semantics[camera.name] = _nearest(sample.semantics[camera.name], size)
        if isinstance(sample, Sample) and camera.name in sample.range_m:
            range_m[camera.name] = _nearest(sample.range_m[camera.name], size)
    if isinstance(sample, Sample):
        points_m = None if sample.points_m is None else sample.points_m[in_view(sample.points_m, rig)]
        return replace(sample, rig=rig, images=images, semantics=semantics, range_m=range_m, points_m=points_m)
    return replace(sample, rig=rig, images=images, semantics=semantics)


def in_view(points_m: NDArray[np.float32], rig: Rig) -> NDArray[np.bool_]:
    """Which points [P, 3] of the base frame some camera sees, bool [P]."""
    seen = np.zeros(len(points_m), np.bool_)
    for camera in rig.cameras:
        seen |= camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), points_m))[1]
    return seen


def _nearest(image: NDArray[Any], size: Size) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST_EXACT))


def shrink(root: Path, split: str, target: Path, image_size: Size, cell_m: float | None = None, *,
           limit: int | None = None, console: Console | None = None) -> Path:
    """Write a smaller copy of a split to `target/<split>`; scenes that are there already are kept.

    Args:
        root: folder that holds the split.
        image_size: (height, width) of the images, whatever the camera.
        cell_m: edge of the voxels; by default as they are.
        limit: at most so many frames (whole scenes, the first ones).

    Raises:
        DatasetError: no such split, `target` holds scenes of another size, or the disk is full.
        ConfigurationError: `cell_m` does not fit the grid.
    """
    about = read_yaml(Path(root) / split / "split.yaml") if (Path(root) / split / "split.yaml").is_file() else {}
    images_only = bool(about.get("images_only", False))
    source = ImageDataset(root, split) if images_only else SimulatedDataset(root, split)
    folder = Path(target) / split
    recipe: dict[str, Any] = {"of": source.content_hash, "image_size": list(image_size), "cell_m": cell_m}
    if SHRINK_VERSION > 1:
        recipe["shrink"] = SHRINK_VERSION
    scenes: list[dict[str, Any]] = []
    first = 0
    for name, frames in track(source.scenes, f"{split}: smaller", console=console or Console()):
        if limit is not None and first >= limit:
            break
        _shrink_scene(source, range(first, first + frames), folder / name, recipe, image_size, cell_m)
        scenes.append({"name": name, "frames": frames})
        first += frames
    digest = hashlib.sha256(f"{recipe} {scenes}".encode()).hexdigest()
    with new_file(folder / "split.yaml") as beside:
        beside.write_text(yaml.safe_dump({**about, "content_hash": digest, "frames": first, "smaller": recipe,
                                          "scenes": scenes}, sort_keys=False))
    return folder


def _shrink_scene(source: ImageDataset | SimulatedDataset, indices: range, folder: Path, recipe: dict[str, Any],
                  image_size: Size, cell_m: float | None) -> None:
    if (folder / "scene.yaml").is_file():
        if read_yaml(folder / "scene.yaml").get("smaller") != recipe:
            raise DatasetError("holds a scene of another size or of other data", where=str(folder),
                               fix="Remove the folder or choose another target")
        return
    with new_folder(folder) as beside:
        rig: Rig | None = None
        for index in indices:
            sample = source[index]
            rig = rig or _smaller_rig(sample.rig, image_size, beside)
            smaller = smaller_images(sample, rig)
            if isinstance(smaller, Sample):
                write_sample(beside, smaller if cell_m is None else coarser(smaller, cell_m))
            else:
                write_images(beside, smaller)
        about = read_yaml(source.frames[indices[0]][0] / "scene.yaml")
        (beside / "scene.yaml").write_text(yaml.safe_dump({**about, "smaller": recipe}, sort_keys=False))


def _smaller_rig(rig: Rig, image_size: Size, folder: Path) -> Rig:
    """The rig of the smaller images, written to `folder` with its masks."""
    cameras = []
    for camera in rig.cameras:
        mask = None
        if camera.mask is not None:
            mask = str(folder / f"{camera.name}_mask.png")
            cv2.imwrite(mask, _nearest(np.asarray(cv2.imread(camera.mask, cv2.IMREAD_GRAYSCALE)), image_size[::-1]))
        cameras.append(camera.resized(*image_size, mask))
    smaller = rig.model_copy(update={"cameras": tuple(cameras)})
    named = [c if c.mask is None else c.model_copy(update={"mask": Path(c.mask).name}) for c in cameras]
    save_rig(rig.model_copy(update={"cameras": tuple(named)}), folder / "rig.yaml")
    return smaller
