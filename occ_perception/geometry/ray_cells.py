"""Rays of feature pixels through a voxel grid: where each range bin of a pixel lies, the inverse of the tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry import lens
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.tables import MountedCamera, RangeBins, raw_to_feature, usable_features


@lens.jit
def _march(origin: Any, directions: Any, ranges: Any, minimum: Any, cell: Any, shape: Any, cells: Any) -> None:
    nx, ny, nz = shape
    for r in range(len(directions)):
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        for d in range(len(ranges)):
            x = (origin[0] + ranges[d] * dx - minimum[0]) / cell[0]
            y = (origin[1] + ranges[d] * dy - minimum[1]) / cell[1]
            z = (origin[2] + ranges[d] * dz - minimum[2]) / cell[2]
            if 0.0 <= x < nx and 0.0 <= y < ny and 0.0 <= z < nz:  # false for the NaN of a pixel without a ray
                cells[r, d] = int(math.floor(x)) + nx * (int(math.floor(y)) + ny * int(math.floor(z)))
            else:
                cells[r, d] = -1


def grid_rays(
    camera: MountedCamera,
    pixels: NDArray[np.integer[Any]],
    feature_size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    T_grid_base: NDArray[np.float64] | None = None,
    image_affine: NDArray[np.float64] | None = None,
    augmentation: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rays of feature pixels in the (augmented) grid frame.

    Args:
        camera: the camera that the pixels are of.
        pixels: [R, 2] (row, column) of feature pixels; a ray goes through a pixel's centre.
        feature_size, input_size, T_grid_base, image_affine, augmentation: as in `tables.projection_table`; one affine.

    Returns:
        Origin [3] and directions [R, 3]: `origin + range_m * direction` is the point at that range along the ray.
        Directions have the length 1 unless the augmentation scales, and are NaN where a pixel shows the robot itself
        or lies outside the field of view.
    """
    if pixels.ndim != 2 or pixels.shape[1] != 2:
        raise ShapeError(f"pixels must be [R, 2], got {pixels.shape}", where="grid_rays")
    to_feature = raw_to_feature(camera, feature_size, input_size, image_affine)
    to_raw = np.linalg.inv(np.vstack([to_feature, [0.0, 0.0, 1.0]]))[:2]
    rays = camera.camera.unproject(pixels[:, ::-1] @ to_raw[:, :2].T + to_raw[:, 2])
    if camera.usable is not None:
        rays[~usable_features(camera, to_feature, feature_size)[pixels[:, 0], pixels[:, 1]]] = np.nan
    T = camera.T_base_camera
    for outer in (T_grid_base, augmentation):
        T = T if outer is None else outer @ T
    return T[:3, 3], rays @ T[:3, :3].T


def ray_cells(
    camera: MountedCamera,
    pixels: NDArray[np.integer[Any]],
    bins: RangeBins,
    grid: VoxelGridSpec,
    feature_size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    T_grid_base: NDArray[np.float64] | None = None,
    image_affine: NDArray[np.float64] | None = None,
    augmentation: NDArray[np.float64] | None = None,
) -> NDArray[np.int32]:
    """The cell in which the centre of each range bin lies on each pixel's ray (the voxels v_d of WalkOCC, Eq. 3).

    Arguments as in `grid_rays`. Returns flat message indices (x fastest) of `grid`, int32 [R, bins]; -1 outside the
    grid, and for pixels without a ray.
    """
    origin, directions = grid_rays(camera, pixels, feature_size, input_size=input_size, T_grid_base=T_grid_base,
                                   image_affine=image_affine, augmentation=augmentation)
    cells = np.empty((len(pixels), bins.count), np.int32)
    _march(origin, np.ascontiguousarray(directions), bins.centres_m(), np.asarray(grid.minimum_m), grid.cell,
           np.asarray(grid.shape), cells)
    return cells
