"""Cells that rays cross are counted apart from those they end in."""

from __future__ import annotations

import numpy as np

from occ_perception.geometry import VoxelGridSpec
from occ_perception.labeling.evidence import Evidence, seen_through

SPEC = VoxelGridSpec((0.0, 0.0, 0.0), (5.0, 3.0, 1.0), 0.5)
SENSOR = np.array([[0.25, 0.25, 0.25], [0.25, 2.25, 0.25]])


def test_a_ray_crosses_what_lies_before_its_end() -> None:
    points = np.array([[3.25, 0.25, 0.25], [4.25, 2.25, 0.25]], np.float32)
    seen = seen_through(points, SENSOR, np.array([0, 1], np.uint8), SPEC)
    expected = np.zeros(SPEC.shape, bool)
    expected[:6, 0, 0] = True
    expected[:8, 4, 0] = True
    assert (seen == expected).all()


def test_a_cell_in_which_one_ray_ends_is_no_way_through_for_another() -> None:
    points = np.array([[2.25, 0.25, 0.25], [4.25, 0.25, 0.25]], np.float32)
    seen = seen_through(points, SENSOR, np.zeros(2, np.uint8), SPEC)
    assert np.flatnonzero(seen[:, 0, 0]).tolist() == [0, 1, 2, 3, 5, 6, 7]


def test_frames_are_counted_and_not_rays() -> None:
    evidence, points = Evidence(SPEC), np.array([[3.25, 0.25, 0.25]] * 4, np.float32)
    for _ in range(3):
        evidence.add(points, SENSOR[:1], np.zeros(4, np.uint8), reach_m=10.0)
    hits, passes = evidence.at(np.array([[3.3, 0.3, 0.3], [1.0, 0.1, 0.1], [4.9, 0.1, 0.1], [9.0, 0.0, 0.0]]))
    assert hits.tolist() == [3, 0, 0, 0]
    assert passes.tolist() == [0, 3, 0, 0]


def test_a_hit_counts_once_in_the_cells_beside_and_below_and_not_above() -> None:
    evidence = Evidence(VoxelGridSpec((0.0, 0.0, 0.0), (5.0, 3.0, 2.0), 0.5))
    points = np.array([[2.25, 1.25, 1.25], [2.75, 1.25, 1.25]], np.float32)
    evidence.add(points, SENSOR[:1], np.zeros(2, np.uint8), reach_m=10.0)
    expected = np.zeros(evidence.spec.shape, int)
    expected[3:7, 1:4, 1:3] = 1
    assert (evidence.hits == expected).all()


def test_ways_through_are_counted_within_reach_and_hits_everywhere() -> None:
    evidence = Evidence(SPEC)
    evidence.add(np.array([[4.25, 0.25, 0.25]], np.float32), SENSOR[:1], np.zeros(1, np.uint8), reach_m=1.0)
    assert np.flatnonzero(evidence.passes[:, 0, 0]).tolist() == [0, 1, 2]
    assert np.argwhere(evidence.hits).tolist() == [[x, y, 0] for x in (7, 8, 9) for y in (0, 1)]
