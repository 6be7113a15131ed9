"""Predicted voxels against image semantics, where no 3D truth exists (WalkOCC, table 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ShapeError
from occ_perception.geometry.cameras import Camera
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.raycast import first_hits
from occ_perception.metrics._common import Scores, mean, ratio, require_classes, require_mergeable, require_same_shape
from occ_perception.metrics.confusion import LabelCounter
from occ_perception.taxonomy import FREE, OCCLUSION, UNKNOWN


def project_labels(labels: NDArray[np.uint8], grid: VoxelGridSpec, camera: Camera, T_grid_camera: NDArray[np.float64],
                   pixels: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Label of the first occupied voxel behind each pixel, uint8 [H, W]; 0 where a ray meets none.

    Args:
        labels: uint8 [nx, ny, nz]; free and unknown cells let rays pass.
        grid: geometry of `labels`.
        camera: its lens.
        T_grid_camera: [4, 4], optical frame to grid.
        pixels: bool [H, W], pixels to look at (default: all within the field of view).
    """
    rays = camera.rays()
    wanted = np.isfinite(rays).all(-1) if pixels is None else pixels & np.isfinite(rays).all(-1)
    directions = rays[wanted].astype(float) @ T_grid_camera[:3, :3].T
    cells, _ = first_hits((labels != FREE) & (labels != UNKNOWN), grid, T_grid_camera[:3, 3], directions)
    seen = np.where(cells[:, 0] >= 0, labels[tuple(cells.T)], FREE).astype(np.uint8)
    image = np.zeros(wanted.shape, np.uint8)
    image[wanted] = seen
    return image


class ProjectedSemantics:
    """Pixel accuracy and mIoU of projected occupancy, on pixels whose true range ends inside the grid.

    Args:
        grid: geometry of the predicted grids.
        num_classes: voxel classes including free (id 0, which no image pixel carries as truth).
        ignored: image labels that are no scene content (background without a class, occlusion).
    """

    def __init__(self, grid: VoxelGridSpec, num_classes: int, ignored: Iterable[int] = (FREE, OCCLUSION)) -> None:
        require_classes("ProjectedSemantics", num_classes, FREE)
        self.grid, self.num_classes, self.ignored = grid, num_classes, frozenset(ignored)
        self._counter = LabelCounter(num_classes, UNKNOWN)
        self.confusion = np.zeros((num_classes + 2, num_classes + 2), np.int64)

    def update(self, labels: NDArray[np.uint8], semantics: NDArray[np.uint8], range_m: NDArray[Any], camera: Camera,
               T_grid_camera: ArrayLike) -> None:
        """Add one image.

        Args:
            labels: predicted grid uint8 [nx, ny, nz].
            semantics: true labels of the pixels, uint8 [H, W].
            range_m: true range along each pixel's ray, [H, W], 0 where nothing returned.
            camera: its lens; T_grid_camera [4, 4] maps its optical frame into the grid.
        """
        if labels.shape != self.grid.shape:
            raise ShapeError(f"must be {self.grid.shape}, got {labels.shape}", where="ProjectedSemantics: labels")
        rays = camera.rays()
        require_same_shape("ProjectedSemantics", semantics=semantics, range_m=range_m, camera=rays[..., 0])
        T = np.asarray(T_grid_camera, float)
        ends_m = rays * np.asarray(range_m, float)[..., None] @ T[:3, :3].T + T[:3, 3]
        counted = self.grid.index(ends_m)[1] & (range_m > 0) & ~np.isin(semantics, list(self.ignored))
        projected = project_labels(labels, self.grid, camera, T, counted)
        self.confusion += self._counter.count(projected[counted], semantics[counted])

    def merge(self, other: ProjectedSemantics) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("grid", "num_classes", "ignored"))
        self.confusion += other.confusion

    def counts(self) -> NDArray[np.int64]:
        """Hits and unions, [2, num_classes]: of each class, and at 0 of right pixels and all pixels that count.

        Scores are hits / unions, and counts of several images may be added: what resampling needs.
        """
        seen = self.confusion[: self.num_classes]
        hits = np.diagonal(seen).copy()
        unions = seen.sum(1) + seen[:, : self.num_classes].sum(0) - hits
        hits[FREE], unions[FREE] = hits[1:].sum(), seen[1:].sum()
        return np.stack([hits, unions])

    def compute(self) -> Scores:
        """pixel_accuracy, miou (over classes that occur), per_class, pixels."""
        hits, unions = self.counts()
        scores = ratio(hits, unions)
        per_class = np.concatenate([[np.nan], scores[1:]])
        return {"pixel_accuracy": float(scores[FREE]), "miou": mean(per_class),
                "per_class": per_class.tolist(), "pixels": float(unions[FREE])}
