"""Which annotated box owns which cells, and what no mask observed."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.datasets.occ3d import Box, own_cells, unobserved
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, UNKNOWN


def box(track_id: int, label: int, x: float, length: float = 2.0) -> Box:
    return Box(track_id, label, se3.from_euler(0.0, 0.0, 0.0, (x, 0.2, 0.0)), np.array([length, 1.2, 1.2]))


def cell_at(x: float) -> tuple[int, int, int]:
    (cell,), inside = ROAD_GRID.index([[x, 0.2, 0.0]])
    assert inside.all()
    return tuple(cell.tolist())


def test_cells_that_touch_belong_to_the_nearest_box_of_their_class() -> None:
    labels = np.zeros(ROAD_GRID.shape, np.uint8)
    for x, label in ((4.2, 4), (5.4, 4), (6.6, 4), (7.8, 4), (5.0, 7)):  # the boxes end at 5.2 and begin at 6.2
        labels[cell_at(x)] = label
    rows, ids = own_cells(labels, [box(70, 4, 4.2), box(71, 4, 7.2)])
    np.testing.assert_array_equal(ids, np.array([70, 71], np.uint64))
    assert [int(rows[cell_at(x)]) for x in (4.2, 5.4, 6.6, 7.8)] == [1, 1, 2, 2]
    assert rows[cell_at(5.0)] == 0


def test_cells_apart_from_all_boxes_have_no_owner() -> None:
    labels = np.zeros(ROAD_GRID.shape, np.uint8)
    labels[cell_at(4.2)], labels[cell_at(5.8)] = 4, 4  # 0.6 m past the end
    rows, _ = own_cells(labels, [box(70, 4, 4.2)])
    assert np.count_nonzero(rows) == 1


def test_boxes_without_cells_have_no_row() -> None:
    labels = np.zeros(ROAD_GRID.shape, np.uint8)
    labels[cell_at(4.2)] = 4
    rows, ids = own_cells(labels, [box(9, 7, 4.2), box(70, 4, 4.2), box(8, 4, -30.0), box(5, 4, 400.0)])
    np.testing.assert_array_equal(ids, np.array([70], np.uint64))
    assert rows[cell_at(4.2)] == 1
    assert rows.max() == 1
    rows, ids = own_cells(labels, [])
    assert len(ids) == 0
    assert not rows.any()


@pytest.mark.parametrize(("label", "seen", "expected"), [(FREE, (True, False), FREE), (FREE, (False, False), UNKNOWN),
                                                         (3, (False, False), 3)])
def test_free_space_needs_an_observer(label: int, seen: tuple[bool, bool], expected: int) -> None:
    labels = np.array([[[label]]], np.uint8)
    assert unobserved(labels, *(np.array([[[by]]]) for by in seen)).item() == expected
