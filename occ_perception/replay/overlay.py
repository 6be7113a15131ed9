"""Geometry drawn into camera images: LiDAR points by range, the grid's ground as a lattice, voxels by class.

Every function returns a new RGB image; nothing is drawn where the lens does not see.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.geometry import se3
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.tables import MountedCamera
from occ_perception.taxonomy import FREE, UNKNOWN, get_taxonomy
from occ_perception.types import PointCloud, VoxelGrid

Image = NDArray[np.uint8]

LATTICE_RGB = (0, 255, 120)
_LATTICE_STEP_M = 0.02  # between samples of a line; a fisheye bends it, so lines are drawn in short pieces


def range_colours(range_m: ArrayLike, maximum_m: float = 10.0) -> Image:
    """RGB [N, 3] of ranges [N]: red near, over green, to blue at `maximum_m` and beyond."""
    nearness = 1.0 - np.clip(np.asarray(range_m, float) / maximum_m, 0.0, 1.0)
    levels = np.rint(20 + 215 * nearness).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_TURBO)[:, 0, ::-1], np.uint8)


def draw_points(image: Image, camera: MountedCamera, points_m: ArrayLike, colours: ArrayLike,
                radius_px: ArrayLike = 2) -> Image:
    """Draw points of the base frame as discs, near ones over far ones.

    Args:
        image: uint8 RGB [H, W, 3], as the camera made it.
        camera: where it sits on the base.
        points_m: [N, 3].
        colours: RGB [N, 3], 0 to 255.
        radius_px: of the discs, one number or [N].
    """
    in_camera = se3.apply(se3.invert(camera.T_base_camera), points_m)
    pixels, valid = camera.camera.project(in_camera)
    seen = np.flatnonzero(valid)
    far_first = seen[np.argsort(-np.linalg.norm(in_camera[seen], axis=1), kind="stable")]
    radii = np.broadcast_to(np.asarray(radius_px), len(in_camera)).astype(int)
    canvas = image.copy()
    rgb = np.asarray(colours).astype(int).tolist()
    for index, (u, v) in zip(far_first.tolist(), np.rint(pixels[far_first]).astype(int).tolist(), strict=True):
        cv2.circle(canvas, (u, v), int(radii[index]), rgb[index], cv2.FILLED)
    return canvas


def draw_cloud(image: Image, camera: MountedCamera, cloud: PointCloud, T_base_lidar: NDArray[np.float64], *,
               maximum_m: float = 10.0, radius_px: int = 2) -> Image:
    """Draw a scan, coloured by range from the LiDAR. Where the calibration is right, edges meet edges."""
    colours = range_colours(np.linalg.norm(cloud.points_m, axis=1), maximum_m)
    return draw_points(image, camera, se3.apply(T_base_lidar, cloud.points_m), colours, radius_px)


def draw_ground(image: Image, camera: MountedCamera, spec: VoxelGridSpec, *,
                T_base_grid: NDArray[np.float64] | None = None, height_m: float = 0.0, spacing_m: float = 1.0) -> Image:
    """Draw the lattice of the grid's ground: lines every `spacing_m` at `height_m` in the grid's frame.

    Where camera height and tilt are right, the lattice lies on the floor. The line y = 0, straight ahead, is thick.
    """
    T_camera_grid = se3.invert(camera.T_base_camera)
    if T_base_grid is not None:
        T_camera_grid = T_camera_grid @ T_base_grid
    canvas = image.copy()
    low, high = np.array(spec.minimum_m), np.array(spec.maximum_m)
    for along, across in ((0, 1), (1, 0)):
        count = round((high[along] - low[along]) / _LATTICE_STEP_M) + 1
        for offset in np.arange(np.ceil(low[across] / spacing_m), np.floor(high[across] / spacing_m) + 1) * spacing_m:
            line = np.full((count, 3), height_m)
            line[:, along] = np.linspace(low[along], high[along], count)
            line[:, across] = offset
            thick = 3 if across == 1 and abs(offset) < 1e-9 else 1
            _draw_line(canvas, camera, se3.apply(T_camera_grid, line), LATTICE_RGB, thick)
    return canvas


def draw_box(image: Image, camera: MountedCamera, T_base_box: NDArray[np.float64], size_m: ArrayLike,
             rgb: tuple[int, int, int]) -> Image:
    """Draw the edges of a box, whose centre is at `T_base_box` and whose sides [3] lie along its axes, in metres."""
    canvas, half = image.copy(), np.asarray(size_m, float) / 2
    T_camera_box = se3.invert(camera.T_base_camera) @ T_base_box
    for axis in range(3):
        count = max(2, round(2 * half[axis] / _LATTICE_STEP_M))
        for corner in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            edge = np.insert(np.tile(corner * np.delete(half, axis), (count, 1)), axis,
                             np.linspace(-half[axis], half[axis], count), axis=1)
            _draw_line(canvas, camera, se3.apply(T_camera_box, edge), rgb, 1)
    return canvas


def _draw_line(canvas: Image, camera: MountedCamera, in_camera_m: NDArray[np.float64], rgb: tuple[int, int, int],
               thickness_px: int) -> None:
    """A line through near points [N, 3] of the camera's frame, where it is in view."""
    pixels, valid = camera.camera.project(in_camera_m)
    for piece in _runs(valid):
        cv2.polylines(canvas, [np.rint(pixels[piece]).astype(np.int32)], False, rgb, thickness_px, cv2.LINE_AA)


def _runs(valid: NDArray[np.bool_]) -> list[slice]:
    """The unbroken stretches of True."""
    edges = np.flatnonzero(np.diff(valid.astype(np.int8), prepend=0, append=0))
    return [slice(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def draw_voxels(image: Image, camera: MountedCamera, grid: VoxelGrid, *,
                T_base_grid: NDArray[np.float64] | None = None) -> Image:
    """Draw the centres of the occupied cells in the colours of their classes, as large as a third of a cell looks."""
    cells = np.argwhere((grid.labels != FREE) & (grid.labels != UNKNOWN))
    centres = grid.spec.centre_of(cells)
    in_base = centres if T_base_grid is None else se3.apply(T_base_grid, centres)
    range_m = np.linalg.norm(in_base - camera.T_base_camera[:3, 3], axis=1)
    radii = np.clip(_pixels_per_rad(camera) * grid.spec.cell.min() / 6 / np.maximum(range_m, 0.1), 1, 12)
    colours = get_taxonomy(grid.taxonomy).palette()[grid.labels[tuple(cells.T)]]
    return draw_points(image, camera, in_base, colours, np.rint(radii))


def _pixels_per_rad(camera: MountedCamera) -> float:
    """How many pixels an angle covers around the optical axis."""
    pixels, _ = camera.camera.project(np.array([[0.0, 0.0, 1.0], [0.01, 0.0, 1.0]]))
    return float(np.linalg.norm(pixels[1] - pixels[0]) / np.arctan(0.01))


def tile(images: list[Image], *, columns: int = 2, width_px: int = 960) -> Image:
    """Images side by side, each scaled to `width_px`; shorter ones are filled up with black."""
    scaled = [
        cv2.resize(image, (width_px, round(image.shape[0] * width_px / image.shape[1])), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    height = max(image.shape[0] for image in scaled)
    rows = -(-len(scaled) // columns)
    sheet = np.zeros((rows * height, columns * width_px, 3), np.uint8)
    for i, image in enumerate(scaled):
        top, left = i // columns * height, i % columns * width_px
        sheet[top: top + image.shape[0], left: left + width_px] = image
    return sheet
