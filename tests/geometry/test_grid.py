"""The voxel grid: sizes, cells of points, and the order of cells in messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import ROAD_GRID, SIDEWALK_GRID, VoxelGridSpec


def test_the_two_standard_grids_have_the_papers_sizes():
    assert SIDEWALK_GRID.shape == (100, 100, 50)
    assert ROAD_GRID.shape == (200, 200, 16)


def test_lower_faces_belong_to_the_grid_and_upper_ones_do_not():
    cells, inside = SIDEWALK_GRID.index([[0, -5, -2], [9.999, 4.999, 2.999], [10, 0, 0], [-1e-9, 0, 0],
                                         [np.nan, 0, 0]])
    assert inside.tolist() == [True, True, False, False, False]
    assert cells[:2].tolist() == [[0, 0, 0], [99, 99, 49]]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.data())
def test_flat_index_and_cell_are_inverse_and_x_runs_fastest(nx, ny, nz, data):
    spec = VoxelGridSpec((0, 0, 0), (nx * 0.5, ny * 0.5, nz * 0.5), 0.5)
    index = data.draw(st.integers(0, spec.size - 1))
    cell = spec.unflatten(index)
    assert spec.flatten(cell) == index == cell[0] + nx * (cell[1] + ny * cell[2])
    got, inside = spec.index(spec.centre_of(cell[None]))
    assert inside[0]
    assert (got[0] == cell).all()


def test_message_order_round_trips_without_copying_a_transposed_array():
    spec = VoxelGridSpec((0, 0, 0), (3, 2, 1), 0.5)
    stored = np.arange(spec.size, dtype=np.uint8).reshape(spec.shape[::-1]).transpose()
    flat = spec.to_message_order(stored)
    assert flat.tolist() == list(range(spec.size))
    assert np.shares_memory(flat, stored)
    assert (spec.from_message_order(flat) == stored).all()


def test_cells_may_differ_per_axis():
    spec = VoxelGridSpec((0, -5, -0.45), (10, 5, 1.95), (0.1, 0.1, 0.3))
    assert spec.shape == (100, 100, 8)
    assert spec.centres()[0, 0, :3, 2] == pytest.approx([-0.3, 0.0, 0.3])


@pytest.mark.parametrize("arguments", [
    ((0, 0, 0), (1, 1, 1), 0.3), ((0, 0, 0), (1, 1, 1), -0.1), ((0, 0, 0), (0, 1, 1), 0.1),
    ((0, 0, np.inf), (1, 1, 1), 0.1), ((0, 0), (1, 1, 1), 0.1),
])
def test_a_grid_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ConfigurationError):
        VoxelGridSpec(*arguments)


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"must be \(100, 100, 50\)"):
        SIDEWALK_GRID.to_message_order(np.zeros((50, 100, 100), np.uint8))
