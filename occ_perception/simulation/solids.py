"""Solids: analytic primitives for the voxel truth and their tessellations for the ray caster, the same surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError

Array = NDArray[np.float64]
Kind = Literal["box", "cylinder", "ellipsoid"]


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
