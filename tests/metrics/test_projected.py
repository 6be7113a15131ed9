from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import ShapeError
from occ_perception.geometry import VoxelGridSpec, make_camera
from occ_perception.geometry.se3 import OPTICAL_IN_BODY, make
from occ_perception.metrics import ProjectedSemantics, project_labels

GRID = VoxelGridSpec((0, -2, -2), (4, 2, 2), 0.5)
CAMERA = make_camera("pinhole", 32, 24, (20.0, 20.0, 15.5, 11.5))
T_GRID_CAMERA = make(OPTICAL_IN_BODY, (0.1, 0.0, 0.0))


def wall(label: int) -> np.ndarray:
    """A wall across the view whose near face is 3 m from the origin."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[6] = label
    return labels


def flat_range_m(distance_m: float) -> np.ndarray:
    """Range image of a plane `distance_m` in front of the camera."""
    image: np.ndarray = distance_m / CAMERA.rays()[..., 2]
    return image


def test_a_wall_fills_the_pixels_whose_rays_meet_it() -> None:
    image = project_labels(wall(2), GRID, CAMERA, T_GRID_CAMERA)
    assert image[12, 16] == 2
    behind_unknown = wall(2)
    behind_unknown[2] = 255
    np.testing.assert_array_equal(project_labels(behind_unknown, GRID, CAMERA, T_GRID_CAMERA), image)


def test_right_wrong_and_missed_pixels_by_hand() -> None:
    metric = ProjectedSemantics(GRID, 4)
    semantics = np.full((24, 32), 2, np.uint8)
    semantics[:, :16] = 3
    rays = CAMERA.rays()
    inside = (np.abs(3.0 * rays[..., :2] / rays[..., 2:]) < 2.0).all(-1)  # of the points on the plane
    metric.update(wall(2), semantics, flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
    scores = metric.compute()
    assert scores["pixels"] == inside.sum()
    assert scores["pixel_accuracy"] == pytest.approx(inside[:, 16:].sum() / inside.sum())
    assert scores["miou"] == pytest.approx((inside[:, 16:].sum() / inside.sum() + 0.0) / 2)
    nothing = ProjectedSemantics(GRID, 4)
    nothing.update(wall(0), semantics, flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
    assert nothing.compute()["pixel_accuracy"] == 0.0


def test_pixels_that_end_outside_the_grid_or_show_nothing_do_not_count() -> None:
    metric, semantics = ProjectedSemantics(GRID, 4), np.full((24, 32), 2, np.uint8)
    metric.update(wall(2), semantics, flat_range_m(9.0), CAMERA, T_GRID_CAMERA)
    metric.update(wall(2), semantics, np.zeros((24, 32)), CAMERA, T_GRID_CAMERA)
    metric.update(wall(2), np.where(np.arange(32) % 2, 0, 14).astype(np.uint8) * np.ones((24, 1), np.uint8),
                  flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
    assert metric.compute()["pixels"] == 0


def test_merge_is_one_pass_and_other_shapes_are_refused() -> None:
    one, first, second = (ProjectedSemantics(GRID, 4) for _ in range(3))
    semantics = np.full((24, 32), 2, np.uint8)
    for part, label in ((first, 2), (second, 3)):
        one.update(wall(label), semantics, flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
        part.update(wall(label), semantics, flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
    first.merge(second)
    assert first.compute()["pixel_accuracy"] == one.compute()["pixel_accuracy"] == 0.5
    with pytest.raises(ShapeError, match="one shape"):
        one.update(wall(2), semantics[:-1], flat_range_m(3.0), CAMERA, T_GRID_CAMERA)
