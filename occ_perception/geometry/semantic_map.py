"""A voxel grid seen from above: the class that rules each column (WalkOCC, appendix A.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.lens import jit


@jit
def _vote(labels: Any, levels: int, num_classes: int, ground: Any) -> None:
    votes = np.zeros(num_classes, np.int64)
    for x in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            votes[:] = 0
            for z in range(levels):
                if 0 < labels[x, y, z] < num_classes:
                    votes[labels[x, y, z]] += 1
            ground[x, y] = np.argmax(votes)


def levels_below(grid: VoxelGridSpec, ceiling_m: float) -> int:
    """How many levels of cells, from the lowest on, have their centre at or below `ceiling_m`."""
    heights_m = grid.minimum_m[2] + (np.arange(grid.shape[2]) + 0.5) * grid.cell[2]
    return int((heights_m <= ceiling_m + 1e-9).sum())


def semantic_map(labels: NDArray[np.uint8], grid: VoxelGridSpec, num_classes: int,
                 ceiling_m: float) -> NDArray[np.uint8]:
    """The grid seen from above, uint8 [nx, ny]: majority of each column's classes at or below `ceiling_m`.

    Free, unknown and unclassed voxels do not vote; a column without votes is 0. Ties go to the lower id.
    """
    if labels.shape != grid.shape:
        raise ShapeError(f"must be {grid.shape}, got {labels.shape}", where="semantic map: labels")
    votes = np.zeros(grid.shape[:2], np.uint8)
    _vote(labels, levels_below(grid, ceiling_m), num_classes, votes)
    return votes
