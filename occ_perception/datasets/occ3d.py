"""What the voxel truths over Occ3D's grid share: their npz files, who saw a cell, and which boxes own which cells."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, UNKNOWN

VisibleFrom = Literal["camera", "lidar"]
"""Whose mask says which cells are visible: scores on Occ3D and TrackOcc are made on those of the cameras."""
TOUCHING_M = 0.4
"""A cell whose centre lies no farther outside a box still belongs to it (as in SparseOcc's panoptic Occ3D)."""


def require_source(visible_from: str, where: str) -> None:
    """Raises ConfigurationError unless it is `camera` or `lidar`."""
    if visible_from not in ("camera", "lidar"):
        raise ConfigurationError([f"visible_from must be camera or lidar, got {visible_from!r}"], where=where)


def read_voxels(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays [200, 200, 16, ...] of an npz file by name.

    Raises:
        DatasetError: the file cannot be read, lacks an array, or an array is of another grid.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in names if name not in stored.files]
            arrays = {name: stored[name] for name in names if name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path),
                           fix="Unpack it from its archive again") from error
    if missing:
        raise DatasetError(f"lacks the arrays {', '.join(missing)}", where=str(path),
                           fix="Is this file of the data set's published version?")
    for name, array in arrays.items():
        if array.shape[:3] != ROAD_GRID.shape:
            raise DatasetError(f"{name} must be {ROAD_GRID.shape}, got {array.shape}", where=str(path),
                               fix="Take the files with cells of 0.4 m")
    return arrays


def unobserved(labels: NDArray[np.uint8], *masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Labels with 255 where free space is claimed that no mask observed: the files say free there for lack of points.

    Occupied cells stay: they were hit in another scan of the scene.
    """
    return np.where((labels == FREE) & ~np.logical_or.reduce(masks), np.uint8(UNKNOWN), labels)


@dataclass(frozen=True)
class Box:
    """An annotated thing: `label` in the data set's taxonomy, `T_grid_object` [4, 4] of its centre, `size_m` [3]."""

    track_id: int
    label: int
    T_grid_object: NDArray[np.float64]
    size_m: NDArray[np.float64]


def own_cells(labels: NDArray[np.uint8], boxes: Sequence[Box]) -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    """Rows uint16 [200, 200, 16] (0 none) and track ids uint64 [M] of the boxes that own cells.

    A box owns the cells of its class that lie in it or touch it; of several boxes the one whose centre is nearest,
    measured in half sizes of the box.
    """
    rows = np.zeros(labels.shape, np.uint16)
    nearest = np.full(labels.shape, np.inf)
    for row, box in enumerate(boxes, start=1):
        cells = np.nonzero(labels == box.label)
        local = np.abs(se3.apply(se3.invert(box.T_grid_object), ROAD_GRID.centre_of(np.stack(cells, axis=1))))
        half = box.size_m / 2.0
        distance = (local / half).max(axis=1)
        touching = np.linalg.norm(np.maximum(local - half, 0.0), axis=1) <= TOUCHING_M
        won = tuple(axis[touching & (distance < nearest[cells])] for axis in cells)
        rows[won] = row
        nearest[won] = distance[touching & (distance < nearest[cells])]
    owners = np.flatnonzero(np.bincount(rows.ravel(), minlength=len(boxes) + 1)[1:])
    compact = np.zeros(len(boxes) + 1, np.uint16)
    compact[owners + 1] = np.arange(1, len(owners) + 1)
    return compact[rows], np.array([boxes[owner].track_id for owner in owners.tolist()], np.uint64)
