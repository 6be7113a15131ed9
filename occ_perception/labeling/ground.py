"""The ground of a clip as a height map with classes: averaged over all frames, its gaps between LiDAR rings closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from occ_perception.geometry.lens import jit

_BLOCK_M = 0.5
_OFF_GROUND_M = 0.25
"""A point labelled as ground that lies farther than this from the median of its block is no ground."""
_SMOOTH_COLUMNS = 3
_SHADOW_M, _STEP_M = 0.3, 0.06
"""A kerb of 0.12 m hides about 0.3 m of the gutter from a LiDAR 1 m above the ground at 2 m."""
SAME_LEVEL_M = 0.04
"""Neighbours of another height than this lie beyond a step and are not averaged."""


@dataclass(frozen=True, eq=False)
class GroundMap:
    """Heights and classes of square columns.

    Attributes:
        corner_m: float64 [2], lower corner of the map.
        column_m: edge of a column.
        height_m: float32 [nx, ny], NaN where there is no ground.
        labels: uint8 [nx, ny], 0 where there is none.
    """

    corner_m: NDArray[np.float64]
    column_m: float
    height_m: NDArray[np.float32]
    labels: NDArray[np.uint8]

    def height_at(self, xy_m: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Height of the ground at points [N, 2], NaN where there is none."""
        column = np.floor((xy_m - self.corner_m) / self.column_m).astype(np.int64)
        inside = ((column >= 0) & (column < self.height_m.shape)).all(axis=1)
        height = np.full(len(column), np.nan, np.float32)
        height[inside] = self.height_m[tuple(column[inside].T)]
        return height


def on_ground(points_m: NDArray[np.float32], crossed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points [N, 3], all labelled as ground, lie at the height of those around them; bool [N].

    Of points that rays have `crossed` [N] only those that lie no step above or below: the others are feet. Level ground
    is crossed as well, by rays that graze it.
    """
    block = np.floor(points_m[:, :2] / _BLOCK_M).astype(np.int64)
    key = (block[:, 0] + (1 << 20)) << 21 | (block[:, 1] + (1 << 20))
    order = np.lexsort((points_m[:, 2], key))
    _, starts, inverse, counts = np.unique(key[order], return_index=True, return_inverse=True, return_counts=True)
    medians = np.empty(len(points_m), np.float32)
    medians[order] = points_m[order[starts + counts // 2], 2][inverse]
    return np.asarray(np.abs(points_m[:, 2] - medians) < np.where(crossed, _STEP_M, _OFF_GROUND_M))


@jit
def _collect(points: Any, weights: Any, labels: Any, corner: Any, column: float, total: Any, height: Any, votes: Any
             ) -> None:
    for i in range(len(points)):
        x, y = int((points[i, 0] - corner[0]) / column), int((points[i, 1] - corner[1]) / column)
        total[x, y] += weights[i]
        height[x, y] += weights[i] * points[i, 2]
        votes[x, y, labels[i]] += weights[i]


@jit
def _smooth(height: Any, weight: Any, reach: int, same_m: float, out: Any) -> None:
    nx, ny = height.shape
    for x in range(nx):
        for y in range(ny):
            middle = height[x, y]
            if np.isnan(middle):
                continue
            total, summed = 0.0, 0.0
            for i in range(max(0, x - reach), min(nx, x + reach + 1)):
                for j in range(max(0, y - reach), min(ny, y + reach + 1)):
                    if abs(height[i, j] - middle) < same_m:
                        total += weight[i, j]
                        summed += weight[i, j] * height[i, j]
            out[x, y] = summed / total


def ground_map(points_m: NDArray[np.float32], weights: NDArray[np.float32], labels: NDArray[np.uint8],
               others_m: NDArray[np.float32], *, column_m: float, gap_m: float, step_m: float) -> GroundMap:
    """The ground through points of ground classes.

    Columns without points take height and class of the nearest one when ground surrounds them (they lie in the
    morphological closing of the known columns by `gap_m`), and when all ground within that distance agrees to
    `step_m`: it does between two LiDAR rings, it does not across a retaining wall.

    Args:
        points_m, weights, labels: [N, 3], how many returns each stands for [N], uint8 [N].
        others_m: [K, 3], points without a class; those at the height of the ground nearby are ground as well.
        column_m: edge of a column.
        gap_m: half the width of the widest gap that is closed.
        step_m: largest difference of heights around a gap.
    """
    if not len(points_m):
        return GroundMap(np.zeros(2), column_m, np.full((1, 1), np.nan, np.float32), np.zeros((1, 1), np.uint8))
    every = np.concatenate([points_m[:, :2], others_m[:, :2]]).astype(float)
    corner = np.floor((every.min(axis=0) - gap_m) / column_m - 1) * column_m
    nx, ny = (np.floor((every.max(axis=0) + gap_m - corner) / column_m).astype(int) + 2).tolist()
    total, height = np.zeros((nx, ny), np.float32), np.zeros((nx, ny), np.float32)
    votes = np.zeros((nx, ny, int(labels.max()) + 1), np.float32)
    _collect(points_m, weights, labels, corner, column_m, total, height, votes)
    # ties go to the higher id, as in datasets/shrink.py: kerbs and gutters outlast the pavement beside them
    classes = (votes.shape[2] - 1 - votes[:, :, ::-1].argmax(axis=2)).astype(np.uint8)
    known = total > 0
    height = np.where(known, height / np.maximum(total, 1e-9), np.nan).astype(np.float32)
    nearest = _nearest(known)
    at = ((others_m[:, :2] - corner) / column_m).astype(np.int64)
    there = nearest[:, at[:, 0], at[:, 1]]
    level = (np.hypot(*(there - at.T)) * column_m < 2 * gap_m) & (
        np.abs(others_m[:, 2] - height[tuple(there)]) < 2 * SAME_LEVEL_M)
    if level.any():
        more, heights = np.zeros_like(total), np.zeros_like(total)
        added = others_m[level]
        _collect(added, np.ones(len(added), np.float32), np.zeros(len(added), np.uint8), corner, column_m, more,
                 heights, votes)
        fresh = (more > 0) & ~known
        height[fresh] = heights[fresh] / more[fresh]
        total[fresh] = more[fresh]
        classes[fresh] = classes[tuple(nearest)][fresh]
        known |= fresh
        nearest = _nearest(known)
    nearest = _below_steps(height, known, nearest, column_m)
    radius = gap_m / column_m
    filled = known | (_closing(known, radius) & _agrees(height, known, radius, step_m))
    height = np.where(filled, height[tuple(nearest)], np.nan).astype(np.float32)
    classes = np.where(filled, classes[tuple(nearest)], 0).astype(np.uint8)
    smooth = height.copy()
    _smooth(height, np.where(known, total, 0.1).astype(np.float32), _SMOOTH_COLUMNS, SAME_LEVEL_M, smooth)
    return GroundMap(corner, column_m, smooth, classes)


def _nearest(known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each column the nearest known one, [2, nx, ny]."""
    return np.asarray(distance_transform_edt(~known, return_distances=False, return_indices=True))


def _below_steps(height: NDArray[np.float32], known: NDArray[np.bool_], nearest: NDArray[np.int64], column_m: float
                 ) -> NDArray[np.int64]:
    """`nearest`, but on the lower side where a narrow gap lies beside a step: it is the shadow of the step's edge."""
    size = 2 * round(_SHADOW_M / column_m) + 1
    lowest = minimum_filter(np.where(known, height, np.inf), size)
    below = _nearest(known & ~(height > lowest + _STEP_M))
    offset = below - np.indices(known.shape)
    shadow = ~known & (np.hypot(*offset) * column_m <= _SHADOW_M)
    return np.asarray(np.where(shadow, below, nearest))


def _closing(known: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Morphological closing by a disc, by two distance transforms."""
    grown = distance_transform_edt(~known) <= radius
    return np.asarray(distance_transform_edt(grown) > radius)


def _agrees(height: NDArray[np.float32], known: NDArray[np.bool_], radius: float, step_m: float) -> NDArray[np.bool_]:
    """Whether the known heights around each column differ by no more than a step."""
    size = 2 * int(radius) + 1
    highest = maximum_filter(np.where(known, height, -np.inf), size)
    lowest = minimum_filter(np.where(known, height, np.inf), size)
    return np.asarray(highest - lowest <= step_m)
