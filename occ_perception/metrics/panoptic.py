"""Panoptic quality of single frames: PQ (pairs of IoU above one half) and PQ* (best assignment)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from occ_perception.errors import ConfigurationError
from occ_perception.metrics._common import Scores, mean, ratio, require_classes, require_mergeable, require_same_shape
from occ_perception.metrics.confusion import as_labels, require_known
from occ_perception.taxonomy import OCCUPIED, UNKNOWN

MATCHINGS = ("iou", "hungarian")


class PanopticQuality:
    """PQ = SQ x RQ per class; segments are instances of things and whole classes of stuff, frame by frame.

    Args:
        num_classes: classes including free.
        things: ids of classes with instances.
        free: id of free space, which makes no segments (but predicted segments may reach into it).
        matching: `iou` pairs segments of one class whose IoU exceeds 0.5 (Kirillov et al. 2019);
            `hungarian` pairs them by maximum total IoU, any overlap counting: TrackOcc's PQ*.
    """

    def __init__(self, num_classes: int, things: Iterable[int], free: int,
                 matching: Literal["iou", "hungarian"] = "iou") -> None:
        self.num_classes, self.things, self.free, self.matching = num_classes, frozenset(things), free, matching
        require_classes("PanopticQuality", num_classes, free, self.things)
        if matching not in MATCHINGS:
            raise ConfigurationError([f"matching is {matching!r}"], where="PanopticQuality",
                                     fix=f"Choose one of {', '.join(MATCHINGS)}.")
        self._is_thing = np.isin(np.arange(256), list(self.things))
        self.tp = np.zeros(num_classes, np.int64)
        self.fp = np.zeros(num_classes, np.int64)
        self.fn = np.zeros(num_classes, np.int64)
        self.iou_sum = np.zeros(num_classes)

    def update(self, sem_prediction: NDArray[Any], ins_prediction: NDArray[Any], sem_target: NDArray[Any],
               ins_target: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> None:
        """Add one frame: labels and instance ids (0 none) of one shape, bool `mask` of the voxels that count.

        Raises:
            ShapeError: arrays of several shapes, or a label that is no class, 254 or 255.
        """
        require_same_shape("PanopticQuality", sem_prediction=sem_prediction, ins_prediction=ins_prediction,
                           sem_target=sem_target, ins_target=ins_target, mask=mask)
        sem_prediction, sem_target = as_labels(sem_prediction, "sem_prediction"), as_labels(sem_target, "sem_target")
        for name, array in (("sem_prediction", sem_prediction), ("sem_target", sem_target)):
            require_known(array, self.num_classes, f"PanopticQuality: {name}")
        known = (sem_target != UNKNOWN) & (sem_target != OCCUPIED)
        known = known if mask is None else known & mask
        labels, ids = self._segments(sem_prediction[known], ins_prediction[known])
        true_labels, true_ids = self._segments(sem_target[known], ins_target[known])
        n, m = len(true_labels), len(labels)
        joint = np.bincount(true_ids * m + ids, minlength=n * m).reshape(n, m)
        iou = joint / (joint.sum(1, keepdims=True) + joint.sum(0) - joint)
        iou[true_labels[:, None] != labels] = 0.0
        rows, columns = self._match(iou)
        keep = true_labels[rows] != self._none
        rows, columns = rows[keep], columns[keep]
        matched = self._per_class(true_labels[rows])
        self.tp += matched
        self.iou_sum += np.bincount(true_labels[rows], iou[rows, columns], 256)[: self.num_classes]
        self.fp += self._per_class(labels) - matched
        self.fn += self._per_class(true_labels) - matched

    def merge(self, other: PanopticQuality) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("num_classes", "things", "free", "matching"))
        for name in ("tp", "fp", "fn", "iou_sum"):
            getattr(self, name)[...] += getattr(other, name)

    def compute(self) -> Scores:
        """pq, sq, rq (means over classes that occur), pq_things, pq_stuff, and per_class PQ."""
        pq = ratio(self.iou_sum, self.tp + 0.5 * self.fp + 0.5 * self.fn)
        sq = np.where(np.isnan(pq), np.nan, np.nan_to_num(ratio(self.iou_sum, self.tp)))
        rq = ratio(self.tp, self.tp + 0.5 * self.fp + 0.5 * self.fn)
        thing = self._is_thing[: self.num_classes]
        return {"pq": mean(pq), "sq": mean(sq), "rq": mean(rq), "pq_things": mean(pq[thing]),
                "pq_stuff": mean(pq[~thing]), "per_class": pq.tolist()}

    _none = UNKNOWN  # label of the one segment that gathers everything that is no segment

    def _segments(self, labels: NDArray[np.uint8], ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Label of each segment [N], and the segment of each voxel; free space and things without id are `_none`."""
        thing = self._is_thing[labels]
        none = (labels == self.free) | (labels >= self.num_classes) | (thing & (ids == 0))
        values, number = np.unique(ids, return_inverse=True)
        key = np.where(none, self._none, labels).astype(np.int64) * (len(values) + 1)
        key += np.where(thing & ~none, number + 1, 0)
        keys, segment = np.unique(key, return_inverse=True)
        return keys // (len(values) + 1), segment

    def _match(self, iou: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.matching == "iou":
            rows, columns = np.nonzero(iou > 0.5)
            return rows, columns
        rows, columns = linear_sum_assignment(iou, maximize=True)
        hit = iou[rows, columns] > 0.0
        return rows[hit], columns[hit]

    def _per_class(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=256)[: self.num_classes]
