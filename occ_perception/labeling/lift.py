"""LiDAR points get the classes of the pixels they are seen in (WalkOCC, appendix D.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import RigCamera
from occ_perception.errors import ShapeError
from occ_perception.geometry import se3
from occ_perception.geometry.lens import jit, project_point
from occ_perception.taxonomy import OCCLUSION

UNLABELLED = 0
"""Label of a point that no camera saw, or that showed as background."""
OCCLUSION_MARGIN_M = 0.2
"""How far behind the nearest surface of its line of sight a point may lie and still be that surface."""
BEAM_SPACING_RAD = 0.017
"""Angle between neighbouring returns of a coarse LiDAR (64 beams over 60 degrees): surfaces are closed up to it."""
_LOWEST_CAMERA_M = 0.3


@jit
def _label(points: Any, T: Any, kernel: int, p: Any, cos_max: float, usable: Any, classes: Any, bin_px: float,
           margin_m: float, slope: float, best: Any, labels: Any) -> None:
    height, width = classes.shape
    rows, columns = int(height / bin_px) + 3, int(width / bin_px) + 3  # an empty border of one bin all around
    nearest = np.full((rows, columns), math.inf, np.float32)
    pixel = np.full((len(points), 2), -1, np.int32)
    ranges, cosines = np.empty(len(points), np.float32), np.empty(len(points), np.float32)
    for i in range(len(points)):
        a, b, c = points[i, 0], points[i, 1], points[i, 2]
        x = T[0, 0] * a + T[0, 1] * b + T[0, 2] * c + T[0, 3]
        y = T[1, 0] * a + T[1, 1] * b + T[1, 2] * c + T[1, 3]
        z = T[2, 0] * a + T[2, 1] * b + T[2, 2] * c + T[2, 3]
        norm = math.sqrt(x * x + y * y + z * z)
        if not 1e-6 < norm < math.inf or z < cos_max * norm:
            continue
        u, v, ok = project_point(kernel, p, x, y, z)
        if not ok or u < -0.5 or v < -0.5 or u >= width - 0.5 or v >= height - 0.5:
            continue
        row, column = int(v + 0.5), int(u + 0.5)
        pixel[i, 0], pixel[i, 1] = row, column
        ranges[i], cosines[i] = norm, z / norm
        r, k = int(row / bin_px) + 1, int(column / bin_px) + 1
        nearest[r, k] = min(nearest[r, k], norm)
    for i in range(len(points)):
        row, column = pixel[i, 0], pixel[i, 1]
        if row < 0 or cosines[i] <= best[i] or not usable[row, column]:
            continue
        label = classes[row, column]
        if label in (UNLABELLED, OCCLUSION):
            continue
        r, k = int(row / bin_px) + 1, int(column / bin_px) + 1
        before = ranges[i] - margin_m - slope * ranges[i] * ranges[i]
        hidden = False
        for dr in range(-1, 2):
            for dk in range(-1, 2):
                hidden = hidden or nearest[r + dr, k + dk] < before
        if not hidden:
            best[i], labels[i] = cosines[i], label


def lift_labels(points_m: NDArray[np.floating[Any]], classes: Mapping[str, NDArray[np.uint8]], rig: Rig, *,
                T_anchor_exposure: Mapping[str, NDArray[np.float64]] | None = None,
                occlusion_margin_m: float = OCCLUSION_MARGIN_M) -> NDArray[np.uint8]:
    """The class of each point by the camera that sees it nearest to its axis, uint8 [P]; 0 unlabelled.

    The LiDAR and the cameras stand apart, so a LiDAR sees past edges at which a camera's view ends. The points
    themselves tell where: with each one standing for the `BEAM_SPACING_RAD` around it, a point is hidden when another
    one is nearer in its line of sight by more than the margin. The margin grows with the square of the range r as
    r^2 * angle / camera height, which is what ground at a grazing angle changes its range by within that spacing.

    Args:
        points_m: [P, 3] deskewed, in the base frame at the anchor stamp; points that are not finite stay unlabelled.
        classes: uint8 [H, W] by camera; 0 background and 14 occlusion are never lifted.
        rig: its cameras say how points project, and where an image shows the robot itself.
        T_anchor_exposure: as in `SensorFrame`; absent cameras did not move.
        occlusion_margin_m: the least margin; inf lifts without regard to what hides a point (as the paper does).

    Raises:
        CalibrationError: classes of a camera that the rig does not have.
        ShapeError: points that are not [P, 3], or classes that do not fit the camera's image.
    """
    if points_m.ndim != 2 or points_m.shape[1] != 3:
        raise ShapeError(f"points must be [P, 3], got {points_m.shape}", where="lift_labels")
    labels, best = np.zeros(len(points_m), np.uint8), np.full(len(points_m), -2.0, np.float32)
    points = np.ascontiguousarray(points_m)
    for name, image in classes.items():
        camera = rig.camera(name)
        _require_classes(camera, image)
        mounted, lens = camera.mounted(), camera.camera
        usable = np.ones(image.shape, np.bool_) if mounted.usable is None else mounted.usable
        T_base_camera = (T_anchor_exposure or {}).get(name, np.eye(4)) @ mounted.T_base_camera
        pixel_rad = lens.pixel_rad
        bin_px = max(1.0, 0.5 * BEAM_SPACING_RAD / pixel_rad)
        # a point is compared with those in the next bin, the farthest of which are two bins away
        slope = 2.0 * bin_px * pixel_rad / max(mounted.T_base_camera[2, 3], _LOWEST_CAMERA_M)
        _label(points, se3.invert(T_base_camera), lens.kernel, lens.packed, lens.cos_max_theta, usable,
               np.ascontiguousarray(image), bin_px, occlusion_margin_m, slope, best, labels)
    return labels


def _require_classes(camera: RigCamera, image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.shape != (camera.height, camera.width):
        raise ShapeError(f"must be uint8 [{camera.height}, {camera.width}], got {image.dtype} {image.shape}",
                         where=f"lift_labels: classes of {camera.name}")
    if image.max(initial=0) > OCCLUSION:
        raise ShapeError(f"must be 0..{OCCLUSION}, goes up to {image.max()}",
                         where=f"lift_labels: classes of {camera.name}")
