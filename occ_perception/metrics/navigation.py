"""Collision, grass and lane-keeping rates of predicted paths on the true map (WalkOCC, appendix A.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.semantic_map import semantic_map
from occ_perception.metrics._common import Scores, ratio, require_mergeable
from occ_perception.taxonomy import FREE, Taxonomy


class NavigationRates:
    """Means over paths of the fraction of waypoints that collide, touch grass, and keep the lane.

    A waypoint's footprint is the disc of `radius_m` around it; a cell is under it when its centre is. Its ruling label
    is that of the nearest cell with a class: of one under the footprint, or, when no class is under it, beyond it. A
    waypoint collides when any cell under it is of an obstacle class, or when no class is under it and an obstacle
    rules (inside of walls and beyond the map nothing is labelled). It touches grass when any cell under it is grass.
    It keeps the lane when it does not collide and the ruling label is not road.

    Args:
        grid: geometry of the true grids.
        taxonomy: must have the classes `road` and `grass`; its `obstacles` are the paper's set C.
        radius_m: radius of the robot's footprint.
        ceiling_m: voxels whose centre is higher do not count.
    """

    def __init__(self, grid: VoxelGridSpec, taxonomy: Taxonomy, radius_m: float = 0.4, ceiling_m: float = 1.0) -> None:
        missing = [name for name in ("road", "grass") if name not in taxonomy.classes]
        faults = [f"taxonomy {taxonomy.name!r} has no class {name!r}" for name in missing]
        faults += [] if radius_m > 0 else [f"radius_m must be positive, got {radius_m}"]
        faults += ["free space must be class 0"] if taxonomy.classes[FREE] != "free" else []
        if faults:
            raise ConfigurationError(faults, where="NavigationRates")
        self.grid, self.taxonomy, self.radius_m, self.ceiling_m = grid, taxonomy, radius_m, ceiling_m
        self._road, self._grass = taxonomy.classes.index("road"), taxonomy.classes.index("grass")
        self._obstacles = sorted(taxonomy.obstacles)
        self._centres_m = grid.centres()[:, :, 0, :2].reshape(-1, 2)
        self.paths = 0
        self.skipped = 0
        self.sums = np.zeros(3)

    def update(self, waypoints_m: NDArray[Any], labels: NDArray[np.uint8]) -> None:
        """Add one path.

        Args:
            waypoints_m: [T, 2] x, y in the grid's frame. A path with a number that is not finite, or without
                waypoints, is no valid prediction and only counts as skipped; so does one on a map without labels.
            labels: true grid uint8 [nx, ny, nz].
        """
        waypoints = np.asarray(waypoints_m, float)
        if waypoints.ndim != 2 or waypoints.shape[1] != 2:
            raise ShapeError(f"must be [T, 2], got {waypoints.shape}", where="NavigationRates: waypoints_m")
        label = semantic_map(labels, self.grid, len(self.taxonomy), self.ceiling_m).reshape(-1)
        centres, label = self._centres_m[label != FREE], label[label != FREE]
        if not len(waypoints) or not np.isfinite(waypoints).all() or not len(label):
            self.skipped += 1
            return
        distance_m = np.linalg.norm(waypoints[:, None] - centres, axis=-1)  # [T, cells with a class]
        under = distance_m <= self.radius_m
        ruling, obstacle = label[distance_m.argmin(1)], np.isin(label, self._obstacles)
        collides = np.where(under.any(1), (under & obstacle).any(1), np.isin(ruling, self._obstacles))
        grass = (under & (label == self._grass)).any(1)
        keeps_lane = ~collides & (ruling != self._road)
        self.paths += 1
        self.sums += [collides.mean(), grass.mean(), keeps_lane.mean()]

    def merge(self, other: NavigationRates) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("grid", "taxonomy", "radius_m", "ceiling_m"))
        self.paths += other.paths
        self.skipped += other.skipped
        self.sums += other.sums

    def compute(self) -> Scores:
        """collision_rate, grass_rate, lane_keeping_rate (fractions), paths and skipped (numbers)."""
        rates = ratio(self.sums, self.paths).tolist()
        return {"collision_rate": rates[0], "grass_rate": rates[1], "lane_keeping_rate": rates[2],
                "paths": float(self.paths), "skipped": float(self.skipped)}
