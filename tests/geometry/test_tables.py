"""Projection tables against a plain reference, and what must live in them: tilt, resizing, motion, masks, flips."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import (
    LIFT_GRID,
    MountedCamera,
    RangeBins,
    VoxelGridSpec,
    coverage,
    make_camera,
    projection_table,
    se3,
)

BINS = RangeBins(0.2, 12.2, 0.2)
SMALL = VoxelGridSpec((0, -2, -0.5), (6, 2, 1.5), (0.25, 0.25, 0.5))


def front(yaw: float = 0.0, usable=None) -> MountedCamera:
    camera = make_camera("equidistant", 960, 544, [330, 330, 479.5, 271.5, -0.012, 0.004, -0.0015, 0.0002], 1.4)
    rotation = se3.from_euler(0, 0.1, yaw)[:3, :3] @ se3.OPTICAL_IN_BODY
    return MountedCamera(camera, se3.make(rotation, [0.28, 0, 0.75]), usable)


def samples(grid: VoxelGridSpec) -> np.ndarray:
    return grid.centres().transpose(2, 1, 0, 3).reshape(-1, 3)


def reference(mounted: MountedCamera, points: np.ndarray):
    """Row, bin and validity for a feature map 8 times smaller than the image."""
    in_camera = se3.apply(se3.invert(mounted.T_base_camera), points)
    pixels, valid = mounted.camera.project(in_camera)
    column, row = np.floor((pixels[:, 0] + 0.5) / 8), np.floor((pixels[:, 1] + 0.5) / 8)
    ranges = np.linalg.norm(in_camera, axis=1)
    return (row * 120 + column).astype(int), BINS.index(ranges), valid


def test_the_table_is_the_projection_of_the_cell_centres_in_message_order():
    table = projection_table([front()], LIFT_GRID, BINS, (68, 120))
    rows, bins, valid = reference(front(), samples(LIFT_GRID))
    assert table.rows.shape == (1, LIFT_GRID.size)
    assert ((table.weights[0] > 0) == valid).all()
    assert (table.rows[0][valid] == rows[valid]).all()
    assert (table.bins[0][valid] == bins[valid]).all()
    assert set(np.unique(table.weights)) == {0.0, 1.0}


def test_tilt_of_the_base_moves_the_samples_and_not_the_map():
    tilt = se3.from_euler(0.05, -0.08, 0)
    table = projection_table([front()], SMALL, BINS, (68, 120), T_grid_base=tilt)
    rows, _, valid = reference(front(), se3.apply(se3.invert(tilt), samples(SMALL)))
    assert ((table.weights[0] > 0) == valid).all()
    assert (table.rows[0][valid] == rows[valid]).all()


def test_motion_between_exposure_and_anchor_is_taken_out():
    T_anchor_exposure = se3.from_euler(0, 0, 0.1, (0.2, 0.05, 0))
    table = projection_table([front()], SMALL, BINS, (68, 120), T_anchor_exposure=[T_anchor_exposure])
    rows, _, valid = reference(front(), se3.apply(se3.invert(T_anchor_exposure), samples(SMALL)))
    assert (table.rows[0][valid] == rows[valid]).all()


def test_a_flip_of_the_grid_reads_the_mirrored_samples():
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    shape = SMALL.shape[::-1]
    plain = projection_table([front()], SMALL, BINS, (68, 120))
    flipped = projection_table([front()], SMALL, BINS, (68, 120), augmentation=flip)
    assert (flipped.rows[0].reshape(shape) == plain.rows[0].reshape(shape)[:, ::-1]).all()


def test_an_image_resized_for_the_network_leads_to_the_same_place():
    half = make_camera("equidistant", 480, 272, [165, 165, 239.5, 135.5, -0.012, 0.004, -0.0015, 0.0002], 1.4)
    small = MountedCamera(half, front().T_base_camera)
    table = projection_table([front()], SMALL, BINS, (34, 60), input_size=(272, 480))
    exact = projection_table([small], SMALL, BINS, (34, 60))
    both = (table.weights[0] > 0) & (exact.weights[0] > 0)
    assert (table.rows[0] == exact.rows[0])[both].mean() > 0.97  # principal points differ by a quarter pixel
    assert both.sum() > 0.95 * (exact.weights[0] > 0).sum()


def test_two_cameras_share_a_sample_and_the_better_one_wins_a_single_hit():
    rig = [front(0.5), front(-0.5)]
    both = projection_table(rig, SMALL, BINS, (68, 120), hits=2)
    ahead = (both.weights > 0).all(axis=0)
    assert ahead.any()
    assert np.allclose(both.weights[:, ahead], 0.5)
    assert (both.rows[0][ahead] // (68 * 120) == 0).all()
    assert (both.rows[1][ahead] // (68 * 120) == 1).all()
    one = projection_table(rig, SMALL, BINS, (68, 120), hits=1)
    y = samples(SMALL)[:, 1]
    seen = ahead & (np.abs(y) > 0.6)
    assert ((one.rows[0] // (68 * 120) == 0) == (y > 0))[seen].all()
    assert np.allclose(one.weights[0][ahead], 1.0)


def test_pixels_that_show_the_robot_itself_are_not_read():
    usable = np.ones((544, 960), bool)
    usable[300:] = False
    masked = projection_table([front(usable=usable)], SMALL, BINS, (68, 120))
    plain = projection_table([front()], SMALL, BINS, (68, 120))
    read = masked.weights[0] > 0
    assert 0 < read.sum() < (plain.weights[0] > 0).sum()
    assert (masked.rows[0][read] // 120 < 38).all()


def test_coverage_is_what_a_camera_sees_to_within_a_block():
    grid = VoxelGridSpec((-2, -2, -1), (4, 2, 1), 0.1)
    covered = coverage([front()], grid, stride=2)
    _, _, exact = reference(front(), grid.centres().reshape(-1, 3))
    exact = exact.reshape(grid.shape)
    assert covered.shape == grid.shape
    assert (covered == exact).mean() > 0.97
    assert not covered[:20].any()  # behind the camera


def test_range_bins_clip_at_their_ends():
    assert BINS.count == 60
    assert BINS.index(np.array([0.0, 0.2, 0.41, 12.19, 99.0])).tolist() == [0, 0, 1, 59, 59]
    assert RangeBins(0.2, 12.0, 0.05).count == 236  # WalkOCC, section 4.1


def test_a_table_needs_a_camera():
    with pytest.raises(ConfigurationError):
        projection_table([], SMALL, BINS, (68, 120))
