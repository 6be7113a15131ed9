"""The prior: each voxel's most frequent training label. What a network has to beat to have looked at the image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from occ_perception.datasets.sample import Sample
from occ_perception.errors import DatasetError
from occ_perception.taxonomy import FREE


class LabelCounts:
    """How often each voxel had each label in the samples given so far; unseen and unlabelled voxels do not count."""

    def __init__(self, num_classes: int, shape: tuple[int, int, int]) -> None:
        self.counts = np.zeros((num_classes, *shape), np.int32)

    def update(self, labels: NDArray[np.uint8], visible: NDArray[np.bool_]) -> None:
        """Add one grid of labels [nx, ny, nz]; 254 and 255 are in no class and are left out."""
        if labels.shape != self.counts.shape[1:]:
            raise DatasetError(f"labels are {labels.shape}, the counts are over {self.counts.shape[1:]}")
        flat = labels.ravel()
        voxels = np.flatnonzero(visible.ravel() & (flat < len(self.counts)))
        self.counts.reshape(len(self.counts), -1)[flat[voxels], voxels] += 1

    def frequencies(self) -> NDArray[np.float64]:
        """Frequency of each class, [K]; sums to one."""
        totals = self.counts.sum((1, 2, 3), dtype=np.float64)
        return np.asarray(totals / max(totals.sum(), 1.0))

    def frequencies_by_height(self) -> NDArray[np.float64]:
        """Frequency of each class at each height, [K, nz], one free voxel added so that no height is empty."""
        totals = self.counts.sum((1, 2), dtype=np.float64)
        totals[FREE] += 1.0
        return np.asarray(totals / totals.sum(0))

    def most_frequent(self) -> NDArray[np.uint8]:
        """Each voxel's most frequent label, uint8 [nx, ny, nz]; free where nothing was counted."""
        return np.asarray(self.counts.argmax(0), np.uint8)


def count_labels(samples: Iterable[Sample], num_classes: int, shape: tuple[int, int, int]) -> LabelCounts:
    """Counts over samples."""
    counts = LabelCounts(num_classes, shape)
    for sample in samples:
        counts.update(sample.labels, sample.visible)
    return counts
