from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.metrics.bootstrap import Bootstrap, interval, mean_iou
from occ_perception.metrics.occupancy import relative_miou


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_first_entry_is_the_sum_as_measured_and_the_others_draw_with_replacement() -> None:
    totals = Bootstrap({"scenes": 3}, rng(), 500).totals("scenes", [[1, 0], [10, 0], [100, 7]])
    assert totals.shape == (501, 2)
    assert totals[0].tolist() == [111, 7]
    drawn = {int(total) for total in totals[1:, 0]}
    assert drawn <= {a + b + c for a in (1, 10, 100) for b in (1, 10, 100) for c in (1, 10, 100)}
    assert {3, 30, 300, 111} <= drawn


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = rng(1).normal(5.0, 2.0, 400)
    mean = Bootstrap({"scenes": 400}, rng(2), 4000).totals("scenes", values) / 400
    found = interval(mean)
    spread = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - spread, abs=0.02)
    assert found.high == pytest.approx(values.mean() + spread, abs=0.02)


def test_equal_seeds_give_equal_intervals() -> None:
    values = rng(1).normal(size=(30, 2))
    one, two, other = (Bootstrap({"a": 30}, rng(seed), 100).totals("a", values) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_pairing_sees_a_small_gain_that_the_spread_of_scenes_would_hide() -> None:
    scenes = rng(1).uniform(0.1, 0.9, 40)
    bootstrap = Bootstrap({"scenes": 40}, rng(2), 2000)
    a, b = bootstrap.totals("scenes", scenes) / 40, bootstrap.totals("scenes", scenes + 0.01) / 40
    assert interval(a).high > interval(b).low
    gain = interval(b - a)
    assert gain.excludes_zero
    assert (gain.low, gain.high) == (pytest.approx(0.01), pytest.approx(0.01))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**31))
def test_scores_come_from_summed_counts_of_the_drawn_scenes(units: int, classes: int, seed: int) -> None:
    draws = rng(seed)
    unions = draws.integers(0, 5, (units, classes))
    hits = draws.integers(0, unions + 1)
    bootstrap = Bootstrap({"scenes": units}, rng(seed), 20)
    weights = bootstrap.totals("scenes", np.eye(units))  # how often each scene was drawn
    assert (weights.sum(1) == units).all()
    iou = relative_miou(bootstrap.totals("scenes", hits), bootstrap.totals("scenes", unions))
    for row, drawn in enumerate(weights):
        scenes = np.repeat(np.arange(units), drawn.astype(int))
        for k in range(classes):
            union = unions[scenes, k].sum()
            want = hits[scenes, k].sum() / union if union else math.nan
            assert iou[row, k] == pytest.approx(want, nan_ok=True)


def test_classes_that_are_nowhere_do_not_count_in_the_mean() -> None:
    assert mean_iou([[0.2, math.nan, 0.4], [math.nan] * 3]) == pytest.approx([0.3, math.nan], nan_ok=True)


def test_seeds_are_averaged_and_those_without_a_score_left_out() -> None:
    bootstrap = Bootstrap({"seeds": 3}, rng(), 1000)
    scores = np.tile([0.1, 0.2, 0.6], (1001, 1))
    means = bootstrap.means("seeds", scores)
    assert means[0] == pytest.approx(0.3)
    assert means[1:].min() == pytest.approx(0.1)
    assert means[1:].max() == pytest.approx(0.6)
    scores[:, 2] = math.nan
    assert bootstrap.means("seeds", scores)[0] == pytest.approx(0.15)
    assert interval(bootstrap.means("seeds", np.full((1001, 3), math.nan))).value is not None
    assert math.isnan(interval(bootstrap.means("seeds", np.full((1001, 3), math.nan))).low)


def test_resamples_in_which_a_score_is_not_defined_are_left_out() -> None:
    found = interval(np.array([0.5, math.nan, 0.4, math.inf, 0.6]), level=0.5)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.45, 0.55))
    nothing = interval(np.array([0.5, math.nan]))
    assert nothing.value == 0.5
    assert math.isnan(nothing.low)
    assert not nothing.excludes_zero


def test_wrong_groups_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)'night' needs at least one unit.*resamples"):
        Bootstrap({"night": 0}, rng(), 0)
    bootstrap = Bootstrap({"test": 2}, rng(), 1)
    with pytest.raises(ConfigurationError, match="Known groups: test"):
        bootstrap.totals("night", [1, 2])
    with pytest.raises(ShapeError, match="2 units, got 3"):
        bootstrap.totals("test", [1, 2, 3])


def test_relative_miou_is_the_part_that_is_kept() -> None:
    assert relative_miou([8.61, 1.0], [18.88, 0.0]) == pytest.approx([0.45604, math.nan], abs=1e-5, nan_ok=True)
