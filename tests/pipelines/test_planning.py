"""Paths laid into grids: exact judgements of small worlds, symmetry, monotony, speed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.metrics import NavigationRates
from occ_perception.pipelines import PathChecker, PathCheckSettings
from occ_perception.taxonomy import OCCUPIED, SIDEWALK, UNKNOWN, Sidewalk
from occ_perception.types import PathCheck, PathStatus, WaypointFlag

GRID = VoxelGridSpec((0, -2, -1), (8, 2, 3), 0.5)  # 16 x 8 x 8; the ground, centred at z = -0.25, is level 1
BLOCKED, TIGHT, UNSEEN, OFF_LIMITS, OUTSIDE = WaypointFlag
AHEAD = (4.25, 0.25)  # the centre of column [8, 4]


def street(label: int = Sidewalk.SIDEWALK) -> np.ndarray:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, :, 1] = label
    return labels


def check(labels: np.ndarray, *waypoints_m: tuple[float, float], **changes: object) -> PathCheck:
    checker = PathChecker(GRID, SIDEWALK, PathCheckSettings(**changes))  # type: ignore[arg-type]
    return checker.check(labels, np.array(waypoints_m, np.float32).reshape(-1, 2))


def at(labels: np.ndarray, waypoint_m: tuple[float, float] = AHEAD, **changes: object) -> tuple[float, int, int]:
    """Clearance, ruling label and flags of one waypoint."""
    result = check(labels, waypoint_m, **changes)
    return float(result.clearance_m[0]), int(result.ruling_label[0]), int(result.flags[0])


def test_an_empty_sidewalk_is_clear() -> None:
    assert at(street()) == (np.inf, Sidewalk.SIDEWALK, 0)
    assert check(street(), (0.5, 0.0), AHEAD).status == PathStatus.CLEAR


def test_an_obstacle_under_the_footprint_blocks_and_rules() -> None:
    labels = street()
    labels[8, 4, 1:6] = Sidewalk.PERSON
    assert at(labels) == (0.0, Sidewalk.PERSON, BLOCKED | TIGHT)
    # the nearest column is sidewalk, the person stands 0.39 m away under the rim
    assert at(labels, (4.25, 0.25 - 0.39)) == (0.0, Sidewalk.PERSON, BLOCKED | TIGHT)
    assert check(labels, (1.0, 0.0), AHEAD).status == PathStatus.BLOCKED


def test_clearance_is_from_the_rim_to_the_nearest_obstacle() -> None:
    labels = street()
    labels[8, 4, 1:6] = Sidewalk.WALL
    labels[12, 4, 1:6] = Sidewalk.PERSON
    clearance_m, ruling, flags = at(labels, (4.25 - 1.0, 0.25))
    assert (clearance_m, ruling, flags) == (pytest.approx(0.6), Sidewalk.SIDEWALK, 0)
    assert at(labels, (4.25 - 0.5, 0.25))[2] == TIGHT
    assert at(labels, (4.25 - 0.5, 0.25), safety_distance_m=0.1)[2] == 0
    assert check(labels, (4.25 - 0.5, 0.25)).status == PathStatus.CAUTION


def test_only_the_majority_of_a_column_up_to_the_ceiling_counts() -> None:
    labels = street()
    labels[8, 4, 5:] = Sidewalk.TREES  # lowest centre at 1.75 m
    assert at(labels)[2] == 0
    assert at(labels, ceiling_m=3.0)[2] == BLOCKED | TIGHT
    labels[8, 4, 2] = Sidewalk.TREES  # one against one: the lower id wins
    assert at(labels)[2] == 0


def test_ground_off_limits_is_flagged_where_it_is_the_nearest() -> None:
    labels = street()
    labels[8, :, 1] = Sidewalk.ROAD
    assert at(labels) == (np.inf, Sidewalk.ROAD, OFF_LIMITS)
    assert at(labels, (4.25 - 0.3, 0.25)) == (np.inf, Sidewalk.SIDEWALK, 0)
    assert at(labels, off_limits=("grass",))[2] == 0
    assert at(street(Sidewalk.GRASS), off_limits=("road", "grass"))[2] == OFF_LIMITS


def test_a_column_of_which_nothing_was_observed_makes_the_footprint_unknown() -> None:
    labels = street()
    labels[8, 4] = UNKNOWN
    assert at(labels, (4.25 + 0.3, 0.25))[2] == UNSEEN
    assert at(labels, (4.25 + 0.45, 0.25))[2] == 0
    labels[8, 4, 3] = 0  # something of it was seen
    assert at(labels, (4.25 + 0.3, 0.25))[2] == 0
    assert check(np.full(GRID.shape, UNKNOWN, np.uint8), AHEAD).ruling_label.tolist() == [UNKNOWN]


def test_where_no_ground_is_seen_the_nearest_class_rules_and_the_way_is_unknown() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[2, 4, 1] = Sidewalk.ROAD
    assert at(labels) == (np.inf, Sidewalk.ROAD, UNSEEN | OFF_LIMITS)
    labels[2, 4, 1] = OCCUPIED
    assert at(labels) == (np.inf, UNKNOWN, UNSEEN)


def test_the_place_of_the_robot_itself_is_known() -> None:
    labels = street()
    labels[:1] = UNKNOWN  # its cameras do not see what lies below them
    assert at(labels, (0.3, 0.0))[2] == 0
    assert at(labels, (0.3, 1.0))[2] == UNSEEN
    assert at(labels, (-0.1, 0.0))[2] == OUTSIDE


@pytest.mark.parametrize("waypoint_m", [(8.0, 0.25), (-0.9, 0.25), (4.0, 2.1), (1e9, 1e9), (-1e30, 0.0)])
def test_a_waypoint_outside_the_grid_says_so_and_is_unknown(waypoint_m: tuple[float, float]) -> None:
    clearance_m, _, flags = at(street(), waypoint_m)
    assert (clearance_m, flags) == (np.inf, UNSEEN | OUTSIDE)


@pytest.mark.parametrize("waypoint_m", [(np.nan, 0.0), (1.0, np.inf)])
def test_a_waypoint_that_is_no_number_is_blocked(waypoint_m: tuple[float, float]) -> None:
    assert at(street(), waypoint_m) == (0.0, UNKNOWN, BLOCKED | UNSEEN | OUTSIDE)


def test_a_path_without_waypoints_is_clear_and_arrays_must_fit() -> None:
    assert check(street()).status == PathStatus.CLEAR
    with pytest.raises(ShapeError, match=r"\[T, 2\]"):
        PathChecker(GRID, SIDEWALK, PathCheckSettings()).check(street(), np.zeros((3, 3)))
    with pytest.raises(ShapeError, match="labels"):
        PathChecker(GRID, SIDEWALK, PathCheckSettings()).check(street()[:5], np.zeros((3, 2)))


def test_every_fault_of_the_settings_is_listed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PathCheckSettings(footprint_radius_m=0.0, safety_distance_m=-1.0, ceiling_m=float("nan"))
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigurationError) as caught:
        PathChecker(GRID, SIDEWALK, PathCheckSettings(0.3, ceiling_m=-2.0, off_limits=("road", "lava", "wall")))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "off_limits", "off_limits", "footprint_radius_m", "ceiling_m"]


def worlds() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """A random map, as labels of its ground level, and waypoints over it."""
    def make(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = np.zeros(GRID.shape, np.uint8)
        labels[:, :, 1] = rng.choice([0, 1, 2, 5, 11], GRID.shape[:2], p=[0.2, 0.2, 0.5, 0.05, 0.05])
        labels[rng.random(GRID.shape[:2]) < 0.1] = UNKNOWN
        return labels, rng.uniform((-1, -2.5), (9, 2.5), (10, 2)).astype(np.float32)
    return st.integers(0, 2**32).map(make)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_a_mirrored_world_is_judged_alike(world: tuple[np.ndarray, np.ndarray]) -> None:
    labels, waypoints_m = world
    checker = PathChecker(GRID, SIDEWALK, PathCheckSettings())
    here, there = checker.check(labels, waypoints_m), checker.check(labels[:, ::-1], waypoints_m * np.float32([1, -1]))
    np.testing.assert_allclose(here.clearance_m, there.clearance_m, atol=1e-6)
    np.testing.assert_array_equal(here.ruling_label, there.ruling_label)
    np.testing.assert_array_equal(here.flags, there.flags)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 15), st.integers(0, 7), st.floats(0.0, 8.0), st.floats(-2.0, 2.0))
def test_an_obstacle_moved_away_never_lowers_the_clearance(ix: int, iy: int, x: float, y: float) -> None:
    centre = GRID.centre_of([ix, iy, 1])[:2]
    away = np.sign(centre - (x, y)).astype(int)
    near, far = street(), street()
    near[ix, iy, 1] = Sidewalk.VEHICLE
    further = (ix + away[0], iy + away[1])
    if 0 <= further[0] < GRID.shape[0] and 0 <= further[1] < GRID.shape[1]:  # else it leaves the grid
        far[further][1] = Sidewalk.VEHICLE
    before, after = at(near, (x, y)), at(far, (x, y))
    assert after[0] >= before[0] - 1e-6
    assert not after[2] & BLOCKED or before[2] & BLOCKED


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_on_a_known_map_blocked_and_off_limits_are_what_the_navigation_rates_count(
        world: tuple[np.ndarray, np.ndarray]) -> None:
    labels, waypoints_m = world
    labels[:, :, 1] = np.where(np.isin(labels[:, :, 1], (0, UNKNOWN)), Sidewalk.SIDEWALK, labels[:, :, 1])
    over = (waypoints_m > (0.5, -1.5)).all(1) & (waypoints_m < (7.5, 1.5)).all(1)
    if not over.any():
        return
    rates = NavigationRates(GRID, SIDEWALK)
    rates.update(waypoints_m[over], labels)
    flags = PathChecker(GRID, SIDEWALK, PathCheckSettings()).check(labels, waypoints_m[over]).flags
    blocked, off_limits = (flags & BLOCKED) > 0, (flags & OFF_LIMITS) > 0
    scores = rates.compute()
    assert scores["collision_rate"] == pytest.approx(blocked.mean())
    assert scores["lane_keeping_rate"] == pytest.approx((~blocked & ~off_limits).mean())


@pytest.mark.parametrize("order", ["C", "F"])
def test_ten_waypoints_on_a_sidewalk_grid_take_less_than_a_millisecond_and_a_half(order: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(SIDEWALK_GRID.shape, np.uint8)
    labels[:, :, 20] = Sidewalk.SIDEWALK
    noise = rng.random(labels.shape) < 0.05
    labels[noise] = rng.integers(1, 14, noise.sum())
    labels = np.array(labels, order=order)  # type: ignore[call-overload]
    checker = PathChecker(SIDEWALK_GRID, SIDEWALK, PathCheckSettings())
    waypoints_m = np.stack([np.linspace(0.9, 9.0, 10), np.linspace(0.0, 2.0, 10)], 1).astype(np.float32)
    fastest_s = np.inf
    for _ in range(30):
        began = time.thread_time()
        checker.check(labels, waypoints_m)
        fastest_s = min(fastest_s, time.thread_time() - began)
    assert fastest_s < 1.5e-3
