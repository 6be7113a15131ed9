"""Paths laid into grids: exact judgements of small worlds, symmetry, monotony, speed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import VoxelGridSpec
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
    """Clearance, ruling label and flags of one waypoint, without the way to it: it is given twice."""
    return each(check(labels, waypoint_m, waypoint_m, **changes))[1]


def each(result: PathCheck) -> list[tuple[float, int, int]]:
    """Clearance, ruling label and flags of every waypoint."""
    return list(zip(result.clearance_m.tolist(), result.ruling_label.tolist(), result.flags.tolist(), strict=True))


NAN = pytest.approx(np.nan, nan_ok=True)


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
    assert at(labels) == (np.inf, Sidewalk.SIDEWALK, TIGHT)


def test_a_low_obstacle_that_the_ground_outvotes_makes_the_way_tight() -> None:
    labels = street()
    labels[8, 4, :2], labels[8, 4, 2] = Sidewalk.SIDEWALK, Sidewalk.ANIMAL
    assert at(labels, (4.25, 0.25 - 0.39)) == (np.inf, Sidewalk.SIDEWALK, TIGHT)
    assert at(labels, (4.25, 0.25 - 0.41))[2] == 0
    beyond = each(check(labels, (2.25, 0.25), (6.25, 0.25)))
    assert beyond == [(np.inf, Sidewalk.SIDEWALK, 0), (np.inf, Sidewalk.SIDEWALK, TIGHT)]
    assert at(labels, ceiling_m=0.0)[2] == 0


def test_an_obstacle_between_two_waypoints_blocks_the_second() -> None:
    labels = street()
    labels[8, 4, 1:6] = Sidewalk.PERSON
    before, beyond, further = each(check(labels, (2.25, 0.25), (6.25, 0.25), (7.25, 0.25)))
    assert before == (pytest.approx(1.6), Sidewalk.SIDEWALK, 0)
    assert beyond == (0.0, Sidewalk.SIDEWALK, BLOCKED | TIGHT)
    assert further == (pytest.approx(1.6), Sidewalk.SIDEWALK, 0)


def test_clearance_is_that_of_the_whole_way() -> None:
    labels = street()
    labels[8, 4, 1:6] = Sidewalk.WALL
    first, second = each(check(labels, (2.25, -0.36), (7.25, -0.36)))
    assert first[0] == pytest.approx(np.hypot(2.0, 0.61) - 0.4)
    assert second == (pytest.approx(0.21), Sidewalk.SIDEWALK, 0)
    assert check(labels, (2.25, -0.3), (7.25, -0.3)).flags.tolist() == [0, TIGHT]


def test_the_first_way_begins_where_the_robot_is_and_what_lies_under_it_is_not_in_the_way() -> None:
    labels = street()
    labels[0, 4, 1:6] = Sidewalk.PERSON  # 0.35 m from the origin
    assert each(check(labels, (2.25, 0.25))) == [(pytest.approx(1.6), Sidewalk.SIDEWALK, 0)]
    labels[0, 4, 2:6] = 0
    assert check(labels, (2.25, 0.25)).flags.tolist() == [0]
    labels[2, 4, 1:6] = Sidewalk.PERSON
    assert check(labels, (2.25, 0.25)).flags.tolist() == [BLOCKED | TIGHT]
    way_back = check(labels, (2.25, 0.25), (0.0, 0.0))  # but under a waypoint it counts, wherever that lies
    assert way_back.flags[1] & BLOCKED


def test_beyond_a_waypoint_that_is_no_number_the_way_goes_on_from_the_one_before() -> None:
    labels = street()
    labels[8, 4, 1:6] = Sidewalk.PERSON
    flags = check(labels, (2.25, 0.25), (np.nan, 0.0), (6.25, 0.25)).flags
    assert flags[2] == BLOCKED | TIGHT


def test_without_a_class_under_the_footprint_the_nearest_obstacle_blocks() -> None:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[10, 4, 1:4] = Sidewalk.WALL
    assert at(labels) == (0.0, Sidewalk.WALL, BLOCKED | TIGHT | UNSEEN)
    labels[6, 4, 1] = Sidewalk.GRASS  # as near: the lower id rules
    assert at(labels) == (pytest.approx(0.6), Sidewalk.GRASS, UNSEEN)


def test_ground_must_be_near_the_centre_and_not_only_under_the_rim() -> None:
    grid = VoxelGridSpec((0, -1, -1), (4, 1, 1), 0.1)
    labels = np.zeros(grid.shape, np.uint8)
    checker = PathChecker(grid, SIDEWALK, PathCheckSettings())

    def unseen() -> bool:
        return bool(checker.check(labels, np.float32([[2.05, 0.05]])).flags[0] & UNSEEN)

    labels[23, 10, 5] = Sidewalk.SIDEWALK  # 0.3 m ahead
    assert unseen()
    labels[21, 10, 5] = Sidewalk.SIDEWALK  # beside it
    assert not unseen()


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
    assert at(labels) == (NAN, Sidewalk.ROAD, UNSEEN | OFF_LIMITS)  # who has seen nothing has seen no obstacle
    labels[2, 4, 1] = OCCUPIED
    assert at(labels) == (NAN, UNKNOWN, UNSEEN)


def test_in_the_place_of_the_robot_itself_nothing_is_unknown_or_outside() -> None:
    labels = street()
    labels[:1] = UNKNOWN  # its cameras do not see what lies below them
    assert at(labels, (0.3, 0.0))[2] == 0
    assert at(labels, (0.3, 1.0))[2] == UNSEEN
    assert at(labels, (-0.1, 0.0))[2] == 0  # a robot that stands still trembles about the edge of its grid
    assert at(labels, (-0.61, 0.0))[2] == OUTSIDE | UNSEEN


@pytest.mark.parametrize("waypoint_m", [(8.0, 0.25), (-0.9, 0.25), (4.0, 2.1), (1e9, 1e9), (-1e30, 0.0)])
def test_a_waypoint_outside_the_grid_says_so_and_is_unknown(waypoint_m: tuple[float, float]) -> None:
    clearance_m, _, flags = at(street(), waypoint_m)
    assert (clearance_m, flags) == (NAN, UNSEEN | OUTSIDE)


@pytest.mark.parametrize("waypoint_m", [(np.nan, 0.0), (1.0, np.inf)])
def test_a_waypoint_that_is_no_number_is_blocked(waypoint_m: tuple[float, float]) -> None:
    assert at(street(), waypoint_m) == (0.0, UNKNOWN, BLOCKED | TIGHT | UNSEEN | OUTSIDE)


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
        free = rng.choice([0.1, 0.8])
        some = (1 - free) * np.array([0.2, 0.6, 0.1, 0.1])
        labels[:, :, 1] = rng.choice([0, 1, 2, 5, 11], GRID.shape[:2], p=[free, *some])
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
    assert not after[0] < before[0] - 1e-6  # NaN where it left a grid in which the waypoint is unknown
    assert not after[2] & BLOCKED or before[2] & BLOCKED


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_at_the_waypoints_blocked_and_off_limits_are_what_the_navigation_rates_count(
        world: tuple[np.ndarray, np.ndarray]) -> None:
    labels, waypoints_m = world
    rates = NavigationRates(GRID, SIDEWALK)
    rates.update(waypoints_m, labels)
    checker = PathChecker(GRID, SIDEWALK, PathCheckSettings())
    flags = checker.check(labels, np.repeat(waypoints_m, 2, axis=0)).flags[1::2]
    swept = checker.check(labels, waypoints_m).flags
    assert not ((flags & BLOCKED) & ~swept).any()
    blocked, off_limits = (flags & BLOCKED) > 0, (flags & OFF_LIMITS) > 0
    scores = rates.compute()
    assert scores["collision_rate"] == pytest.approx(blocked.mean())
    assert scores["lane_keeping_rate"] == pytest.approx((~blocked & ~off_limits).mean())
