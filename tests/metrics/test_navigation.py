from __future__ import annotations

import math

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.metrics import NavigationRates, semantic_map
from occ_perception.taxonomy import SIDEWALK, Sidewalk, Taxonomy

GRID = VoxelGridSpec((0, -2, -1), (8, 2, 3), 0.5)  # 16 x 8 x 8 cells, ground layer centred at z = -0.25 is level 1


def ground(label: int = Sidewalk.SIDEWALK) -> np.ndarray:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 1] = label
    return labels


def rates(labels: np.ndarray, *waypoints_m: tuple[float, float]) -> tuple[float, float, float]:
    metric = NavigationRates(GRID, SIDEWALK)
    metric.update(np.array(waypoints_m), labels)
    scores = metric.compute()
    return scores["collision_rate"], scores["grass_rate"], scores["lane_keeping_rate"]  # type: ignore[return-value]


def test_on_an_empty_sidewalk_the_lane_is_kept() -> None:
    assert rates(ground(), (2.25, 0.25), (4.25, 0.25)) == (0.0, 0.0, 1.0)


def test_an_obstacle_under_the_footprint_collides_and_breaks_the_lane() -> None:
    labels = ground()
    labels[4, 4, 1:6] = Sidewalk.PERSON  # cell centre at (2.25, 0.25)
    assert rates(labels, (2.25, 0.25), (5.25, 0.25)) == (0.5, 0.0, 0.5)
    assert rates(labels, (2.25, 0.25 + 0.39))[0] == 1.0
    assert rates(labels, (2.25, 0.25 + 0.41))[0] == 0.0


def test_matter_above_the_ceiling_is_no_obstacle() -> None:
    labels = ground()
    labels[4, 4, 5:] = Sidewalk.TREES  # lowest centre at 1.75 m
    assert rates(labels, (2.25, 0.25)) == (0.0, 0.0, 1.0)
    labels[4, 4, 2:4] = Sidewalk.TREES  # centres up to 0.75 m outvote the ground
    assert rates(labels, (2.25, 0.25))[0] == 1.0


def test_grass_touches_without_collision_and_road_breaks_only_the_lane() -> None:
    assert rates(ground(Sidewalk.GRASS), (2.25, 0.25)) == (0.0, 1.0, 1.0)
    assert rates(ground(Sidewalk.ROAD), (2.25, 0.25)) == (0.0, 0.0, 0.0)
    assert rates(ground(Sidewalk.CURB), (2.25, 0.25)) == (0.0, 0.0, 1.0)


def test_an_empty_footprint_is_ruled_by_the_nearest_cell() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[0, 4, 1] = Sidewalk.ROAD
    assert rates(labels, (6.0, 0.0)) == (0.0, 0.0, 0.0)
    labels[2, 4, 1] = Sidewalk.SIDEWALK
    assert rates(labels, (6.0, 0.0)) == (0.0, 0.0, 1.0)
    labels[3, 4, 1] = Sidewalk.GRASS  # grass must lie under the footprint itself
    assert rates(labels, (6.0, 0.0)) == (0.0, 0.0, 1.0)


def test_inside_of_an_unlabelled_building_a_waypoint_collides() -> None:
    labels = ground()
    labels[8:, 4:, :] = 255
    labels[8, 4:, 1:6] = labels[8:, 4, 1:6] = Sidewalk.WALL  # the shell; centres at x = 4.25 and y = 0.25
    assert rates(labels, (6.25, 1.25)) == (1.0, 0.0, 0.0)
    assert rates(labels, (3.25, 1.25)) == (0.0, 0.0, 1.0)


def test_an_obstacle_that_is_nearest_but_not_under_a_footprint_with_ground_is_no_collision() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[4, 4, 1] = Sidewalk.SIDEWALK  # centre (2.25, 0.25), under the footprint at (2.6, 0.25)
    labels[6, 4, 1:5] = Sidewalk.WALL  # centre (3.25, 0.25), 0.65 m away
    assert rates(labels, (2.6, 0.25)) == (0.0, 0.0, 1.0)
    assert rates(labels, (2.8, 0.25)) == (1.0, 0.0, 0.0)  # nothing under it, and the wall is nearer


def test_a_kerb_between_road_and_robot_rules_where_it_is_nearest() -> None:
    labels = ground(Sidewalk.ROAD)
    labels[4, 4, 1] = Sidewalk.CURB
    assert rates(labels, (2.25, 0.25), (2.75, 0.25)) == (0.0, 0.0, 0.5)


def test_the_column_vote_ignores_free_unknown_and_unclassed_voxels() -> None:
    labels = np.zeros((1, 1, 8), np.uint8)
    grid = VoxelGridSpec((0, 0, -1), (0.5, 0.5, 3), 0.5)
    labels[0, 0, :4] = [255, 254, Sidewalk.GRASS, 0]
    assert semantic_map(labels, grid, len(SIDEWALK), 1.0)[0, 0] == Sidewalk.GRASS
    assert semantic_map(np.zeros_like(labels), grid, len(SIDEWALK), 1.0)[0, 0] == 0


def test_invalid_paths_are_counted_and_left_out_and_merging_pools_paths() -> None:
    metric, other = NavigationRates(GRID, SIDEWALK), NavigationRates(GRID, SIDEWALK)
    metric.update(np.array([[math.nan, 0.0]]), ground())
    metric.update(np.array([[2.25, 0.25]]), np.zeros(GRID.shape, np.uint8))
    metric.update(np.array([[2.25, 0.25]]), ground())
    other.update(np.array([[2.25, 0.25]]), ground(Sidewalk.ROAD))
    metric.merge(other)
    assert metric.compute() == {"collision_rate": 0.0, "grass_rate": 0.0, "lane_keeping_rate": 0.5,
                                "paths": 2.0, "skipped": 2.0}
    with pytest.raises(ShapeError, match=r"\[T, 2\]"):
        metric.update(np.zeros((3, 3)), ground())


def test_a_taxonomy_without_road_is_refused() -> None:
    other = Taxonomy("x", ("free", "grass"), ((0, 0, 0), (1, 1, 1)), frozenset(), frozenset(), frozenset())
    with pytest.raises(ConfigurationError, match="no class 'road'"):
        NavigationRates(GRID, other)
