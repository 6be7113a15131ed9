"""What the rays of a clip say about its space: in how many frames a cell was hit, and in how many seen through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.lens import jit
from occ_perception.geometry.raycast import walk_ray


@jit
def _see_through(points: Any, origins: Any, point_sensor: Any, minimum: Any, cell: Any, margin: float, opaque: Any,
                 seen: Any) -> None:
    for i in range(len(points)):
        o = origins[point_sensor[i]]
        ox, oy, oz = (o[0] - minimum[0]) / cell[0], (o[1] - minimum[1]) / cell[1], (o[2] - minimum[2]) / cell[2]
        dx = (points[i, 0] - minimum[0]) / cell[0] - ox
        dy = (points[i, 1] - minimum[1]) / cell[1] - oy
        dz = (points[i, 2] - minimum[2]) / cell[2] - oz
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        if margin < length < math.inf:
            walk_ray(opaque, ox, oy, oz, dx / length, dy / length, dz / length, length - margin, seen, True)
    for i in range(len(points)):  # where a ray ends is no way through, whatever other rays graze it
        x, y, z = ((points[i, 0] - minimum[0]) / cell[0], (points[i, 1] - minimum[1]) / cell[1],
                   (points[i, 2] - minimum[2]) / cell[2])
        if 0 <= x < seen.shape[0] and 0 <= y < seen.shape[1] and 0 <= z < seen.shape[2]:
            seen[int(x), int(y), int(z)] = False


def seen_through(points_m: NDArray[np.floating[Any]], sensor_m: NDArray[np.float64], point_sensor: NDArray[np.uint8],
                 spec: VoxelGridSpec) -> NDArray[np.bool_]:
    """Cells that a ray crosses and none ends in, bool [nx, ny, nz].

    Rays end one cell before their point: a point lies on its surface only up to the noise of its range.

    Args:
        points_m: [P, 3] and sensor_m: [S, 3], in the frame of the grid; both may lie outside.
        point_sensor: [P], row of `sensor_m` from which each point was measured.
    """
    seen = np.zeros(spec.shape, np.bool_)
    if len(points_m):
        _see_through(np.ascontiguousarray(points_m), sensor_m, point_sensor, np.asarray(spec.minimum_m), spec.cell,
                     1.0, np.zeros(spec.shape, np.bool_), seen)
    return seen


@jit
def _hit(points: Any, minimum: Any, cell: Any, number: int, latest: Any, hits: Any) -> None:
    """Counts the cells of points, those beside and those below, once per frame: `latest` is the last one counted."""
    nx, ny, nz = hits.shape
    for i in range(len(points)):
        x = math.floor((points[i, 0] - minimum[0]) / cell[0])
        y = math.floor((points[i, 1] - minimum[1]) / cell[1])
        z = math.floor((points[i, 2] - minimum[2]) / cell[2])
        for ix in range(max(x - 1, 0), min(x + 2, nx)):
            for iy in range(max(y - 1, 0), min(y + 2, ny)):
                for iz in range(max(z - 1, 0), min(z + 1, nz)):
                    if latest[ix, iy, iz] != number:
                        latest[ix, iy, iz] = number
                        hits[ix, iy, iz] += 1


class Evidence:
    """Counts over a lattice that covers a clip.

    Rays meet a thin thing, or the edge of any, in one frame here and in the next a cell aside, and cross the first.
    So hits count beside and below their cell as well: what stands still is then hit whenever it is seen through. They
    do not count above it, because the ground, which is hit in every frame, would keep feet alive.

    Attributes:
        spec: the lattice, in a frame that stands still.
        hits: uint16 [nx, ny, nz], frames in which a ray ended in a cell, or in one beside it, or in one above those.
        passes: uint16 [nx, ny, nz], frames in which a ray crossed a cell and none ended there.
    """

    def __init__(self, spec: VoxelGridSpec) -> None:
        self.spec = spec
        self.hits, self.passes = np.zeros(spec.shape, np.uint16), np.zeros(spec.shape, np.uint16)
        self._latest, self._frames = np.zeros(spec.shape, np.uint16), 0

    def add(self, points_m: NDArray[np.float32], sensor_m: NDArray[np.float64], point_sensor: NDArray[np.uint8],
            reach_m: float) -> None:
        """Counts one frame; arguments as in `seen_through`. Ways through count within `reach_m` of the sensors."""
        if not len(points_m):
            return
        self._frames += 1
        cell, minimum = self.spec.cell, np.asarray(self.spec.minimum_m)
        _hit(points_m, minimum, cell, self._frames, self._latest, self.hits)
        low = np.clip(np.floor((sensor_m.min(axis=0) - reach_m - minimum) / cell).astype(int), 0, self.spec.shape)
        high = np.clip(np.ceil((sensor_m.max(axis=0) + reach_m - minimum) / cell).astype(int), 0, self.spec.shape)
        if (high <= low).any():
            return
        corners = minimum + low * cell, minimum + high * cell
        window = VoxelGridSpec(tuple(corners[0].tolist()), tuple(corners[1].tolist()), tuple(cell.tolist()))
        part = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
        self.passes[part] += seen_through(points_m, sensor_m, point_sensor, window)

    def at(self, points_m: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Hits and passes of the cells in which points [N, 3] lie; 0 outside the lattice."""
        cells, inside = self.spec.index(points_m)
        index = tuple(np.where(inside[:, None], cells, 0).T)
        zero = np.uint16(0)
        return np.where(inside, self.hits[index], zero), np.where(inside, self.passes[index], zero)
