"""Clouds thinned to half a voxel, each point with the plane its neighbours lie on: what fusing draws surfaces from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.geometry.lens import jit
from occ_perception.labeling.vote import CLASSES, voxel_keys

_FLAT_M = 0.03
"""Points that leave their plane by more (standard deviation) have none."""
_FLATNESS = 0.25
"""Largest ratio of the variances across and along a plane."""


@dataclass(frozen=True, eq=False)
class Thinned:
    """A thinned cloud: centroids float32 [M, 3], returns float32 [M] in each, uint8 [M] their majority label."""

    points_m: NDArray[np.float32]
    returns: NDArray[np.float32]
    labels: NDArray[np.uint8]

    def __getitem__(self, kept: NDArray[np.bool_]) -> Thinned:
        return Thinned(self.points_m[kept], self.returns[kept], self.labels[kept])

    def __add__(self, other: Thinned) -> Thinned:
        return Thinned(np.concatenate([self.points_m, other.points_m]), np.concatenate([self.returns, other.returns]),
                       np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True, eq=False)
class Surfels:
    """Small discs: points float32 [M, 3], unit normals float32 [M, 3] (0 where there is no plane), labels uint8 [M]."""

    points_m: NDArray[np.float32]
    normals: NDArray[np.float32]
    labels: NDArray[np.uint8]


@jit
def _within(points: Any, low: Any, high: Any, found: Any) -> int:
    count = 0
    for i in range(len(points)):
        if (low[0] <= points[i, 0] <= high[0] and low[1] <= points[i, 1] <= high[1]
                and low[2] <= points[i, 2] <= high[2]):
            found[count] = i
            count += 1
    return count


def rows_within(points_m: NDArray[np.float32], low_m: NDArray[np.float64], high_m: NDArray[np.float64]
                ) -> NDArray[np.int64]:
    """Rows of the points [N, 3] that lie in an upright box from `low_m` [3] to `high_m` [3], in order."""
    found = np.empty(len(points_m), np.int64)
    return found[:_within(points_m, low_m, high_m, found)]


@jit
def _means(order: Any, starts: Any, points: Any, labels: Any, classes: int, centroids: Any, returns: Any, winners: Any
           ) -> None:
    n = len(starts)
    votes = np.zeros(classes, np.int64)
    for s in range(n):
        votes[:] = 0
        x, y, z = 0.0, 0.0, 0.0
        own = order[starts[s]: starts[s + 1] if s + 1 < n else len(order)]
        for i in own:
            x, y, z = x + points[i, 0], y + points[i, 1], z + points[i, 2]
            votes[labels[i]] += 1
        centroids[s, 0], centroids[s, 1], centroids[s, 2] = x / len(own), y / len(own), z / len(own)
        returns[s] = len(own)
        most = 0
        for label in range(1, classes):  # ties to the higher id, as in datasets/shrink.py
            if votes[label] > 0 and votes[label] >= most:
                most, winners[s] = votes[label], label


def thin(points_m: NDArray[np.float32], labels: NDArray[np.uint8], voxel_m: float) -> Thinned:
    """One point per voxel of the lattice through the origin: centroid, returns, most frequent class (0 without one)."""
    _, keys = voxel_keys(points_m, voxel_m)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    centroids, returns = np.empty((len(starts), 3), np.float32), np.empty(len(starts), np.float32)
    winners = np.zeros(len(starts), np.uint8)
    _means(order, starts, points_m, labels, CLASSES, centroids, returns, winners)
    return Thinned(centroids, returns, winners)


def _moments(points_m: NDArray[np.float64], weights: NDArray[np.float32], block: NDArray[np.int64], blocks: int
             ) -> NDArray[np.float64]:
    """Weight, first and second moments of the points in each block, [blocks, 10]."""
    x, y, z = points_m.T
    columns = (np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z)
    return np.stack([np.bincount(block, weights * column, blocks) for column in columns], axis=1)


def surfels(cloud: Thinned, cell_m: float) -> Surfels:
    """The cloud with the planes of its neighbourhoods; points are moved onto their plane, which takes the noise away.

    The neighbourhood of a point are the 3 x 3 x 3 cells of `cell_m` around it.
    """
    if not len(cloud.points_m):
        return Surfels(cloud.points_m, np.zeros_like(cloud.points_m), cloud.labels)
    middle = cloud.points_m.mean(axis=0, dtype=float)
    points = cloud.points_m - middle  # float64, and small: second moments are differences of large numbers
    _, keys = voxel_keys(cloud.points_m, cell_m)
    known, block = np.unique(keys, return_inverse=True)
    own = _moments(points, cloud.returns, block, len(known))
    around = np.zeros_like(own)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for dz in (-1, 0, 1):
                beside = known + ((dx << 42) + (dy << 21) + dz)
                at = np.minimum(np.searchsorted(known, beside), len(known) - 1)
                there = known[at] == beside
                around[there] += own[at[there]]
    mean = around[:, 1:4] / around[:, :1]
    second = around[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].reshape(-1, 3, 3) / around[:, :1, None]
    values, vectors = np.linalg.eigh(second - mean[:, :, None] * mean[:, None, :])
    wide = (values[:, 1] > _FLAT_M**2) & (around[:, 0] >= 5)  # rods and single points have no plane
    flat = wide & (values[:, 0] < _FLAT_M**2) & (values[:, 0] < _FLATNESS * values[:, 1])
    normal = np.where(flat[:, None], vectors[:, :, 0], 0.0)[block]
    off = ((points - mean[block]) * normal).sum(axis=1, keepdims=True)
    moved = np.where(np.abs(off) < 2 * _FLAT_M, points - off * normal, points) + middle
    return Surfels(moved.astype(np.float32), normal.astype(np.float32), cloud.labels)
