"""Rigid motions: inverses, quaternions in xyzw, gravity alignment, interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from occ_perception.errors import ShapeError
from occ_perception.geometry import se3

angles = st.floats(-1.5, 1.5)
motions = st.builds(lambda r, p, y, t: se3.from_euler(r, p, y, t), angles, angles, st.floats(-3.1, 3.1),
                    st.tuples(*[st.floats(-50, 50)] * 3))


unit_vectors = st.builds(lambda r, p: se3.from_euler(r, p, 0.3)[:3, 0], angles, angles)


@given(motions)
def test_inverse_and_quaternion_round_trip(T):
    assert np.allclose(se3.invert(T) @ T, np.eye(4), atol=1e-12)
    assert np.allclose(se3.from_quaternion(se3.to_quaternion(T), T[:3, 3]), T, atol=1e-9)
    assert se3.is_rigid(T)


def test_quaternions_are_xyzw():
    quarter_turn = se3.from_quaternion([0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4)])
    assert se3.apply(quarter_turn, [1, 0, 0]) == pytest.approx([0, 1, 0], abs=1e-12)


def test_a_positive_pitch_looks_down():
    assert se3.apply(se3.from_euler(0, 0.3, 0), [1, 0, 0])[2] < 0


@given(motions)
def test_gravity_aligned_keeps_origin_and_heading_and_drops_the_tilt(T):
    grid = se3.gravity_aligned(T)
    assert np.allclose(grid[:3, 3], T[:3, 3])
    assert np.allclose(grid[2, :3], [0, 0, 1])
    assert se3.yaw_of(grid) == pytest.approx(se3.yaw_of(T))


@given(motions, motions, st.floats(0, 1))
def test_interpolation_meets_its_ends_and_stays_rigid(T0, T1, alpha):
    assert np.allclose(se3.interpolate(T0, T1, 0), T0, atol=1e-7)
    assert np.allclose(se3.interpolate(T0, T1, 1), T1, atol=1e-7)
    assert se3.is_rigid(se3.interpolate(T0, T1, alpha))


def test_interpolation_turns_at_constant_rate():
    T = se3.interpolate(np.eye(4), se3.from_euler(0, 0, 1.0, (2, 0, 0)), 0.25)
    assert se3.yaw_of(T) == pytest.approx(0.25)
    assert T[:3, 3] == pytest.approx([0.5, 0, 0])


@given(unit_vectors, st.one_of(st.floats(0, 3.1415), st.floats(0, 1e-6), st.floats(3.0, 3.1415)), st.floats(-1, 2))
def test_interpolation_turns_about_the_axis_between_by_its_share(axis, angle, alpha):
    whole = Rotation.from_rotvec(angle * axis)
    got = se3.interpolate(np.eye(4), se3.make(whole.as_matrix(), [0, 0, 0]), alpha)[:3, :3]
    assert np.allclose(got, Rotation.from_rotvec(alpha * angle * axis).as_matrix(), atol=1e-6)


def test_optical_axes_point_the_right_way():
    assert (se3.OPTICAL_IN_BODY @ [0, 0, 1] == [1, 0, 0]).all()   # forward
    assert (se3.OPTICAL_IN_BODY @ [1, 0, 0] == [0, -1, 0]).all()  # right
    assert (se3.OPTICAL_IN_BODY @ [0, 1, 0] == [0, 0, -1]).all()  # down


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [0, 0, 1], [np.nan, 0, 0, 1]])
def test_no_rotation_is_made_of_nonsense(quaternion):
    with pytest.raises(ShapeError):
        se3.from_quaternion(quaternion)
