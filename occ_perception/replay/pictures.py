"""Pictures of voxel grids: a shaded view in perspective, a map from above, errors, overlays on camera images.

All of it is ray casting and arrays; no graphics library is needed. Pictures are uint8 RGB.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from occ_perception.geometry.cameras import Camera
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.raycast import first_hits
from occ_perception.metrics import project_labels
from occ_perception.taxonomy import FREE, UNKNOWN
from occ_perception.types import Trajectory, WaypointFlag

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

_SUN = np.array([-0.45, 0.38, 0.81])  # towards the light: from behind the robot's left shoulder
_FACE_SHADE = np.array([0.80, 0.70, 1.0])  # faces across x, across y, and tops
_HORIZON, _ZENITH = np.array([246.0, 247.0, 249.0]), np.array([222.0, 229.0, 238.0])
_RIGHT, _FALSE_ALARM, _MISSED, _WRONG_CLASS = (72, 168, 96), (214, 64, 60), (52, 104, 214), (236, 160, 40)
ERROR_COLOURS = {"right": _RIGHT, "wrong class": _WRONG_CLASS, "false alarm": _FALSE_ALARM, "missed": _MISSED}
PATH_COLOUR, TRUE_PATH_COLOUR = (255, 255, 255), (30, 30, 30)
WAYPOINT_COLOURS = {
    "blocked": (214, 40, 40), "tight": (240, 150, 20), "off limits": (40, 80, 230), "unknown": (120, 130, 150),
    "free": (60, 190, 90),
}
"""Colour of a checked waypoint by what holds of it; of several the first in this order."""
_FLAG_NAMES = {WaypointFlag.BLOCKED: "blocked", WaypointFlag.TIGHT: "tight", WaypointFlag.OFF_LIMITS: "off limits",
               WaypointFlag.UNKNOWN | WaypointFlag.OUTSIDE: "unknown"}


@dataclass(frozen=True)
class DrawnPath:
    """A path on the ground: waypoints [T, 2] (x, y in metres), the colour of its line, and RGB [T, 3] of its dots."""

    points_m: NDArray[np.float32]
    colour: Colour
    dots: NDArray[np.uint8]

    @classmethod
    def of(cls, trajectory: Trajectory, colour: Colour) -> DrawnPath:
        """A trajectory; where it was checked its waypoints have the colours of what was found."""
        dots = np.tile(np.array(colour, np.uint8), (len(trajectory.positions_m), 1))
        if trajectory.check is not None:
            names = [waypoint_name(flags) for flags in trajectory.check.flags.tolist()]
            dots = np.array([WAYPOINT_COLOURS[name] for name in names], np.uint8).reshape(-1, 3)
        return cls(trajectory.positions_m, colour, dots)


def waypoint_name(flags: int) -> str:
    """What holds of a waypoint, as the key of WAYPOINT_COLOURS."""
    return next((name for flag, name in _FLAG_NAMES.items() if flags & flag), "free")


@dataclass(frozen=True)
class View:
    """A virtual pinhole camera: it stands at `eye_m` and looks at `target_m`, both in the grid's frame."""

    eye_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    width: int = 600
    height: int = 400
    fov_rad: float = 0.80

    def axes(self) -> NDArray[np.float64]:
        """Right, down and forward as columns, [3, 3]."""
        forward = np.subtract(self.target_m, self.eye_m)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        return np.column_stack([right, np.cross(forward, right), forward])

    def directions(self, scale: int = 1) -> NDArray[np.float64]:
        """Unit rays of the pixels of a picture `scale` times as large, [H * W, 3]."""
        width, height = self.width * scale, self.height * scale
        focal_px = width / 2 / np.tan(self.fov_rad / 2)
        v, u = np.mgrid[0:height, 0:width]
        rays = np.stack([(u + 0.5 - width / 2) / focal_px, (v + 0.5 - height / 2) / focal_px, np.ones(u.shape)], -1)
        rays = rays.reshape(-1, 3) @ self.axes().T
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))

    def project(self, points_m: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels [N, 2] and depths [N] (metres) of points [N, 3]; a depth of 0 or less lies behind."""
        local = (np.asarray(points_m, float) - self.eye_m) @ self.axes()
        focal_px = self.width / 2 / np.tan(self.fov_rad / 2)
        safe = np.where(local[:, 2:] > 1e-6, local[:, 2:], np.nan)
        return local[:, :2] / safe * focal_px + np.array([self.width / 2, self.height / 2]) - 0.5, local[:, 2]


@functools.lru_cache(maxsize=2)
def _directions(view: View, scale: int) -> NDArray[np.float64]:
    return view.directions(scale)


def view_of(spec: VoxelGridSpec, width: int = 600, height: int = 400) -> View:
    """A view over the whole grid, from behind and above the robot."""
    low, reach_m = spec.minimum_m, spec.maximum_m[0] - spec.minimum_m[0]
    eye = (low[0] - 0.80 * reach_m, 0.16 * reach_m, 0.86 * reach_m)
    target = (low[0] + 0.42 * reach_m, 0.0, 0.02 * reach_m)
    return View(eye, target, width, height)


def render_voxels(labels: NDArray[np.uint8], spec: VoxelGridSpec, palette: NDArray[np.uint8], view: View,
                  paths: Sequence[DrawnPath] = ()) -> Picture:
    """Occupied voxels in perspective with light, shadow, soft corners and cell borders.

    Args:
        labels: uint8 [nx, ny, nz]; free and unknown cells are air.
        palette: RGB by label, uint8 [256, 3].
        paths: lines on the ground from the robot on.
    """
    scale = 2  # twice as fine, then averaged: no stairs on edges
    opaque = (labels != FREE) & (labels != UNKNOWN)
    directions = _directions(view, scale)
    cells, ranges_m = first_hits(opaque, spec, np.asarray(view.eye_m), directions)
    hit = cells[:, 0] >= 0
    height, width = view.height * scale, view.width * scale
    sky = np.linspace(0, 1, height)[:, None] * (_HORIZON - _ZENITH) + _ZENITH
    colours = np.repeat(sky, width, axis=0)
    if hit.any():
        colours[hit] = _shade(opaque, labels, spec, palette, cells[hit], ranges_m[hit], directions[hit], view)
    fine = colours.reshape(height, width, 3).astype(np.uint8)
    picture = np.asarray(cv2.resize(fine, (view.width, view.height), interpolation=cv2.INTER_AREA), np.uint8)
    for path in paths:
        _draw_ground_path(picture, path, view)
    return picture


def _shade(opaque: NDArray[np.bool_], labels: NDArray[np.uint8], spec: VoxelGridSpec, palette: NDArray[np.uint8],
           cells: NDArray[np.int32], ranges_m: NDArray[np.float32], directions: NDArray[np.float64],
           view: View) -> NDArray[np.float64]:
    """RGB of the surface points that the rays hit, float [R, 3]."""
    points = np.asarray(view.eye_m) + directions * ranges_m[:, None].astype(float)
    local = (points - spec.minimum_m) / spec.cell - cells
    entered = np.where(directions > 0, 0.0, 1.0)
    axis = np.abs(local - entered).argmin(1)
    rows = np.arange(len(cells))
    normals = np.zeros_like(points)
    normals[rows, axis] = -np.sign(directions[rows, axis])
    light = _FACE_SHADE[axis]

    facing = normals @ _SUN
    lit = facing > 0
    start = points[lit] + normals[lit] * 0.02 * spec.cell.min()
    shadowed = first_hits(opaque, spec, start, np.broadcast_to(_SUN, start.shape).copy())[0][:, 0] >= 0
    sunny = np.zeros(len(cells))
    sunny[lit] = np.where(shadowed, 0.0, 1.0)
    light = light * (0.76 + 0.24 * sunny)

    crowding = uniform_filter(opaque.astype(np.float32), size=5, mode="nearest")
    outside = np.clip(cells + normals.astype(int), 0, np.asarray(spec.shape) - 1)
    light *= 1.0 - 0.38 * np.clip(crowding[tuple(outside.T)] * 1.6 - 0.25, 0.0, 1.0)

    others = np.sort(np.where(np.arange(3) == axis[:, None], 0.5, np.minimum(local, 1 - local)), axis=1)[:, 0]
    pixel_cells = ranges_m * view.fov_rad / view.width / spec.cell.min()
    visible_border = np.clip(0.35 - pixel_cells, 0.0, 0.35) / 0.35  # fades where cells are as small as pixels
    light *= 1.0 - 0.22 * visible_border * (others < 0.06)
    return np.asarray(np.clip(palette[labels[tuple(cells.T)]] * light[:, None], 0, 255))


def _draw_ground_path(picture: Picture, path: DrawnPath, view: View) -> None:
    """A line on the ground from the robot through its waypoints, with a dot at each."""
    points_m = path.points_m
    if not len(points_m) or not np.isfinite(points_m).all():
        return
    ground = np.column_stack([np.concatenate([np.zeros((1, 2)), points_m]), np.full(len(points_m) + 1, 0.06)])
    pixels, depth = view.project(ground)
    _polyline(picture, pixels[depth > 0], path.colour, 2)
    _dots(picture, pixels[1:][depth[1:] > 0], path.dots[depth[1:] > 0])


def _dots(picture: Picture, pixels: NDArray[np.float64], colours: NDArray[np.uint8]) -> None:
    for (u, v), colour in zip(np.rint(pixels).astype(int).tolist(), colours.tolist(), strict=True):
        cv2.circle(picture, (u, v), 5, (20, 20, 20), -1, cv2.LINE_AA)
        cv2.circle(picture, (u, v), 4, colour, -1, cv2.LINE_AA)


def _polyline(picture: Picture, pixels: NDArray[np.float64], colour: Colour, thickness: int) -> None:
    line = [np.rint(pixels * 8).astype(np.int32).reshape(-1, 1, 2)]
    edge = (20, 20, 20) if sum(colour) > 300 else (240, 240, 240)
    cv2.polylines(picture, line, False, edge, thickness + 2, cv2.LINE_AA, 3)
    cv2.polylines(picture, line, False, colour, thickness, cv2.LINE_AA, 3)


def map_from_above(labels: NDArray[np.uint8], spec: VoxelGridSpec, palette: NDArray[np.uint8], *,
                   ceiling_m: float = 2.0, pixels_per_cell: int = 4,
                   paths: Sequence[DrawnPath] = ()) -> Picture:
    """Highest occupied cell of each column not above `ceiling_m`; higher is lighter. Ahead is up, left is left.

    Columns without one are white where something free is known, else grey.
    """
    nz = int(np.clip(round((ceiling_m - spec.minimum_m[2]) / spec.cell[2]), 1, spec.shape[2]))
    below = labels[:, :, :nz]
    opaque = (below != FREE) & (below != UNKNOWN)
    top = nz - 1 - opaque[:, :, ::-1].argmax(2)
    some = opaque.any(2)
    x, y = np.indices(top.shape)
    relief = 0.76 + 0.24 * (top + 1) / nz
    picture = np.where((below == FREE).any(2)[..., None], 250, 206) * np.ones(3)
    picture[some] = (palette[below[x, y, top]] * relief[..., None])[some]
    return _upright(picture.astype(np.uint8), spec, pixels_per_cell, paths)


def error_map(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], spec: VoxelGridSpec,
              visible: NDArray[np.bool_] | None = None, *, pixels_per_cell: int = 4) -> Picture:
    """Columns coloured by what most of their occupied voxels are: see ERROR_COLOURS. Only scored voxels count."""
    scored = truth != UNKNOWN if visible is None else visible & (truth != UNKNOWN)
    is_there = (truth != FREE) & scored
    said = (prediction != FREE) & (prediction != UNKNOWN) & scored
    right = is_there & said & (prediction == truth)
    counts = np.stack([
        right.sum(2), (is_there & said & ~right).sum(2), (said & ~is_there).sum(2), (is_there & ~said).sum(2),
    ])
    colours = np.array(list(ERROR_COLOURS.values()), np.uint8)
    picture = np.where(scored.any(2)[..., None], 250, 206).astype(np.uint8) * np.ones(3, np.uint8)
    some = counts.sum(0) > 0
    picture[some] = colours[counts.argmax(0)][some]
    return _upright(picture, spec, pixels_per_cell, ())


def _upright(top_down: Picture, spec: VoxelGridSpec, pixels_per_cell: int,
             paths: Sequence[DrawnPath]) -> Picture:
    """An [nx, ny, 3] map as a picture with x up and y to the left, the robot's place and paths drawn in."""
    picture = top_down[::-1, ::-1].repeat(pixels_per_cell, 0).repeat(pixels_per_cell, 1)

    def pixel(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        along = (np.asarray(spec.maximum_m)[:2] - points_m) / spec.cell[:2] * pixels_per_cell
        return along[:, ::-1]

    for path in paths:
        if len(path.points_m) and np.isfinite(path.points_m).all():
            pixels = pixel(np.concatenate([np.zeros((1, 2)), path.points_m]))
            _polyline(picture, pixels, path.colour, 2)
            _dots(picture, pixels[1:], path.dots)
    robot = pixel(np.array([[0.45, 0.0], [0.0, 0.22], [0.0, -0.22]]))
    cv2.fillPoly(picture, [np.rint(robot).astype(np.int32)], (20, 20, 20), cv2.LINE_AA)
    return picture


def overlay_labels(image: Picture, labels: NDArray[np.uint8], spec: VoxelGridSpec, camera: Camera,
                   T_grid_camera: NDArray[np.float64], palette: NDArray[np.uint8], opacity: float = 0.55) -> Picture:
    """The camera image with the voxels that its rays meet painted over it."""
    return paint_labels(image, project_labels(labels, spec, camera, T_grid_camera), palette, opacity)


def paint_labels(image: Picture, labels: NDArray[np.uint8], palette: NDArray[np.uint8], opacity: float = 0.55
                 ) -> Picture:
    """An image with the colours of its pixels' labels [H, W] laid over it; pixels of label 0 stay as they are."""
    painted = labels != FREE
    blended = image.astype(np.float32)
    blended[painted] = (1 - opacity) * blended[painted] + opacity * palette[labels[painted]]
    return blended.astype(np.uint8)


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture in the format of the file's ending, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
