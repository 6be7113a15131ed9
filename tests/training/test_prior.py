"""The prior and the scores that compare with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from occ_perception.datasets.sample import Sample
from occ_perception.errors import DatasetError
from occ_perception.training.evaluate import constant_predictor, evaluate, spread
from occ_perception.training.prior import LabelCounts, count_labels


def test_the_most_frequent_visible_label_wins() -> None:
    counts = LabelCounts(3, (1, 1, 4))
    everywhere = np.ones((1, 1, 4), bool)
    for grid in ([2, 1, 255, 0], [2, 2, 255, 1], [1, 2, 254, 1]):
        counts.update(np.array(grid, np.uint8).reshape(1, 1, 4), everywhere)
    counts.update(np.full((1, 1, 4), 1, np.uint8), ~everywhere)
    assert counts.most_frequent().ravel().tolist() == [2, 2, 0, 1]
    assert counts.frequencies().tolist() == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    assert counts.frequencies_by_height()[:, 2].tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(DatasetError):
        counts.update(np.zeros((2, 1, 4), np.uint8), np.ones((2, 1, 4), bool))


def test_the_prior_of_one_sample_is_perfect_on_that_sample(samples: Sequence[Sample]) -> None:
    counts = count_labels(samples[:1], 14, samples[0].labels.shape)
    scores = evaluate(constant_predictor(counts.most_frequent()), samples[:1])
    assert (scores["iou"], scores["miou"], scores["samples"]) == (1.0, 1.0, 1)
    assert evaluate(constant_predictor(counts.most_frequent()), samples[1:2])["miou"] < 1.0


def test_the_main_score_counts_visible_voxels_only(samples: Sequence[Sample]) -> None:
    half = replace(samples[0], visible=samples[0].labels != 1)
    road_missed = np.where(half.labels == 1, 0, half.labels)
    scores = evaluate(constant_predictor(road_missed), [half])
    assert scores["iou"] == 1.0
    assert scores["labelled"]["iou"] < 1.0


def test_a_subset_is_evenly_spread() -> None:
    assert spread(10, 5) == [1, 3, 5, 7, 9]
    assert spread(3, 5) == [0, 1, 2]
    assert spread(4, None) == [0, 1, 2, 3]
