"""IoU of occupied against free and mIoU over classes, voxel by voxel (semantic scene completion)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.metrics._common import Scores, mean, ratio, require_classes, require_mergeable
from occ_perception.metrics.confusion import LabelCounter
from occ_perception.taxonomy import UNKNOWN


class OccupancyIoU:
    """Counts over all voxels whose truth is known (and that the mask selects).

    A predicted `unknown` answers nothing: it is not occupied and not free either. 254 (matter without a class)
    counts as occupied; as a truth it is left out of the classes, as a prediction it misses the class.

    Args:
        num_classes: classes including free.
        free: id of free space.
        unknown: label without information.
    """

    def __init__(self, num_classes: int, free: int = 0, unknown: int = UNKNOWN) -> None:
        require_classes("OccupancyIoU", num_classes, free)
        self.num_classes, self.free, self.unknown = num_classes, free, unknown
        self._counter = LabelCounter(num_classes, unknown)
        self.confusion = np.zeros((num_classes + 2, num_classes + 2), np.int64)
        """Voxels by (true, predicted) code: classes, occupied without class, unknown."""

    def update(self, prediction: NDArray[Any], target: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Add one grid: labels of one shape (uint8), and bool `mask` of the voxels that count (default: all)."""
        self.confusion += self._counter.count(prediction, target, mask)

    def merge(self, other: OccupancyIoU) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("num_classes", "free", "unknown"))
        self.confusion += other.confusion

    def counts(self) -> NDArray[np.int64]:
        """Hits and unions, [2, num_classes]: of each class, and at `free` of occupied against free.

        Scores are hits / unions, and counts of several grids may be added: what resampling needs.
        """
        counts = self._of_classes()
        found, false_alarms, missed = self._of_occupied()
        counts[:, self.free] = found, found + false_alarms + missed
        return counts

    def compute(self) -> Scores:
        """iou, precision, recall (occupied or not), miou and per_class (NaN: never there), support (true voxels)."""
        found, false_alarms, missed = self._of_occupied()
        per_class = ratio(*self._of_classes())
        return {
            "iou": float(ratio(found, found + false_alarms + missed)),
            "miou": mean(np.delete(per_class, self.free)),
            "per_class": per_class.tolist(),
            "precision": float(ratio(found, found + false_alarms)),
            "recall": float(ratio(found, found + missed)),
            "support": self.confusion[: self.num_classes].sum(1).astype(float).tolist(),
        }

    def _of_classes(self) -> NDArray[np.int64]:
        """Hits and unions of each class, free included, [2, num_classes]."""
        classes = self.confusion[: self.num_classes]
        hits = np.diagonal(classes)
        return np.stack([hits, classes.sum(1) + classes[:, : self.num_classes].sum(0) - hits])

    def _of_occupied(self) -> tuple[int, int, int]:
        """Occupied voxels that were found, false alarms, and misses."""
        known = self.confusion[: self.num_classes + 1]
        occupied = np.arange(self.num_classes + 2) != self.free
        occupied[self.num_classes + 1] = False  # a predicted unknown is not occupied
        true = known[occupied[: self.num_classes + 1]]
        return int(true[:, occupied].sum()), int(known[self.free, occupied].sum()), int(true[:, ~occupied].sum())


def relative_miou(target: ArrayLike, source: ArrayLike) -> NDArray[np.float64]:
    """Part of the source domain's mIoU that is kept in the target domain (WalkOCC, table 3); NaN where it was 0."""
    return ratio(target, source)
