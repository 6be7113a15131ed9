"""Cells along rays: exact against `unproject`, through tilt, mirrored images and augmented grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ShapeError
from occ_perception.geometry import MountedCamera, RangeBins, VoxelGridSpec, make_camera, projection_table, se3
from occ_perception.geometry.ray_cells import grid_rays, ray_cells

BINS = RangeBins(0.2, 6.2, 0.2)
GRID = VoxelGridSpec((0, -3, -1), (6, 3, 2), (0.25, 0.25, 0.5))
CAMERA = make_camera("double_sphere", 240, 136, [70, 70, 119.5, 67.5, -0.2, 0.55])
FEATURES = (34, 60)
PIXELS = np.argwhere(np.ones(FEATURES, bool))


def front(usable: np.ndarray | None = None) -> MountedCamera:
    rotation = se3.from_euler(0, 0.15, 0.1)[:3, :3] @ se3.OPTICAL_IN_BODY
    return MountedCamera(CAMERA, se3.make(rotation, [0.3, 0.1, 0.6]), usable)


def test_cells_are_those_of_the_bin_centres_along_the_unprojected_rays() -> None:
    tilt = se3.from_euler(0.04, -0.06, 0)
    cells = ray_cells(front(), PIXELS, BINS, GRID, FEATURES, T_grid_base=tilt)
    rays = CAMERA.unproject(4 * PIXELS[:, ::-1] + 1.5)  # centre of a block of 4 x 4 pixels
    points = rays[:, None] * BINS.centres_m()[:, None]
    expected, inside = GRID.index(se3.apply(tilt @ front().T_base_camera, points))
    assert cells.shape == (len(PIXELS), BINS.count)
    assert cells.dtype == np.int32
    assert 0.1 < inside.mean() < 0.9
    assert np.array_equal(cells, np.where(inside, GRID.flatten(expected), -1))


def test_pixels_of_the_robot_itself_and_outside_the_field_of_view_have_no_cells() -> None:
    usable = np.ones((136, 240), bool)
    usable[100:] = False
    cells = ray_cells(front(usable), PIXELS, BINS, GRID, FEATURES)
    below = PIXELS[:, 0] >= 25
    assert (cells[below] == -1).all()
    assert np.array_equal(cells[~below], ray_cells(front(), PIXELS, BINS, GRID, FEATURES)[~below])
    narrow = MountedCamera(make_camera("equidistant", 240, 136, [70, 70, 119.5, 67.5], 0.8), front().T_base_camera)
    outside = np.hypot(*(4 * PIXELS[:, ::-1] + 1.5 - CAMERA.parameters[2:4]).T) > 70 * 0.8
    assert outside.any()
    assert (ray_cells(narrow, PIXELS, BINS, GRID, FEATURES)[outside] == -1).all()


def test_a_mirrored_image_in_a_mirrored_grid_meets_the_mirrored_cells() -> None:
    mirror = np.array([[-1.0, 0.0, 239.0], [0.0, 1.0, 0.0]])
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    plain = ray_cells(front(), PIXELS, BINS, GRID, FEATURES)
    flipped = ray_cells(front(), PIXELS * [1, -1] + [0, 59], BINS, GRID, FEATURES, image_affine=mirror,
                        augmentation=flip)
    mirrored = GRID.unflatten(plain)
    mirrored[..., 1] = GRID.shape[1] - 1 - mirrored[..., 1]
    assert np.array_equal(flipped, np.where(plain >= 0, GRID.flatten(mirrored), -1))


@settings(max_examples=30, deadline=None)
@given(turn=st.floats(-0.3, 0.3), scale=st.floats(0.8, 1.2), side=st.sampled_from([1.0, -1.0]))
def test_ranges_stay_metres_of_the_world_in_an_augmented_grid(turn: float, scale: float, side: float) -> None:
    augmentation = se3.from_euler(0, 0, turn) @ np.diag([scale, side * scale, 1.0, 1.0])
    origin, directions = grid_rays(front(), PIXELS, FEATURES, augmentation=augmentation)
    plain_origin, plain = grid_rays(front(), PIXELS, FEATURES)
    moved = origin + 3.0 * directions
    assert np.allclose(moved, se3.apply(augmentation, plain_origin + 3.0 * plain))
    cells = ray_cells(front(), PIXELS, RangeBins(2.9, 3.1, 0.2), GRID, FEATURES, augmentation=augmentation)[:, 0]
    expected, inside = GRID.index(moved)
    assert np.array_equal(cells, np.where(inside, GRID.flatten(expected), -1))


def test_a_lift_sample_lies_in_a_cell_of_its_own_pixels_ray() -> None:
    table = projection_table([front()], GRID, BINS, FEATURES)
    seen = np.flatnonzero((table.weights[0] > 0) & (table.bins[0] < BINS.count - 1))
    pixels = np.stack(np.divmod(table.rows[0, seen], FEATURES[1]), axis=1)
    cells = ray_cells(front(), pixels, BINS, GRID, FEATURES)[np.arange(len(seen)), table.bins[0, seen]]
    met = cells >= 0
    assert met.mean() > 0.95
    away = np.abs(GRID.unflatten(cells[met]) - GRID.unflatten(seen[met]))
    assert away.max() <= 1  # a pixel and a bin have a width


def test_pixels_must_be_rows_and_columns() -> None:
    with pytest.raises(ShapeError, match=r"\[R, 2\]"):
        ray_cells(front(), np.zeros(5, int), BINS, GRID, FEATURES)
