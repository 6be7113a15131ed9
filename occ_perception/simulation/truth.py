"""The truth of one instant in the grid frame: labels, instances, velocities, what the sensors see, waypoints, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.geometry import SIDEWALK_GRID, VoxelGridSpec, se3
from occ_perception.geometry.raycast import visible_cells
from occ_perception.geometry.tables import coverage
from occ_perception.simulation import voxels
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.scene import Actor, World
from occ_perception.simulation.solids import Solid
from occ_perception.simulation.surfaces import KINDS
from occ_perception.taxonomy import FREE, UNKNOWN, Sidewalk
from occ_perception.types import FlowField, TrackedInstance, Trajectory, VoxelGrid

WAYPOINTS = 10
WAYPOINT_HZ = 2.0
_MOVING_MPS = 0.05
_DIFFERENCE_S = 0.05


@dataclass(frozen=True)
class Truth:
    """Everything a score may ask about one instant.

    Attributes:
        grid: labels (shell; 255 inside and below), `confidence` 255 where a sensor sees the cell, instances.
        visible: bool [nx, ny, nz], the same as `grid.confidence`.
        flow: velocity of every moving cell.
        instances: boxes of the things that reach into the grid.
        trajectory: the next 10 waypoints at 2 Hz, or None at the end of the track.
        T_world_grid: [4, 4].
        T_grid_base: [4, 4], pitch and roll of the base.
    """

    grid: VoxelGrid
    visible: NDArray[np.bool_]
    flow: FlowField
    instances: tuple[TrackedInstance, ...]
    trajectory: Trajectory | None
    T_world_grid: NDArray[np.float64]
    T_grid_base: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Shapes:
    """Solids as arrays: T_world_solid [S, 4, 4], kind [S], half [S, 3] (true extents), label [S]."""

    poses: NDArray[np.float64]
    kind: NDArray[np.uint8]
    half_m: NDArray[np.float64]
    label: NDArray[np.uint8]


def _shapes(solids: Sequence[Solid], poses: Sequence[NDArray[np.float64]]) -> _Shapes:
    return _Shapes(np.array(poses).reshape(-1, 4, 4), np.array([KINDS[s.kind] for s in solids], np.uint8),
                   0.5 * np.array([s.size_m for s in solids], float).reshape(-1, 3),
                   np.array([s.label for s in solids], np.uint8))


def _not_lost(half_m: NDArray[np.float64], cell_m: float) -> NDArray[np.float64]:
    """Half extents [S, 3] of which no cell centre can be missed.

    A plate always has centres within half a cell of it; a rod needs a radius of (1/sqrt 2 - 1/2) cells and a crumb
    one of (sqrt 3 / 2 - 1/2), because centres lie that much farther from a line and from a point.
    """
    thin = (half_m < 0.5 * cell_m).sum(axis=1, keepdims=True)
    floor = np.select([thin >= 3, thin == 2], [0.37 * cell_m, 0.21 * cell_m], 0.0)
    return np.asarray(np.maximum(half_m, floor))


class TruthMaker:
    """Truth of one world in one grid, as one rig sees it."""

    def __init__(self, world: World, rig: Rig, lidar: LidarModel, spec: VoxelGridSpec = SIDEWALK_GRID) -> None:
        self._world, self._rig, self._lidar, self.spec = world, rig, lidar, spec
        self._static = _shapes(world.static, [s.T_parent_solid for s in world.static])
        self._mounted = [camera.mounted() for camera in rig.cameras]
        corners = np.abs(np.array([spec.minimum_m, spec.maximum_m])).max(axis=0)
        self._reach_m = float(np.linalg.norm(corners[:2]))

    def at(self, time_s: float, stamp_ns: int) -> Truth:
        """The truth at a time of the world; `stamp_ns` is what the results carry."""
        world, spec = self._world, self.spec
        T_world_base = world.robot.pose_at(time_s)
        T_world_grid = se3.gravity_aligned(T_world_base)
        T_grid_base = se3.invert(T_world_grid) @ T_world_base
        near = [a for a in world.actors
                if np.hypot(*(a.pose_at(time_s)[:2, 3] - T_world_grid[:2, 3])) < self._reach_m + max(a.size_m)]
        labels, rows, shown = self._voxels(time_s, T_world_grid, near)
        visible = self.visible(labels, T_grid_base)
        grid = VoxelGrid(spec, stamp_ns, labels, np.where(visible, np.uint8(255), np.uint8(0)), rows,
                         np.array([a.track_id for a in shown], np.uint64), model_id="truth", T_odom_grid=T_world_grid)
        ahead = world.robot.future_waypoints(time_s, WAYPOINTS, WAYPOINT_HZ)
        times_s = (np.arange(WAYPOINTS, dtype=np.float32) + 1) / np.float32(WAYPOINT_HZ)
        return Truth(
            grid, visible, self._flow(stamp_ns, time_s, T_world_grid, rows, shown),
            tuple(_box(a, time_s, T_world_grid) for a in near if self._reaches_in(a, time_s, T_world_grid)),
            None if ahead is None else Trajectory(stamp_ns, ahead.astype(np.float32), times_s),
            T_world_grid, T_grid_base)

    def _voxels(self, time_s: float, T_world_grid: NDArray[np.float64], near: Sequence[Actor]
                ) -> tuple[NDArray[np.uint8], NDArray[np.uint16], list[Actor]]:
        """Labels, instance rows (1 + place in the list of actors that own a cell), those actors."""
        spec, ground = self.spec, self._world.ground
        labels, rows = np.zeros(spec.shape, np.uint8), np.zeros(spec.shape, np.uint16)
        floor = np.zeros(spec.shape[:2], np.int32)
        minimum, cell = np.asarray(spec.minimum_m), spec.cell
        T_grid_world = se3.invert(T_world_grid)
        self._draw(self._static, T_grid_world, floor, 0, labels, rows)
        voxels.ground_into_grid(minimum, cell, T_world_grid, ground.s_m, ground.d_m, ground.bend_m, ground.z_m,
                                ground.labels, int(Sidewalk.CURB), UNKNOWN, labels, floor)
        shown: list[Actor] = []
        for actor in near:
            T = actor.pose_at(time_s)
            shapes = _shapes(actor.solids, [T @ part for part in actor.part_poses(time_s)])
            if self._draw(shapes, T_grid_world, floor, len(shown) + 1, labels, rows):
                shown.append(actor)
        return labels, rows, shown

    def _draw(self, shapes: _Shapes, T_grid_world: NDArray[np.float64], floor: NDArray[np.int32], row: int,
              labels: NDArray[np.uint8], rows: NDArray[np.uint16]) -> int:
        """Draws one union of solids; returns how many cells its shell has."""
        minimum, cell = np.asarray(self.spec.minimum_m), self.spec.cell
        shell_m = 0.5 * float(cell.min()) * 1.0001
        poses = T_grid_world @ shapes.poses
        half = _not_lost(shapes.half_m, float(cell.min()))
        extent = np.einsum("sij,sj->si", np.abs(poses[:, :3, :3]), half) + shell_m
        low = np.floor((poses[:, :3, 3] - extent - minimum) / cell - 0.5).astype(np.int64)
        high = np.ceil((poses[:, :3, 3] + extent - minimum) / cell + 0.5).astype(np.int64)
        low, high = np.clip(low, 0, self.spec.shape), np.clip(high, 0, self.spec.shape)
        used = (high > low).all(axis=1)
        if not used.any():
            return 0
        low, high, poses = low[used], high[used], poses[used]
        first, last = low.min(axis=0), high.max(axis=0)
        distance = np.full(last - first, np.inf, np.float32)
        window = np.zeros(distance.shape, np.uint8)
        rotation = poses[:, :3, :3].transpose(0, 2, 1)
        shift = -np.einsum("sij,sj->si", rotation, poses[:, :3, 3])
        to_solid = np.concatenate([rotation, shift[:, :, None]], axis=2).reshape(-1, 12)
        voxels.union_distance(minimum, cell, first, to_solid, shapes.kind[used], half[used], shapes.label[used],
                              low, high, distance, window)
        return int(voxels.compose(first, distance, window, shell_m, floor, row, UNKNOWN, labels, rows))

    def visible(self, labels: NDArray[np.uint8], T_grid_base: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Cells in line of sight of a camera within its view, or of a LiDAR within its fan; bool [nx, ny, nz]."""
        opaque = labels != FREE
        seen = np.zeros(self.spec.shape, np.bool_)
        for mounted in self._mounted:
            origin = (T_grid_base @ mounted.T_base_camera)[:3, 3]
            seen |= visible_cells(opaque, self.spec, origin) & coverage([mounted], self.spec, T_grid_base)
        fan = np.empty(self.spec.shape, np.bool_)
        for lidar in self._rig.lidars:
            T_grid_lidar = T_grid_base @ lidar.T_base_lidar
            voxels.inside_fan(np.asarray(self.spec.minimum_m), self.spec.cell, np.asarray(self.spec.shape),
                              se3.invert(T_grid_lidar), self._lidar.low_rad, self._lidar.high_rad,
                              self._lidar.reach_m, fan)
            seen |= visible_cells(opaque, self.spec, T_grid_lidar[:3, 3]) & fan
        return seen

    def _flow(self, stamp_ns: int, time_s: float, T_world_grid: NDArray[np.float64], rows: NDArray[np.uint16],
              shown: Sequence[Actor]) -> FlowField:
        """Velocities of the cells of moving actors, turn included, in the axes of the grid."""
        T_grid_world = se3.invert(T_world_grid)
        cells, velocities = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
        occupied = np.argwhere(rows > 0)
        owner = rows[tuple(occupied.T)]
        for row, actor in enumerate(shown, start=1):
            if not actor.moves:
                continue
            before = T_grid_world @ actor.pose_at(time_s - _DIFFERENCE_S)
            after = T_grid_world @ actor.pose_at(time_s + _DIFFERENCE_S)
            change = (after - before) / (2 * _DIFFERENCE_S) @ se3.invert(T_grid_world @ actor.pose_at(time_s))
            if np.linalg.norm(actor.velocity_at(time_s)) < _MOVING_MPS:
                continue
            own = occupied[owner == row]
            cells.append(own)
            velocities.append(self.spec.centre_of(own) @ change[:3, :3].T + change[:3, 3])
        cell_array = np.concatenate(cells)
        return FlowField(self.spec, stamp_ns, cell_array, np.concatenate(velocities).astype(np.float32),
                         np.ones(len(cell_array), np.float32))

    def _reaches_in(self, actor: Actor, time_s: float, T_world_grid: NDArray[np.float64]) -> bool:
        centre = (se3.invert(T_world_grid) @ actor.pose_at(time_s))[:3, 3]
        margin = 0.5 * np.array([np.hypot(*actor.size_m[:2])] * 2)
        low, high = np.asarray(self.spec.minimum_m)[:2], np.asarray(self.spec.maximum_m)[:2]
        return bool((centre[:2] > low - margin).all() and (centre[:2] < high + margin).all())


def _box(actor: Actor, time_s: float, T_world_grid: NDArray[np.float64]) -> TrackedInstance:
    """The actor's upright box in the grid frame."""
    T_grid_world = se3.invert(T_world_grid)
    T_grid_object = T_grid_world @ actor.pose_at(time_s) @ se3.make(np.eye(3), (0.0, 0.0, actor.size_m[2] / 2))
    return TrackedInstance(actor.track_id, actor.label, 1.0, T_grid_object,
                           T_grid_world[:3, :3] @ actor.velocity_at(time_s), np.asarray(actor.size_m, float),
                           age_s=max(0.0, time_s))
