"""Rays through voxels: exact ranges on known scenes, agreement with dense sampling, lines of sight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ShapeError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.geometry.raycast import first_hits, visible_cells

GRID = VoxelGridSpec((0, 0, 0), (4, 3, 2), (0.5, 0.25, 0.5))


def test_a_ray_stops_at_the_face_of_the_first_opaque_cell():
    opaque = np.zeros(GRID.shape, bool)
    opaque[5, 6, 1] = opaque[7, 6, 1] = True
    cells, ranges = first_hits(opaque, GRID, [-1.0, 1.6, 0.75], [[2.0, 0, 0], [0, 1, 0], [-1, 0, 0]])
    assert cells.tolist() == [[5, 6, 1], [-1] * 3, [-1] * 3]
    assert ranges == pytest.approx([3.5, -1, -1])


def test_a_ray_that_starts_inside_an_opaque_cell_hits_it_at_once_and_a_short_one_does_not_arrive():
    opaque = np.zeros(GRID.shape, bool)
    opaque[0, 0, 0] = opaque[6, 0, 0] = True
    assert first_hits(opaque, GRID, [0.1, 0.1, 0.1], [[1, 0, 0]])[1] == pytest.approx([0.0])
    assert first_hits(opaque, GRID, [0.6, 0.1, 0.1], [[1, 0, 0]], max_range_m=2.0)[1] == pytest.approx([-1])
    assert first_hits(opaque, GRID, [0.6, 0.1, 0.1], [[1, 0, 0]], max_range_m=2.5)[1] == pytest.approx([2.4])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_hits_agree_with_dense_sampling_along_the_ray(seed):
    rng = np.random.default_rng(seed)
    opaque = rng.random(GRID.shape) < 0.1
    origin, direction = rng.uniform([-1, -1, -1], [5, 4, 3]), rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    cells, ranges = first_hits(opaque, GRID, origin, direction[None])
    steps = np.arange(0, 9, 1e-3)
    at, inside = GRID.index(origin + steps[:, None] * direction)
    stops = np.flatnonzero(inside & opaque[tuple(np.where(inside[:, None], at, 0).T)])
    if len(stops):
        # dense sampling may step over a corner that the exact walk meets
        assert -1 < ranges[0] <= steps[stops[0]] + 1e-6
        if ranges[0] > steps[stops[0]] - 2e-3:
            assert (at[stops[0]] == cells[0]).all()
    elif ranges[0] >= 0:
        assert opaque[tuple(cells[0])]


def test_a_wall_hides_what_is_behind_it_and_flat_ground_is_seen_to_the_end():
    opaque = np.zeros(SIDEWALK_GRID.shape, np.uint8)
    opaque[:, :, :20] = 1
    opaque[50, 40:60, 20:40] = 1
    seen = visible_cells(opaque, SIDEWALK_GRID, [0.3, 0.0, 0.75])
    assert seen[50, 45:55, 20:30].all()
    assert not seen[52:, 48:52, 20:24].any()
    assert seen[5:50, 45:55, 19].mean() > 0.99     # grazing ground before the wall, cell by cell
    assert seen[60:, :5, 19].mean() > 0.95         # and beside it
    assert not seen[:, :, :19].any()               # the underground is not seen
    assert seen[:50, :, 21:].mean() > 0.98


def test_a_grid_of_another_shape_is_refused():
    with pytest.raises(ShapeError):
        first_hits(np.zeros((2, 2, 2), bool), GRID, [0, 0, 0], [[1, 0, 0]])
