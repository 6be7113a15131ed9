"""Scores of a row over its seeds, resampled: what columns and comparisons of tables are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.metrics import Bootstrap, Resampled, mean_iou, ratio
from occ_perception.training.experiments.rows import WITH_LIDAR

Evaluations = Mapping[str, Any]
"""`scoring.Scores` by split, of one run."""
NAVIGATION = ("collision", "grass", "lane")


def make_bootstrap(rows: Sequence[Mapping[int, Evaluations]], rng: np.random.Generator, resamples: int) -> Bootstrap:
    """Resamples for rows (evaluations by seed): of the scenes of every split, and of the seeds of every row or pair."""
    scenes = {_group(split): len(scores["scenes"])
              for row in rows for evaluations in row.values() for split, scores in sorted(evaluations.items())}
    seeds = {_seeds(common): len(common) for one in rows for other in rows
             if (common := sorted(one.keys() & other.keys()))}
    return Bootstrap(dict(sorted(scenes.items()) + sorted(seeds.items())), rng, resamples)


class RowScores:
    """Resampled scores of one row.

    A score is the mean over seeds of the score of summed counts over scenes, in fractions; NaN where the row was not
    scored so.

    Args:
        evaluations: by seed.
        bootstrap: shared by all that is compared.
        suffix: of the splits' names, such as `+lidar`.
        true_paths: rates are those of the robot's true paths.
    """

    def __init__(self, evaluations: Mapping[int, Evaluations], bootstrap: Bootstrap, suffix: str = "",
                 true_paths: bool = False) -> None:
        self.evaluations, self.bootstrap = dict(sorted(evaluations.items())), bootstrap
        self.suffix, self.true_paths = suffix, true_paths

    def iou(self, split: str) -> Resampled:
        """Of occupied against free voxels."""
        return self._one(split, "voxels", 0)

    def miou(self, split: str) -> Resampled:
        """Mean over the classes of voxels."""
        return self._mean(split, "voxels")

    def class_iou(self, split: str, label: int) -> Resampled:
        """Of one class of voxels."""
        return self._one(split, "voxels", label)

    def pixel_accuracy(self, split: str) -> Resampled:
        """Of projected labels (Table 2)."""
        return self._one(split, "pixels", 0)

    def pixel_miou(self, split: str) -> Resampled:
        """Mean over the classes of projected labels (Table 2)."""
        return self._mean(split, "pixels")

    def rate(self, split: str, kind: str, obstacles: str = "navigation") -> Resampled:
        """Collision, grass or lane-keeping rate (A.2); with `obstacles="standing"` only what stands is in the way."""
        sums = self._totals(split, f"true_{obstacles}" if self.true_paths else obstacles)
        return self._over_seeds(None if sums is None else ratio(sums[..., 1 + NAVIGATION.index(kind)], sums[..., 0]))

    def waypoint_error_m(self, split: str) -> Resampled:
        """Mean distance of predicted from true waypoints."""
        sums = None if self.true_paths else self._totals(split, "waypoints")
        return self._over_seeds(None if sums is None else ratio(sums[..., 0], sums[..., 1]))

    def _one(self, split: str, kind: str, label: int) -> Resampled:
        ious = self._ious(split, kind)
        return self._over_seeds(None if ious is None else ious[..., label])

    def _mean(self, split: str, kind: str) -> Resampled:
        ious = self._ious(split, kind)
        return self._over_seeds(None if ious is None else mean_iou(ious[..., 1:]))

    def _ious(self, split: str, kind: str) -> NDArray[np.float64] | None:
        """[1 + resamples, seeds, classes]."""
        counts = self._totals(split, kind)
        return None if counts is None else ratio(counts[..., 0, :], counts[..., 1, :])

    def _totals(self, split: str, kind: str) -> NDArray[np.float64] | None:
        """Sums over scenes, [1 + resamples, seeds, ...]; None where some seed lacks them."""
        name = split + self.suffix
        counts = [evaluations.get(name, {}).get(kind) for evaluations in self.evaluations.values()]
        if not counts or any(entry is None for entry in counts):
            return None
        return self.bootstrap.totals(_group(split), np.stack(counts, axis=1))

    def _over_seeds(self, scores: NDArray[np.float64] | None) -> Resampled:
        if scores is None:
            return np.full(self.bootstrap.resamples + 1, np.nan)
        return self.bootstrap.means(_seeds(list(self.evaluations)), scores)


def _group(split: str) -> str:
    return split.removesuffix(WITH_LIDAR)


def _seeds(seeds: Sequence[int]) -> str:
    return "seeds " + ",".join(map(str, seeds))
