"""The robot's way: a route along the walk, a path on it that clears what stands there, and the sway of its body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from occ_perception.simulation.ground import Ground
from occ_perception.simulation.layout import Street
from occ_perception.simulation.scene import Embodiment, Motion, RobotTrack
from occ_perception.simulation.solids import Array, Solid

FOOTPRINT_M = 0.4
CLEARANCE_M = 0.5
STEP_M = 0.25
RATE_HZ = 50.0
_SWAY: dict[Embodiment, tuple[float, float, float, float]] = {
    # pitch rad, roll rad, frequency Hz at 1 m/s, bob m
    "wheeled": (0.003, 0.003, 1.3, 0.0), "quadruped": (0.04, 0.045, 2.0, 0.01),
    "wheelchair": (0.008, 0.008, 1.0, 0.0), "humanoid": (0.035, 0.035, 1.7, 0.02)}
_HEADROOM_M = 2.0


@dataclass(frozen=True, eq=False)
class Path:
    """A curve in street coordinates: points [K, 2] at equal steps, its length at each, room to either side [K]."""

    points_m: Array
    length_m: Array
    room_m: Array

    @property
    def normals(self) -> Array:
        """Unit vectors to the left, [K, 2]."""
        tangent = np.gradient(self.points_m, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        return np.column_stack([-tangent[:, 1], tangent[:, 0]])

    def at(self, length_m: Array) -> Array:
        """Points [N, 2] at the given lengths."""
        return np.column_stack([np.interp(length_m, self.length_m, self.points_m[:, k]) for k in (0, 1)])


def _resample(points: Array, room: Array, step_m: float) -> Path:
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    even = np.arange(0.0, length[-1], step_m)
    columns = [np.interp(even, length, points[:, k]) for k in (0, 1)]
    return Path(np.column_stack(columns), even, np.interp(even, length, room))


def plan_route(rng: np.random.Generator, street: Street, side: int) -> Path:
    """Along the walk of one side; where there is a crosswalk over the street, sometimes over it to the other side."""
    d = side * (street.half_width_m + street.path_m)
    walk_room = 0.5 * street.walk_m - 0.3
    crossings = [s for s in street.main_crosswalks_m if 6.0 < s < street.end_m - 25.0]
    corners = [(0.0, d)]
    if crossings and rng.random() < 0.5:
        s = crossings[int(rng.integers(len(crossings)))]
        corners += [(s, d), (s, -d)]
        d = -d
    corners.append((street.end_m - 4.0, d))
    sharp = _resample(np.array(corners), np.full(len(corners), walk_room), 0.1)
    smooth = gaussian_filter1d(sharp.points_m, 8.0, axis=0, mode="nearest")
    off_walk = (street.e1(smooth[:, 1]) < 0.3) | (street.e2(smooth[:, 0]) < 0.3)
    room = gaussian_filter1d(np.where(off_walk, 0.9, walk_room), 8.0)
    return _resample(smooth, room, STEP_M)


def footprints(ground: Ground, solids: list[Solid]) -> Array:
    """Boxes (s0, s1, d0, d1) [N, 4] in street coordinates of each solid; solids above head height are empty boxes."""
    if not solids:
        return np.zeros((0, 4))
    poses = np.stack([solid.T_parent_solid for solid in solids])
    half = 0.5 * np.array([solid.size_m for solid in solids])
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    corners = np.einsum("nij,nkj->nki", poses[:, :3, :3], half[:, None] * signs) + poses[:, None, :3, 3]
    street = ground.to_street(corners[..., :2].reshape(-1, 2)).reshape(len(solids), 8, 2)
    low, high = street.min(axis=1), street.max(axis=1)
    above = corners[..., 2].min(axis=1) > ground.height_m(poses[:, :2, 3]) + _HEADROOM_M
    boxes = np.column_stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]])
    boxes[above] = (1e6, 1e6, 1e6, 1e6)
    return boxes


def distances(points: Array, boxes: Array) -> Array:
    """Distance of every point [N, 2] to every box [M, 4] (0 inside), [N, M]."""
    gap = [np.maximum(np.maximum(boxes[:, 2 * k] - points[:, k, None], points[:, k, None] - boxes[:, 2 * k + 1]), 0.0)
           for k in (0, 1)]
    return np.asarray(np.hypot(*gap))


def plan_path(rng: np.random.Generator, route: Path, boxes: Array) -> Path:
    """Shift the route sideways so that it keeps clear of the boxes; least-cost shifts by dynamic programming."""
    shifts = np.arange(-14, 15) * 0.1
    n, k = len(route.points_m), len(shifts)
    lattice = route.points_m[:, None] + shifts[:, None] * route.normals[:, None]
    flat = lattice.reshape(-1, 2)
    reach = 2.0
    low, high = flat.min(axis=0) - reach, flat.max(axis=0) + reach
    near = boxes[(boxes[:, 1] > low[0]) & (boxes[:, 0] < high[0]) & (boxes[:, 3] > low[1]) & (boxes[:, 2] < high[1])]
    near = near[distances(route.points_m[::4], near).min(axis=0) < reach + 1.4] if len(near) else near
    clearance = distances(flat, near).min(axis=1, initial=5.0).reshape(n, k)
    wander = np.zeros(n)
    for _ in range(3):
        wander += rng.uniform(0.03, 0.12) * np.sin(2 * np.pi * route.length_m / rng.uniform(8.0, 30.0)
                                                   + rng.uniform(0.0, 6.28))
    outside = np.maximum(np.abs(shifts) - route.room_m[:, None], 0.0)
    cost = (0.15 * (shifts - wander[:, None]) ** 2 + 30.0 * outside**2
            + 4.0 * np.clip(0.95 - clearance, 0.0, None) ** 2 + 400.0 * np.clip(CLEARANCE_M + 0.1 - clearance, 0, None))
    turn = 8.0 * (shifts[:, None] - shifts) ** 2 + np.where(np.abs(shifts[:, None] - shifts) > 0.15, 1e6, 0.0)
    total, back = cost[0].copy(), np.zeros((n, k), np.int64)
    for i in range(1, n):
        options = total[:, None] + turn
        back[i] = options.argmin(axis=0)
        total = options[back[i], np.arange(k)] + cost[i]
    choice = np.zeros(n, np.int64)
    choice[-1] = total.argmin()
    for i in range(n - 1, 0, -1):
        choice[i - 1] = back[i, choice[i]]
    shift = gaussian_filter1d(shifts[choice], 2.0, mode="nearest")
    return _resample(route.points_m + shift[:, None] * route.normals, route.room_m, 0.05)


def track(rng: np.random.Generator, ground: Ground, path: Path, times_s: Array, progress_m: Array,
          embodiment: Embodiment, duration_s: float) -> RobotTrack:
    """The track of a robot that has come `progress_m` far along the path at `times_s`."""
    t = np.arange(int(round(duration_s * RATE_HZ)) + 1) / RATE_HZ
    length = gaussian_filter1d(np.interp(t, times_s, progress_m), 0.2 * RATE_HZ, mode="nearest")
    world = ground.to_world(path.points_m)
    heading = np.unwrap(np.arctan2(*np.gradient(world, axis=0).T[::-1]))
    heading = gaussian_filter1d(heading, 8.0, mode="nearest")
    xy = np.column_stack([np.interp(length, path.length_m, world[:, k]) for k in (0, 1)])
    yaw = np.interp(length, path.length_m, heading)
    speed = np.gradient(length, t)
    ahead = 0.3 * np.column_stack([np.cos(yaw), np.sin(yaw)])
    z = 0.5 * (ground.height_m(xy + ahead) + ground.height_m(xy - ahead))
    slope = (ground.height_m(xy + ahead) - ground.height_m(xy - ahead)) / 0.6
    pitch_amplitude, roll_amplitude, frequency, bob = _SWAY[embodiment]
    gait = 2 * np.pi * frequency * t + rng.uniform(0, 6.28)
    active = np.clip(speed, 0.1, 1.0)
    yaw = yaw + 0.3 * pitch_amplitude * active * np.sin(0.5 * gait + 1.0)
    z = gaussian_filter1d(z, 0.15 * RATE_HZ, mode="nearest") + bob * active * np.sin(2 * gait)
    pitch = pitch_amplitude * active * np.sin(gait) - gaussian_filter1d(np.arctan(slope), 0.15 * RATE_HZ)
    roll = roll_amplitude * active * np.sin(0.5 * gait)
    return RobotTrack(embodiment, Motion(t, np.column_stack([xy, z]), yaw), pitch, roll, FOOTPRINT_M)
