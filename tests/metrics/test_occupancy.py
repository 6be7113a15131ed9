from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.metrics import OccupancyIoU

LABELS = np.array([0, 1, 2, 3, 254, 255], np.uint8)


def scored(prediction: list[int], target: list[int], mask: list[int] | None = None,
           **settings_: int) -> dict[str, object]:
    metric = OccupancyIoU(settings_.pop("num_classes", 4), **settings_)
    metric.update(np.array(prediction, np.uint8), np.array(target, np.uint8),
                  None if mask is None else np.array(mask, bool))
    return dict(metric.compute())


def test_counts_by_hand() -> None:
    #        hit  wrong class  false alarm  miss  free  unknown truth
    scores = scored([1, 2, 3, 0, 0, 1], [1, 1, 0, 2, 0, 255])
    assert scores["iou"] == 2 / 4
    assert scores["precision"] == 2 / 3
    assert scores["recall"] == 2 / 3
    assert scores["per_class"] == [1 / 3, 1 / 2, 0.0, 0.0]
    assert scores["miou"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert scores["support"] == [2, 2, 1, 0]


def test_a_class_that_occurs_nowhere_is_nan_and_not_averaged() -> None:
    scores = scored([1, 0], [1, 0])
    assert scores["miou"] == 1.0
    assert np.isnan(scores["per_class"][2])  # type: ignore[index]


def test_matter_without_a_class_counts_as_occupied_and_is_left_out_of_the_classes() -> None:
    assert scored([1, 1], [254, 1])["iou"] == 1.0
    assert scored([1, 1], [254, 1])["miou"] == 1.0
    as_prediction = scored([254, 1], [1, 1])
    assert as_prediction["iou"] == 1.0
    assert as_prediction["miou"] == 0.5


def test_a_predicted_unknown_is_neither_occupied_nor_free() -> None:
    scores = scored([255, 255, 1], [1, 0, 1])
    assert scores["recall"] == 0.5
    assert scores["precision"] == 1.0
    assert scores["per_class"][0] == 0.0  # type: ignore[index]


def test_mask_selects_voxels_and_free_may_be_any_id() -> None:
    scores = scored([3, 0, 1], [3, 0, 2], [1, 1, 0], free=3)
    assert scores["iou"] == 1.0
    assert scores["miou"] == 1.0
    assert np.isnan(scored([0], [0])["iou"])  # type: ignore[call-overload]


def test_labels_that_are_no_class_are_refused_and_leave_the_counts_alone() -> None:
    metric = OccupancyIoU(4)
    with pytest.raises(ShapeError, match="target: 1 voxels carry a label"):
        metric.update(np.zeros(2, np.uint8), np.array([0, 7], np.uint8))
    with pytest.raises(ShapeError, match="one shape"):
        metric.update(np.zeros(2, np.uint8), np.zeros(3, np.uint8))
    assert metric.confusion.sum() == 0
    with pytest.raises(ConfigurationError, match="num_classes: 4 and 5"):
        metric.merge(OccupancyIoU(5))


def random_pair(seed: int, shape: tuple[int, ...] = (5, 4, 3)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return rng.choice(LABELS, shape), rng.choice(LABELS, shape)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_merge_is_one_pass_and_memory_layout_does_not_matter(seed: int) -> None:
    one, first, second = OccupancyIoU(4), OccupancyIoU(4), OccupancyIoU(4)
    for part, k in ((first, 0), (second, 1)):
        prediction, target = random_pair(seed + k)
        mask = np.random.default_rng(seed).random(target.shape) < 0.5
        one.update(np.asfortranarray(prediction), target, np.asfortranarray(mask))
        part.update(prediction, target, mask)
    first.merge(second)
    np.testing.assert_array_equal(first.confusion, one.confusion)
    np.testing.assert_equal(first.compute(), one.compute())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_confusion_is_numpys_and_a_perfect_prediction_scores_1(seed: int) -> None:
    prediction, target = random_pair(seed)
    metric = OccupancyIoU(4)
    metric.update(prediction, target)
    want = np.zeros((6, 6), np.int64)
    np.add.at(want, (np.searchsorted(LABELS, target).ravel(), np.searchsorted(LABELS, prediction).ravel()), 1)
    np.testing.assert_array_equal(metric.confusion, want)
    perfect = OccupancyIoU(4)
    perfect.update(target, target)
    assert perfect.compute()["iou"] == 1.0
    assert perfect.compute()["miou"] == 1.0


def test_counts_of_two_grids_add_up_to_the_scores_of_both() -> None:
    rng = np.random.default_rng(5)
    both, parts = OccupancyIoU(4), [OccupancyIoU(4), OccupancyIoU(4)]
    for part in parts:
        prediction, target = (rng.choice([0, 1, 2, 3, 254, 255], (4, 4, 4)).astype(np.uint8) for _ in range(2))
        part.update(prediction, target)
        both.update(prediction, target)
    hits, unions = parts[0].counts() + parts[1].counts()
    scores = both.compute()
    assert hits[0] / unions[0] == scores["iou"]
    assert (hits[1:] / unions[1:]).tolist() == scores["per_class"][1:]  # type: ignore[index]
