"""IoU of occupied against free and mIoU over classes, voxel by voxel (semantic scene completion)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    def compute(self) -> Scores:
        """iou, precision, recall (occupied or not), miou and per_class (NaN: never there), support (true voxels)."""
        k = self.num_classes
        known = self.confusion[: k + 1]
        occupied = np.arange(k + 2) != self.free
        occupied[k + 1] = False  # a predicted unknown is not occupied
        tp = known[occupied[: k + 1]][:, occupied].sum()
        fp = known[self.free, occupied].sum()
        fn = known[occupied[: k + 1]][:, ~occupied].sum()
        classes = known[:k]
        hits = np.diagonal(classes)
        per_class = ratio(hits, classes.sum(1) + classes[:, :k].sum(0) - hits)
        return {
            "iou": float(ratio(tp, tp + fp + fn)),
            "miou": mean(np.delete(per_class, self.free)),
            "per_class": per_class.tolist(),
            "precision": float(ratio(tp, tp + fp)),
            "recall": float(ratio(tp, tp + fn)),
            "support": classes.sum(1).astype(float).tolist(),
        }
