"""Projection tables: which feature pixel and range bin each sample of the lift grid reads.

All of lens, extrinsics, tilt, exposure motion, resizing and augmentation live in the table; a network knows none
of them, so one engine serves any rig and a recalibration needs no rebuild.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import lens, se3
from occ_perception.geometry.cameras import Camera
from occ_perception.geometry.grid import VoxelGridSpec


@dataclass(frozen=True)
class RangeBins:
    """Discretised range along the ray: bin i holds [minimum + i step, minimum + (i + 1) step), metres."""

    minimum_m: float
    maximum_m: float
    step_m: float

    def __post_init__(self) -> None:
        if not (0 <= self.minimum_m < self.maximum_m and 0 < self.step_m <= self.maximum_m - self.minimum_m):
            raise ConfigurationError([f"need 0 <= minimum < maximum and a positive step, got {self}"],
                                     where="RangeBins")

    @property
    def count(self) -> int:
        """Number of bins."""
        return max(1, round((self.maximum_m - self.minimum_m) / self.step_m))

    def centres_m(self) -> NDArray[np.float64]:
        """Ranges at the middle of the bins, [count]."""
        return np.asarray(self.minimum_m + (np.arange(self.count) + 0.5) * self.step_m, np.float64)

    def index(self, range_m: NDArray[Any]) -> NDArray[np.int32]:
        """Bin of each range; ranges beyond the ends fall into the first and last bin."""
        bins = np.floor((np.asarray(range_m, float) - self.minimum_m) / self.step_m)
        return np.clip(bins, 0, self.count - 1).astype(np.int32)


@dataclass(frozen=True)
class MountedCamera:
    """A camera on the robot. `usable`, bool [H, W], is false where the image shows the robot itself."""

    camera: Camera
    T_base_camera: NDArray[np.float64]
    usable: NDArray[np.bool_] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not se3.is_rigid(self.T_base_camera):
            raise ConfigurationError(["T_base_camera is no rigid motion"], where="MountedCamera")
        if self.usable is not None and self.usable.shape != (self.camera.height, self.camera.width):
            raise ShapeError(f"mask must be {(self.camera.height, self.camera.width)}, got {self.usable.shape}",
                             where="MountedCamera.usable")


@dataclass(frozen=True)
class ProjectionTable:
    """Samples in message order (x fastest, then y, then z), `[hits, samples]`.

    `rows` int32: row of the flattened features [cameras * H * W, C]; `bins` int32: range bin; `weights` float32:
    0 where no camera sees the sample, else 1 / number of cameras kept for it.
    """

    rows: NDArray[np.int32]
    bins: NDArray[np.int32]
    weights: NDArray[np.float32]


@lens.jit
def _fill(minimum: Any, cell: Any, shape: Any, kernels: Any, parameters: Any, cos_max: Any, sizes: Any,
          T_camera_grid: Any, to_feature: Any, usable: Any, range_min: float, range_step: float, range_count: int,
          rows: Any, bins: Any, weights: Any) -> None:
    hits, samples = rows.shape
    height, width = usable.shape[1], usable.shape[2]
    kept, best = np.zeros(samples, np.int64), np.empty((hits, samples))
    for c in range(len(kernels)):
        kernel, p, cos, mask = kernels[c], parameters[c], cos_max[c], usable[c]
        limit_u, limit_v = sizes[c, 0] - 0.5, sizes[c, 1] - 0.5
        T, A = T_camera_grid[c], to_feature[c]
        t00, t01, t02, t03, t10, t11, t12, t13 = T[0, 0], T[0, 1], T[0, 2], T[0, 3], T[1, 0], T[1, 1], T[1, 2], T[1, 3]
        t20, t21, t22, t23 = T[2, 0], T[2, 1], T[2, 2], T[2, 3]
        a00, a01, a02, a10, a11, a12 = A[0, 0], A[0, 1], A[0, 2], A[1, 0], A[1, 1], A[1, 2]
        sample = -1
        for iz in range(shape[2]):
            z = minimum[2] + (iz + 0.5) * cell[2]
            for iy in range(shape[1]):
                y = minimum[1] + (iy + 0.5) * cell[1]
                for ix in range(shape[0]):
                    sample += 1
                    x = minimum[0] + (ix + 0.5) * cell[0]
                    px = t00 * x + t01 * y + t02 * z + t03
                    py = t10 * x + t11 * y + t12 * z + t13
                    pz = t20 * x + t21 * y + t22 * z + t23
                    norm = math.sqrt(px * px + py * py + pz * pz)
                    if norm < 1e-6 or pz < cos * norm:
                        continue
                    u, v, ok = lens.project_point(kernel, p, px, py, pz)
                    if not ok or u < -0.5 or v < -0.5 or u >= limit_u or v >= limit_v:
                        continue
                    fu = int(math.floor(a00 * u + a01 * v + a02 + 0.5))
                    fv = int(math.floor(a10 * u + a11 * v + a12 + 0.5))
                    if fu < 0 or fv < 0 or fu >= width or fv >= height or not mask[fv, fu]:
                        continue
                    # keep the cameras that see the sample nearest to their axes: lenses are sharpest there
                    slot, axial = kept[sample], pz / norm
                    if slot == hits:
                        slot = 0
                        for h in range(1, hits):
                            if best[h, sample] < best[slot, sample]:
                                slot = h
                        if axial <= best[slot, sample]:
                            continue
                    else:
                        kept[sample] += 1
                    best[slot, sample] = axial
                    rows[slot, sample] = (c * height + fv) * width + fu
                    at = int(math.floor((norm - range_min) / range_step))
                    bins[slot, sample] = min(max(at, 0), range_count - 1)
    for h in range(hits):
        for sample in range(samples):
            if h < kept[sample]:
                weights[h, sample] = 1.0 / kept[sample]


def resize_affine(from_size: tuple[int, int], to_size: tuple[int, int]) -> NDArray[np.float64]:
    """[2, 3] that maps pixels (u, v) of an image of (H, W) `from_size` into its resized copy of `to_size`."""
    su, sv = to_size[1] / from_size[1], to_size[0] / from_size[0]
    return np.array([[su, 0.0, 0.5 * su - 0.5], [0.0, sv, 0.5 * sv - 0.5]])


class PackedCameras(NamedTuple):
    """Cameras as the kernels take them, one row each.

    `kernels` int64 [C], `parameters` [C, P], `cos_max` [C], `sizes` [C, 2] (width, height), `transforms` [C, 4, 4]
    into the optical frame at exposure, `to_feature` [C, 2, 3] raw pixel into feature pixel, `usable` bool [C, h, w].
    """

    kernels: NDArray[np.int64]
    parameters: NDArray[np.float64]
    cos_max: NDArray[np.float64]
    sizes: NDArray[np.int64]
    transforms: NDArray[np.float64]
    to_feature: NDArray[np.float64]
    usable: NDArray[np.bool_]


def pack_cameras(
    cameras: Sequence[MountedCamera],
    feature_size: tuple[int, int],
    T_base_source: NDArray[np.float64],
    *,
    input_size: tuple[int, int] | None = None,
    T_anchor_exposure: Sequence[NDArray[np.float64] | None] | None = None,
    image_affine: Sequence[NDArray[np.float64]] | None = None,
) -> PackedCameras:
    """Everything between points of a source frame and feature pixels; arguments as in `projection_table`.

    Args:
        T_base_source: [4, 4] affine that maps the points' frame into the base at the anchor stamp.

    Raises:
        ConfigurationError: there is no camera.
    """
    if not cameras:
        raise ConfigurationError(["a projection needs at least one camera"])
    transforms, affines, usable = [], [], []
    for i, mounted in enumerate(cameras):
        affine = None if image_affine is None else image_affine[i]
        affines.append(raw_to_feature(mounted, feature_size, input_size, affine))
        motion = T_anchor_exposure[i] if T_anchor_exposure is not None else None
        T_exposure_source = T_base_source if motion is None else se3.invert(motion) @ T_base_source
        transforms.append(se3.invert(mounted.T_base_camera) @ T_exposure_source)
        usable.append(usable_features(mounted, affines[-1], feature_size))
    width = max(len(m.camera.packed) for m in cameras)
    return PackedCameras(
        np.array([m.camera.kernel for m in cameras]),
        np.stack([np.pad(m.camera.packed, (0, width - len(m.camera.packed))) for m in cameras]),
        np.array([m.camera.cos_max_theta for m in cameras]),
        np.array([(m.camera.width, m.camera.height) for m in cameras]),
        np.stack(transforms), np.stack(affines), np.stack(usable),
    )


def raw_to_feature(mounted: MountedCamera, feature_size: tuple[int, int], input_size: tuple[int, int] | None,
                   image_affine: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """[2, 3] that maps pixels of the camera into feature pixels; arguments as in `projection_table`, of one camera."""
    own_size = (mounted.camera.height, mounted.camera.width)
    target = input_size or own_size
    raw_to_input = image_affine if image_affine is not None else resize_affine(own_size, target)
    return np.asarray(resize_affine(target, feature_size) @ np.vstack([raw_to_input, [0.0, 0.0, 1.0]]))


def usable_features(mounted: MountedCamera, to_feature: NDArray[np.float64],
                    feature_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which feature pixels show the world and not the robot: the mask at each feature pixel's centre."""
    if mounted.usable is None:
        return np.ones(feature_size, np.bool_)
    inverse = np.linalg.inv(np.vstack([to_feature, [0.0, 0.0, 1.0]]))
    v, u = np.mgrid[: feature_size[0], : feature_size[1]]
    raw = np.einsum("ij,jhw->ihw", inverse[:2], np.stack([u, v, np.ones_like(u)]).astype(float))
    column = np.clip(np.rint(raw[0]).astype(int), 0, mounted.camera.width - 1)
    row = np.clip(np.rint(raw[1]).astype(int), 0, mounted.camera.height - 1)
    return np.asarray(mounted.usable[row, column])


def projection_table(
    cameras: Sequence[MountedCamera],
    lift_grid: VoxelGridSpec,
    bins: RangeBins,
    feature_size: tuple[int, int],
    *,
    input_size: tuple[int, int] | None = None,
    T_grid_base: NDArray[np.float64] | None = None,
    T_anchor_exposure: Sequence[NDArray[np.float64] | None] | None = None,
    image_affine: Sequence[NDArray[np.float64]] | None = None,
    augmentation: NDArray[np.float64] | None = None,
    hits: int = 1,
) -> ProjectionTable:
    """The table for one frame.

    Args:
        cameras: in the order in which their images enter the network.
        lift_grid: samples are its cell centres.
        bins: range bins of the depth head.
        feature_size: (H, W) of one camera's feature map.
        input_size: (H, W) of the image that enters the network; by default each camera's own size. A camera of
            another size is taken as resized to it, unless `image_affine` says otherwise.
        T_grid_base: [4, 4], tilt of the base in the gravity-aligned grid frame.
        T_anchor_exposure: per camera [4, 4], base at its exposure into base at the anchor stamp (None: no motion).
        image_affine: per camera [2, 3], raw camera pixel into pixel of the network's input image.
        augmentation: [4, 4] affine that maps the grid frame into the augmented one (rotation, scaling, flips).
        hits: how many cameras a sample may read at most.
    """
    T_base_grid = se3.invert(T_grid_base) if T_grid_base is not None else np.eye(4)
    if augmentation is not None:
        T_base_grid = T_base_grid @ np.linalg.inv(augmentation)
    packed = pack_cameras(cameras, feature_size, T_base_grid, input_size=input_size,
                          T_anchor_exposure=T_anchor_exposure, image_affine=image_affine)
    samples = lift_grid.size
    rows, range_bins = np.zeros((hits, samples), np.int32), np.zeros((hits, samples), np.int32)
    weights = np.zeros((hits, samples), np.float32)
    _fill(np.asarray(lift_grid.minimum_m), lift_grid.cell, np.asarray(lift_grid.shape), *packed,
          bins.minimum_m, bins.step_m, bins.count, rows, range_bins, weights)
    return ProjectionTable(rows, range_bins, weights)


def coverage(cameras: Sequence[MountedCamera], grid: VoxelGridSpec,
             T_grid_base: NDArray[np.float64] | None = None, stride: int = 2) -> NDArray[np.bool_]:
    """Which cells lie in some camera's view, bool [nx, ny, nz] (stored x-fastest).

    Tested at the centres of blocks of `stride` cells; an axis that `stride` does not divide is tested per cell.
    """
    steps = [stride if n % stride == 0 else 1 for n in grid.shape]
    x, y, z = (grid.cell * steps).tolist()
    coarse = VoxelGridSpec(grid.minimum_m, grid.maximum_m, (x, y, z))
    nearest = min(cameras, key=lambda m: m.camera.width).camera
    table = projection_table(cameras, coarse, RangeBins(0.0, 1.0, 1.0), (nearest.height // 4, nearest.width // 4),
                             T_grid_base=T_grid_base)
    seen = np.asarray((table.weights > 0).any(axis=0)).reshape(coarse.shape[::-1])
    for axis, step in enumerate(reversed(steps)):
        seen = np.repeat(seen, step, axis=axis) if step > 1 else seen
    return seen.transpose()
