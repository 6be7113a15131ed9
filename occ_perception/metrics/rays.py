"""RayIoU, mAVE and OccScore: what a spinning sensor at given origins would measure in two grids."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.lens import jit
from occ_perception.metrics._common import Scores, common_order, mean, ratio, require_classes, require_mergeable
from occ_perception.metrics.confusion import as_labels, require_known
from occ_perception.taxonomy import OCCUPIED, UNKNOWN

VELOCITY_THRESHOLD_M = 2.0
"""Rays within this range error count for mAVE (challenge of occupancy and flow)."""


@functools.cache
def challenge_rays() -> NDArray[np.float32]:
    """Unit directions of the 14,040 rays, [39 * 360, 3].

    Pitches meet flat ground at 1, 2 ... 10 sensor heights, then go on upwards in equal steps to 0.21 rad or just
    above; azimuths are whole degrees. Rounded to float32 as published: ends of rays decide on cells.
    """
    pitches = [-math.atan2(1.0, distance) for distance in range(1, 11)]
    while pitches[-1] < 0.21:
        pitches.append(2.0 * pitches[-1] - pitches[-2])
    pitch, azimuth = np.meshgrid(pitches, np.deg2rad(np.arange(360)), indexing="ij")
    rays = np.stack([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), np.sin(pitch)], axis=-1)
    return rays.reshape(-1, 3).astype(np.float32)


_TRUE, _PREDICTED, _UNKNOWN = 1, 2, 4


@jit
def _stops(target: Any, prediction: Any, free: int, unknown: int, stops: Any) -> None:
    """What each cell stops: bit 1 rays of the truth, bit 2 rays of the prediction, bit 4 a ray into the unknown."""
    for i in range(target.size):
        t, p = target[i], prediction[i]
        here = _UNKNOWN if t == unknown else (_TRUE if t != free else 0)
        stops[i] = here | (_PREDICTED if p != free and p != unknown else 0)


@jit
def _cast(stops: Any, shape: Any, strides: Any, origin: Any, directions: Any, cells: Any, ranges: Any) -> None:
    """March each ray once through both grids; `origin` [3] and `directions` [R, 3] in cells.

    Writes the flat cell that stops it and the range (in lengths of the direction) at which it LEAVES that cell:
    column 0 the truth, column 1 the prediction. Cell -1: the ray leaves the grid without a hit (the range is that
    of its exit), or meets unknown space first in the truth.
    """
    nx, ny, nz = shape
    sx, sy, sz = strides
    for r in range(len(directions)):
        cells[r, 0] = cells[r, 1] = -1
        dx, dy, dz = directions[r, 0], directions[r, 1], directions[r, 2]
        near, far = 0.0, np.inf
        for a in range(3):
            d = directions[r, a]
            if d != 0.0:
                t0, t1 = -origin[a] / d, (shape[a] - origin[a]) / d
                near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
            elif origin[a] < 0.0 or origin[a] >= shape[a]:
                far = -1.0
        if near > far:
            continue
        x = min(max(int(math.floor(origin[0] + near * dx)), 0), nx - 1)
        y = min(max(int(math.floor(origin[1] + near * dy)), 0), ny - 1)
        z = min(max(int(math.floor(origin[2] + near * dz)), 0), nz - 1)
        tx = (x + (dx >= 0) - origin[0]) / dx if dx != 0.0 else np.inf
        ty = (y + (dy >= 0) - origin[1]) / dy if dy != 0.0 else np.inf
        tz = (z + (dz >= 0) - origin[2]) / dz if dz != 0.0 else np.inf
        ax, ay, az = abs(1.0 / dx), abs(1.0 / dy), abs(1.0 / dz)
        left_x = nx - x if dx >= 0 else x + 1
        left_y = ny - y if dy >= 0 else y + 1
        left_z = nz - z if dz >= 0 else z + 1
        ux, uy, uz = sx if dx >= 0 else -sx, sy if dy >= 0 else -sy, sz if dz >= 0 else -sz
        at = x * sx + y * sy + z * sz
        wanted = _TRUE | _PREDICTED
        inside = True
        while inside:
            here = at
            if tx < ty and tx < tz:
                leave = tx
                tx += ax
                at += ux
                left_x -= 1
                inside = left_x > 0
            elif ty < tz and not tx < ty:
                leave = ty
                ty += ay
                at += uy
                left_y -= 1
                inside = left_y > 0
            else:
                leave = tz
                tz += az
                at += uz
                left_z -= 1
                inside = left_z > 0
            stop = stops[here]
            if stop:
                if stop & _UNKNOWN and wanted & _TRUE:
                    break
                if stop & wanted & _TRUE:
                    cells[r, 0], ranges[r, 0] = here, leave
                if stop & wanted & _PREDICTED:
                    cells[r, 1], ranges[r, 1] = here, leave
                wanted &= ~stop
                if wanted == 0:
                    break
            if not inside and wanted & _PREDICTED:
                ranges[r, 1] = leave


class RayIoU:
    """Rays whose truth is occupied; a hit is right when class and range (to the far side of the voxel) fit.

    A ray that meets unknown space before matter in the truth is left out, as is one whose true voxel has no class
    (254). Predicted unknown space lets rays pass.

    Args:
        grid: geometry of the arrays.
        num_classes: classes including free.
        free: id of free space.
        moving_classes: ids over which mAVE is taken.
        thresholds_m: range errors below which a ray is right.
    """

    def __init__(self, grid: VoxelGridSpec, num_classes: int, free: int, moving_classes: Iterable[int],
                 thresholds_m: Sequence[float] = (1, 2, 4)) -> None:
        self.grid, self.num_classes, self.free = grid, num_classes, free
        self.moving_classes, self.thresholds_m = tuple(sorted(moving_classes)), tuple(map(float, thresholds_m))
        require_classes("RayIoU", num_classes, free, self.moving_classes)
        self._moves = np.isin(np.arange(256), self.moving_classes)
        self.true_rays = np.zeros(num_classes, np.int64)
        self.predicted_rays = np.zeros(num_classes, np.int64)
        self.right_rays = np.zeros((len(self.thresholds_m), num_classes), np.int64)
        self.right_ranges = np.zeros((len(self.thresholds_m), num_classes), np.int64)
        self.velocity_error_mps = np.zeros(num_classes)
        self.velocity_rays = np.zeros(num_classes, np.int64)

    def update(self, prediction: NDArray[Any], target: NDArray[Any], origins_m: ArrayLike,
               flow_prediction: NDArray[Any] | None = None, flow_target: NDArray[Any] | None = None) -> None:
        """Add one frame.

        Args:
            prediction: labels uint8 [nx, ny, nz].
            target: labels uint8 [nx, ny, nz], 255 unknown.
            origins_m: sensor origins [S, 3] in the frame of the grid.
            flow_prediction: velocities [nx, ny, nz, 2 or more], m/s; the first two components count.
            flow_target: the true ones; both or none.

        Raises:
            ShapeError: another shape, or a label that is no class, 254 or 255.
        """
        prediction, target = as_labels(prediction, "prediction"), as_labels(target, "target")
        for name, array in (("prediction", prediction), ("target", target)):
            if array.shape != self.grid.shape:
                raise ShapeError(f"must be {self.grid.shape}, got {array.shape}", where=f"RayIoU: {name}")
            require_known(array, self.num_classes, f"RayIoU: {name}")
        order = common_order(prediction, target)
        flat_prediction, flat_target = prediction.ravel(order), target.ravel(order)
        origins = np.atleast_2d(np.asarray(origins_m, np.float32))
        cells, ranges_m = self._hits(flat_prediction, flat_target, order, origins)
        counted = (cells[:, 0] >= 0) & (flat_target[cells[:, 0]] != OCCUPIED)
        cells, error_m = cells[counted], np.abs(ranges_m[counted, 1] - ranges_m[counted, 0])
        true_label = flat_target[cells[:, 0]]
        label = np.where(cells[:, 1] >= 0, flat_prediction[cells[:, 1]], self.free)
        self.true_rays += self._per_class(true_label)
        self.predicted_rays += self._per_class(label)
        same = label == true_label
        for row, threshold_m in enumerate(self.thresholds_m):
            near = error_m < threshold_m
            self.right_ranges[row] += self._per_class(true_label[near])
            self.right_rays[row] += self._per_class(true_label[near & same])
        if flow_prediction is None or flow_target is None:
            if flow_prediction is not flow_target:
                raise ShapeError("give both flow_prediction and flow_target, or none", where="RayIoU")
            return
        moving = same & (error_m < VELOCITY_THRESHOLD_M) & self._moves[true_label]
        true_cell = np.unravel_index(cells[moving, 0], self.grid.shape, order)
        cell = np.unravel_index(cells[moving, 1], self.grid.shape, order)
        difference = np.asarray(flow_prediction[cell], float)[:, :2] - np.asarray(flow_target[true_cell], float)[:, :2]
        speed_error = np.linalg.norm(difference, axis=1)
        self.velocity_error_mps += np.bincount(true_label[moving], speed_error, self.num_classes)
        self.velocity_rays += self._per_class(true_label[moving])

    def merge(self, other: RayIoU) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("grid", "num_classes", "free", "moving_classes", "thresholds_m"))
        for name in ("true_rays", "predicted_rays", "right_rays", "right_ranges",
                     "velocity_error_mps", "velocity_rays"):
            getattr(self, name)[...] += getattr(other, name)

    def compute(self) -> Scores:
        """RayIoU and its kin.

        `rayiou` (mean over classes and thresholds), `rayiou_<t>m` and `per_class_<t>m` per threshold, `rays`;
        `mave` in m/s, `ave_per_class` in the order of the moving classes, `occ_score` = 0.9 rayiou +
        0.1 max(1 - mave, 0) (NaN without flow); `rayiou_class_given` is Let Occ Flow's variant without its crop of
        the truth: every ray is taken to have the right class; not comparable with the others.
        """
        per_class = ratio(self.right_rays, self.true_rays + self.predicted_rays - self.right_rays)
        per_class[:, self.free] = np.nan
        given = ratio(self.right_ranges, 2 * self.true_rays - self.right_ranges)
        ave = ratio(self.velocity_error_mps, self.velocity_rays)[list(self.moving_classes)]
        rayiou, mave = mean(per_class), mean(ave)
        scores: Scores = {"rayiou": rayiou, "rays": float(self.true_rays.sum())}
        for row, threshold_m in enumerate(self.thresholds_m):
            scores[f"rayiou_{threshold_m:g}m"] = mean(per_class[row])
            scores[f"per_class_{threshold_m:g}m"] = per_class[row].tolist()
        scores |= {
            "mave": mave,
            "ave_per_class": ave.tolist(),
            "occ_score": 0.9 * rayiou + 0.1 * max(1.0 - mave, 0.0) if mave == mave else math.nan,
            "rayiou_class_given": mean(given),
        }
        return scores

    def _per_class(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Number of labels of each class; 254 has none."""
        return np.bincount(labels, minlength=256)[: self.num_classes]

    def _hits(self, prediction: NDArray[np.uint8], target: NDArray[np.uint8], order: str,
              origins_m: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Flat cells int64 [S * 14040, 2] (-1 none) and ranges in metres float64, of truth and prediction."""
        nx, ny, nz = self.grid.shape
        strides = (1, nx, nx * ny) if order == "F" else (ny * nz, nz, 1)
        rays = challenge_rays()
        cells = np.empty((len(origins_m), len(rays), 2), np.int64)
        ranges_m = np.zeros(cells.shape)
        stops = np.empty(target.size, np.uint8)
        _stops(target, prediction, self.free, UNKNOWN, stops)
        minimum_m, cell_m = np.asarray(self.grid.minimum_m, np.float32), self.grid.cell.astype(np.float32)
        for row, origin_m in enumerate(origins_m):
            # the published evaluator rounds both ends of a ray to float32 in cells, and the cells met depend on it
            start = ((origin_m - minimum_m) / cell_m).astype(float)
            directions = ((rays + origin_m - minimum_m) / cell_m).astype(float) - start
            metres = np.linalg.norm(directions * self.grid.cell, axis=1)
            _cast(stops, self.grid.shape, strides, start, directions, cells[row], ranges_m[row])
            ranges_m[row] *= metres[:, None]
        return cells.reshape(-1, 2), ranges_m.reshape(-1, 2)
