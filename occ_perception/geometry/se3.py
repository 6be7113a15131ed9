"""Rigid motions as float64 [4, 4] matrices: `T_a_b` maps points of b into a. Quaternions are xyzw."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transforms3d import euler, quaternions

from occ_perception.errors import ShapeError

Matrix = NDArray[np.float64]

OPTICAL_IN_BODY: Matrix = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation from an optical frame (x right, y down, z forward) to a body frame (x forward, y left, z up), REP-103."""


def make(rotation: ArrayLike, translation: ArrayLike) -> Matrix:
    """[4, 4] of a rotation [3, 3] and a translation [3]."""
    T = np.eye(4)
    T[:3, :3] = rotation
    T[:3, 3] = translation
    return T


def from_quaternion(xyzw: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0)) -> Matrix:
    """[4, 4] of a quaternion (normalised here). Raises ShapeError if it is not 4 finite numbers of positive norm."""
    q = np.asarray(xyzw, float)
    if q.shape != (4,) or not np.isfinite(q).all() or np.linalg.norm(q) < 1e-9:
        raise ShapeError(f"a quaternion is 4 finite numbers (x, y, z, w), not all zero; got {q.tolist()}")
    return make(quaternions.quat2mat(q[[3, 0, 1, 2]]), translation)


def to_quaternion(T: ArrayLike) -> Matrix:
    """Quaternion xyzw [4] of the rotation of T [4, 4]."""
    wxyz = quaternions.mat2quat(np.asarray(T, float)[:3, :3])
    return np.asarray(wxyz[[1, 2, 3, 0]], float)


def from_euler(roll: float, pitch: float, yaw: float, translation: ArrayLike = (0.0, 0.0, 0.0)) -> Matrix:
    """Rotation about fixed axes x, then y, then z (R = Rz Ry Rx), radians; a positive pitch looks down."""
    return make(euler.euler2mat(roll, pitch, yaw, "sxyz"), translation)


def invert(T: ArrayLike) -> Matrix:
    """Inverse of a rigid motion."""
    T = np.asarray(T, float)
    rotation = T[:3, :3].T
    return make(rotation, -rotation @ T[:3, 3])


def apply(T: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """T applied to points [..., 3]."""
    T = np.asarray(T, float)
    return np.asarray(np.asarray(points, float) @ T[:3, :3].T + T[:3, 3])


def yaw_of(T: ArrayLike) -> float:
    """Heading of the x axis of T in its parent's plane, radians."""
    T = np.asarray(T, float)
    return float(np.arctan2(T[1, 0], T[0, 0]))


def gravity_aligned(T_world_base: ArrayLike) -> Matrix:
    """Pose of the grid frame: origin and yaw of the base, z against gravity."""
    T = np.asarray(T_world_base, float)
    return from_euler(0.0, 0.0, yaw_of(T), T[:3, 3])


def interpolate(T0: ArrayLike, T1: ArrayLike, alpha: float) -> Matrix:
    """The motion between T0 (alpha 0) and T1 (alpha 1); alpha outside 0..1 extrapolates at constant velocity."""
    T0, T1 = np.asarray(T0, float), np.asarray(T1, float)
    return make(T0[:3, :3] @ _part_of_turn(T0[:3, :3].T @ T1[:3, :3], alpha),
                (1 - alpha) * T0[:3, 3] + alpha * T1[:3, 3])


def _part_of_turn(rotation: Matrix, alpha: float) -> Matrix:
    """The rotation [3, 3] by `alpha` times its angle. A scan takes dozens, and libraries are slow at single ones."""
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = rotation.tolist()
    x, y, z = r21 - r12, r02 - r20, r10 - r01  # twice the axis times the sine
    sine, cosine = 0.5 * math.sqrt(x * x + y * y + z * z), 0.5 * (r00 + r11 + r22 - 1)
    if cosine < -0.99:  # the axis is lost in rounding: towards half a turn it has to come from the diagonal
        axis, angle = quaternions.quat2axangle(quaternions.mat2quat(rotation))
        return np.asarray(quaternions.quat2mat(quaternions.axangle2quat(axis, alpha * angle)), float)
    if sine < 1e-12:
        return np.eye(3)
    x, y, z = 0.5 * x / sine, 0.5 * y / sine, 0.5 * z / sine
    angle = alpha * math.atan2(sine, cosine)
    s, c = math.sin(angle), math.cos(angle)
    t = 1 - c
    return np.array([[t * x * x + c, t * x * y - s * z, t * x * z + s * y],
                     [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
                     [t * x * z - s * y, t * y * z + s * x, t * z * z + c]])


def is_rigid(T: ArrayLike, tolerance: float = 1e-4) -> bool:
    """Whether T is [4, 4], finite, with an orthonormal right-handed rotation."""
    T = np.asarray(T, float)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        return False
    rotation = T[:3, :3]
    return bool(
        np.allclose(rotation @ rotation.T, np.eye(3), atol=tolerance)
        and np.linalg.det(rotation) > 0
        and np.allclose(T[3], [0, 0, 0, 1], atol=1e-9)
    )
