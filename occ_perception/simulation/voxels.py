"""Analytic solids and the ground into a voxel grid, as numba kernels: shells, unknown interiors and underground."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from occ_perception.geometry.lens import jit

GROUND_BIAS = 0.3
"""Part of a cell by which ground counts as higher: flat ground at z = 0 lies on a cell boundary and would flicker."""
_SUBSAMPLES = 5


@jit
def _distance(kind: int, half: Any, x: float, y: float, z: float) -> float:
    """Signed distance to a solid: 1 box, 2 cylinder, 3 ellipsoid (first order)."""
    if kind == 3:
        k0 = math.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2)
        k1 = math.sqrt((x / half[0] ** 2) ** 2 + (y / half[1] ** 2) ** 2 + (z / half[2] ** 2) ** 2)
        return float(k0 * (k0 - 1.0) / k1) if k1 > 1e-12 else -float(min(half[0], half[1], half[2]))
    qz = abs(z) - half[2]
    if kind == 2:
        if half[0] == half[1]:
            q = math.sqrt(x * x + y * y) - half[0]
        else:
            k0 = math.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2)
            k1 = math.sqrt((x / half[0] ** 2) ** 2 + (y / half[1] ** 2) ** 2)
            q = k0 * (k0 - 1.0) / k1 if k1 > 1e-12 else -min(half[0], half[1])
        outside = math.sqrt(max(q, 0.0) ** 2 + max(qz, 0.0) ** 2)
        return float(outside + min(max(q, qz), 0.0))
    qx, qy = abs(x) - half[0], abs(y) - half[1]
    outside = math.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2 + max(qz, 0.0) ** 2)
    return float(outside + min(max(qx, max(qy, qz)), 0.0))


@jit
def union_distance(minimum: Any, cell: Any, first: Any, to_solid: Any, kind: Any, half: Any, label: Any,
                   low: Any, high: Any, distance: Any, labels: Any) -> None:
    """Signed distance of the union of solids at the cells of a window, and the label of the nearest one.

    Args:
        minimum, cell: corner and edges of the grid, [3]; first: first cell of the window, [3].
        to_solid: [S, 12], grid frame to solid; kind, half, label: [S], [S, 3], [S].
        low, high: cells [S, 3] each solid can touch (high excluded), within the window.
        distance: float32 window, filled with large numbers; labels: uint8 window; both are updated.
    """
    for s in range(len(kind)):
        M = to_solid[s]
        for ix in range(low[s, 0], high[s, 0]):
            px = minimum[0] + (ix + 0.5) * cell[0]
            for iy in range(low[s, 1], high[s, 1]):
                py = minimum[1] + (iy + 0.5) * cell[1]
                for iz in range(low[s, 2], high[s, 2]):
                    pz = minimum[2] + (iz + 0.5) * cell[2]
                    d = _distance(kind[s], half[s], M[0] * px + M[1] * py + M[2] * pz + M[3],
                                  M[4] * px + M[5] * py + M[6] * pz + M[7], M[8] * px + M[9] * py + M[10] * pz + M[11])
                    jx, jy, jz = ix - first[0], iy - first[1], iz - first[2]
                    if d < distance[jx, jy, jz]:
                        distance[jx, jy, jz] = d
                        labels[jx, jy, jz] = label[s]


@jit
def compose(first: Any, distance: Any, window: Any, shell_m: float, floor: Any, row: int, unknown: int,
            labels: Any, rows: Any) -> int:
    """Writes the shell and the unknown interior of a union into the grid; returns the number of shell cells.

    Cells below `floor` [nx, ny] (first cell of the ground's surface in a column) stay as they are. `row` goes into
    the instance rows of the shell.
    """
    count = 0
    for jx in range(distance.shape[0]):
        for jy in range(distance.shape[1]):
            ix, iy = first[0] + jx, first[1] + jy
            for jz in range(distance.shape[2]):
                iz = first[2] + jz
                d = distance[jx, jy, jz]
                if d > shell_m or iz < floor[ix, iy]:
                    continue
                if d >= -shell_m:
                    labels[ix, iy, iz] = window[jx, jy, jz]
                    rows[ix, iy, iz] = row
                    count += 1
                else:
                    labels[ix, iy, iz] = unknown
                    rows[ix, iy, iz] = 0
    return count


@jit
def _ground_at(s_m: Any, d_m: Any, bend: Any, z: Any, labels: Any, x: float, y: float, hint: Any
               ) -> tuple[float, int, int]:
    """Height and label of the ground at a world point (`Ground.height_m`), and the number of its triangle there.

    `hint` [2] keeps the last cell; the number is -1 beyond the edges of the ground.
    """
    i = hint[0]
    while i > 0 and s_m[i] > x:
        i -= 1
    while i < len(s_m) - 2 and s_m[i + 1] <= x:
        i += 1
    along = (x - s_m[i]) / (s_m[i + 1] - s_m[i])
    u = min(max(along, 0.0), 1.0)
    d = y - (bend[i] + u * (bend[i + 1] - bend[i]))
    j = hint[1]
    while j > 0 and d_m[j] > d:
        j -= 1
    while j < len(d_m) - 2 and d_m[j + 1] <= d:
        j += 1
    hint[0], hint[1] = i, j
    across = (d - d_m[j]) / (d_m[j + 1] - d_m[j])
    v = min(max(across, 0.0), 1.0)
    middle = z[i + 1, j] if u >= v else z[i, j + 1]
    height = z[i, j] + max(u, v) * (middle - z[i, j]) + min(u, v) * (z[i + 1, j + 1] - middle)
    triangle = 2 * (i * len(d_m) + j) + (1 if u >= v else 0) if u == along and v == across else -1
    return height, labels[i, j], triangle


@jit
def _sample_column(ix: int, iy: int, k: int, minimum: Any, cell: Any, T_world_grid: Any, s_m: Any, d_m: Any,
                   bend: Any, z: Any, ground_labels: Any, hint: Any) -> tuple[int, int, int]:
    """Level in the grid, label and triangle of the ground at the k-th of the 5 x 5 samples of a column."""
    gx = minimum[0] + (ix + (k // _SUBSAMPLES + 0.5) / _SUBSAMPLES) * cell[0]
    gy = minimum[1] + (iy + (k % _SUBSAMPLES + 0.5) / _SUBSAMPLES) * cell[1]
    wx = T_world_grid[0, 0] * gx + T_world_grid[0, 1] * gy + T_world_grid[0, 3]
    wy = T_world_grid[1, 0] * gx + T_world_grid[1, 1] * gy + T_world_grid[1, 3]
    height, kind, triangle = _ground_at(s_m, d_m, bend, z, ground_labels, wx, wy, hint)
    return int(math.floor((height - T_world_grid[2, 3] - minimum[2]) / cell[2] + GROUND_BIAS)), kind, triangle


@jit
def ground_into_grid(minimum: Any, cell: Any, T_world_grid: Any, s_m: Any, d_m: Any, bend: Any, z: Any,
                     ground_labels: Any, curb: int, unknown: int, labels: Any, floor: Any) -> None:
    """Labels the cells that hold the ground's surface where they are free, and makes everything below unknown.

    Each column is sampled 5 x 5 times. A cell takes the most frequent label of the samples in it; kerb wins
    wherever it occurs, and fills the cells between the lowest and the highest sample, so that its face is closed.
    Where the corners of a column lie on one triangle and one level, so do all samples and the corners are enough.
    `floor` int32 [nx, ny] receives the first cell of the surface.
    """
    nx, ny, nz = labels.shape
    count = _SUBSAMPLES * _SUBSAMPLES
    hint = np.zeros(2, np.int64)
    level, kind = np.empty(count, np.int64), np.empty(count, np.int64)
    votes = np.zeros(256, np.int64)
    for ix in range(nx):
        for iy in range(ny):
            low, one_kind, triangle = _sample_column(
                ix, iy, 0, minimum, cell, T_world_grid, s_m, d_m, bend, z, ground_labels, hint)
            even = triangle >= 0
            for corner in (_SUBSAMPLES - 1, count - _SUBSAMPLES, count - 1):
                if even:
                    other, _, its = _sample_column(
                        ix, iy, corner, minimum, cell, T_world_grid, s_m, d_m, bend, z, ground_labels, hint)
                    even = other == low and its == triangle
            high, kerb = low, one_kind == curb
            if not even:
                for k in range(count):
                    level[k], kind[k], _ = _sample_column(
                        ix, iy, k, minimum, cell, T_world_grid, s_m, d_m, bend, z, ground_labels, hint)
                    low, high = min(low, level[k]), max(high, level[k])
                    kerb = kerb or kind[k] == curb
            floor[ix, iy] = min(max(low, 0), nz)
            for iz in range(min(max(low, 0), nz)):
                labels[ix, iy, iz] = unknown
            for iz in range(max(low, 0), min(high + 1, nz)):
                if even:
                    best = one_kind
                else:
                    best, most, here_kerb = curb if kerb else 0, 0, False
                    for k in range(count):
                        if level[k] == iz:
                            votes[kind[k]] += 1
                            here_kerb = here_kerb or kind[k] == curb
                            if votes[kind[k]] > most:
                                most, best = votes[kind[k]], kind[k]
                    for k in range(count):
                        votes[kind[k]] = 0
                    if here_kerb:
                        best = curb
                if labels[ix, iy, iz] == 0 and best != 0:
                    labels[ix, iy, iz] = best


@jit
def inside_fan(minimum: Any, cell: Any, shape: Any, T_lidar_grid: Any, low_rad: float, high_rad: float,
               reach_m: float, out: Any) -> None:
    """Marks in bool [nx, ny, nz] the cells between two elevations of a LiDAR and within its reach."""
    sin_low, sin_high = math.sin(low_rad), math.sin(high_rad)
    T = T_lidar_grid
    for ix in range(shape[0]):
        px = minimum[0] + (ix + 0.5) * cell[0]
        for iy in range(shape[1]):
            py = minimum[1] + (iy + 0.5) * cell[1]
            for iz in range(shape[2]):
                pz = minimum[2] + (iz + 0.5) * cell[2]
                x = T[0, 0] * px + T[0, 1] * py + T[0, 2] * pz + T[0, 3]
                y = T[1, 0] * px + T[1, 1] * py + T[1, 2] * pz + T[1, 3]
                z = T[2, 0] * px + T[2, 1] * py + T[2, 2] * pz + T[2, 3]
                r = math.sqrt(x * x + y * y + z * z) + 1e-9
                out[ix, iy, iz] = r <= reach_m and sin_low <= z / r <= sin_high
