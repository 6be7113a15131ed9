"""Errors of predicted range images against LiDAR or simulated range (Eigen et al. 2014)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.metrics._common import Scores, ratio, require_mergeable, require_same_shape


class DepthErrors:
    """Errors over all pixels with a return, pooled over images.

    Args:
        minimum_m, maximum_m: predictions are clipped to this interval, as the public benchmarks do.
    """

    _names = ("abs_rel", "sq_rel", "square", "log_square", "a1", "a2", "a3")

    def __init__(self, minimum_m: float = 1e-3, maximum_m: float = 80.0) -> None:
        self.minimum_m, self.maximum_m = minimum_m, maximum_m
        self.pixels = 0
        self.sums = np.zeros(len(self._names))

    def update(self, prediction_m: NDArray[Any], target_m: NDArray[Any]) -> None:
        """Add one image: ranges in metres of one shape; 0 in the target is no return."""
        require_same_shape("DepthErrors", prediction_m=prediction_m, target_m=target_m)
        measured = target_m > 0
        target = target_m[measured].astype(float)
        prediction = np.clip(prediction_m[measured].astype(float), self.minimum_m, self.maximum_m)
        difference = prediction - target
        factor = np.maximum(prediction / target, target / prediction)
        self.pixels += target.size
        self.sums += [
            (np.abs(difference) / target).sum(), (difference**2 / target).sum(), (difference**2).sum(),
            (np.log(prediction / target) ** 2).sum(), *((factor < 1.25**k).sum() for k in (1, 2, 3)),
        ]

    def merge(self, other: DepthErrors) -> None:
        """Add what another instance with the same settings has counted."""
        require_mergeable(self, other, ("minimum_m", "maximum_m"))
        self.pixels += other.pixels
        self.sums += other.sums

    def compute(self) -> Scores:
        """abs_rel, sq_rel (m), rmse (m), rmse_log, a1, a2, a3 (fractions within 1.25, 1.25^2, 1.25^3), pixels."""
        means = dict(zip(self._names, ratio(self.sums, self.pixels).tolist(), strict=True))
        rmse, rmse_log = math.sqrt(means.pop("square")), math.sqrt(means.pop("log_square"))
        return {**means, "rmse": rmse, "rmse_log": rmse_log, "pixels": float(self.pixels)}
