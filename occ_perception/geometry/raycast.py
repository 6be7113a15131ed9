"""Rays through a voxel grid, cell by cell (Amanatides and Woo 1987)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry import lens
from occ_perception.geometry.grid import VoxelGridSpec

_FAR = 1e30


@lens.jit
def _enter(o: Any, d: Any, shape: Any) -> tuple[float, float]:
    """Distances at which a ray (in cell units) enters and leaves the grid; enter > leave when it misses."""
    near, far = 0.0, _FAR
    for a in range(3):
        if abs(d[a]) < 1e-12:
            if o[a] < 0.0 or o[a] >= shape[a]:
                return 1.0, 0.0
        else:
            t0, t1 = -o[a] / d[a], (shape[a] - o[a]) / d[a]
            near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
    return near, far


@lens.jit
def _walk(opaque: Any, o: Any, d: Any, limit: float, seen: Any, mark: bool, cell: Any) -> Any:
    """Walk until an opaque cell or `limit`; mark the cells met. Returns the entry distance of the hit or -1."""
    shape = opaque.shape
    near, far = _enter(o, d, shape)
    if near > far or near > limit:
        return -1.0
    t = near
    t_next, t_step, step = np.empty(3), np.empty(3), np.empty(3, np.int64)
    for a in range(3):
        at = o[a] + d[a] * (near + 1e-9)
        cell[a] = min(max(int(math.floor(at)), 0), shape[a] - 1)
        if abs(d[a]) < 1e-12:
            step[a], t_next[a], t_step[a] = 0, _FAR, _FAR
        else:
            step[a] = 1 if d[a] > 0 else -1
            edge = cell[a] + (1 if d[a] > 0 else 0)
            t_next[a], t_step[a] = (edge - o[a]) / d[a], abs(1.0 / d[a])
    while True:
        if mark:
            seen[cell[0], cell[1], cell[2]] = True
        if opaque[cell[0], cell[1], cell[2]]:
            return t
        a = 0
        if t_next[1] < t_next[a]:
            a = 1
        if t_next[2] < t_next[a]:
            a = 2
        t = t_next[a]
        cell[a] += step[a]
        t_next[a] += t_step[a]
        if t > limit or cell[a] < 0 or cell[a] >= shape[a]:
            return -1.0


@lens.jit
def _first_hits(opaque: Any, origins: Any, directions: Any, limits: Any, cells: Any, distances: Any) -> None:
    cell, unused = np.empty(3, np.int64), np.empty((1, 1, 1), np.bool_)
    for i in range(len(origins)):
        distances[i] = _walk(opaque, origins[i], directions[i], limits[i], unused, False, cell)
        for a in range(3):
            cells[i, a] = cell[a] if distances[i] >= 0.0 else -1


def first_hits(opaque: NDArray[Any], spec: VoxelGridSpec, origins_m: ArrayLike, directions: ArrayLike,
               max_range_m: float = math.inf) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """First opaque cell on each ray.

    Args:
        opaque: bool or uint8 [nx, ny, nz], nonzero stops a ray.
        origins_m: [R, 3] or [3], may lie outside the grid.
        directions: [R, 3], need not be unit.
        max_range_m: rays end there.

    Returns:
        cells int32 [R, 3] (-1 where nothing is hit) and the range to the face by which the ray enters it,
        float32 [R], metres (-1 where nothing is hit).
    """
    opaque = _as_mask(opaque, spec)
    directions = np.ascontiguousarray(directions, np.float64)
    origins = np.ascontiguousarray(np.broadcast_to(np.asarray(origins_m, float), directions.shape))
    scaled = directions / spec.cell
    length = np.linalg.norm(scaled, axis=1)
    metres = np.linalg.norm(directions, axis=1) / length  # metres per cell unit along each ray
    cells, distances = np.empty(directions.shape, np.int32), np.empty(len(directions))
    limits = np.minimum(max_range_m / metres, _FAR)
    _first_hits(opaque, (origins - spec.minimum_m) / spec.cell, scaled / length[:, None], limits, cells, distances)
    ranges = np.where(distances >= 0, distances * metres, -1.0)
    return cells, ranges.astype(np.float32)


@lens.jit
def _visible(opaque: Any, origin: Any, seen: Any) -> None:
    nx, ny, nz = opaque.shape
    cell, target, d = np.empty(3, np.int64), np.empty(3), np.empty(3)
    # free cells: rays to every cell of the grid's hull cross all that lies between
    for ix in range(nx):
        for iy in range(ny):
            inner = 0 < ix < nx - 1 and 0 < iy < ny - 1
            step = nz - 1 if inner and nz > 1 else 1
            for iz in range(0, nz, step):
                target[0], target[1], target[2] = ix + 0.5, iy + 0.5, iz + 0.5
                length = 0.0
                for a in range(3):
                    d[a] = target[a] - origin[a]
                    length += d[a] * d[a]
                length = math.sqrt(length)
                if length < 1e-9:
                    continue
                for a in range(3):
                    d[a] /= length
                _walk(opaque, origin, d, length, seen, True, cell)
    # opaque cells: the middle of a face towards the origin has a free line of sight (a ray to a centre would
    # graze the neighbours on flat ground)
    for ix in range(nx):
        for iy in range(ny):
            for iz in range(nz):
                if not opaque[ix, iy, iz] or seen[ix, iy, iz]:
                    continue
                for a in range(3):
                    at = ix if a == 0 else (iy if a == 1 else iz)
                    side = 1 if origin[a] > at + 1 else (-1 if origin[a] < at else 0)
                    if side == 0:
                        continue
                    jx, jy = ix + (side if a == 0 else 0), iy + (side if a == 1 else 0)
                    jz = iz + (side if a == 2 else 0)
                    if 0 <= jx < nx and 0 <= jy < ny and 0 <= jz < nz and opaque[jx, jy, jz]:
                        continue
                    target[0], target[1], target[2] = ix + 0.5, iy + 0.5, iz + 0.5
                    target[a] += side * 0.501
                    length = 0.0
                    for b in range(3):
                        d[b] = target[b] - origin[b]
                        length += d[b] * d[b]
                    length = math.sqrt(length)
                    for b in range(3):
                        d[b] /= length
                    if _walk(opaque, origin, d, length - 1e-6, seen, False, cell) < 0.0:
                        seen[ix, iy, iz] = True
                        break


def visible_cells(opaque: NDArray[Any], spec: VoxelGridSpec, origin_m: ArrayLike) -> NDArray[np.bool_]:
    """Cells that a point sensor at `origin_m` [3] sees: free ones that a ray crosses, opaque ones that stop one.

    `opaque` is bool or uint8 [nx, ny, nz]; returns bool [nx, ny, nz]. The field of view is not considered here.
    """
    mask = _as_mask(opaque, spec)
    seen = np.zeros(spec.shape, np.bool_)
    _visible(mask, (np.asarray(origin_m, float) - spec.minimum_m) / spec.cell, seen)
    return seen


def _as_mask(opaque: NDArray[Any], spec: VoxelGridSpec) -> NDArray[np.bool_]:
    if opaque.shape != spec.shape:
        raise ShapeError(f"grid must be {spec.shape}, got {opaque.shape}", where="raycast")
    return np.ascontiguousarray(opaque != 0)
