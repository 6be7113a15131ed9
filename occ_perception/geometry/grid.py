"""The axis-aligned voxel grid: metres to cells, cells to metres, and the order of cells in messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ConfigurationError, ShapeError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class VoxelGridSpec:
    """Extent and resolution of a voxel grid. Arrays over it are indexed [x, y, z].

    In messages and flat indices x runs fastest: `index = x + nx * (y + ny * z)`.

    Args:
        minimum_m: lower corner (x, y, z), metres, in the grid's frame.
        maximum_m: upper corner; each side must be a whole number of cells.
        cell_m: edge of a cell, metres; one number, or one per axis.
    """

    minimum_m: Triple
    maximum_m: Triple
    cell_m: float | Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "minimum_m", tuple(float(v) for v in self.minimum_m))
        object.__setattr__(self, "maximum_m", tuple(float(v) for v in self.maximum_m))
        cell = np.broadcast_to(np.asarray(self.cell_m, float), 3) if np.size(self.cell_m) in (1, 3) else None
        faults = []
        if len(self.minimum_m) != 3 or len(self.maximum_m) != 3 or cell is None:
            raise ConfigurationError(["minimum_m and maximum_m take 3 numbers, cell_m takes 1 or 3"],
                                     where="VoxelGridSpec")
        object.__setattr__(self, "cell_m", float(cell[0]) if np.ptp(cell) == 0 else tuple(cell.tolist()))
        numbers = np.concatenate([self.minimum_m, self.maximum_m, cell])
        if not np.isfinite(numbers).all() or (cell <= 0).any():
            faults.append(f"corners must be finite and cells positive, got {numbers.tolist()}")
        else:
            counts = (np.asarray(self.maximum_m) - self.minimum_m) / cell
            for axis, count in zip("xyz", counts, strict=True):
                if count < 0.5 or abs(count - round(count)) > 1e-6 * max(1.0, count):
                    faults.append(f"{axis}: the side holds {count:.6g} cells, which is no positive whole number")
        if faults:
            raise ConfigurationError(faults, where="VoxelGridSpec")

    @property
    def cell(self) -> NDArray[np.float64]:
        """Cell edges, metres, [3]."""
        return np.broadcast_to(np.asarray(self.cell_m, float), 3).copy()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells (nx, ny, nz)."""
        counts = (np.asarray(self.maximum_m) - self.minimum_m) / self.cell
        nx, ny, nz = np.rint(counts).astype(int).tolist()
        return nx, ny, nz

    @property
    def size(self) -> int:
        """Number of cells in all."""
        return int(np.prod(self.shape))

    def centres(self) -> NDArray[np.float64]:
        """Centres of all cells, metres, [nx, ny, nz, 3]."""
        axes = [lo + (np.arange(n) + 0.5) * c
                for lo, n, c in zip(self.minimum_m, self.shape, self.cell, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def centre_of(self, cells: ArrayLike) -> NDArray[np.float64]:
        """Centres of the given cells [N, 3], metres, [N, 3]."""
        return np.asarray(self.minimum_m) + (np.asarray(cells) + 0.5) * self.cell

    def index(self, points_m: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Cell of each point [..., 3], and whether it lies inside (lower faces belong to the grid).

        Cells of points outside are not clipped: use them only where `inside` is true.
        """
        points = np.asarray(points_m, float)
        if points.shape[-1:] != (3,):
            raise ShapeError(f"points must be [..., 3], got {points.shape}", where="VoxelGridSpec.index")
        scaled = (points - self.minimum_m) / self.cell
        finite = np.asarray(np.isfinite(scaled).all(-1))
        cells = np.floor(np.where(finite[..., None], scaled, -1)).astype(np.int64)
        inside = finite & (cells >= 0).all(-1) & (cells < self.shape).all(-1)
        return cells, np.asarray(inside)

    def flatten(self, cells: ArrayLike) -> NDArray[np.int64]:
        """Flat message index of cells [..., 3] (x fastest)."""
        cells = np.asarray(cells, np.int64)
        nx, ny, _ = self.shape
        return np.asarray(cells[..., 0] + nx * (cells[..., 1] + ny * cells[..., 2]))

    def unflatten(self, index: ArrayLike) -> NDArray[np.int64]:
        """Cells [..., 3] of flat message indices."""
        index = np.asarray(index, np.int64)
        nx, ny, _ = self.shape
        return np.stack([index % nx, index // nx % ny, index // (nx * ny)], axis=-1)

    def to_message_order(self, array: NDArray[Any]) -> NDArray[Any]:
        """A grid array [nx, ny, nz] as the flat array of a message (no copy if it is stored x-fastest)."""
        if array.shape != self.shape:
            raise ShapeError(f"array must be {self.shape}, got {array.shape}", where="to_message_order")
        return array.ravel(order="F")

    def from_message_order(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The flat array of a message as a view [nx, ny, nz]."""
        if flat.shape != (self.size,):
            raise ShapeError(f"array must be ({self.size},), got {flat.shape}", where="from_message_order")
        return flat.reshape(self.shape, order="F")


SIDEWALK_GRID = VoxelGridSpec((0.0, -5.0, -2.0), (10.0, 5.0, 3.0), 0.1)
"""WalkOCC, section 4.1: 100 x 100 x 50 cells of 0.1 m in front of the robot."""
ROAD_GRID = VoxelGridSpec((-40.0, -40.0, -1.0), (40.0, 40.0, 5.4), 0.4)
"""Occ3D: 200 x 200 x 16 cells of 0.4 m around the car."""
LIFT_GRID = VoxelGridSpec((0.0, -5.0, -0.45), (10.0, 5.0, 1.95), (0.1, 0.1, 0.3))
"""Lift grid of the sidewalk networks: 100 x 100 x 8; centres at -0.3, 0.0 ... 1.8 m, so one level is the ground."""
