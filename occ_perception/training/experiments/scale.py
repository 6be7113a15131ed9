"""How large an experiment is: sizes of network and data, length of training, seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from occ_perception.errors import ConfigurationError
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.simulation.splits import Split, get_split

CPU_STEPS = 600
"""Optimiser steps of every training at the scale `cpu`: at most 15 minutes on two cores."""


@dataclass(frozen=True)
class Scale:
    """Sizes that all rows of all tables share.

    Attributes:
        name: of the scale, and of the folder with its results.
        network: sizes of WalkOCC at the scale's own cells and range.
        steps: optimiser steps of every training.
        trunk_steps: optimiser steps of the trunk that every row starts from.
        batch_size: paired samples per step.
        images_per_batch: 2D-only images that mixed supervision adds to each step.
        images: 2D-only images of each kind that mixed supervision mixes in.
        rays: rays per image for the consistency loss.
        learning_rate: peak of the schedule.
        seeds: at most these seeds of each row are trained.
        resized: data are shrunk to the size of the network's images; else they are read as they were simulated.
        scenes, frames: at most so many scenes of each split with at most so many frames; None: all.
        calibration_samples: validation samples that the final decision is calibrated on.
        bfloat16, device: how torch multiplies, and where.
        checkpoint_minutes: at most so much work is lost when a run is stopped.
        expected_minutes: of one run with its evaluations, until some are known.
        resamples: of every bootstrap.
    """

    name: str
    network: WalkOccConfig
    steps: int
    trunk_steps: int
    batch_size: int = 8
    images_per_batch: int = 3
    images: int = 480
    rays: int = 512
    learning_rate: float = 2e-3
    seeds: tuple[int, ...] = (0, 1, 2)
    resized: bool = True
    scenes: int | None = None
    frames: int | None = None
    calibration_samples: int = 200
    bfloat16: bool = True
    device: str = "cpu"
    checkpoint_minutes: float = 1.0
    expected_minutes: float = 7.0
    resamples: int = 4000

    @property
    def cell_m(self) -> float:
        """Edge of the voxels of the scale's own grid."""
        return float(self.network.output_grid.cell[0])

    @property
    def range_m(self) -> float:
        """Reach of the scale's own grid ahead of the robot."""
        return self.network.output_grid.maximum_m[0]

    def split(self, name: str) -> Split:
        """The split of that name as this scale has it."""
        split = get_split(name)
        scenes = split.scenes[: self.scenes]
        if self.frames is not None:
            scenes = tuple(replace(scene, frames=min(scene.frames, self.frames)) for scene in scenes)
        return replace(split, scenes=scenes)

    def at(self, cell_m: float, range_m: float) -> WalkOccConfig:
        """The scale's network on a grid of other cells or reach; its range bins end in the same proportion."""
        if (cell_m, range_m) == (self.cell_m, self.range_m):
            return self.network
        grids, bins = WalkOccConfig.small(cell_m, range_m), self.network.bins
        reach_m = (bins.maximum_m - bins.minimum_m) * range_m / self.range_m
        return replace(self.network, lift_grid=grids.lift_grid, output_grid=grids.output_grid,
                       bins=replace(bins, maximum_m=bins.minimum_m + reach_m))


def _tiny() -> WalkOccConfig:
    return replace(
        WalkOccConfig.small(0.4), image_size=(72, 128), stem_channels=8, stage_channels=(8, 12, 16, 16),
        neck_channels=16, context_channels=8, bev_channels=(12, 16), trajectory_channels=8)


SCALES = {scale.name: scale for scale in (
    Scale("smoke", _tiny(), steps=6, trunk_steps=4, batch_size=2, images_per_batch=1, images=2, rays=16, seeds=(0,),
          scenes=2, frames=1, calibration_samples=2, expected_minutes=0.1, resamples=200),
    Scale("cpu", WalkOccConfig.small(), steps=CPU_STEPS, trunk_steps=1000),
    Scale("gpu", replace(WalkOccConfig.paper(), lidar=False), steps=5400, trunk_steps=3000, rays=1024, resized=False,
          device="cuda", expected_minutes=60.0),
)}
"""smoke: seconds, tells only that everything runs. cpu: a quarter of the pixels each way, cells of 0.2 m. gpu: the
paper's sizes, and its 24 epochs of 1800 samples in batches of 8."""


def get_scale(name: str) -> Scale:
    """The scale of that name; raises ConfigurationError naming the known ones."""
    try:
        return SCALES[name]
    except KeyError:
        raise ConfigurationError([f"unknown scale {name!r}"], fix=f"Known scales: {', '.join(SCALES)}") from None
