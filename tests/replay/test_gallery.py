"""Which frames the report shows: the worst of the scored ones, and the best for comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest

from occ_perception.geometry import VoxelGridSpec
from occ_perception.replay.evaluation import FrameScore, Gallery, Snapshot
from occ_perception.types import VoxelGrid

SPEC = VoxelGridSpec((0, 0, 0), (1, 1, 1), 1.0)


def shown(mious: list[float], worst: int) -> list[float]:
    gallery = Gallery(worst)
    for stamp_ns, miou in enumerate(mious):
        score = FrameScore(stamp_ns, miou, miou, math.nan)
        if gallery.wants(score):
            grid = VoxelGrid(SPEC, stamp_ns, np.zeros(SPEC.shape, np.uint8))
            gallery.offer(Snapshot(score, grid, None, {}, np.eye(4)))
    return [snapshot.score.miou for snapshot in gallery.snapshots()]


@pytest.mark.parametrize("order", [[0.5, 0.2, 0.9, 0.4, 0.1], [0.1, 0.2, 0.4, 0.5, 0.9], [0.9, 0.5, 0.4, 0.2, 0.1]])
def test_the_worst_come_first_and_the_best_last(order):
    assert shown(order, 2) == [0.1, 0.2, 0.9]


def test_frames_without_truth_never_displace_scored_ones():
    nan = math.nan
    assert shown([nan, nan, 0.3, nan, 0.2, nan, 0.6], 2) == [0.2, 0.3, 0.6]


def test_frames_without_truth_are_shown_where_nothing_is_scored():
    assert len(shown([math.nan] * 5, 3)) == 3
