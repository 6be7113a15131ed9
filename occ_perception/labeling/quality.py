"""Pseudo-labels against the truth of a simulation: IoU over visible voxels, and what moving things leave behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.labeling.sources import SceneTruth, TrueGrid
from occ_perception.metrics import OccupancyIoU
from occ_perception.taxonomy import FREE, SIDEWALK, UNKNOWN, Sidewalk

THIN = {"curb": Sidewalk.CURB, "gutter": Sidewalk.GUTTER, "obstacle": Sidewalk.OBSTACLE}
"""Classes that votes and fusion could erase; poles are obstacles."""
_EDGE_CELLS = 1
"""A thing's own surface may be drawn a cell off; that is no trail."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Counts that can be added over scenes.

    Attributes:
        confusion: int64 [K + 2, K + 2], voxels by (true, labelled) class, as in `OccupancyIoU`.
        crossed: voxels, visible and free, that a moving thing occupies in another frame of its scene.
        trail: those of them that are labelled occupied.
    """

    confusion: NDArray[np.int64]
    crossed: int = 0
    trail: int = 0

    def __add__(self, other: Quality) -> Quality:
        return Quality(self.confusion + other.confusion, self.crossed + other.crossed, self.trail + other.trail)

    def scores(self) -> dict[str, float | None]:
        """occ IoU, mIoU, kerb, gutter, obstacle (poles), and the share of crossed voxels with a trail; None: no such
        voxels."""
        iou = OccupancyIoU(len(SIDEWALK))
        iou.confusion += self.confusion
        computed: dict[str, Any] = iou.compute()
        numbers = {"iou": computed["iou"], "miou": computed["miou"]}
        numbers |= {name: computed["per_class"][label] for name, label in THIN.items()}
        numbers["trail"] = self.trail / self.crossed if self.crossed else np.nan
        return {name: None if np.isnan(number) else round(number, 5) for name, number in numbers.items()}

    def to_dict(self) -> dict[str, Any]:
        """Scores for people, counts for `from_dict`."""
        return {"scores": self.scores(), "confusion": self.confusion.tolist(), "crossed": self.crossed,
                "trail": self.trail}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Quality:
        """Back from the counts of `to_dict`."""
        return Quality(np.array(content["confusion"], np.int64), int(content["crossed"]), int(content["trail"]))


def score_scene(samples: Sequence[Sample], truth: SceneTruth) -> Quality:
    """Labels of a scene against its truth, over the voxels that its sensors see.

    Raises:
        ConfigurationError: the labels lie in another grid than the truth.
    """
    grids = [truth.grid(sample.stamp_ns) for sample in samples]
    if faults := sorted({f"labels are over {sample.spec}, the truth over {grid.spec}"
                         for sample, grid in zip(samples, grids) if sample.spec != grid.spec}):
        raise ConfigurationError(faults, where="quality", fix="Label with the grid of the simulation to score")
    iou = OccupancyIoU(len(SIDEWALK))
    for sample, grid in zip(samples, grids):
        iou.update(sample.labels, grid.labels, grid.visible)
    crossed = trail = 0
    for k, (sample, grid) in enumerate(zip(samples, grids)):
        left = _crossed(grids, k) & grid.visible & (grid.labels == FREE)
        crossed += int(left.sum())
        trail += int((left & (sample.labels != FREE) & (sample.labels != UNKNOWN)).sum())
    return Quality(iou.confusion, crossed, trail)


def total(qualities: Iterable[Quality]) -> Quality | None:
    """All added up; None of none."""
    summed = None
    for quality in qualities:
        summed = quality if summed is None else summed + quality
    return summed


def _crossed(grids: list[TrueGrid], k: int) -> NDArray[np.bool_]:
    """Cells of frame k where something moving is in another frame, and nothing moving in this."""
    here = grids[k]
    marked, own = np.zeros(here.spec.shape, np.bool_), np.zeros(here.spec.shape, np.bool_)
    for other in grids[:k] + grids[k + 1:]:
        T_here_other = se3.invert(here.T_world_grid) @ other.T_world_grid
        cells, inside = here.spec.index(se3.apply(T_here_other, other.spec.centre_of(other.moving)))
        marked[tuple(cells[inside].T)] = True
    own[tuple(here.moving.T)] = True
    return np.asarray(marked & ~binary_dilation(own, np.ones((3, 3, 3), np.bool_), iterations=_EDGE_CELLS))
