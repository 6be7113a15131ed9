"""Voxel truth: shells, unknown interiors, kerbs, contact, motion, instances, visibility."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.calibration import Rig
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import Actor, Motion, World
from occ_perception.simulation.solids import Solid, pose
from occ_perception.simulation.truth import Truth, TruthMaker
from occ_perception.taxonomy import UNKNOWN, Sidewalk

SMALL = VoxelGridSpec((4.0, 0.0, -0.5), (7.0, 3.0, 2.5), 0.1)
WIDE = LidarModel(low_deg=-80.0, high_deg=60.0)


def truth_of(world: World, rig: Rig, time_s: float = 0.0, lidar: LidarModel = WIDE,
             spec: VoxelGridSpec = SIDEWALK_GRID) -> Truth:
    return TruthMaker(world, rig, lidar, spec).at(time_s, 0)


def label_at(truth: Truth, *point_m: float) -> int:
    cells, inside = truth.grid.spec.index(np.array([point_m]))
    assert inside[0]
    return int(truth.grid.labels[tuple(cells[0])])


def box(size: tuple[float, float, float], *at: float, label: int = Sidewalk.OBSTACLE, kind: str = "box") -> Solid:
    return Solid(kind, size, pose(*at), label, (0.5, 0.5, 0.5))  # type: ignore[arg-type]


def test_a_box_on_cell_boundaries_is_a_shell_two_cells_thick_around_unknown(make_yard: Callable[..., World],
                                                                            small_rig: Rig) -> None:
    # faces on boundaries lie half a cell from the centres on both sides: 12^3 cells without the 8^3 inside ...
    labels = truth_of(make_yard([box((1.0, 1.0, 1.0), 5.0, 2.0, 1.0)]), small_rig).grid.labels
    near = labels[40:60, 60:80, 22:45]
    inside = near == UNKNOWN
    assert inside.sum() == 8**3
    # ... and without the 12 edges and 8 corners outside, whose centres are farther than half a cell from the box
    assert (near == Sidewalk.OBSTACLE).sum() == 12**3 - 8**3 - 12 * 10 - 8


def test_a_box_between_boundaries_is_a_shell_one_cell_thick(make_yard: Callable[..., World], small_rig: Rig) -> None:
    labels = truth_of(make_yard([box((0.96, 0.96, 0.96), 5.0, 2.0, 1.0)]), small_rig).grid.labels
    near = labels[40:60, 60:80, 22:45]
    assert (near == Sidewalk.OBSTACLE).sum() == 10**3 - 8**3
    assert (near == UNKNOWN).sum() == 8**3


@settings(max_examples=40, deadline=None)
@given(x=st.floats(4.5, 6.0), y=st.floats(0.5, 2.5), radius=st.floats(0.005, 0.05), tilt=st.floats(0.0, 0.3))
def test_a_thin_pole_is_never_lost(make_yard: Callable[..., World], small_rig: Rig, x: float, y: float, radius: float,
                                   tilt: float) -> None:
    pole = Solid("cylinder", (2 * radius, 2 * radius, 2.0), pose(x, y, 1.2, pitch=tilt), Sidewalk.OBSTACLE,
                 (0.5, 0.5, 0.5))
    labels = truth_of(make_yard([pole]), small_rig, spec=SMALL).grid.labels
    levels = (labels == Sidewalk.OBSTACLE).any(axis=(0, 1))
    assert levels[9:25].all()  # no gap from 0.4 to 2.0 m
    assert (labels == Sidewalk.OBSTACLE).sum(axis=(0, 1)).max() <= 6
    assert not (labels[:, :, 10:] == UNKNOWN).any()


@settings(max_examples=25, deadline=None)
@given(yaw=st.floats(0.0, 3.1), x=st.floats(5.4, 5.6), thickness=st.floats(0.004, 0.06))
def test_a_thin_wall_has_no_holes(make_yard: Callable[..., World], small_rig: Rig, yaw: float, x: float,
                                  thickness: float) -> None:
    wall = Solid("box", (2.4, thickness, 1.5), pose(x, 1.5, 0.75, yaw=yaw), Sidewalk.WALL, (0.5, 0.5, 0.5))
    labels = truth_of(make_yard([wall]), small_rig, spec=SMALL).grid.labels
    along = np.linspace(-1.1, 1.1, 45)
    for u in along:
        at = np.array([x, 1.5]) + u * np.array([np.cos(yaw), np.sin(yaw)])
        cells, _ = SMALL.index(np.array([[at[0], at[1], 0.75]]))
        i, j, k = cells[0]
        assert (labels[i - 1:i + 2, j - 1:j + 2, k] == Sidewalk.WALL).any()


def test_the_ground_is_one_level_with_unknown_below(make_yard: Callable[..., World], small_rig: Rig) -> None:
    labels = truth_of(make_yard([]), small_rig).grid.labels
    sidewalk = labels[:, 60:, :]
    assert (sidewalk[:, :, 20] == Sidewalk.SIDEWALK).all()
    assert (sidewalk[:, :, :20] == UNKNOWN).all()
    assert (sidewalk[:, :, 21:] == 0).all()


@pytest.mark.parametrize("kerb_m", [0.08, 0.12, 0.15])
def test_a_kerb_face_is_closed_and_labelled_curb(make_yard: Callable[..., World], small_rig: Rig,
                                                 kerb_m: float) -> None:
    ground = make_yard().ground
    z = ground.z_m.copy()
    z[:, :2] = -kerb_m
    lower = type(ground)(ground.s_m, ground.d_m, ground.bend_m, z, ground.labels, ground.colours, ground.textures)
    labels = truth_of(make_yard([], ground=lower), small_rig).grid.labels
    # the face is at y = -2, the boundary of rows 29 and 30; above the road's own level nothing of it is missing
    road_level = int(np.floor((2.0 - kerb_m) / 0.1 + 0.3))
    face = (labels[:, 29:31] == Sidewalk.CURB).any(axis=1)
    assert face[:, road_level + 1:21].all()
    assert (labels[:, 29, road_level] != 0).all()
    assert (labels[:, :28, road_level] == Sidewalk.ROAD).all()
    assert (labels[:, 32:, 20] == Sidewalk.SIDEWALK).all()


def test_feet_override_the_ground_and_nothing_reaches_below(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig) -> None:
    sunk = Solid("cylinder", (0.5, 0.5, 1.7), pose(0.0, 0.0, 0.7), Sidewalk.PERSON, (0.2, 0.2, 0.8))
    actor = Actor(4, Sidewalk.PERSON, (sunk,), (0.5, 0.5, 1.7), make_walker(4, (5.0, 1.0), (5.0, 1.0)).motion)
    truth = truth_of(make_yard([], [actor]), small_rig)
    labels = truth.grid.labels
    assert (labels[48:53, 58:63, 20] == Sidewalk.PERSON).any()
    assert (labels[:, 60:, :20] == UNKNOWN).all()


def test_instances_own_their_cells_and_boxes_hold_them(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig) -> None:
    actors = [make_walker(70_000_000, (3.0, 1.0), (3.0, 1.0)), make_walker(5, (6.0, -1.0), (6.0, 3.0)),
              make_walker(6, (40.0, 0.0), (40.0, 0.0))]
    world = make_yard(actors=actors, heading=0.4)
    truth = truth_of(world, small_rig, 5.0)
    grid = truth.grid
    assert grid.instance_rows is not None
    assert set(grid.track_ids.tolist()) == {5, 70_000_000}
    assert ((grid.instance_rows > 0) == (grid.labels == Sidewalk.PERSON)).all()
    assert {i.track_id for i in truth.instances} == {5, 70_000_000}
    for instance in truth.instances:
        row = 1 + grid.track_ids.tolist().index(instance.track_id)
        centres = grid.spec.centre_of(np.argwhere(grid.instance_rows == row))
        T = np.linalg.inv(instance.T_grid_object)
        local = centres @ T[:3, :3].T + T[:3, 3]
        assert (np.abs(local) <= instance.size_m / 2 + 0.11).all()


def test_flow_is_the_velocity_of_the_matter_in_the_axes_of_the_grid(
        make_yard: Callable[..., World], make_walker: Callable[..., Actor], small_rig: Rig) -> None:
    # the robot drives along world y at 1 m/s: its own motion must not be in the flow
    world = make_yard([], [make_walker(5, (0.0, 12.0), (0.0, 2.0)), make_walker(6, (1.5, 8.0), (1.5, 8.0))],
                      heading=np.pi / 2, speed_mps=1.0)
    truth = truth_of(world, small_rig, 2.0)
    assert len(truth.flow.cells) > 100
    assert np.allclose(truth.flow.velocity_mps, [-1.0, 0.0, 0.0], atol=1e-3)
    rows = truth.grid.instance_rows
    assert rows is not None
    moving = rows[tuple(truth.flow.cells.T)]
    assert len(np.unique(moving)) == 1
    assert truth.grid.track_ids[moving[0] - 1] == 5


def test_a_turning_thing_moves_faster_outside(make_yard: Callable[..., World], make_walker: Callable[..., Actor],
                                              small_rig: Rig) -> None:
    bus = Solid("box", (4.0, 1.0, 1.0), pose(0.0, 0.0, 0.7), Sidewalk.VEHICLE, (0.5, 0.5, 0.5))
    motion = Motion(np.array([0.0, 10.0]), np.array([[5.0, 1.0, 0.0], [7.0, 1.0, 0.0]]), np.array([-1.0, 1.0]))
    actor = Actor(8, Sidewalk.VEHICLE, (bus,), (4.0, 1.0, 1.2), motion)
    truth = truth_of(make_yard([], [actor]), small_rig, 5.0)  # at (6, 1), heading 0, 0.2 m/s, turning at 0.2 rad/s
    centres = truth.grid.spec.centre_of(truth.flow.cells)
    expected = np.column_stack([0.2 - 0.2 * (centres[:, 1] - 1.0), 0.2 * (centres[:, 0] - 6.0), np.zeros(len(centres))])
    assert np.allclose(truth.flow.velocity_mps, expected, atol=2e-3)


def test_what_lies_behind_a_wall_is_not_visible_but_the_wall_is(make_yard: Callable[..., World],
                                                                small_rig: Rig) -> None:
    truth = truth_of(make_yard([box((0.3, 10.0, 4.0), 6.0, 0.0, 2.0, label=Sidewalk.WALL)]), small_rig)
    visible = truth.visible
    assert visible[30, 50, 25]
    assert visible[57:61, 45:55, 25].any(axis=0).all()
    assert not visible[63:, :, 21:].any()
    assert not visible[:, :, :18].any()
    assert truth.grid.confidence is not None
    assert ((truth.grid.confidence == 255) == visible).all()


def test_visibility_needs_a_field_of_view_and_the_lidar_adds_its_own(make_yard: Callable[..., World],
                                                                     make_rig: Callable[..., Rig]) -> None:
    narrow = make_rig("pinhole", (300.0, 300.0, 119.5, 67.5), None)  # 44 by 26 degrees
    blind = LidarModel(low_deg=0.0, high_deg=0.1, reach_m=0.5)
    camera_only = truth_of(make_yard([]), narrow, lidar=blind).visible
    both = truth_of(make_yard([]), narrow, lidar=LidarModel(low_deg=-20.0, high_deg=20.0)).visible
    assert camera_only[80, 50, 25]
    assert not camera_only[10, 90, 25]
    assert both[10, 90, 25]
    assert not both[3, 80, 49]  # above the fan
    assert (both | ~camera_only).all()


def test_waypoints_look_five_seconds_ahead_in_the_grid_frame(make_yard: Callable[..., World], small_rig: Rig) -> None:
    world = make_yard(speed_mps=1.0, heading=1.0)
    trajectory = truth_of(world, small_rig, 1.0).trajectory
    assert trajectory is not None
    assert np.allclose(trajectory.positions_m, np.column_stack([np.arange(1, 11) / 2, np.zeros(10)]), atol=1e-5)
    assert np.allclose(trajectory.times_s, np.arange(1, 11) / 2)
    assert truth_of(world, small_rig, 8.0).trajectory is None


def test_any_grid_can_be_asked_for(make_yard: Callable[..., World], small_rig: Rig) -> None:
    spec = VoxelGridSpec((-8.0, -8.0, -1.0), (8.0, 8.0, 3.0), 0.4)
    truth = truth_of(make_yard([box((1.0, 1.0, 1.0), -5.0, 2.0, 0.5)]), small_rig, spec=spec)
    assert truth.grid.labels.shape == (40, 40, 10)
    assert label_at(truth, -5.4, 2.0, 0.5) == Sidewalk.OBSTACLE
    assert label_at(truth, 3.0, 3.0, 0.1) in (Sidewalk.SIDEWALK, 0)
    assert (truth.grid.labels == Sidewalk.SIDEWALK).sum() > 500
