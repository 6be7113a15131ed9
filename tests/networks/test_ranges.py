"""Ranges become weights from which they can be read back; nothing measured is nothing at all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from occ_perception.geometry import RangeBins
from occ_perception.networks.ranges import RANGE_CHANNELS, RangeEncoder

BINS = RangeBins(0.2, 12.2, 0.2)
ENCODER = RangeEncoder(BINS, 8)
STEP_M = 12.0 / (RANGE_CHANNELS - 1)


def spread(*ranges_m: float) -> torch.Tensor:
    """[len(ranges_m), RANGE_CHANNELS + 1]."""
    return ENCODER.spread(torch.tensor([[ranges_m]]))[0, :, 0].t()


def test_a_range_at_a_centre_belongs_to_it_and_one_between_to_both() -> None:
    found = spread(0.2 + 2 * STEP_M, 0.2 + 2.25 * STEP_M)
    expected = torch.zeros(2, RANGE_CHANNELS + 1)
    expected[:, -1] = 1.0
    expected[0, 2] = 1.0
    expected[1, 2], expected[1, 3] = 0.75, 0.25
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@given(range_m=st.floats(0.01, 100.0))
def test_a_range_can_be_read_back(range_m: float) -> None:
    """Ranges outside the bins count as the nearest end."""
    (weights,) = spread(range_m)
    centres_m = torch.linspace(0.2, 12.2, RANGE_CHANNELS)
    assert weights.min() >= 0
    assert weights[:-1].sum() == pytest.approx(1.0, abs=1e-4)
    assert (weights[:-1] * centres_m).sum() == pytest.approx(min(max(range_m, 0.2), 12.2), abs=1e-4)
    assert weights[-1] == 1.0


def test_nothing_measured_is_zero_everywhere() -> None:
    assert not spread(0.0).any()


def test_a_measurement_reaches_its_neighbourhood_and_no_farther() -> None:
    encoder = RangeEncoder(BINS, 8).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_().add_(0.01)
        ranges_m = torch.zeros(1, 9, 9)
        empty = encoder(ranges_m)
        ranges_m[0, 4, 4] = 3.0
        changed = (encoder(ranges_m) != empty).any(1)[0]
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[3:6, 3:6] = True
    assert torch.equal(changed, expected)
