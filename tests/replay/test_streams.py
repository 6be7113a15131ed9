"""Walking through truth and sensors by stamp."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.calibration import Rig
from occ_perception.recordings import BagReader
from occ_perception.replay.streams import SensorStream, TruthStream

from .conftest import BRIGHTNESS, Record, stamp_of

MILLISECOND = 1_000_000


def test_the_nearest_truth_within_the_tolerance_is_found_with_its_path(record: Record) -> None:
    with BagReader(record([1, 1, 1, 1], {0: (1, 1), 1: (2, 2), 3: (3, 3)})) as reader:
        stream = TruthStream(reader)
        first = stream.at(stamp_of(0) + 4 * MILLISECOND)
        assert first is not None
        assert first.grid.labels[0, 0, 0] == 1
        assert first.trajectory is not None
        assert first.visible is not None
        assert first.visible[:10].all()
        assert not first.visible[10:].any()
        assert stream.at(stamp_of(0) + 40 * MILLISECOND) is None
        assert stream.at(stamp_of(2)) is None
        last = stream.at(stamp_of(3))
        assert last is not None
        assert last.grid.labels[0, 0, 0] == 3
        assert stream.at(stamp_of(9)) is None


def test_images_and_poses_of_a_stamp_are_found(record: Record, rig: Rig) -> None:
    with BagReader(record([1, None, 3], {})) as reader:
        stream = SensorStream(reader, rig)
        images, T_odom_base = stream.at(stamp_of(0))
        assert images["front"].mean() == pytest.approx(BRIGHTNESS, abs=2)
        assert T_odom_base is not None
        assert T_odom_base[0, 3] == pytest.approx(0.0, abs=0.02)
        assert stream.at(stamp_of(1))[0] == {}  # an image that does not decode is no picture
        images, T_odom_base = stream.at(stamp_of(2))
        assert images["front"].mean() == pytest.approx(3 * BRIGHTNESS, abs=2)
        assert T_odom_base is not None
        np.testing.assert_allclose(T_odom_base[0, 3], 0.2, atol=0.02)
