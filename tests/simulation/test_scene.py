"""Primitives and their meshes are the same surface; actors and tracks are exact about where they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ShapeError
from occ_perception.simulation.scene import Actor, Ground, Kind, Motion, RobotTrack, Solid, Texture, pose
from occ_perception.taxonomy import Sidewalk

TRIANGLES: dict[Kind, int] = {"box": 12, "cylinder": 44, "ellipsoid": 80}


def solid(kind: Kind, size: tuple[float, float, float]) -> Solid:
    return Solid(kind, size, np.eye(4), int(Sidewalk.OBSTACLE), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("kind", TRIANGLES)
def test_mesh_is_closed_wound_outwards_and_lies_on_the_analytic_surface(kind: Kind) -> None:
    primitive = solid(kind, (1.2, 0.7, 2.0))
    vertices, triangles = primitive.mesh()
    assert len(triangles) == TRIANGLES[kind]
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    volume = np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6.0
    exact = 1.2 * 0.7 * 2.0 * {"box": 1.0, "cylinder": np.pi / 4, "ellipsoid": np.pi / 6}[kind]
    assert 0.85 * exact < volume <= exact * (1 + 1e-9)
    np.testing.assert_allclose(primitive.signed_distance_m(vertices), 0.0, atol=1e-9)


def test_signed_distance_of_box_and_round_cylinder_is_exact() -> None:
    box = solid("box", (2.0, 4.0, 6.0))
    np.testing.assert_allclose(box.signed_distance_m([[0, 0, 0], [4, 6, 0], [0.5, 0, 0]]), [-1.0, 5.0, -0.5])
    cylinder = solid("cylinder", (2.0, 2.0, 4.0))
    np.testing.assert_allclose(cylinder.signed_distance_m([[3, 4, 0], [4, 0, 6], [0, 0, 1.9]]), [4.0, 5.0, -0.1])


def test_ellipsoid_separates_inside_from_outside() -> None:
    ellipsoid = solid("ellipsoid", (2.0, 1.0, 4.0))
    p = np.random.default_rng(0).uniform(-2.5, 2.5, (500, 3))
    inside = (p**2 / np.array([1.0, 0.25, 4.0])).sum(1) < 1
    assert ((ellipsoid.signed_distance_m(p) < 0) == inside).all()
    assert ellipsoid.signed_distance_m(np.zeros((1, 3)))[0] < 0


def test_solid_refuses_sizes_that_are_not_positive() -> None:
    with pytest.raises(ShapeError, match="positive sizes"):
        solid("box", (1.0, 0.0, 1.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_ground_heights_and_labels_are_those_of_the_triangle_above_the_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, d = np.cumsum(rng.uniform(0.05, 2.0, 6)), np.cumsum(rng.uniform(0.02, 2.0, 5))
    ground = Ground(s, d, rng.normal(0, 0.5, 6), rng.normal(0, 0.3, (6, 5)),
                    rng.integers(1, 14, (5, 4)).astype(np.uint8), np.zeros((5, 4, 3), np.float32),
                    np.zeros((5, 4), np.uint8))
    mesh = ground.mesh()
    xy = ground.to_world(np.column_stack([rng.uniform(s[0], s[-1], 20), rng.uniform(d[0], d[-1], 20)]))
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    for point, z, label in zip(xy, ground.height_m(xy), ground.label(xy), strict=True):
        def cross(p: np.ndarray, q: np.ndarray, at: np.ndarray = point) -> np.ndarray:
            return (q[:, 0] - p[:, 0]) * (at[1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (at[0] - p[:, 0])
        weights = np.stack([cross(b, c), cross(c, a), cross(a, b)], 1)
        area = weights.sum(1)
        assert (area > 0).all()  # every triangle faces up
        hit = int((weights.min(1) / area).argmax())
        assert weights[hit].min() / area[hit] > -1e-9
        expected = weights[hit] / area[hit] @ np.array([a[hit, 2], b[hit, 2], c[hit, 2]])
        assert z == pytest.approx(expected, abs=1e-9)
        assert label == mesh.labels[hit]


def test_ground_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="grid lines"):
        Ground(np.arange(3.0), np.arange(3.0), np.zeros(3), np.zeros((2, 3)), np.zeros((2, 2), np.uint8),
               np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.uint8))


def track() -> RobotTrack:
    t = np.arange(0, 8.001, 0.02)
    xyz = np.column_stack([2.0 + t, np.sin(t), 0.1 * t])
    yaw = np.arctan(np.cos(t))
    return RobotTrack("quadruped", Motion(t, xyz, yaw), 0.05 * np.sin(9 * t), 0.03 * np.cos(5 * t))


def test_waypoints_are_the_future_poses_seen_from_the_gravity_aligned_base() -> None:
    robot = track()
    t = 1.23
    x, y, _, yaw = robot.motion.sample(t)
    T_grid_world = np.linalg.inv(pose(x, y, 0.0, yaw))
    waypoints = robot.future_waypoints(t)
    assert waypoints is not None
    assert waypoints.shape == (10, 2)
    for k, waypoint in enumerate(waypoints):
        there = T_grid_world @ robot.pose_at(t + 0.5 * (k + 1))[:, 3]
        np.testing.assert_allclose(waypoint, there[:2], atol=1e-12)


def test_waypoints_are_none_when_the_track_ends_too_soon() -> None:
    robot = track()
    assert robot.future_waypoints(3.0) is not None
    assert robot.future_waypoints(3.02) is None


def test_pose_holds_pitch_and_roll() -> None:
    robot = track()
    T = robot.pose_at(2.0)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert -np.arcsin(T[2, 0]) == pytest.approx(np.interp(2.0, robot.motion.times_s, robot.pitch_rad))
    assert np.arctan2(T[2, 1], T[2, 2]) == pytest.approx(np.interp(2.0, robot.motion.times_s, robot.roll_rad))


def test_motion_moves_by_its_velocity_and_rests_outside_its_times() -> None:
    motion = Motion(np.array([0.0, 1.0, 2.0]), np.array([[0, 0, 0], [1, 2, 0], [1, 2, 4.0]]), np.zeros(3))
    np.testing.assert_allclose(motion.velocity_mps(0.5), [1, 2, 0])
    np.testing.assert_allclose(motion.velocity_mps(1.0), [0, 0, 4])
    np.testing.assert_allclose(motion.velocity_mps(2.5), 0)
    assert motion.sample(-1.0) == (0.0, 0.0, 0.0, 0.0)
    assert motion.sample(9.0) == (1.0, 2.0, 4.0, 0.0)


def test_limbs_swing_about_their_pivot() -> None:
    leg = Solid("cylinder", (0.15, 0.15, 0.8), pose(0, 0.1, 0.4), int(Sidewalk.PERSON), (0, 0, 0), Texture.CLOTH)
    walk = Motion(np.array([0.0, 10.0]), np.array([[0.0, 0, 0], [12.0, 0, 0]]), np.zeros(2))
    actor = Actor(1, int(Sidewalk.PERSON), (leg,), (0.5, 0.5, 1.7), walk, np.array([[0.45, 0.0, 0.4]]))
    hips = np.array([part @ [0, 0, 0.4, 1] for t in np.linspace(0, 2, 9) for part in actor.part_poses(t)])
    feet = np.array([part @ [0, 0, -0.4, 1] for t in np.linspace(0, 2, 9) for part in actor.part_poses(t)])
    np.testing.assert_allclose(hips, np.tile([0, 0.1, 0.8, 1], (9, 1)), atol=1e-12)
    assert np.ptp(feet[:, 0]) > 0.4
