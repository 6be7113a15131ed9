"""The map from above: how columns vote, whatever the layout of the array."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import ShapeError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.geometry.semantic_map import levels_below, semantic_map

GRID = VoxelGridSpec((0, 0, -1), (1.0, 0.5, 3), 0.5)  # levels centred at -0.75, -0.25 ... 2.75 m


def test_a_column_has_the_class_of_most_of_its_voxels_up_to_the_ceiling() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[0, 0] = [255, 2, 5, 5, 7, 7, 7, 7]
    labels[1, 0] = [254, 254, 254, 3, 2, 0, 0, 0]
    assert semantic_map(labels, GRID, 14, 1.0).tolist() == [[5], [3]]
    assert semantic_map(labels, GRID, 14, 2.75).tolist() == [[7], [2]]  # a tie goes to the lower id
    assert semantic_map(labels, GRID, 14, -1.0).tolist() == [[0], [0]]


def test_the_layout_of_the_array_does_not_matter_and_its_shape_does() -> None:
    labels = np.random.default_rng(0).integers(0, 14, GRID.shape).astype(np.uint8)
    np.testing.assert_array_equal(semantic_map(labels, GRID, 14, 1.0),
                                  semantic_map(np.asfortranarray(labels), GRID, 14, 1.0))
    with pytest.raises(ShapeError, match=r"must be \(2, 1, 8\)"):
        semantic_map(labels[:1], GRID, 14, 1.0)


@pytest.mark.parametrize(("ceiling_m", "levels"), [(-0.76, 0), (-0.75, 1), (1.0, 4), (9.0, 8)])
def test_a_level_counts_when_its_centre_does(ceiling_m: float, levels: int) -> None:
    assert levels_below(GRID, ceiling_m) == levels
