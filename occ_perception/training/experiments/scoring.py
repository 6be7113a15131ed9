"""The scores of a trained network on a split, scene by scene, as counts that may be added and resampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.datasets.shrink import coarser
from occ_perception.geometry import VoxelGridSpec
from occ_perception.metrics import NavigationRates, OccupancyIoU, ProjectedSemantics
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.batches import resample
from occ_perception.training.evaluate import Predictor

Scores = dict[str, Any]
"""Of one split, all lists with one entry per scene:

    scenes            names
    voxels            [2, 14] hits and unions on visible voxels, of occupied against free at 0 (`OccupancyIoU.counts`)
    pixels            [2, 14] hits and unions of projected labels, of right and all pixels at 0
    navigation        [4] paths, and sums over them of collision, grass and lane-keeping rates
    standing          [4] the same if only what stands is an obstacle
    true_navigation, true_standing    the same of the robot's true paths
    waypoints         [2] sum of mean waypoint errors in metres, and number of paths

A predicted path with a number that is not finite is skipped: it is in none of these counts of paths but the true ones.
"""

STANDING = replace(SIDEWALK, name=f"{SIDEWALK.name} standing", obstacles=SIDEWALK.obstacles - SIDEWALK.things)
"""Walls, trees and obstacles: A.2 takes people and vehicles to stay where they are for the 5 s of a path."""


@dataclass
class _Scene:
    """Counts of one scene."""

    grid: VoxelGridSpec
    truth_grid: VoxelGridSpec
    voxels: OccupancyIoU = field(init=False)
    pixels: ProjectedSemantics = field(init=False)
    paths: dict[str, NavigationRates] = field(init=False)
    errors_m: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.voxels = OccupancyIoU(len(SIDEWALK))
        self.pixels = ProjectedSemantics(self.grid, len(SIDEWALK))
        self.paths = {f"{whose}{name}": NavigationRates(self.truth_grid, taxonomy) for whose in ("", "true_")
                      for name, taxonomy in (("navigation", SIDEWALK), ("standing", STANDING))}

    def add_voxels(self, labels: NDArray[np.uint8], sample: Sample) -> None:
        truth, visible = resample(sample, self.grid, np.eye(4))
        self.voxels.update(labels, truth.transpose(2, 1, 0), visible.transpose(2, 1, 0))

    def add_pixels(self, labels: NDArray[np.uint8], sample: Sample) -> None:
        for camera in sample.rig.cameras:
            self.pixels.update(labels, sample.semantics[camera.name], sample.range_m[camera.name], camera.camera,
                               sample.T_grid_base @ camera.T_base_camera)

    def add_path(self, waypoints_m: NDArray[np.float32], sample: Sample) -> None:
        if sample.waypoints_m is None:
            return
        for name, rates in self.paths.items():
            rates.update(sample.waypoints_m if name.startswith("true_") else waypoints_m, sample.labels)
        error_m = float(np.linalg.norm(waypoints_m - sample.waypoints_m, axis=-1).mean())
        if math.isfinite(error_m):
            self.errors_m.append(error_m)


def score_split(predict: Predictor, samples: SimulatedDataset, grid: VoxelGridSpec, *, voxels: bool = True,
                pixels: bool = False, tell: Callable[[int], None] = lambda count: None) -> Scores:
    """Scores of a predictor.

    Args:
        predict: gives labels over `grid`, and waypoints.
        samples: their grid holds `grid` in cells of the same size, aligned; or, if only paths are scored, in smaller
            ones, of which the network gets to see nothing.
        grid: geometry of the predictions.
        voxels, pixels: whether these are scored beside the paths.
        tell: called with 1 after every sample.
    """
    scores: Scores = {"scenes": [], **({"voxels": []} if voxels else {}), **({"pixels": []} if pixels else {}),
                      "navigation": [], "standing": [], "true_navigation": [], "true_standing": [], "waypoints": []}
    index = 0
    for name, frames in samples.scenes:
        scene: _Scene | None = None
        for _ in range(frames):
            sample = samples[index]
            scene = scene or _Scene(grid, sample.spec)
            labels, waypoints_m = predict(_in_cells_of(sample, grid))
            if voxels:
                scene.add_voxels(labels, sample)
            if pixels:
                scene.add_pixels(labels, sample)
            if waypoints_m is not None:
                scene.add_path(waypoints_m, sample)
            index += 1
            tell(1)
        if scene is not None:
            _append(scores, name, scene)
    return scores


def _in_cells_of(sample: Sample, grid: VoxelGridSpec) -> Sample:
    """The sample with cells as large as those of `grid`."""
    return sample if np.allclose(sample.spec.cell, grid.cell) else coarser(sample, float(grid.cell[0]))


def _append(scores: Scores, name: str, scene: _Scene) -> None:
    parts = {
        "scenes": name, "voxels": scene.voxels.counts().tolist(), "pixels": scene.pixels.counts().tolist(),
        **{key: _rates(rates) for key, rates in scene.paths.items()},
        "waypoints": [round(sum(scene.errors_m), 4), len(scene.errors_m)],
    }
    for key, values in scores.items():
        values.append(parts[key])


def _rates(paths: NavigationRates) -> list[float]:
    return [paths.paths, *(round(value, 6) for value in paths.sums.tolist())]
