"""The card of a simulated bag brings its world back, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import embreex  # noqa: F401
import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig
from occ_perception.errors import OccPerceptionError
from occ_perception.geometry import se3
from occ_perception.simulation.cards import card_path, load_drive, save_card
from occ_perception.simulation.lidar import LidarModel
from occ_perception.simulation.sim import SensorErrors, SidewalkSim
from occ_perception.simulation.world import make_world


@pytest.fixture
def sim(small_rig: Rig) -> SidewalkSim:
    errors = SensorErrors(clock_offset_s={"top": 0.02}, extrinsic={"front": se3.from_euler(0.0, 0.02, 0.0)})
    return SidewalkSim(make_world(5, "residential", duration_s=3.0), small_rig, lidar=LidarModel(rings=8, columns=64),
                       errors=errors, start_ns=10**18)


def test_the_drive_of_a_card_sees_the_same(sim: SidewalkSim, small_rig: Rig, tmp_path: Path) -> None:
    bag = tmp_path / "drive.mcap"
    save_card(sim, bag, split="mine")
    again = load_drive(bag, small_rig)
    assert again is not None
    np.testing.assert_array_equal(again.view("front", 1.0).semantics, sim.view("front", 1.0).semantics)
    np.testing.assert_array_equal(again.truth(1.0).grid.labels, sim.truth(1.0).grid.labels)
    np.testing.assert_array_equal(again.cloud("top", 1.0).points_m, sim.cloud("top", 1.0).points_m)
    assert again.stamp_ns(1.0, "top") == 10**18 + 1_020_000_000


def test_bags_without_a_world_have_no_drive(small_rig: Rig, tmp_path: Path) -> None:
    assert load_drive(tmp_path / "real.mcap", small_rig) is None
    (tmp_path / "real.yaml").write_text("split: other\n")
    assert load_drive(tmp_path / "real.mcap", small_rig) is None


@pytest.mark.parametrize(("spoil", "complaint"), [
    ({"content_hash": "0"}, "makes another world"), ({"world": {"seed": 5}}, "does not describe"),
    ({"lidar": {"rings": -1}}, "ordered|at least one ring")])
def test_a_card_that_does_not_fit_is_refused(spoil: dict[str, object], complaint: str, sim: SidewalkSim,
                                             small_rig: Rig, tmp_path: Path) -> None:
    bag = tmp_path / "drive.mcap"
    save_card(sim, bag)
    card = yaml.safe_load(card_path(bag).read_text()) | spoil
    card_path(bag).write_text(yaml.safe_dump(card))
    with pytest.raises(OccPerceptionError, match=complaint):
        load_drive(bag, small_rig)
