"""Confidence intervals by resampling: scenes and seeds are drawn anew, the same ones for all that is compared.

Counts are kept per scene, so a score of a resample is the score of summed counts and not a mean of scores per scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.metrics._common import ratio

Resampled = NDArray[np.float64]
"""A score [1 + resamples]: first as measured, then of each resample. Arithmetic of scores is arithmetic of these."""


@dataclass(frozen=True)
class Interval:
    """A score as measured with the bounds of its confidence interval; all NaN where nothing was measured."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Resamples that several scores share, which is what pairs them (Efron and Tibshirani, 1993).

    Args:
        groups: number of units, such as scenes of a split or seeds, by name; groups are resampled independently.
        rng: source of all draws; equal states and groups give equal resamples.
        resamples: number of resamples.
    """

    def __init__(self, groups: Mapping[str, int], rng: np.random.Generator, resamples: int = 2000) -> None:
        faults = [f"group {name!r} needs at least one unit, got {units}" for name, units in groups.items() if units < 1]
        faults += [] if resamples >= 1 else [f"resamples must be at least 1, got {resamples}"]
        if faults:
            raise ConfigurationError(faults, where="Bootstrap")
        self.resamples = resamples
        self._weights = {
            name: np.vstack([np.ones((1, units)), rng.multinomial(units, np.full(units, 1 / units), resamples)])
            for name, units in groups.items()
        }

    def totals(self, group: str, counts: ArrayLike) -> NDArray[np.float64]:
        """Sums over the units of `group`, as measured and of each resample: [units, ...] to [1 + resamples, ...]."""
        return np.tensordot(self._weights_of(group, len(np.asarray(counts))), np.asarray(counts, float), 1)

    def means(self, group: str, scores: ArrayLike) -> Resampled:
        """Means over the units of `group` of scores that are resampled themselves: [1 + resamples, units] to a score.

        Units whose score is NaN do not count.
        """
        scores = np.asarray(scores, float)
        weights = np.where(np.isnan(scores), 0.0, self._weights_of(group, scores.shape[1]))
        return ratio((weights * np.nan_to_num(scores)).sum(1), weights.sum(1))

    def _weights_of(self, group: str, units: int) -> NDArray[np.float64]:
        if group not in self._weights:
            raise ConfigurationError([f"unknown group {group!r}"], where="Bootstrap",
                                     fix=f"Known groups: {', '.join(self._weights)}")
        weights = self._weights[group]
        if weights.shape[1] != units:
            raise ShapeError(f"must have {weights.shape[1]} units, got {units}", where=f"Bootstrap: group {group!r}")
        return weights


def mean_iou(ious: ArrayLike) -> NDArray[np.float64]:
    """Mean over the last axis, leaving out what is NaN (a class that is nowhere); NaN where nothing is left."""
    ious = np.asarray(ious, float)
    return ratio(np.nansum(ious, axis=-1), (~np.isnan(ious)).sum(axis=-1))


def interval(score: Resampled, level: float = 0.95) -> Interval:
    """The percentile interval of a resampled score. Resamples in which it is not defined are left out."""
    if np.isnan(score[0]):
        return Interval(float("nan"), float("nan"), float("nan"))
    drawn = score[1:][np.isfinite(score[1:])]
    if not len(drawn):
        return Interval(float(score[0]), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(score[0]), float(low), float(high))
