"""OccSTQ: segmentation and association of things over whole sequences (TrackOcc, equations 3 to 5)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.metrics._common import Scores, mean, ratio, require_classes, require_mergeable, require_same_shape
from occ_perception.metrics.confusion import LabelCounter
from occ_perception.taxonomy import UNKNOWN

_PUBLISHED_SKIPPED_ID = 1


@dataclass
class _Tubes:
    """Sizes in voxels of the tubes of one sequence, by instance id."""

    true: Counter[int] = field(default_factory=Counter)
    predicted: Counter[int] = field(default_factory=Counter)
    predicted_in_free: Counter[int] = field(default_factory=Counter)
    common: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, other: _Tubes) -> None:
        self.true.update(other.true)
        self.predicted.update(other.predicted)
        self.predicted_in_free.update(other.predicted_in_free)
        self.common.update(other.common)

    def association(self, predicted: Counter[int]) -> float:
        """Sum over the true tubes of sum_p TPA(p, g) IoU(p, g) / |g| (equation 4 without its 1 / |G|)."""
        return sum(
            shared * shared / (predicted[p] + self.true[g] - shared) / self.true[g]
            for (g, p), shared in self.common.items()
        )


class OccSTQ:
    """Occupancy segmentation and tracking quality: sqrt(OccSQ x OccAQ).

    A tube is an instance id of thing classes within one sequence, whatever its class in each frame; id 0 is none.
    Voxels whose truth is free are left out, as in the paper, so that flooding free space costs nothing;
    the `strict` scores count what is predicted there as false positives.

    Args:
        num_classes: classes including free.
        things: ids of classes with instances.
        free: id of free space.
        published: score as the published evaluator does, which takes id 1 for no instance (a left-over of another
            data set's shift of ids), so that a sequence's first instance never counts.
    """

    def __init__(self, num_classes: int, things: Iterable[int], free: int, *, published: bool = False) -> None:
        self.num_classes, self.things, self.free = num_classes, frozenset(things), free
        self.published = published
        require_classes("OccSTQ", num_classes, free, self.things)
        self._is_thing = np.isin(np.arange(256), list(self.things))
        self._counter = LabelCounter(num_classes, UNKNOWN)
        self.confusion = np.zeros((num_classes + 2, num_classes + 2), np.int64)
        self.sequences: dict[Hashable, _Tubes] = {}

    def update(self, sem_prediction: NDArray[Any], ins_prediction: NDArray[Any], sem_target: NDArray[Any],
               ins_target: NDArray[Any], mask: NDArray[np.bool_] | None = None, *, sequence: Hashable) -> None:
        """Add one frame (or any stack of frames) of `sequence`.

        Args:
            sem_prediction, sem_target: labels, any one shape; 255 in the truth is left out.
            ins_prediction, ins_target: instance ids (any integers, constant over the sequence), 0 none.
            mask: bool, voxels that count.
            sequence: name of the sequence; ids of different sequences have nothing to do with each other.
        """
        require_same_shape("OccSTQ", sem_prediction=sem_prediction, ins_prediction=ins_prediction,
                           sem_target=sem_target, ins_target=ins_target, mask=mask)
        self.confusion += self._counter.count(sem_prediction, sem_target, mask)
        known = sem_target != UNKNOWN if mask is None else mask & (sem_target != UNKNOWN)
        predicted = known & self._is_thing[sem_prediction] & (ins_prediction != 0)
        true = known & self._is_thing[sem_target] & (ins_target != 0)
        if self.published:
            predicted &= ins_prediction != _PUBLISHED_SKIPPED_ID
            true &= ins_target != _PUBLISHED_SKIPPED_ID
        both, in_free = predicted & true, predicted & (sem_target == self.free)
        self.sequences.setdefault(sequence, _Tubes()).add(_Tubes(
            true=_sizes(ins_target[true]),
            predicted=_sizes(ins_prediction[predicted & ~in_free]),
            predicted_in_free=_sizes(ins_prediction[in_free]),
            common=_pairs(ins_target[both], ins_prediction[both]),
        ))

    def merge(self, other: OccSTQ) -> None:
        """Add what another instance with the same settings has counted; equal sequence names are one sequence."""
        require_mergeable(self, other, ("num_classes", "things", "free", "published"))
        self.confusion += other.confusion
        for sequence, tubes in other.sequences.items():
            self.sequences.setdefault(sequence, _Tubes()).add(tubes)

    def compute(self) -> Scores:
        """OccSTQ and its parts.

        `occstq`, `occaq`, `occsq`: OccSQ is the mean over all classes but free, one that occurs nowhere counting 0,
        as the reference figures have it; `occsq_present` and `occstq_present` leave such classes out. The same with
        `strict_` before it counts predictions in visible free space. `per_class` IoU; `tubes`, `predicted_tubes`.
        """
        tubes = sum(len(s.true) for s in self.sequences.values())
        per_class = self._iou(strict=False)
        scores: Scores = {}
        for prefix, iou in (("", per_class), ("strict_", self._iou(strict=True))):
            sizes = ((s, s.predicted + s.predicted_in_free if prefix else s.predicted) for s in self.sequences.values())
            occaq = float(ratio(sum(s.association(predicted) for s, predicted in sizes), tubes))
            classes = np.delete(iou, self.free)
            occsq, present = float(np.nan_to_num(classes).mean()), mean(classes)
            scores |= {
                f"{prefix}occstq": math.sqrt(occaq * occsq), f"{prefix}occaq": occaq, f"{prefix}occsq": occsq,
                f"{prefix}occstq_present": math.sqrt(occaq * present), f"{prefix}occsq_present": present,
            }
        predicted_tubes = sum(len(s.predicted | s.predicted_in_free) for s in self.sequences.values())
        return scores | {"per_class": per_class.tolist(), "tubes": float(tubes),
                         "predicted_tubes": float(predicted_tubes)}

    def _iou(self, *, strict: bool) -> NDArray[np.float64]:
        """IoU per class [num_classes]; NaN for free and for classes that occur nowhere."""
        counts = self.confusion[: self.num_classes].copy()
        if not strict:
            counts[self.free] = 0
        hits = np.diagonal(counts)
        iou = ratio(hits, counts.sum(1) + counts[:, : self.num_classes].sum(0) - hits)
        iou[self.free] = np.nan
        return iou


def _sizes(ids: NDArray[Any]) -> Counter[int]:
    values, counts = np.unique(ids, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _pairs(first: NDArray[Any], second: NDArray[Any]) -> Counter[tuple[int, int]]:
    """How often each pair (first, second) occurs; ids may be any 64-bit integers."""
    a, rows = np.unique(first, return_inverse=True)
    b, columns = np.unique(second, return_inverse=True)
    counts = np.bincount(rows * len(b) + columns, minlength=len(a) * len(b))
    return Counter({(int(a[i // len(b)]), int(b[i % len(b)])): int(counts[i]) for i in np.flatnonzero(counts)})
