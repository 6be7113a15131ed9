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
def _slab(o: float, d: float, n: int, near: float, far: float) -> tuple[float, float]:
    """The part of near..far in which a ray's coordinate (in cell units) lies in 0..n; near > far if there is none."""
    if abs(d) < 1e-12:
        return (near, far) if 0.0 <= o < n else (1.0, 0.0)
    t0, t1 = -o / d, (n - o) / d
    return max(near, min(t0, t1)), min(far, max(t0, t1))


@lens.jit
def _axis(o: float, d: float, n: int, near: float) -> tuple[int, int, float, float]:
    """Along one axis from `near` on: cell, step, distance to the next face, distance between faces."""
    cell = min(max(int(math.floor(o + d * (near + 1e-9))), 0), n - 1)
    if abs(d) < 1e-12:
        return cell, 0, _FAR, _FAR
    return cell, 1 if d > 0 else -1, (cell + (1 if d > 0 else 0) - o) / d, abs(1.0 / d)


@lens.jit
def walk_ray(opaque: Any, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, limit: float, seen: Any,
             mark: bool) -> tuple[float, int, int, int]:
    """Walk along one ray until an opaque cell or `limit`; for compiled code that walks many.

    Scalars instead of small arrays: they stay in registers, which makes it three times as fast.

    Args:
        opaque: bool [nx, ny, nz].
        ox, oy, oz: origin in cell units from the lower corner; may lie outside.
        dx, dy, dz: unit direction in cell units.
        limit: length after which the ray ends, cells.
        seen: bool [nx, ny, nz], set where the ray passes, its last cell included, if `mark`.

    Returns:
        Distance in cells to the face by which the ray enters the opaque cell (-1 if there is none), and that cell.
    """
    nx, ny, nz = opaque.shape
    near, far = _slab(ox, dx, nx, 0.0, _FAR)
    near, far = _slab(oy, dy, ny, near, far)
    near, far = _slab(oz, dz, nz, near, far)
    if near > far or near > limit:
        return -1.0, -1, -1, -1
    t = near
    ix, step_x, next_x, stride_x = _axis(ox, dx, nx, near)
    iy, step_y, next_y, stride_y = _axis(oy, dy, ny, near)
    iz, step_z, next_z, stride_z = _axis(oz, dz, nz, near)
    while True:
        if mark:
            seen[ix, iy, iz] = True
        if opaque[ix, iy, iz]:
            return t, ix, iy, iz
        if next_z < next_x and next_z < next_y:
            t = next_z
            iz += step_z
            next_z += stride_z
            outside = iz < 0 or iz >= nz
        elif next_y < next_x:
            t = next_y
            iy += step_y
            next_y += stride_y
            outside = iy < 0 or iy >= ny
        else:
            t = next_x
            ix += step_x
            next_x += stride_x
            outside = ix < 0 or ix >= nx
        if t > limit or outside:
            return -1.0, -1, -1, -1


@lens.jit
def _first_hits(opaque: Any, origins: Any, directions: Any, limits: Any, cells: Any, distances: Any) -> None:
    unused = np.empty((1, 1, 1), np.bool_)
    for i in range(len(origins)):
        o, d = origins[i], directions[i]
        distances[i], cells[i, 0], cells[i, 1], cells[i, 2] = walk_ray(
            opaque, o[0], o[1], o[2], d[0], d[1], d[2], limits[i], unused, False)


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
    ox, oy, oz = origin[0], origin[1], origin[2]
    # free cells: rays to every cell of the grid's hull cross all that lies between
    for ix in range(nx):
        for iy in range(ny):
            inner = 0 < ix < nx - 1 and 0 < iy < ny - 1
            step = nz - 1 if inner and nz > 1 else 1
            for iz in range(0, nz, step):
                dx, dy, dz = ix + 0.5 - ox, iy + 0.5 - oy, iz + 0.5 - oz
                length = math.sqrt(dx * dx + dy * dy + dz * dz)
                if length >= 1e-9:
                    walk_ray(opaque, ox, oy, oz, dx / length, dy / length, dz / length, length, seen, True)
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
                    out = side * 0.501
                    dx = ix + 0.5 + (out if a == 0 else 0.0) - ox
                    dy = iy + 0.5 + (out if a == 1 else 0.0) - oy
                    dz = iz + 0.5 + (out if a == 2 else 0.0) - oz
                    length = math.sqrt(dx * dx + dy * dy + dz * dz)
                    if walk_ray(opaque, ox, oy, oz, dx / length, dy / length, dz / length, length - 1e-6, seen,
                             False)[0] < 0.0:
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
