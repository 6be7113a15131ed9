from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ShapeError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.geometry.raycast import first_hits
from occ_perception.metrics import RayIoU
from occ_perception.metrics.rays import _cast, challenge_rays

FREE = 0
GRID = VoxelGridSpec((-8, -8, -2), (8, 8, 2), 1.0)
ORIGIN = [[0.0, 0.0, 0.0]]


def shell(radius_cells: int, label: int) -> np.ndarray:
    """A square tube of walls around the origin, `radius_cells` away."""
    labels = np.zeros(GRID.shape, np.uint8)
    x, y = np.indices(GRID.shape[:2])
    ring = np.maximum(np.abs(x - 7.5), np.abs(y - 7.5)) == radius_cells + 0.5
    labels[ring] = label
    return labels


def metric() -> RayIoU:
    return RayIoU(GRID, 4, FREE, moving_classes=(3,))


def test_there_are_14040_unit_rays_from_45_degrees_down_to_just_above_012_rad() -> None:
    rays = challenge_rays()
    assert rays.shape == (14040, 3)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1, atol=1e-6)
    pitch = np.arcsin(rays[:, 2])
    assert pitch.min() == pytest.approx(-math.pi / 4, abs=1e-6)
    assert 0.21 <= pitch.max() < 0.22


def test_range_is_taken_where_the_ray_leaves_the_voxel() -> None:
    stops = np.zeros((8, 1, 1), np.uint8)
    stops[3], stops[5] = 2, 1  # the prediction stops the ray in cell 3, the truth in cell 5
    cells, ranges = np.empty((2, 2), np.int64), np.zeros((2, 2))
    start = np.array([0.25, 0.5, 0.5])
    _cast(stops.ravel(), stops.shape, (1, 1, 1), start, np.array([[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), cells, ranges)
    assert cells.tolist() == [[5, 3], [-1, -1]]
    assert ranges[0].tolist() == [(6 - 0.25) / 2, (4 - 0.25) / 2]  # in lengths of the direction
    assert ranges[1, 1] == 0.25  # nothing is predicted there: the ray is seen to leave the grid


def test_a_ray_is_right_when_its_range_error_is_below_the_threshold() -> None:
    scores = RayIoU(GRID, 4, FREE, (), thresholds_m=(0.5, 4))
    scores.update(shell(6, 1), shell(4, 1), ORIGIN)
    got = scores.compute()
    assert got["rayiou_0.5m"] == 0.0
    assert got["rayiou_4m"] > 0.5  # type: ignore[operator]
    assert got["rayiou"] == pytest.approx((got["rayiou_0.5m"] + got["rayiou_4m"]) / 2)  # type: ignore[operator]


def test_rays_into_free_truth_do_not_count() -> None:
    scores = metric()
    scores.update(shell(4, 1), np.zeros(GRID.shape, np.uint8), ORIGIN)
    assert scores.compute()["rays"] == 0
    assert math.isnan(scores.compute()["rayiou"])  # type: ignore[arg-type]


def test_rays_that_meet_unknown_space_first_are_left_out_and_predicted_unknown_is_transparent() -> None:
    truth = shell(4, 1)
    behind = metric()
    behind.update(shell(4, 1) | np.where(shell(2, 1), 255, 0).astype(np.uint8), truth, ORIGIN)
    assert behind.compute()["rayiou"] == 1.0
    hidden = truth.copy()
    hidden[shell(2, 1) > 0] = 255
    none = metric()
    none.update(truth, hidden, ORIGIN)
    assert none.compute()["rays"] == 0


def test_wrong_class_at_the_right_place_scores_only_in_the_variant_with_given_class() -> None:
    scores = metric()
    scores.update(shell(4, 2), shell(4, 1), ORIGIN)
    assert scores.compute()["rayiou"] == 0.0
    assert scores.compute()["rayiou_class_given"] == 1.0


def test_a_missed_wall_counts_against_its_class_only() -> None:
    scores = metric()
    scores.update(np.zeros(GRID.shape, np.uint8), shell(4, 1), ORIGIN)
    assert scores.compute()["rayiou"] == 0.0
    assert scores.predicted_rays[1:].sum() == 0


def test_velocity_error_and_occ_score_by_hand() -> None:
    truth = shell(4, 3)
    true_flow, flow = np.zeros((*GRID.shape, 2), np.float32), np.zeros((*GRID.shape, 3), np.float32)
    flow[..., 0], flow[..., 1], flow[..., 2] = 0.3, 0.4, 9.0  # the vertical part does not count
    scores = metric()
    scores.update(truth, truth, ORIGIN, flow, true_flow)
    got = scores.compute()
    assert got["mave"] == pytest.approx(0.5)
    assert got["occ_score"] == pytest.approx(0.9 + 0.1 * 0.5)
    with pytest.raises(ShapeError, match="both"):
        scores.update(truth, truth, ORIGIN, flow)


def test_origins_outside_the_grid_look_into_it() -> None:
    truth = shell(4, 1)
    scores = metric()
    scores.update(truth, truth, [[-20.0, 0.25, 0.25]])
    assert 0 < scores.compute()["rays"] < 14040  # type: ignore[operator]
    assert scores.compute()["rayiou"] == 1.0


def test_labels_of_another_taxonomy_are_refused() -> None:
    scores = RayIoU(GRID, 4, FREE, ())
    for label in (3, 254, 255):
        scores.update(shell(4, label), shell(4, label), ORIGIN)
    for label in (4, 253):
        with pytest.raises(ShapeError, match="RayIoU: prediction"):
            scores.update(shell(4, label), shell(4, 1), ORIGIN)
        with pytest.raises(ShapeError, match="RayIoU: target"):
            scores.update(shell(4, 1), shell(4, label), ORIGIN)


def test_grids_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match="RayIoU: target"):
        metric().update(np.zeros(GRID.shape, np.uint8), np.zeros((1, 2, 3), np.uint8), ORIGIN)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_merge_is_one_pass_and_a_perfect_prediction_scores_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, parts = metric(), [metric(), metric()]
    for part in parts:
        labels = np.array([0, 1, 2, 3, 254, 255], np.uint8)
        truth = rng.choice(labels, GRID.shape, p=[0.9, 0.04, 0.02, 0.02, 0.01, 0.01])
        truth[7:9, 7:9, 1:3] = 0  # the sensor itself stands in the open
        prediction = rng.choice(np.array([0, 1, 2, 3], np.uint8), GRID.shape, p=[0.9, 0.04, 0.03, 0.03])
        flows = rng.normal(size=(2, *GRID.shape, 2))
        one.update(np.asfortranarray(prediction), np.asfortranarray(truth), ORIGIN, *flows)
        part.update(prediction, truth, ORIGIN, *flows)
        perfect = metric()
        perfect.update(truth, truth, ORIGIN)
        assert perfect.compute()["rayiou"] == 1.0
    parts[0].merge(parts[1])
    for name, value in one.compute().items():
        np.testing.assert_allclose(parts[0].compute()[name], value, rtol=1e-12, err_msg=name)


def test_cells_agree_with_the_geometry_modules_ray_caster() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random(SIDEWALK_GRID.shape) < 0.01).astype(np.uint8)
    origin = np.array([0.517, 0.123, 0.731])
    scores = RayIoU(SIDEWALK_GRID, 2, FREE, ())
    scores.update(labels, labels, origin)
    cells, _ = first_hits(labels, SIDEWALK_GRID, origin, challenge_rays())
    assert abs(scores.true_rays[1] - (cells[:, 0] >= 0).sum()) <= 2  # float32 ends of rays graze other cells
