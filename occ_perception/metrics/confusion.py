"""Counting pairs of labels: the one pass over two grids on which the voxel-wise scores rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry.lens import jit
from occ_perception.metrics._common import common_order, require_same_shape
from occ_perception.taxonomy import OCCUPIED, UNKNOWN

_TABLES = 4  # neighbours mostly carry one label pair: turns keep an increment from waiting for the last


@jit
def _count(target: Any, prediction: Any, rows: Any, columns: Any, tables: Any) -> None:
    n = target.size
    for i in range(0, n - 3, 4):
        tables[0, rows[target[i]] + columns[prediction[i]]] += 1
        tables[1, rows[target[i + 1]] + columns[prediction[i + 1]]] += 1
        tables[2, rows[target[i + 2]] + columns[prediction[i + 2]]] += 1
        tables[3, rows[target[i + 3]] + columns[prediction[i + 3]]] += 1
    for i in range(n - n % 4, n):
        tables[0, rows[target[i]] + columns[prediction[i]]] += 1


@jit
def _count_masked(target: Any, prediction: Any, mask: Any, rows: Any, columns: Any, tables: Any) -> None:
    for i in range(target.size):
        tables[i & 3, rows[target[i]] + columns[prediction[i]]] += mask[i]


class LabelCounter:
    """Counts (true label, predicted label) pairs of uint8 arrays.

    Codes of rows and columns: 0..num_classes-1 the classes, then `occupied` (254: matter without a class), then
    `unknown`. Any other label is an error.
    """

    def __init__(self, num_classes: int, unknown: int) -> None:
        self.occupied, self.unknown = num_classes, num_classes + 1
        self._foreign, self._width = num_classes + 2, num_classes + 3
        codes = np.full(256, self._foreign, np.int64)
        codes[OCCUPIED], codes[unknown] = self.occupied, self.unknown
        codes[:num_classes] = np.arange(num_classes)
        self._columns, self._rows = codes, codes * self._width

    def count(self, prediction: NDArray[Any], target: NDArray[Any],
              mask: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Counts int64 [num_classes + 2, num_classes + 2] (true, predicted) over arrays of any one shape."""
        require_same_shape("label counts", prediction=prediction, target=target, mask=mask)
        prediction, target = as_labels(prediction, "prediction"), as_labels(target, "target")
        tables = np.zeros((_TABLES, self._width**2), np.int64)
        if mask is None:
            order = common_order(prediction, target)
            _count(target.ravel(order), prediction.ravel(order), self._rows, self._columns, tables)
        else:
            mask = np.asarray(mask, np.bool_)
            order = common_order(prediction, target, mask)
            _count_masked(target.ravel(order), prediction.ravel(order), mask.ravel(order).view(np.uint8),
                          self._rows, self._columns, tables)
        counts: NDArray[np.int64] = tables.sum(0).reshape(self._width, self._width)
        for what, line in (("target", counts[self._foreign]), ("prediction", counts[:, self._foreign])):
            if line.any():
                raise ShapeError(f"{line.sum()} voxels carry a label that is no class of 0..{self.occupied - 1}, "
                                 f"{OCCUPIED} or unknown", where=what, fix="Check which taxonomy the array is in.")
        return counts[:-1, :-1]


@jit
def _foreign_count(labels: Any, num_classes: int) -> int:
    count = 0
    for i in range(labels.size):
        count += (labels[i] >= num_classes) & (labels[i] < OCCUPIED)
    return count


def require_known(labels: NDArray[np.uint8], num_classes: int, where: str) -> None:
    """Raise ShapeError unless every label is a class of 0..num_classes - 1, 254 (occupied) or 255 (unknown)."""
    foreign = _foreign_count(labels.ravel(common_order(labels)), num_classes)
    if foreign:
        raise ShapeError(f"{foreign} voxels carry a label that is no class of 0..{num_classes - 1}, {OCCUPIED} or "
                         f"{UNKNOWN}", where=where, fix="Check which taxonomy the array is in.")


def as_labels(labels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """The labels as uint8; wider integers are accepted when they fit."""
    labels = np.asarray(labels)
    if labels.dtype == np.uint8:
        return labels
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
        raise ShapeError(f"labels must be integers in 0..255, got {labels.dtype}", where=where)
    return labels.astype(np.uint8)
