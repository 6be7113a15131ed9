"""What a simulated street is made of: solids, the ground, actors, the robot's track, light, the world.

This is the contract between the builder of worlds and the sensors: analytic primitives serve the voxel truth,
their tessellations serve the ray caster, and both describe the same surfaces.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError

Array = NDArray[np.float64]
Kind = Literal["box", "cylinder", "ellipsoid"]
District = Literal["touristy", "residential", "commercial"]
Embodiment = Literal["wheeled", "quadruped", "wheelchair", "humanoid"]
DISTRICTS: tuple[District, ...] = ("touristy", "residential", "commercial")
EMBODIMENTS: tuple[Embodiment, ...] = ("wheeled", "quadruped", "wheelchair", "humanoid")


class Texture(IntEnum):
    """Procedural patterns of a surface; the sensors paint them, in the frame of the solid or of the world (ground)."""

    PLAIN = 0
    BRICK = 1
    WINDOWS = 2
    FOLIAGE = 3
    ASPHALT = 4
    SLABS = 5
    STRIPES = 6
    CLOTH = 7
    METAL = 8
    GLASS = 9
    WOOD = 10
    STONE = 11


def pose(x_m: float, y_m: float, z_m: float, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """T_parent_child [4, 4] from a position and fixed-axis angles (R = Rz Ry Rx), radians."""
    cy, sy = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    return np.array([
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x_m],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y_m],
        [-sp, cp * sr, cp * cr, z_m],
        [0.0, 0.0, 0.0, 1.0],
    ])


@lru_cache(maxsize=1)
def _unit_box() -> tuple[Array, NDArray[np.int32]]:
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    triangles = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return corners, np.array(triangles, np.int32)


@lru_cache(maxsize=1)
def _unit_cylinder(sides: int = 12) -> tuple[Array, NDArray[np.int32]]:
    angle = 2.0 * np.pi * np.arange(sides) / sides
    ring = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle)], axis=1)
    vertices = np.concatenate([np.column_stack([ring, np.full(sides, z)]) for z in (-0.5, 0.5)])
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    walls = np.concatenate([np.column_stack([i, j, j + sides]), np.column_stack([i, j + sides, i + sides])])
    k = np.arange(1, sides - 1)
    zero = np.zeros_like(k)
    caps = np.concatenate([np.column_stack([zero, k + 1, k]), np.column_stack([zero, k, k + 1]) + sides])
    return vertices, np.concatenate([walls, caps]).astype(np.int32)


@lru_cache(maxsize=1)
def _unit_ellipsoid() -> tuple[Array, NDArray[np.int32]]:
    """An icosahedron, each face split in four: 80 triangles, vertices on the sphere of diameter 1."""
    g = (1.0 + np.sqrt(5.0)) / 2.0
    points = [np.array(p, float) for p in (
        (-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g),
        (0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1))]
    faces = (
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
        (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10),
        (8, 6, 7), (9, 8, 1))
    middle: dict[tuple[int, int], int] = {}

    def between(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middle:
            middle[key] = len(points)
            points.append(points[a] + points[b])
        return middle[key]

    triangles = []
    for a, b, c in faces:
        ab, bc, ca = between(a, b), between(b, c), between(c, a)
        triangles += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    vertices = np.array(points)
    return 0.5 * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), np.array(triangles, np.int32)


_UNIT_MESHES = {"box": _unit_box, "cylinder": _unit_cylinder, "ellipsoid": _unit_ellipsoid}


@dataclass(frozen=True, eq=False)
class Solid:
    """One primitive, centred on its own origin.

    Attributes:
        kind: 'box', 'cylinder' (axis z) or 'ellipsoid'.
        size_m: full extents along the solid's x, y, z, [3].
        T_parent_solid: [4, 4]; the parent is the world for static solids, the actor for its parts.
        label: class id of the taxonomy.
        colour: RGB 0..1.
        texture: pattern painted over the colour.
        glow: 0 for matter that only reflects, up to 1 for lamps and lit windows.
    """

    kind: Kind
    size_m: tuple[float, float, float]
    T_parent_solid: Array
    label: int
    colour: tuple[float, float, float]
    texture: Texture = Texture.PLAIN
    glow: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _UNIT_MESHES or min(self.size_m) <= 0 or self.T_parent_solid.shape != (4, 4):
            raise ShapeError(f"needs a known kind, positive sizes and a 4x4 pose, got {self.kind} {self.size_m}",
                             where="Solid")

    def mesh(self) -> tuple[Array, NDArray[np.int32]]:
        """Vertices [V, 3] metres in the frame of the solid, triangles [T, 3] wound outwards."""
        vertices, triangles = _UNIT_MESHES[self.kind]()
        return vertices * self.size_m, triangles

    def signed_distance_m(self, points_m: ArrayLike) -> Array:
        """Distance [N] of points [N, 3] in the frame of the solid to its surface, negative inside.

        Exact for boxes and round cylinders; for ellipsoids (and cylinders that are not round) first order,
        exact on the surface.
        """
        p, half = np.asarray(points_m, float), 0.5 * np.asarray(self.size_m)
        if self.kind == "ellipsoid":
            return _implicit_distance(p, half)
        if self.kind == "box":
            q = np.abs(p) - half
        else:
            radial = (np.hypot(p[:, 0], p[:, 1]) - half[0] if half[0] == half[1]
                      else _implicit_distance(p[:, :2], half[:2]))
            q = np.column_stack([radial, np.abs(p[:, 2]) - half[2]])
        return np.asarray(np.linalg.norm(np.maximum(q, 0.0), axis=1) + np.minimum(q.max(axis=1), 0.0))


def _implicit_distance(p: Array, half: Array) -> Array:
    """First-order distance to the ellipse or ellipsoid of half axes `half`."""
    k0 = np.linalg.norm(p / half, axis=1)
    k1 = np.linalg.norm(p / half**2, axis=1)
    return np.asarray(np.where(k1 > 1e-12, k0 * (k0 - 1.0) / np.maximum(k1, 1e-12), -half.min()))


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground: a product grid in street coordinates (s along, d to the left), piecewise linear, one label a cell.

    The street bends by a shear, x = s and y = d + c(s), so both directions are closed forms. The heights between
    vertices are those of the two triangles of a cell (split from its lower to its upper corner), hence `height_m`
    and `mesh` are the same surface. Kerb faces are cells of 0.02 m width.

    Attributes:
        s_m: increasing lines across the street, [S].
        d_m: increasing lines along the street, [D].
        bend_m: c at every s line, [S].
        z_m: heights of the vertices, [S, D].
        labels: class id of each cell, uint8 [S-1, D-1].
        colours: RGB 0..1 of each cell, float32 [S-1, D-1, 3].
        textures: `Texture` of each cell, uint8 [S-1, D-1].
    """

    s_m: Array
    d_m: Array
    bend_m: Array
    z_m: Array
    labels: NDArray[np.uint8]
    colours: NDArray[np.float32]
    textures: NDArray[np.uint8]

    def __post_init__(self) -> None:
        ns, nd = len(self.s_m), len(self.d_m)
        cells = (ns - 1, nd - 1)
        if self.z_m.shape != (ns, nd) or self.labels.shape != cells or self.textures.shape != cells \
                or self.colours.shape != (*cells, 3) or self.bend_m.shape != (ns,):
            raise ShapeError("arrays do not fit the grid lines", where="Ground")
        if (np.diff(self.s_m) <= 0).any() or (np.diff(self.d_m) <= 0).any():
            raise ShapeError("grid lines must increase", where="Ground")

    def to_street(self, xy_m: ArrayLike) -> Array:
        """Street coordinates (s, d) of world points [N, 2]."""
        xy = np.asarray(xy_m, float)
        return np.column_stack([xy[:, 0], xy[:, 1] - np.interp(xy[:, 0], self.s_m, self.bend_m)])

    def to_world(self, sd_m: ArrayLike) -> Array:
        """World points [N, 2] of street coordinates (s, d)."""
        sd = np.asarray(sd_m, float)
        return np.column_stack([sd[:, 0], sd[:, 1] + np.interp(sd[:, 0], self.s_m, self.bend_m)])

    def _cells(self, sd: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        i = np.clip(np.searchsorted(self.s_m, sd[:, 0], side="right") - 1, 0, len(self.s_m) - 2)
        j = np.clip(np.searchsorted(self.d_m, sd[:, 1], side="right") - 1, 0, len(self.d_m) - 2)
        return i.astype(np.int64), j.astype(np.int64)

    def height_m(self, xy_m: ArrayLike) -> Array:
        """Height [N] of the ground at world points [N, 2]; beyond the grid, that of its nearest edge."""
        sd = self.to_street(xy_m)
        i, j = self._cells(sd)
        u = np.clip((sd[:, 0] - self.s_m[i]) / (self.s_m[i + 1] - self.s_m[i]), 0.0, 1.0)
        v = np.clip((sd[:, 1] - self.d_m[j]) / (self.d_m[j + 1] - self.d_m[j]), 0.0, 1.0)
        z00, z11 = self.z_m[i, j], self.z_m[i + 1, j + 1]
        middle = np.where(u >= v, self.z_m[i + 1, j], self.z_m[i, j + 1])
        high, low = np.maximum(u, v), np.minimum(u, v)
        return np.asarray(z00 + high * (middle - z00) + low * (z11 - middle))

    def label(self, xy_m: ArrayLike) -> NDArray[np.uint8]:
        """Class id [N] at world points [N, 2]; beyond the grid, that of its nearest edge."""
        i, j = self._cells(self.to_street(xy_m))
        return self.labels[i, j]

    def mesh(self) -> GroundMesh:
        """The surface as triangles, in the world frame."""
        ns, nd = self.z_m.shape
        vertices = np.stack([np.repeat(self.s_m, nd), (self.d_m + self.bend_m[:, None]).ravel(), self.z_m.ravel()], 1)
        i, j = np.meshgrid(np.arange(ns - 1), np.arange(nd - 1), indexing="ij")
        a = (i * nd + j).ravel()
        b, c, d = a + nd, a + nd + 1, a + 1
        triangles = np.stack([np.stack([a, b, c], 1), np.stack([a, c, d], 1)], 1).reshape(-1, 3).astype(np.int32)
        return GroundMesh(vertices, triangles, np.repeat(self.labels.ravel(), 2),
                          np.repeat(self.colours.reshape(-1, 3), 2, axis=0), np.repeat(self.textures.ravel(), 2))


@dataclass(frozen=True, eq=False)
class GroundMesh:
    """Triangles of the ground: vertices [V, 3] (world), triangles [T, 3] wound upwards; label, RGB, texture of each."""

    vertices: Array
    triangles: NDArray[np.int32]
    labels: NDArray[np.uint8]
    colours: NDArray[np.float32]
    textures: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Motion:
    """A path over time on the ground: samples at `times_s` [N] (increasing), position [N, 3] and yaw [N] (unwrapped).

    Between samples it is linear; before the first and after the last it stands still.
    """

    times_s: Array
    xyz_m: Array
    yaw_rad: Array

    def sample(self, t_s: float) -> tuple[float, float, float, float]:
        """x, y, z, yaw at t_s."""
        i, alpha = self._bracket(t_s)
        p = self.xyz_m[i] + alpha * (self.xyz_m[i + 1] - self.xyz_m[i]) if alpha else self.xyz_m[i]
        yaw = self.yaw_rad[i] + alpha * (self.yaw_rad[i + 1] - self.yaw_rad[i]) if alpha else self.yaw_rad[i]
        return float(p[0]), float(p[1]), float(p[2]), float(yaw)

    def velocity_mps(self, t_s: float) -> Array:
        """World velocity [3]."""
        if len(self.times_s) < 2 or not self.times_s[0] <= t_s < self.times_s[-1]:
            return np.zeros(3)
        i, _ = self._bracket(t_s)
        return np.asarray((self.xyz_m[i + 1] - self.xyz_m[i]) / (self.times_s[i + 1] - self.times_s[i]))

    def _bracket(self, t_s: float) -> tuple[int, float]:
        times = self.times_s
        if len(times) < 2 or t_s <= times[0]:
            return 0, 0.0
        if t_s >= times[-1]:
            return len(times) - 1, 0.0
        i = int(np.searchsorted(times, t_s, side="right")) - 1
        return i, float((t_s - times[i]) / (times[i + 1] - times[i]))


@dataclass(frozen=True, eq=False)
class Actor:
    """A countable thing, standing or moving.

    Attributes:
        track_id: unique in the world, > 0.
        label: class id (person, vehicle, cyclist, animal).
        solids: parts; their `T_parent_solid` is the pose at rest in the actor's frame (origin on the ground below
            its centre, x forward, y left, z up).
        size_m: length, width, height of its upright box.
        motion: path of its origin.
        swing: for each solid, (amplitude rad, phase rad, pivot height m above the part's centre) of a limb that
            swings about the actor's y axis, or None when the actor is rigid; [n, 3].
        cadence_hz: swing periods per second at walking speed.
        headlights_m: lamps in the actor's frame, [K, 3]; empty when off.
    """

    track_id: int
    label: int
    solids: tuple[Solid, ...]
    size_m: tuple[float, float, float]
    motion: Motion
    swing: Array | None = None
    cadence_hz: float = 0.9
    headlights_m: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def pose_at(self, t_s: float) -> Array:
        """T_world_actor [4, 4]."""
        return pose(*self.motion.sample(t_s))

    def velocity_at(self, t_s: float) -> Array:
        """Velocity of the origin in the world, m/s, [3]."""
        return self.motion.velocity_mps(t_s)

    @property
    def moves(self) -> bool:
        """Whether it is ever anywhere else."""
        return len(self.motion.times_s) > 1

    def part_poses(self, t_s: float) -> Array:
        """T_actor_solid of every part at t_s, [n, 4, 4]; the shapes of the parts never change."""
        parts = np.stack([solid.T_parent_solid for solid in self.solids])
        if self.swing is None:
            return parts
        speed = float(np.hypot(*self.velocity_at(t_s)[:2]))
        angle = self.swing[:, 0] * min(1.0, speed) * np.sin(2.0 * np.pi * self.cadence_hz * t_s + self.swing[:, 1])
        c, s, lever = np.cos(angle), np.sin(angle), self.swing[:, 2]
        turn = np.tile(np.eye(4), (len(parts), 1, 1))
        turn[:, 0, 0], turn[:, 0, 2], turn[:, 2, 0], turn[:, 2, 2] = c, s, -s, c
        # About the pivot (0, 0, lever) of the part: p -> R (p - pivot) + pivot.
        turn[:, 0, 3], turn[:, 2, 3] = -s * lever, lever - c * lever
        return np.asarray(parts @ turn)


@dataclass(frozen=True, eq=False)
class RobotTrack:
    """The robot's way through the world.

    Attributes:
        embodiment: which body (the camera's height, pitch and lens come from its rig).
        motion: path of the base on the ground, on a fine and even grid of times from 0 to duration_s.
        pitch_rad, roll_rad: sway of the body at the same times, [N].
        footprint_radius_m: disc that never meets a solid.
    """

    embodiment: Embodiment
    motion: Motion
    pitch_rad: Array
    roll_rad: Array
    footprint_radius_m: float = 0.4

    @property
    def duration_s(self) -> float:
        """Length of the track; it starts at 0."""
        return float(self.motion.times_s[-1])

    def pose_at(self, t_s: float) -> Array:
        """T_world_base [4, 4], the body's pitch and roll included."""
        x, y, z, yaw = self.motion.sample(t_s)
        times = self.motion.times_s
        return pose(x, y, z, yaw, float(np.interp(t_s, times, self.pitch_rad)),
                    float(np.interp(t_s, times, self.roll_rad)))

    def velocity_at(self, t_s: float) -> Array:
        """Velocity of the base in the world, m/s, [3]."""
        return self.motion.velocity_mps(t_s)

    def future_waypoints(self, t_s: float, n: int = 10, hz: float = 2.0) -> Array | None:
        """The next n positions, [n, 2] metres in the gravity-aligned base frame at t_s.

        The first lies 1/hz seconds ahead. None when the track ends before the last.
        """
        if t_s + n / hz > self.duration_s + 1e-9:
            return None
        ahead = np.array([self.motion.sample(t_s + (k + 1) / hz)[:2] for k in range(n)])
        x, y, _, yaw = self.motion.sample(t_s)
        c, s = np.cos(yaw), np.sin(yaw)
        return np.asarray((ahead - (x, y)) @ np.array([[c, -s], [s, c]]))


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light of the world. Headlights belong to the vehicles (`Actor.headlights_m`).

    Attributes:
        night: whether lamps matter.
        sun_direction: unit vector from the ground towards the sun (or moon), [3].
        sun_colour: RGB irradiance, 1 is full daylight.
        ambient: RGB of the light from everywhere.
        sky_colour: RGB 0..1 of the sky.
        lamps_m: lamp heads in the world, [N, 3].
        lamp_power: irradiance of each at 1 m, as a multiple of daylight, [N].
        lamp_colour: RGB of the lamps.
    """

    night: bool
    sun_direction: Array
    sun_colour: tuple[float, float, float]
    ambient: tuple[float, float, float]
    sky_colour: tuple[float, float, float]
    lamps_m: Array
    lamp_power: Array
    lamp_colour: tuple[float, float, float] = (1.0, 0.85, 0.6)


@dataclass(frozen=True, eq=False)
class World:
    """A street with everything in it, from t = 0 to the end of the robot's track."""

    seed: int
    district: District
    night: bool
    embodiment: Embodiment
    ground: Ground
    static: tuple[Solid, ...]
    actors: tuple[Actor, ...]
    robot: RobotTrack
    lighting: Lighting

    def description(self) -> dict[str, Any]:
        """Everything that decides what sensors see, as JSON-able data rounded to 0.1 mm."""
        seconds = np.arange(0.0, self.robot.duration_s + 1e-9, 1.0)
        return {
            "seed": self.seed, "district": self.district, "night": self.night, "embodiment": self.embodiment,
            "ground": {"s_m": _rounded(self.ground.s_m), "d_m": _rounded(self.ground.d_m),
                       "bend_m": _rounded(self.ground.bend_m), "z_m": _rounded(self.ground.z_m),
                       "labels": self.ground.labels.tolist(), "colours": _rounded(self.ground.colours),
                       "textures": self.ground.textures.tolist()},
            "static": [_describe(solid) for solid in self.static],
            "actors": [{"track_id": actor.track_id, "label": actor.label, "size_m": _rounded(actor.size_m),
                        "solids": [_describe(solid) for solid in actor.solids],
                        "swing": None if actor.swing is None else _rounded(actor.swing),
                        "headlights_m": _rounded(actor.headlights_m),
                        "poses": _rounded([actor.motion.sample(t) for t in (seconds if actor.moves else (0.0,))])}
                       for actor in self.actors],
            "robot": _rounded([self.robot.pose_at(t)[:3] for t in seconds]),
            "lighting": {name: _rounded(getattr(self.lighting, name)) for name in (
                "sun_direction", "sun_colour", "ambient", "sky_colour", "lamps_m", "lamp_power", "lamp_colour")},
        }

    def content_hash(self) -> str:
        """SHA-256 of the description."""
        text = json.dumps(self.description(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _rounded(values: ArrayLike) -> Any:
    # Adding 0 turns -0.0 into 0.0, which prints alike everywhere.
    return (np.round(np.asarray(values, float), 4) + 0.0).tolist()


def _describe(solid: Solid) -> list[Any]:
    return [solid.kind, _rounded(solid.size_m), _rounded(solid.T_parent_solid[:3]), int(solid.label),
            _rounded(solid.colour), int(solid.texture), solid.glow]
