"""Lays a predicted path into the predicted grid: is the way free, how close are obstacles, on what ground does it lie.

The judgement of a waypoint is that of WalkOCC's appendix A.2, on what the network sees instead of the truth: a round
footprint on the map from above. Beyond the paper, the way between waypoints is looked at too, and obstacles that the
ground outvotes. No path is planned or changed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.lens import jit
from occ_perception.geometry.semantic_map import levels_below, semantic_map
from occ_perception.taxonomy import FREE, UNKNOWN, Taxonomy
from occ_perception.types import PathCheck, WaypointFlag

_BLOCKED, _TIGHT, _UNKNOWN = int(WaypointFlag.BLOCKED), int(WaypointFlag.TIGHT), int(WaypointFlag.UNKNOWN)
_OFF_LIMITS, _OUTSIDE = int(WaypointFlag.OFF_LIMITS), int(WaypointFlag.OUTSIDE)
_ROUNDING_M = 1e-9


@dataclass(frozen=True)
class PathCheckSettings:
    """How paths are judged. The defaults of footprint, ceiling and off-limits ground are those of WalkOCC, A.2.

    Attributes:
        footprint_radius_m: radius of the disc that the robot covers.
        safety_distance_m: an obstacle closer to the rim of the footprint than this makes a waypoint tight.
        ceiling_m: voxels whose centre is higher (in the grid's frame) do not count.
        off_limits: names of the classes of ground that the robot should not use.
    """

    footprint_radius_m: float = 0.4
    safety_distance_m: float = 0.2
    ceiling_m: float = 1.0
    off_limits: tuple[str, ...] = ("road",)

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.footprint_radius_m < math.inf:
            faults.append(f"footprint_radius_m must be positive, got {self.footprint_radius_m}")
        if not 0 <= self.safety_distance_m < math.inf:
            faults.append(f"safety_distance_m must not be negative, got {self.safety_distance_m}")
        if not math.isfinite(self.ceiling_m):
            faults.append(f"ceiling_m must be a number, got {self.ceiling_m}")
        if faults:
            raise ConfigurationError(faults, where="PathCheckSettings")

    def misfits(self, grid: VoxelGridSpec, taxonomy: Taxonomy) -> list[str]:
        """What keeps these settings from judging paths on such grids; empty where nothing does."""
        ground = [taxonomy.classes[label] for label in sorted(taxonomy.ground)]
        faults = [f"off_limits: {name!r} is no ground of {taxonomy.name}, which has {', '.join(ground)}"
                  for name in self.off_limits if name not in ground]
        reach_m = 0.5 * float(np.hypot(*grid.cell[:2]))
        if self.footprint_radius_m < reach_m:
            faults.append(f"footprint_radius_m: a footprint of {self.footprint_radius_m:g} m may lie between the "
                          f"centres of the grid's cells, which needs {reach_m:.3g} m or more")
        if not levels_below(grid, self.ceiling_m):
            faults.append(f"ceiling_m: no cell of the grid lies below {self.ceiling_m:g} m")
        return faults


class PathChecker:
    """Judges paths on grids of one geometry and taxonomy.

    The grid is seen from above: each column has the class of most of its voxels up to the ceiling, as in A.2. A column
    lies under the footprint of a waypoint when its centre is within the radius. The way to a waypoint is the straight
    line from the one before, to the first one from the origin, where the robot is; what lies under the robot as it
    stands there is not in its way. A.2 looks at waypoints alone, which is how a waypoint is judged that is given twice.

    - Blocked: an obstacle lies under the footprint, at the waypoint or on the way to it; or no column under the
      footprint has a class and the nearest one that has is an obstacle (inside of walls nothing is labelled).
    - Clearance: from the rim of the footprint, at the waypoint or on the way to it, to the centre of the nearest
      obstacle's column. 0 where blocked, infinite without an obstacle in the grid, but NaN where that is no news
      because the waypoint is unknown.
    - Tight: the clearance is below the safety distance; or a voxel of an obstacle class lies under the footprint, at
      the waypoint or on the way to it, which the ground in its column outvoted. Blocked is also tight.
    - The ruling label is that of the waypoint alone: the class of the nearest obstacle where one lies under its
      footprint, otherwise of the nearest column that has a class (under the footprint or beyond it), of equally near
      ones the lower id; 255 where the grid holds no class.
    - Off limits: the nearest column with a class is of ground that the robot should not use (A.2's lane keeping).
    - Unknown: under the footprint lies a column of which nothing was observed, or one outside the grid; or no column
      within a cell's diagonal (and under the footprint) has a class, so that there is no ground to stand on.
    - Outside: the waypoint is not over the grid.

    In the robot's own place, which is its footprint and the safety distance around the origin, nothing is unknown or
    outside: its cameras look past it, and it got there. A waypoint that is no number cannot be driven to: it counts as
    blocked, unknown and outside, with clearance 0, and the way goes on from the one before it.

    Raises:
        ConfigurationError: the settings do not fit the grid or the taxonomy; all faults at once.
    """

    def __init__(self, grid: VoxelGridSpec, taxonomy: Taxonomy, settings: PathCheckSettings) -> None:
        if faults := settings.misfits(grid, taxonomy):
            raise ConfigurationError(faults, where="path check")
        self._grid, self._taxonomy, self._settings = grid, taxonomy, settings
        self._levels = levels_below(grid, settings.ceiling_m)
        self._kinds = np.zeros(256, np.uint8)
        self._kinds[sorted(taxonomy.obstacles)] = _BLOCKED
        self._kinds[[taxonomy.classes.index(name) for name in settings.off_limits]] = _OFF_LIMITS

    def check(self, labels: NDArray[np.uint8], waypoints_m: NDArray[Any]) -> PathCheck:
        """What the waypoints meet.

        Args:
            labels: uint8 [nx, ny, nz].
            waypoints_m: [T, 2] x, y in the grid's frame, which has the robot at its origin.

        Raises:
            ShapeError: labels of another grid, or waypoints of another shape.
        """
        waypoints = np.ascontiguousarray(waypoints_m, np.float64)
        if waypoints.ndim != 2 or waypoints.shape[1] != 2:
            raise ShapeError(f"must be [T, 2], got {waypoints.shape}", where="path check: waypoints_m")
        ground = semantic_map(labels, self._grid, len(self._taxonomy), self._settings.ceiling_m)
        observed = np.zeros(ground.shape, np.bool_)
        _observe(labels, self._levels, observed)
        count = len(waypoints)
        clearance_m, ruling, flags = np.zeros(count, np.float32), np.zeros(count, np.uint8), np.zeros(count, np.uint8)
        x, y, _ = self._grid.minimum_m
        dx, dy, _ = self._grid.cell.tolist()
        _judge(labels, self._levels, ground, observed, self._kinds, x, y, dx, dy, waypoints,
               self._settings.footprint_radius_m, self._settings.safety_distance_m, clearance_m, ruling, flags)
        return PathCheck(clearance_m, ruling, flags, self._taxonomy.name)


@jit
def _observe(labels: Any, levels: int, observed: Any) -> None:
    """Which columns have a voxel up to the ceiling that is not unknown."""
    for x in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for z in range(levels - 1, -1, -1):  # cameras look down: what is seen of a column is its upper part
                if labels[x, y, z] != UNKNOWN:
                    observed[x, y] = True
                    break


@jit
def _judge(labels: Any, levels: int, ground: Any, observed: Any, kinds: Any, x_min: float, y_min: float, dx: float,
           dy: float, waypoints: Any, radius: float, safety: float, clearance: Any, ruling: Any, flags: Any) -> None:
    nx, ny = ground.shape
    under, own = radius + _ROUNDING_M, radius + safety
    foothold = min(radius, math.sqrt(dx * dx + dy * dy)) + _ROUNDING_M
    from_x, from_y = 0.0, 0.0
    for t in range(len(waypoints)):
        x, y = waypoints[t, 0], waypoints[t, 1]
        if not (math.isfinite(x) and math.isfinite(y)):
            clearance[t], ruling[t], flags[t] = 0.0, UNKNOWN, _BLOCKED | _TIGHT | _UNKNOWN | _OUTSIDE
            continue
        nearest, label = np.inf, UNKNOWN
        nearest_obstacle, obstacle, passed = np.inf, UNKNOWN, np.inf
        for ix in range(nx):
            cx = x_min + (ix + 0.5) * dx
            for iy in range(ny):
                found = ground[ix, iy]
                if found == FREE:
                    continue
                cy = y_min + (iy + 0.5) * dy
                distance = math.sqrt((cx - x) ** 2 + (cy - y) ** 2)
                if distance < nearest - _ROUNDING_M or (distance <= nearest + _ROUNDING_M and found < label):
                    nearest, label = distance, found
                if kinds[found] != _BLOCKED:
                    continue
                if distance < nearest_obstacle - _ROUNDING_M or (
                        distance <= nearest_obstacle + _ROUNDING_M and found < obstacle):
                    nearest_obstacle, obstacle = distance, found
                if cx * cx + cy * cy > under * under:
                    passed = min(passed, _from_way(cx, cy, from_x, from_y, x, y))
        here = nearest_obstacle <= under
        blocked = here or passed <= under or (nearest > under and kinds[label] == _BLOCKED)
        rim = 0.0 if blocked else min(nearest_obstacle, passed) - radius
        own_place = x * x + y * y <= own * own
        flag = _BLOCKED if blocked else 0
        if blocked or rim < safety - _ROUNDING_M or _passes_low(
                labels, levels, kinds, x_min, y_min, dx, dy, from_x, from_y, x, y, under):
            flag |= _TIGHT
        flag |= _OFF_LIMITS if kinds[label] == _OFF_LIMITS else 0
        over = x_min <= x < x_min + nx * dx and y_min <= y < y_min + ny * dy
        flag |= 0 if over or own_place else _OUTSIDE
        if (nearest > foothold and not own_place) or _lies_on_unknown(
                observed, x_min, y_min, dx, dy, x, y, radius, own):
            flag |= _UNKNOWN
        clearance[t] = np.nan if flag & _UNKNOWN and rim == np.inf else rim
        ruling[t], flags[t] = obstacle if here else label, flag
        from_x, from_y = x, y


@jit
def _from_way(x: float, y: float, from_x: float, from_y: float, to_x: float, to_y: float) -> float:
    """Distance of a point from the straight way between two others."""
    along_x, along_y = to_x - from_x, to_y - from_y
    long = along_x * along_x + along_y * along_y
    at = 1.0
    if long > 0.0:
        at = min(max(((x - from_x) * along_x + (y - from_y) * along_y) / long, 0.0), 1.0)
    return math.sqrt((from_x + at * along_x - x) ** 2 + (from_y + at * along_y - y) ** 2)


@jit
def _passes_low(labels: Any, levels: int, kinds: Any, x_min: float, y_min: float, dx: float, dy: float, from_x: float,
                from_y: float, to_x: float, to_y: float, under: float) -> bool:
    """Whether the footprint passes over a voxel of an obstacle class; on the way not under the robot as it stands."""
    nx, ny = labels.shape[0], labels.shape[1]
    first_x, last_x = (min(from_x, to_x) - under - x_min) / dx, (max(from_x, to_x) + under - x_min) / dx
    first_y, last_y = (min(from_y, to_y) - under - y_min) / dy, (max(from_y, to_y) + under - y_min) / dy
    for ix in range(int(min(max(first_x, 0.0), nx)), int(min(max(last_x + 1.0, 0.0), nx))):
        cx = x_min + (ix + 0.5) * dx
        for iy in range(int(min(max(first_y, 0.0), ny)), int(min(max(last_y + 1.0, 0.0), ny))):
            cy = y_min + (iy + 0.5) * dy
            if cx * cx + cy * cy <= under * under and (cx - to_x) ** 2 + (cy - to_y) ** 2 > under * under:
                continue
            if _from_way(cx, cy, from_x, from_y, to_x, to_y) > under:
                continue
            for z in range(levels):
                if kinds[labels[ix, iy, z]] == _BLOCKED:
                    return True
    return False


@jit
def _lies_on_unknown(observed: Any, x_min: float, y_min: float, dx: float, dy: float, x: float, y: float,
                     radius: float, own_radius: float) -> bool:
    """Whether an unobserved column lies under the footprint at (x, y), but not in the robot's own place."""
    within, own = (radius + _ROUNDING_M) ** 2, (own_radius + _ROUNDING_M) ** 2
    for ix in range(math.floor((x - radius - x_min) / dx), math.floor((x + radius - x_min) / dx) + 1):
        cx = x_min + (ix + 0.5) * dx
        for iy in range(math.floor((y - radius - y_min) / dy), math.floor((y + radius - y_min) / dy) + 1):
            cy = y_min + (iy + 0.5) * dy
            if (cx - x) ** 2 + (cy - y) ** 2 > within or cx * cx + cy * cy <= own:
                continue
            if not (0 <= ix < observed.shape[0] and 0 <= iy < observed.shape[1]) or not observed[ix, iy]:
                return True
    return False
