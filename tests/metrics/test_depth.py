from __future__ import annotations

import math

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.metrics import DepthErrors


def test_errors_by_hand_over_pixels_with_a_return() -> None:
    metric = DepthErrors()
    metric.update(np.array([[2.0, 5.0, 4.0]]), np.array([[1.0, 5.0, 0.0]]))
    scores = metric.compute()
    assert scores == pytest.approx({
        "abs_rel": 0.5, "sq_rel": 0.5, "rmse": math.sqrt(0.5), "rmse_log": math.log(2) / math.sqrt(2),
        "a1": 0.5, "a2": 0.5, "a3": 0.5, "pixels": 2.0,
    })


def test_predictions_are_clipped_and_pooling_weighs_pixels_not_images() -> None:
    metric, other = DepthErrors(maximum_m=10.0), DepthErrors(maximum_m=10.0)
    metric.update(np.array([1000.0]), np.array([10.0]))
    other.update(np.full(3, 15.0), np.full(3, 5.0))
    metric.merge(other)
    assert metric.compute()["abs_rel"] == pytest.approx(3 / 4)
    with pytest.raises(ConfigurationError, match="maximum_m"):
        metric.merge(DepthErrors())


def test_without_returns_every_error_is_nan() -> None:
    metric = DepthErrors()
    metric.update(np.ones((2, 2)), np.zeros((2, 2)))
    assert math.isnan(metric.compute()["rmse"])  # type: ignore[arg-type]
