"""The grid of one frame from an accumulated scene: free, occupied with a class, or unknown (WalkOCC, appendix D.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.geometry.lens import jit
from occ_perception.geometry.raycast import visible_cells
from occ_perception.geometry.tables import coverage
from occ_perception.labeling.accumulate import ARTICULATED, Scene, SceneFrame
from occ_perception.labeling.clip import WorldBox
from occ_perception.labeling.evidence import seen_through
from occ_perception.labeling.surfels import Surfels, rows_within, surfels, thin
from occ_perception.labeling.vote import CLASSES
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk
from occ_perception.types import FlowField, VoxelGrid

GROUND_BIAS = 0.3
"""Part of a cell by which ground counts as higher: flat ground at z = 0 lies on a cell boundary and would flicker. The
simulation's truth has the same bias."""
_SAMPLES = 5
_DISC_CELLS = 0.9
"""Radius of a surfel: points lie half a cell apart and the next one may be missing."""
_KERB_SHARE = 0.12
"""Share of a column's ground that makes it a kerb: one is 0.15 m wide and crosses cells of 0.1 m at any place."""
_MOVING_MPS = 0.05


@dataclass(frozen=True, eq=False)
class FusedFrame:
    """The ground truth of one frame.

    Attributes:
        grid: labels with 254 for matter without a class and 255 for unknown; `confidence` 255 where `visible`;
            instance rows and track ids of the things that have a box.
        visible: bool [nx, ny, nz], known and in line of sight of a camera, or met by the frame's own rays.
        flow: velocity of every cell of a moving thing.
        T_world_grid, T_grid_base: [4, 4].
    """

    grid: VoxelGrid
    visible: NDArray[np.bool_]
    flow: FlowField
    T_world_grid: NDArray[np.float64]
    T_grid_base: NDArray[np.float64]


@jit
def _lay_ground(minimum: Any, cell: Any, T_scene_grid: Any, corner: Any, column: float, height: Any, kinds: Any,
                curb: int, kerb_share: float, nothing: int, labels: Any, floor: Any) -> None:
    """As `simulation.voxels.ground_into_grid`, from a height map that may have holes; `floor` is 0 in a hole."""
    nx, ny, nz = labels.shape
    count = _SAMPLES * _SAMPLES
    level, kind = np.empty(count, np.int64), np.empty(count, np.int64)
    votes = np.zeros(256, np.int64)
    for ix in range(nx):
        for iy in range(ny):
            low, high, n, kerbs = nz, -1, 0, 0
            for k in range(count):
                gx = minimum[0] + (ix + (k // _SAMPLES + 0.5) / _SAMPLES) * cell[0]
                gy = minimum[1] + (iy + (k % _SAMPLES + 0.5) / _SAMPLES) * cell[1]
                wx = T_scene_grid[0, 0] * gx + T_scene_grid[0, 1] * gy + T_scene_grid[0, 3]
                wy = T_scene_grid[1, 0] * gx + T_scene_grid[1, 1] * gy + T_scene_grid[1, 3]
                i, j = int(np.floor((wx - corner[0]) / column)), int(np.floor((wy - corner[1]) / column))
                level[k], kind[k] = nz, 0
                if i < 0 or j < 0 or i >= height.shape[0] or j >= height.shape[1] or np.isnan(height[i, j]):
                    continue
                z = height[i, j] - T_scene_grid[2, 3]
                level[k], kind[k] = int(np.floor((z - minimum[2]) / cell[2] + GROUND_BIAS)), kinds[i, j]
                low, high = min(low, level[k]), max(high, level[k])
                n += 1
                kerbs += 1 if kind[k] == curb else 0
            if n == 0:
                continue
            kerb = kerbs > kerb_share * n
            floor[ix, iy] = min(max(low, 0), nz)
            for iz in range(max(low, 0), min(high + 1, nz)):
                best, most, there = curb if kerb else nothing, 0, 0
                for k in range(count):
                    if level[k] == iz:
                        there += 1
                        votes[kind[k]] += 1
                        if votes[kind[k]] > most and kind[k] > 0:
                            most, best = votes[kind[k]], kind[k]
                if votes[curb] > 0 and kerb and votes[curb] > kerb_share * there:
                    best = curb
                for k in range(count):
                    votes[kind[k]] = 0
                if there > 0 or kerb:
                    labels[ix, iy, iz] = best


@jit
def _stamp(points: Any, normals: Any, kinds: Any, minimum: Any, cell: Any, floor: Any, disc_cells: float, votes: Any
           ) -> None:
    """Votes of surfels for the cells whose centre lies within half a cell of them, [nx, ny, nz, classes]."""
    nx, ny, nz, _ = votes.shape
    for i in range(len(points)):
        x = (points[i, 0] - minimum[0]) / cell[0]
        y = (points[i, 1] - minimum[1]) / cell[1]
        z = (points[i, 2] - minimum[2]) / cell[2]
        cx, cy, cz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
        if cx < -1 or cy < -1 or cz < -1 or cx > nx or cy > ny or cz > nz:
            continue
        a, b, c = normals[i, 0], normals[i, 1], normals[i, 2]
        flat = a != 0.0 or b != 0.0 or c != 0.0
        for ix in range(max(cx - 1, 0), min(cx + 2, nx)):
            for iy in range(max(cy - 1, 0), min(cy + 2, ny)):
                for iz in range(max(cz - 1, floor[ix, iy]), min(cz + 2, nz)):
                    dx, dy, dz = ix + 0.5 - x, iy + 0.5 - y, iz + 0.5 - z
                    square = dx * dx + dy * dy + dz * dz
                    if flat:
                        d = a * dx + b * dy + c * dz
                        met = abs(d) <= 0.5 and square - d * d <= disc_cells * disc_cells
                    else:
                        met = ix == cx and iy == cy and iz == cz
                    if met:
                        votes[ix, iy, iz, kinds[i]] += 1


def _draw(cloud: Surfels, T_grid_cloud: NDArray[np.float64], spec: VoxelGridSpec, floor: NDArray[np.int32]
          ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Cells [N, 3] that a cloud fills and their class: the most frequent one, ties to the higher id, 254 without."""
    minimum, cell = np.asarray(spec.minimum_m), spec.cell
    around = se3.apply(se3.invert(T_grid_cloud), _corners(spec, float(cell.max())))
    close = rows_within(cloud.points_m, around.min(axis=0), around.max(axis=0))
    points = se3.apply(T_grid_cloud, cloud.points_m[close])
    near = ((points > minimum - cell) & (points < spec.maximum_m + cell)).all(axis=1)
    if not near.any():
        return np.zeros((0, 3), np.int64), np.zeros(0, np.uint8)
    points, close = points[near], close[near]
    # votes are counted in the part of the grid that the cloud touches
    low = np.clip(np.floor((points.min(axis=0) - minimum) / cell).astype(int) - 1, 0, spec.shape)
    high = np.clip(np.floor((points.max(axis=0) - minimum) / cell).astype(int) + 2, 0, spec.shape)
    votes = np.zeros((*(high - low), CLASSES), np.uint16)
    _stamp(points, cloud.normals[close].astype(float) @ T_grid_cloud[:3, :3].T, cloud.labels[close],
           minimum + low * cell, cell, np.maximum(floor[low[0]: high[0], low[1]: high[1]] - low[2], 0), _DISC_CELLS,
           votes)
    cells = np.argwhere(votes.any(axis=-1))
    own = votes[tuple(cells.T)]
    own[:, 0] = 0
    winner = (CLASSES - 1 - own[:, ::-1].argmax(axis=1)).astype(np.uint8)
    return cells + low, np.where(own.any(axis=1), winner, np.uint8(OCCUPIED))


def _corners(spec: VoxelGridSpec, margin_m: float) -> NDArray[np.float64]:
    """The corners of the grid, [8, 3], grown by a margin."""
    ends = np.stack([np.asarray(spec.minimum_m) - margin_m, np.asarray(spec.maximum_m) + margin_m])
    return np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)


def _reaches(box: WorldBox, T_grid_object: NDArray[np.float64], spec: VoxelGridSpec) -> bool:
    """Whether the ball around a box touches the grid."""
    middle, radius = T_grid_object[:3, 3], 0.5 * float(np.linalg.norm(box.size_m)) + float(spec.cell.max())
    corners = _corners(spec, radius)
    return bool(((middle > corners[0]) & (middle < corners[-1])).all())


def _thing(scene: Scene, frame: SceneFrame, box: WorldBox) -> Surfels:
    """A thing in the frame of its box, as this and other scans saw it."""
    cloud = scene.tracks[box.track_id]
    points = cloud.points_m
    if box.label in ARTICULATED:
        near = np.abs(cloud.stamp_ns - frame.stamp_ns) <= scene.settings.articulated_s * 1e9
        points = points[near]
    return surfels(thin(points, np.full(len(points), box.label, np.uint8), scene.cell_m / 2), scene.cell_m)


def _object_in_scene(scene: Scene, box: WorldBox) -> NDArray[np.float64]:
    return se3.make(box.T_world_object[:3, :3], box.T_world_object[:3, 3] - scene.origin_m)


@jit
def _look_up(minimum: Any, cell: Any, T: Any, source_minimum: Any, source_cell: Any, source: Any, out: Any) -> None:
    """Whether the source is not 0 at the centre of each cell, T being source from grid."""
    nx, ny, nz = out.shape
    for ix in range(nx):
        gx = minimum[0] + (ix + 0.5) * cell[0]
        for iy in range(ny):
            gy = minimum[1] + (iy + 0.5) * cell[1]
            x = int(np.floor((T[0, 0] * gx + T[0, 1] * gy + T[0, 3] - source_minimum[0]) / source_cell[0]))
            y = int(np.floor((T[1, 0] * gx + T[1, 1] * gy + T[1, 3] - source_minimum[1]) / source_cell[1]))
            inside = 0 <= x < source.shape[0] and 0 <= y < source.shape[1]
            for iz in range(nz):
                gz = minimum[2] + (iz + 0.5) * cell[2]
                z = int(np.floor((gz + T[2, 3] - source_minimum[2]) / source_cell[2]))
                out[ix, iy, iz] = inside and 0 <= z < source.shape[2] and source[x, y, z] > 0


def _free(scene: Scene, spec: VoxelGridSpec, T_scene_grid: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Cells that rays of the clip have crossed. The grid is level, so heights only shift."""
    lattice, free = scene.evidence.spec, np.zeros(spec.shape, np.bool_)
    _look_up(np.asarray(spec.minimum_m), spec.cell, T_scene_grid, np.asarray(lattice.minimum_m), lattice.cell,
             scene.evidence.passes, free)
    return free


def fuse(scene: Scene, index: int, spec: VoxelGridSpec, rig: Rig) -> FusedFrame:
    """The ground truth of frame `index` of a scene.

    Ground: every column is sampled 5 x 5 times in the height map. Solids: a cell is matter when its centre lies
    within half a cell of a surface, which is the shell that sensors meet. Things lie where their box is in this
    frame. Free is what rays of any frame crossed, less what is occupied now; everything else is unknown, interiors
    and the underground among it.

    Raises:
        ConfigurationError: the grid has smaller cells than the scene was accumulated for.
    """
    if float(spec.cell.min()) < scene.cell_m - 1e-9:
        raise ConfigurationError([f"cells of {spec.cell.min()} m are smaller than the scene's of {scene.cell_m} m"],
                                 where="fuse", fix="Accumulate with the finer grid")
    frame = scene.frames[index]
    T_scene_grid = se3.gravity_aligned(frame.T_scene_base)
    T_grid_scene = se3.invert(T_scene_grid)
    T_grid_base = T_grid_scene @ frame.T_scene_base
    minimum, cell = np.asarray(spec.minimum_m), spec.cell
    labels, floor = np.full(spec.shape, UNKNOWN, np.uint8), np.zeros(spec.shape[:2], np.int32)
    own_rays = seen_through(se3.apply(T_grid_scene, frame.points_m), se3.apply(T_grid_scene, frame.sensor_m),
                            frame.point_sensor, spec)
    labels[_free(scene, spec, T_scene_grid) | own_rays] = FREE
    ground = scene.ground
    surface = np.zeros(spec.shape, np.uint8)
    _lay_ground(minimum, cell, T_scene_grid, ground.corner_m, ground.column_m, ground.height_m, ground.labels,
                int(Sidewalk.CURB), _KERB_SHARE, OCCUPIED, surface, floor)
    labels[np.arange(spec.shape[2]) < floor[:, :, None]] = UNKNOWN
    labels[surface > 0] = surface[surface > 0]

    cells, kinds = _draw(scene.solids, T_grid_scene, spec, floor)
    labels[tuple(cells.T)] = kinds
    cells, kinds = _draw(surfels(frame.loose, scene.cell_m), T_grid_scene, spec, floor)
    labels[tuple(cells.T)] = kinds
    rows, shown = np.zeros(spec.shape, np.uint16), []
    for box in frame.boxes:
        T_grid_object = T_grid_scene @ _object_in_scene(scene, box)
        if not _reaches(box, T_grid_object, spec):
            continue
        cells, _ = _draw(_thing(scene, frame, box), T_grid_object, spec, floor)
        if len(cells):
            shown.append(box)
            labels[tuple(cells.T)] = box.label
            rows[tuple(cells.T)] = len(shown)
    visible = _visible(labels, own_rays, spec, rig, T_grid_base)
    T_world_grid = se3.make(np.eye(3), scene.origin_m) @ T_scene_grid
    grid = VoxelGrid(spec, frame.stamp_ns, labels, np.where(visible, np.uint8(255), np.uint8(0)), rows,
                     np.array([box.track_id for box in shown], np.uint64), model_id="pseudo", T_odom_grid=T_world_grid)
    return FusedFrame(grid, visible, _flow(scene, index, spec, rows, shown, T_grid_scene), T_world_grid, T_grid_base)


def _visible(labels: NDArray[np.uint8], own_rays: NDArray[np.bool_], spec: VoxelGridSpec, rig: Rig,
             T_grid_base: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Known cells in line of sight of a camera within its view, or crossed by the frame's own rays."""
    opaque = (labels != FREE) & (labels != UNKNOWN)
    seen = own_rays.copy()
    for camera in rig.mounted():
        origin = (T_grid_base @ camera.T_base_camera)[:3, 3]
        seen |= visible_cells(opaque, spec, origin) & coverage([camera], spec, T_grid_base)
    return np.asarray(seen & (labels != UNKNOWN))


def _flow(scene: Scene, index: int, spec: VoxelGridSpec, rows: NDArray[np.uint16], shown: Sequence[WorldBox],
          T_grid_scene: NDArray[np.float64]) -> FlowField:
    """Velocities of the cells of moving things: of the box, and of its turning between neighbouring frames."""
    cells, velocities = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
    occupied = np.argwhere(rows > 0)
    owner = rows[tuple(occupied.T)]
    for row, box in enumerate(shown, start=1):
        if np.linalg.norm(box.velocity_mps) < _MOVING_MPS:
            continue
        own = occupied[owner == row]
        arm = spec.centre_of(own) - se3.apply(T_grid_scene, _object_in_scene(scene, box)[:3, 3])
        turn = _yaw_rate(scene, index, box.track_id)
        velocity = T_grid_scene[:3, :3] @ box.velocity_mps
        cells.append(own)
        velocities.append(velocity + turn * np.column_stack([-arm[:, 1], arm[:, 0], np.zeros(len(own))]))
    every = np.concatenate(cells)
    return FlowField(spec, scene.frames[index].stamp_ns, every, np.concatenate(velocities).astype(np.float32),
                     np.ones(len(every), np.float32))


def _yaw_rate(scene: Scene, index: int, track_id: int) -> float:
    """How fast a box turns around the vertical, rad/s, by its headings in this and the neighbouring frames."""
    seen = [(frame.stamp_ns, se3.yaw_of(box.T_world_object)) for frame in scene.frames[max(0, index - 1): index + 2]
            for box in frame.boxes if box.track_id == track_id]
    if len(seen) < 2:
        return 0.0
    (first_ns, first), (last_ns, last) = seen[0], seen[-1]
    return float(np.angle(np.exp(1j * (last - first)))) / ((last_ns - first_ns) * 1e-9)
