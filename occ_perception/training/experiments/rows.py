"""The rows of the tables: what each method learns from and what it is scored on, and the training that follows.

All rows start from one trunk and take the same number of optimiser steps over the same paired samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import SIDEWALK_GRID
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training import free_space
from occ_perception.training.experiments.scale import Scale
from occ_perception.training.loop import TrainingConfig
from occ_perception.training.losses import LossConfig

Need = tuple[str, float]
"""A split and the edge of its voxels, metres."""
TRUTH_CELL_M = float(SIDEWALK_GRID.cell[0])
"""Cells of the simulated truth."""
CONSISTENCY = 0.7
"""Weight of the 2D-3D consistency loss in Eq. 6; the paper gives none. Chosen on `val` with an earlier form of the
loss: 0.5 and 1 did about alike, 2 worse."""
PATHS = "paths"
"""Split on which paths alone are scored, always on the truth as it was simulated (`TRUTH_CELL_M`)."""
WITH_LIDAR = "+lidar"
"""Ends the name of a split that was scored with the LiDAR's ranges as an input."""
LABELLED = {"train_pseudo": "train", "val_pseudo": "val"}
"""Splits with the labels of the data engine in place of the truth, and the simulated splits that they are made of."""
IN_DOMAIN = ("val", "test")
EVERYWHERE = (*IN_DOMAIN, "night", "districts", "embodiments")

_LOSSES = ("depth", "semantics", "consistency")


@dataclass(frozen=True)
class Row:
    """One method or variant.

    Attributes:
        name: stable; part of the names of its runs.
        title: for people.
        losses: terms beside occupancy and trajectory: depth, semantics, consistency, free_space.
        images: share of the scale's number of 2D-only images that is taken from each split.
        clearing: those of these splits whose images clear the space before what they show.
        seeds: one training each.
        splits: what it is scored on.
        pseudo: learns from pseudo-labels, and calibrates on some; scored on the truth as all are.
        trajectory_only: the switch of A.1.
        monoscene: the network of the baseline MonoScene.
        lidar: the network takes LiDAR ranges, missing at random in training; scored without and with them.
        cell_m, range_m: the grid, where it is not the scale's own. It must be cut from the data's grid in whole
            cells, to either side alike.
    """

    name: str
    title: str
    losses: tuple[str, ...] = _LOSSES
    images: Mapping[str, float] = field(default_factory=dict)
    clearing: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    splits: tuple[str, ...] = EVERYWHERE
    pseudo: bool = False
    trajectory_only: bool = False
    monoscene: bool = False
    lidar: bool = False
    cell_m: float | None = None
    range_m: float | None = None

    def network(self, scale: Scale) -> WalkOccConfig:
        """Sizes of the network."""
        network = replace(scale.at(self.cells(scale), self.range_m or scale.range_m), lidar=self.lidar)
        return WalkOccConfig.monoscene(network) if self.monoscene else network

    def loss(self) -> LossConfig:
        """Weights of the terms: those of every row that has them, or 0."""
        if self.trajectory_only:
            return LossConfig.trajectory_only()
        weights = {"depth": LossConfig.depth, "semantics": LossConfig.semantics, "consistency": CONSISTENCY,
                   "free_space": free_space.WEIGHT}
        return LossConfig(**{name: weight if name in self.losses else 0.0 for name, weight in weights.items()})

    def training(self, scale: Scale, seed: int, *, data: Path, output: Path, trunk: Path | None,
                 threads: int = 2, loaders: int = TrainingConfig.loaders) -> TrainingConfig:
        """The training of one seed."""
        images = {split: max(1, round(share * scale.images)) for split, share in self.images.items()}
        return TrainingConfig(
            data=data, output=output, train_split=self.paired[0], validation_split=self.paired[1], trunk=trunk,
            network=self.network(scale), steps=scale.steps, batch_size=scale.batch_size,
            learning_rate=scale.learning_rate, seed=seed, bfloat16=scale.bfloat16, device=scale.device,
            threads=threads, loaders=loaders, checkpoint_minutes=scale.checkpoint_minutes,
            validate_every=scale.steps + 1, calibration_samples=scale.calibration_samples, loss=self.loss(),
            extra_images=images, clearing=self.clearing, images_per_batch=scale.images_per_batch if images else 0,
            rays=scale.rays if self.loss().along_rays else 0,
        )

    @property
    def paired(self) -> tuple[str, str]:
        """The splits that are learned from and calibrated on."""
        train, val = LABELLED if self.pseudo else LABELLED.values()
        return train, val

    def cells(self, scale: Scale) -> float:
        """Edge of the voxels of training and scoring, metres."""
        return self.cell_m or scale.cell_m

    def need(self, split: str, scale: Scale) -> Need:
        """The split as this row is scored on it: paths on the truth as it was simulated."""
        return split, TRUTH_CELL_M if split == PATHS else self.cells(scale)

    def learns_from(self, scale: Scale) -> list[Need]:
        """The data on which the trained network depends beside the trunk."""
        return [(split, self.cells(scale)) for split in (*self.paired, *self.images)]

    def needs(self, scale: Scale) -> list[Need]:
        """All data that training and scoring read, and what pseudo-labels are made from."""
        source = [(LABELLED[split], self.cells(scale)) for split in self.paired if split in LABELLED]
        scored = [self.need(split.removesuffix(WITH_LIDAR), scale) for split in self.splits]
        return list(dict.fromkeys([*source, *self.learns_from(scale), *scored]))


THREE_SEEDS = (0, 1, 2)
_NIGHT_AND_BODIES = {"images_night": 1.0, "images_embodiments": 1.0}


def _at_night(share: float) -> Row:
    """Table 7: a fixed number of 2D-only images, of which `share` are by night."""
    percent = round(100 * share)
    return Row(f"night_{percent}", f"{percent} % by night", images={"images_night": share, "images_day": 1 - share},
               splits=("val", "test", "night"))


ROWS: dict[str, Row] = {row.name: row for row in (
    Row("monoscene", "MonoScene", losses=(), seeds=THREE_SEEDS, monoscene=True),
    Row("flashocc", "FlashOcc", losses=("depth",), seeds=THREE_SEEDS),
    Row("walkocc_paired", "WalkOCC w/o 2D", seeds=THREE_SEEDS, splits=(*EVERYWHERE, PATHS)),
    Row("walkocc", "WalkOCC", losses=(*_LOSSES, "free_space"), images=_NIGHT_AND_BODIES, seeds=THREE_SEEDS,
        clearing=("images_embodiments",)),
    Row("trajectory_only", "WalkOCC w/o occupancy supervision", losses=(), seeds=THREE_SEEDS, splits=(PATHS,),
        trajectory_only=True),
    Row("occupancy_only", "occupancy loss alone", losses=(), splits=IN_DOMAIN),
    Row("semantics", "depth and 2D losses", losses=("depth", "semantics"), splits=IN_DOMAIN),
    Row("cells_010", "cells of 0.1 m", splits=IN_DOMAIN, cell_m=0.1),
    Row("cells_020", "cells of 0.2 m", splits=IN_DOMAIN, cell_m=0.2),
    Row("cells_040", "cells of 0.4 m", splits=IN_DOMAIN, cell_m=0.4),
    Row("range_half", "5.2 m range", splits=IN_DOMAIN, range_m=5.2),
    _at_night(0.3),
    _at_night(0.6),
    _at_night(0.9),
    Row("pseudo_labels", "WalkOCC w/o 2D, on pseudo-labels", splits=IN_DOMAIN, pseudo=True),
    Row("lidar", "with LiDAR ranges", splits=(*EVERYWHERE, *(split + WITH_LIDAR for split in EVERYWHERE)), lidar=True),
)}


def get_row(name: str, scale: Scale) -> Row:
    """The row of that name; at the scale's own cells a row of cells is WalkOCC without 2D-only images.

    Raises:
        ConfigurationError: there is none; the known ones are named.
    """
    if name not in ROWS:
        raise ConfigurationError([f"unknown row {name!r}"], fix=f"Known rows: {', '.join(ROWS)}")
    row = ROWS[name]
    return ROWS["walkocc_paired"] if row.cell_m == scale.cell_m else row
