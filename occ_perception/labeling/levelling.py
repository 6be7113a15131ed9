"""Levels the poses of a clip by its own scans: ground has one height in all frames, and what is built stands upright.

Cells of 0.1 m ask for more than a filter of wheels and IMU gives: a bias of 0.05 m/s2 is a tilt of 0.3 degrees, half a
cell at 10 m. Position on the map and heading are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from occ_perception.labeling.clip import LabelFrame

Array = NDArray[np.float64]

MOST_TILT_RAD, MOST_RISE_M = float(np.radians(2.0)), 0.5
"""Corrections beyond these are no residual error of a filter: then something else is wrong, and nothing is moved."""
LEAST_GROUND = 30
"""Columns of ground that a frame must share with others, on average."""
LEAST_WALLS = 5
"""Fewer upright columns do not tell where down is: one leaning fence must not."""

_REACH_M = 20.0
_GROUND_COLUMN_M, _WALL_COLUMN_M = 0.5, 1.0
_ASKEW = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
"""Columns lie askew: a side along a wall would cut it lengthwise, and what it cuts off seems as upright as the side."""
_FLAT_M = 0.03
"""Standard deviation of heights in a column of ground (a kerb in it makes 0.06), and across the plane of a wall."""
_FOOT_M = 0.3
"""Of a column in which something stands so much is left out at the bottom: its ground."""
_WALL_SPREAD_M = 0.2
"""Least standard deviation along a wall within its column, upwards and sideways; a whole column has 0.29 sideways."""
_LEAST_POINTS, _LEAST_WALL_POINTS = 4, 30
_LEAN = 0.07
"""What leans by more than 4 degrees is nothing built."""

# Standard deviations by which what is known is weighed.
_HEIGHT_M, _BUILT_RAD = 0.01, 0.004
_AGREE_RAD = 0.001
"""Walls that agree more closely than this are not told apart by it."""
_GRAVITY_RAD = 0.01
"""Of the mean tilt of the poses: a bias of the IMU of 0.1 m/s2, as the filter takes it to be."""
_DRIFT_RAD, _DRIFT_M = 0.002, 0.01
"""How much tilt and height of the poses drift in a second."""
_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Levelling:
    """Frames with levelled poses, and by how much each was moved.

    Attributes:
        frames: as given, or with new `T_world_base`. Boxes, if they have any, stay where they were in the world.
        tilt_rad: [N], angle by which each was turned.
        rise_m: [N], upwards.
        walls: upright columns that told where down is; with none, the mean tilt is still that of the poses.
        skipped: why nothing was moved, or empty.
    """

    frames: Sequence[LabelFrame]
    tilt_rad: Array
    rise_m: Array
    walls: int = 0
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For reports: the largest moves, in degrees and metres."""
        return {"tilt_deg": round(float(np.degrees(self.tilt_rad.max(initial=0.0))), 3),
                "rise_m": round(float(np.abs(self.rise_m).max(initial=0.0)), 3), "walls": self.walls,
                "skipped": self.skipped}


def level(frames: Sequence[LabelFrame]) -> Levelling:
    """Turn frames about the horizontal, and lift them, so that their scans agree and walls stand upright.

    First frames are laid onto each other by the ground that they share, which leaves their mean tilt as it was. Then
    all are turned as one by the walls and gables of the whole clip, if there are enough: ground may slope, what is
    built does not lean.
    """
    nothing = Levelling(frames, np.zeros(len(frames)), np.zeros(len(frames)))
    ground = _ground(frames)
    if len(frames) < 2 or len(ground.frame) < LEAST_GROUND * len(frames):
        return replace(nothing, skipped=f"too little ground in common: {len(ground.frame)} columns in {len(frames)} "
                                        f"frames, {LEAST_GROUND} a frame are needed")
    before = np.stack([frame.T_world_base for frame in frames])
    stamps_s = np.array([frame.stamp_ns - frames[0].stamp_ns for frame in frames]) * 1e-9
    after = before.copy()
    agreed = _agreed(ground, stamps_s)
    after[:, :3, :3] = _turn(agreed[:, :2]) @ before[:, :3, :3]
    after[:, 2, 3] += agreed[:, 2]
    walls = _walls(frames, after)
    if len(walls) >= LEAST_WALLS:
        turn, middle = _turn(_plumb(walls)), after[:, :3, 3].mean(axis=0)
        after[:, :3, :3] = turn @ after[:, :3, :3]
        after[:, 2, 3] = ((after[:, :3, 3] - middle) @ turn.T + middle)[:, 2]
    moved = Rotation.from_matrix(after[:, :3, :3] @ before[:, :3, :3].transpose(0, 2, 1)).magnitude()
    rise = after[:, 2, 3] - before[:, 2, 3]
    if moved.max() > MOST_TILT_RAD or np.abs(rise).max() > MOST_RISE_M:
        return replace(nothing, skipped=f"the scans ask for {np.degrees(moved.max()):.1f} degrees and "
                                        f"{np.abs(rise).max():.2f} m, more than the poses can be off")
    return Levelling([replace(frame, T_world_base=T) for frame, T in zip(frames, after)], moved, rise,
                     len(walls) if len(walls) >= LEAST_WALLS else 0)


def _turn(tilt_rad: Array) -> Array:
    """Rotations [..., 3, 3] about the world's x and y by [..., 2]."""
    about = np.concatenate([tilt_rad, np.zeros_like(tilt_rad[..., :1])], axis=-1)
    return np.asarray(Rotation.from_rotvec(about).as_matrix())


# --- what scans hold ---


@dataclass(frozen=True, eq=False)
class _Ground:
    """Heights of ground: of which frame and column [N], position about the base [N, 2], height in the world [N]."""

    frame: NDArray[np.int64]
    column: NDArray[np.int64]
    xy_m: Array
    height_m: Array


def _ground(frames: Sequence[LabelFrame]) -> _Ground:
    """Columns below the sensors that hold one level surface, and that at least two frames see."""
    found = []
    for k, frame in enumerate(frames):
        here, points = frame.T_world_base[:3, 3], _near(frame, frame.T_world_base)
        if len(frame.sensor_m):
            points = points[points[:, 2] < (frame.sensor_m @ frame.T_world_base[:3, :3].T)[:, 2].min() - _FOOT_M]
        column, owner = _columns(points, here, _GROUND_COLUMN_M)
        count, mean, spread = _moments(points, owner, len(column))
        flat = (count >= _LEAST_POINTS) & (spread[:, 2, 2] < _FLAT_M**2)
        found.append((np.full(int(flat.sum()), k), column[flat], mean[flat, :2], mean[flat, 2] + here[2]))
    if not found:
        return _Ground(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0))
    frame_of, column, xy_m, height_m = (np.concatenate(part) for part in zip(*found))
    _, owner, counts = np.unique(column, return_inverse=True, return_counts=True)
    shared = counts[owner] > 1
    return _Ground(frame_of[shared], column[shared], xy_m[shared], height_m[shared])


def _walls(frames: Sequence[LabelFrame], T_world_base: Array) -> Array:
    """Normals [M, 3] of what stands in a column, within a few degrees of the horizontal."""
    found = []
    for frame, T in zip(frames, T_world_base):
        points = _near(frame, T)
        column, owner = _columns(points, T[:3, 3], _WALL_COLUMN_M)
        lowest = np.full(len(column), np.inf)
        np.minimum.at(lowest, owner, points[:, 2])
        above = points[:, 2] > lowest[owner] + _FOOT_M
        count, _, spread = _moments(points[above], owner[above], len(column))
        there = count > 0
        found.append((column[there], count[there], (count[:, None, None] * spread)[there].reshape(-1, 9)))
    columns = np.concatenate([each[0] for each in found])
    counts, spreads = (np.concatenate([each[i] for each in found]) for i in (1, 2))
    # each scan about its own mean: what poses drift sideways in a clip must not look like a lean
    column, owner = np.unique(columns, return_inverse=True)
    count = np.bincount(owner, counts, len(column)).astype(float)
    pooled = np.stack([np.bincount(owner, axis, len(column)) for axis in spreads.T], axis=1).reshape(-1, 3, 3)
    enough = count >= _LEAST_WALL_POINTS
    spread = pooled[enough] / count[enough, None, None]
    values, vectors = np.linalg.eigh(spread)
    normal = vectors[:, :, 0]
    return np.asarray(normal[(values[:, 0] < _FLAT_M**2) & (values[:, 1] > _WALL_SPREAD_M**2)
                             & (spread[:, 2, 2] > _WALL_SPREAD_M**2) & (np.abs(normal[:, 2]) < _LEAN)])


def _near(frame: LabelFrame, T_world_base: Array) -> Array:
    """The scan as far as it is dense, in the world's axes, about the base."""
    points = frame.points_m.astype(float) @ T_world_base[:3, :3].T
    return np.asarray(points[np.hypot(points[:, 0], points[:, 1]) < _REACH_M])


def _columns(points_m: Array, here_m: Array, edge_m: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys of the world's columns within reach of `here_m` [M], and which of them each point [N, 3] about it is in."""
    side = int(2 * _REACH_M / edge_m) + 2
    first = np.floor((here_m[:2] @ _ASKEW - _REACH_M) / edge_m).astype(np.int64)
    x, y = np.floor((points_m[:, :2] + here_m[:2]) @ _ASKEW / edge_m).astype(np.int64).T - first[:, None]
    line = np.arange(side)
    return ((first[0] + line)[:, None] * (1 << 31) + first[1] + line).ravel(), np.asarray(x * side + y)


def _moments(points_m: Array, owner: NDArray[np.int64], owners: int) -> tuple[Array, Array, Array]:
    """Count [M], mean [M, 3] and covariance [M, 3, 3] of the points of each owner, 0 for those without points."""
    count = np.bincount(owner, minlength=owners).astype(float)
    share = 1.0 / np.maximum(count, 1.0)
    mean = np.stack([np.bincount(owner, axis, owners) * share for axis in points_m.T], axis=1)
    x, y, z = points_m.T
    xx, xy, xz, yy, yz, zz = (np.bincount(owner, product, owners) * share
                              for product in (x * x, x * y, x * z, y * y, y * z, z * z))
    second = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=1).reshape(-1, 3, 3)
    return count, mean, second - mean[:, :, None] * mean[:, None, :]


# --- least squares ---


def _agreed(ground: _Ground, stamps_s: Array) -> Array:
    """Moves of the frames [N, 3], turns about x and y and rise, by which columns have one height in all frames."""
    size, rows = 3 * len(stamps_s), len(ground.frame)
    change = np.column_stack([ground.xy_m[:, 1], -ground.xy_m[:, 0], np.ones(rows)])
    at = np.repeat(np.arange(rows), 3), (3 * ground.frame[:, None] + np.arange(3)).ravel()
    by_moves = sparse.csr_matrix((change.ravel(), at), shape=(rows, size))
    _, column = np.unique(ground.column, return_inverse=True)
    H_prior, moves, weights = _drift(stamps_s), np.zeros(size), np.ones(rows)
    for _ in range(_ROUNDS):
        share = weights / np.bincount(column, weights)[column]
        mean = sparse.csr_matrix((share, (column, np.arange(rows))))
        # the height of a column is unknown, too: what is seen of it is each frame's difference from the mean
        apart, off = by_moves - (mean @ by_moves)[column], ground.height_m - (mean @ ground.height_m)[column]
        weighed = sparse.diags(weights / _HEIGHT_M**2)
        moves = -np.linalg.solve(H_prior + (apart.T @ weighed @ apart).toarray(), apart.T @ weighed @ off)
        weights = _cauchy((off + apart @ moves) / _HEIGHT_M)
    return moves.reshape(-1, 3)


def _drift(stamps_s: Array) -> Array:
    """What is known of moves without scans, as the matrix of its squares [3N, 3N]: poses drift slowly, and the mean
    stays."""
    n = len(stamps_s)
    step = np.diff(np.eye(n), axis=0) / np.sqrt(np.maximum(np.diff(stamps_s), 1e-3))[:, None]
    mean = np.full((n, n), 1e6)  # as good as fixed: ground in common says nothing about it
    tilt, rise = (step.T @ step / sigma**2 + mean for sigma in (_DRIFT_RAD, _DRIFT_M))
    return np.asarray(np.kron(tilt, np.diag([1.0, 1.0, 0.0])) + np.kron(rise, np.diag([0.0, 0.0, 1.0])))


def _plumb(normals: Array) -> Array:
    """Turn about x and y [2] after which normals [M, 3] are horizontal; a prior keeps it near gravity as it was felt.

    Most of what stands agrees closely, and the rest (cars, hedges, corners) leans any way: residuals are judged by
    their own median.
    """
    change = np.column_stack([normals[:, 1], -normals[:, 0]])
    tilt: Array = np.zeros(2)
    weights: Array = np.ones(len(normals))
    for _ in range(_ROUNDS):
        weighed = change.T * weights / _BUILT_RAD**2
        known = weighed @ change + np.eye(2) / _GRAVITY_RAD**2
        tilt = np.asarray(-np.linalg.solve(known, weighed @ normals[:, 2]), float)
        lean = normals[:, 2] + change @ tilt
        weights = _cauchy(lean / max(1.5 * float(np.median(np.abs(lean))), _AGREE_RAD))
    return tilt


def _cauchy(residual: Array) -> Array:
    """Weights of residuals, in units of what is usual."""
    return np.asarray(1.0 / (1.0 + residual**2))
