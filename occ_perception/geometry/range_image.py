"""Sparse range images: the nearest LiDAR return in each feature pixel, by the same projection as the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry import lens
from occ_perception.geometry.tables import MountedCamera, pack_cameras


@lens.jit
def _splat(points: Any, kernels: Any, parameters: Any, cos_max: Any, sizes: Any, T_camera_base: Any, to_feature: Any,
           usable: Any, ranges: Any) -> None:
    _, height, width = usable.shape
    for c in range(len(kernels)):
        kernel, p, cos, mask, image = kernels[c], parameters[c], cos_max[c], usable[c], ranges[c]
        limit_u, limit_v = sizes[c, 0] - 0.5, sizes[c, 1] - 0.5
        T, A = T_camera_base[c], to_feature[c]
        t00, t01, t02, t03, t10, t11, t12, t13 = T[0, 0], T[0, 1], T[0, 2], T[0, 3], T[1, 0], T[1, 1], T[1, 2], T[1, 3]
        t20, t21, t22, t23 = T[2, 0], T[2, 1], T[2, 2], T[2, 3]
        a00, a01, a02, a10, a11, a12 = A[0, 0], A[0, 1], A[0, 2], A[1, 0], A[1, 1], A[1, 2]
        for i in range(len(points)):
            x, y, z = points[i, 0], points[i, 1], points[i, 2]
            pz = t20 * x + t21 * y + t22 * z + t23
            px = t00 * x + t01 * y + t02 * z + t03
            py = t10 * x + t11 * y + t12 * z + t13
            norm = math.sqrt(px * px + py * py + pz * pz)
            if norm < 1e-6 or pz < cos * norm or not norm < math.inf:
                continue
            u, v, ok = lens.project_point(kernel, p, px, py, pz)
            if not ok or u < -0.5 or v < -0.5 or u >= limit_u or v >= limit_v:
                continue
            fu = int(math.floor(a00 * u + a01 * v + a02 + 0.5))
            fv = int(math.floor(a10 * u + a11 * v + a12 + 0.5))
            if fu < 0 or fv < 0 or fu >= width or fv >= height or not mask[fv, fu]:
                continue
            if image[fv, fu] == 0.0 or norm < image[fv, fu]:
                image[fv, fu] = norm


def range_image(
    points_m: NDArray[np.floating[Any]],
    cameras: Sequence[MountedCamera],
    feature_size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    T_anchor_exposure: Sequence[NDArray[np.float64] | None] | None = None,
    image_affine: Sequence[NDArray[np.float64]] | None = None,
) -> NDArray[np.float32]:
    """The range of the nearest point in each feature pixel, float32 [cameras, h, w], metres along the ray; 0 none.

    Args:
        points_m: [P, 3] in the base frame at the anchor stamp; points that are not finite are left out.
        cameras, feature_size, input_size, T_anchor_exposure, image_affine: as in `tables.projection_table`, and the
            same pixels: a point lands where a lift sample at its place reads. Pixels that show the robot stay 0.

    Raises:
        ShapeError: the points are not [P, 3].
        ConfigurationError: there is no camera.
    """
    if points_m.ndim != 2 or points_m.shape[1] != 3:
        raise ShapeError(f"points must be [P, 3], got {points_m.shape}", where="range_image")
    packed = pack_cameras(cameras, feature_size, np.eye(4), input_size=input_size,
                          T_anchor_exposure=T_anchor_exposure, image_affine=image_affine)
    ranges = np.zeros((len(cameras), *feature_size), np.float32)
    _splat(np.ascontiguousarray(points_m), *packed, ranges)
    return ranges
