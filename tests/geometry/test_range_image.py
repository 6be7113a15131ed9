"""Sparse range images: exact against the camera model, and consistent with projection tables and ray cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import SIDEWALK_GRID, MountedCamera, RangeBins, make_camera, projection_table, se3
from occ_perception.geometry.range_image import range_image
from occ_perception.geometry.ray_cells import grid_rays, ray_cells

BINS = RangeBins(0.2, 12.2, 0.2)
CAMERA = make_camera("equidistant", 960, 544, [330, 330, 479.5, 271.5, -0.012, 0.004, -0.0015, 0.0002], 1.4)
FEATURES = (68, 120)


def front(yaw: float = 0.0, usable: np.ndarray | None = None) -> MountedCamera:
    rotation = se3.from_euler(0, 0.1, yaw)[:3, :3] @ se3.OPTICAL_IN_BODY
    return MountedCamera(CAMERA, se3.make(rotation, [0.28, 0, 0.75]), usable)


def cloud(count: int = 3000) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(count, 3)) * [6, 6, 1.5]).astype(np.float32)


def reference(mounted: MountedCamera, points: np.ndarray) -> np.ndarray:
    """Point by point: project, floor to the feature pixel, keep the nearest."""
    in_camera = se3.apply(se3.invert(mounted.T_base_camera), points.astype(float))
    pixels, valid = mounted.camera.project(in_camera)
    image = np.full(FEATURES, np.inf)
    cells = np.floor((pixels[valid] + 0.5) / 8).astype(int)
    np.minimum.at(image, (cells[:, 1], cells[:, 0]), np.linalg.norm(in_camera[valid], axis=1))
    return np.where(np.isfinite(image), image, 0.0)


def test_each_feature_pixel_holds_the_nearest_range_of_its_points() -> None:
    image = range_image(cloud(), [front(), front(0.7)], FEATURES)
    assert image.shape == (2, *FEATURES)
    assert image.dtype == np.float32
    for mounted, got in zip((front(), front(0.7)), image, strict=True):
        expected = reference(mounted, cloud())
        assert (expected > 0).sum() > 300
        assert np.allclose(got, expected, atol=1e-5)


def test_a_point_lands_in_the_pixel_that_a_lift_sample_at_its_place_reads() -> None:
    table = projection_table([front()], SIDEWALK_GRID, BINS, FEATURES)
    centres = SIDEWALK_GRID.centres().transpose(2, 1, 0, 3).reshape(-1, 3)
    for sample in np.flatnonzero(table.weights[0])[:: 20011]:
        image = range_image(centres[sample : sample + 1], [front()], FEATURES)[0]
        assert np.flatnonzero(image).tolist() == [table.rows[0, sample]]
        assert BINS.index(image.max()) == table.bins[0, sample]


def test_resizing_affines_and_motion_are_those_of_the_tables() -> None:
    motion = se3.from_euler(0, 0, 0.1, (0.2, 0.05, 0))
    at_exposure = se3.apply(se3.invert(motion), cloud()).astype(np.float32)
    moved = range_image(cloud(), [front()], FEATURES, T_anchor_exposure=[motion])
    assert (np.abs(moved - range_image(at_exposure, [front()], FEATURES)) < 1e-4).mean() > 0.999
    halved = range_image(cloud(), [front()], FEATURES, input_size=(272, 480))
    assert np.array_equal(halved, range_image(cloud(), [front()], FEATURES))  # the same feature pixels
    mirror = np.array([[-1.0, 0.0, 959.0], [0.0, 1.0, 0.0]])
    flipped = range_image(cloud(), [front()], FEATURES, image_affine=[mirror])
    assert np.array_equal(flipped[..., ::-1], range_image(cloud(), [front()], FEATURES))


def test_pixels_that_show_the_robot_itself_stay_empty() -> None:
    usable = np.ones((544, 960), bool)
    usable[300:] = False
    masked, plain = (range_image(cloud(), [front(usable=mask)], FEATURES)[0] for mask in (usable, None))
    assert not masked[38:].any()
    assert plain[38:].any()
    assert np.array_equal(masked[:37], plain[:37])


def test_no_points_and_points_that_are_not_finite_give_no_range() -> None:
    assert not range_image(np.zeros((0, 3), np.float32), [front()], FEATURES).any()
    strange = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [5, np.nan, 0], [5, -np.inf, 0]], np.float32)
    assert not range_image(strange, [front()], FEATURES).any()
    assert not range_image(np.array([[0.28, 0, 0.75]]), [front()], FEATURES).any()  # the optical centre


def test_wrong_shapes_and_no_camera_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\[P, 3\]"):
        range_image(np.zeros((4, 4), np.float32), [front()], FEATURES)
    with pytest.raises(ConfigurationError):
        range_image(cloud(), [], FEATURES)


@settings(max_examples=60, deadline=None)
@given(row=st.integers(0, 67), column=st.integers(0, 119), bin_=st.integers(0, 59), yaw=st.floats(-0.6, 0.6),
       roll=st.floats(-0.1, 0.1), pitch=st.floats(-0.1, 0.1))
def test_a_point_on_a_pixels_ray_comes_back_in_that_pixel_with_its_range(
    row: int, column: int, bin_: int, yaw: float, roll: float, pitch: float
) -> None:
    tilt, mounted, pixel = se3.from_euler(roll, pitch, 0.0), front(yaw), np.array([[row, column]])
    origin, directions = grid_rays(mounted, pixel, FEATURES, T_grid_base=tilt)
    range_m = BINS.centres_m()[bin_]
    point = origin + range_m * directions[0]
    cell, inside = SIDEWALK_GRID.index(point[None])
    cells = ray_cells(mounted, pixel, BINS, SIDEWALK_GRID, FEATURES, T_grid_base=tilt)[0]
    if np.isnan(point).any():
        assert (cells == -1).all()
        return
    assert cells[bin_] == (SIDEWALK_GRID.flatten(cell[0]) if inside[0] else -1)
    image = range_image(se3.apply(se3.invert(tilt), point[None]), [mounted], FEATURES)[0]
    assert np.argwhere(image).tolist() == [[row, column]]
    assert image[row, column] == pytest.approx(range_m, rel=1e-6)
