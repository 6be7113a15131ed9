"""The ground of a street: heights and labels in closed form, and the same surface as triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError
from occ_perception.simulation.solids import Array


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
