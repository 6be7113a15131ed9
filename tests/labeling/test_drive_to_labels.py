"""From a raw bag to labels: poses from wheels and IMU, deskewed scans, everything on the way, against the truth."""

from __future__ import annotations

import json
from pathlib import Path

import embreex  # noqa: F401
import numpy as np
import pytest

from occ_perception.calibration import Rig, load_rig
from occ_perception.geometry import se3
from occ_perception.labeling.clips import ClipSettings
from occ_perception.labeling.scene_job import Status, label_scene
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import LabelSettings
from occ_perception.labeling.sources import Bag
from occ_perception.simulation.bags import BagSettings, write_bag
from occ_perception.simulation.sim import SensorErrors
from occ_perception.simulation.world import make_world

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SHORT = ClipSettings(scene_s=3.0, shortest_s=2.0)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return load_rig(ROOT / "calibration" / "sidewalk_wheeled.yaml")


def labelled(rig: Rig, folder: Path, errors: SensorErrors, boxes: bool = True) -> dict[str, object]:
    """The report of the first scene of a bag of a street in the validation split."""
    write_bag(make_world(2_000_001, "residential", duration_s=10.0), rig, folder / "drive.mcap",
              BagSettings(duration_s=4.0, image_hz=4.0, errors=errors))
    bag = Bag(path=folder / "drive.mcap", rig=rig, area="residential", settings=SHORT, boxes=boxes)
    outcome = label_scene(bag.scenes()[0], folder / "labels", LabelSettings(segmenter=SimulatedErrors()))
    assert outcome.status is Status.done, outcome.reason
    report: dict[str, object] = json.loads((folder / "labels" / "drive-0000" / "report.json").read_text())
    return report


def test_a_raw_bag_becomes_labels(rig: Rig, tmp_path: Path) -> None:
    """Poses are levelled by the scans: the tilt of 0.2 degrees that the IMU leaves would cost 18 points of IoU."""
    report = labelled(rig, tmp_path, SensorErrors())
    assert report["frames"] == 6
    assert report["pose_error_m"] < 0.1
    assert report["levelling"]["skipped"] == ""
    assert report["levelling"]["walls"] > 10
    assert report["tilt_error_deg"] < 0.1
    assert report["quality"]["scores"]["iou"] > 0.85
    assert report["quality"]["scores"]["miou"] > 0.45
    assert report["quality"]["scores"]["trail"] < 0.05
    assert report["warnings"] == []


def test_wrong_extrinsics_are_warned_of(rig: Rig, tmp_path: Path) -> None:
    T = se3.from_euler(0.0, np.radians(2.5), 0.0)  # about the image's vertical axis, in the optical frame
    report = labelled(rig, tmp_path, SensorErrors(extrinsic={"front": T}), boxes=False)
    assert report["health"]["front"] < 1.0
    assert "refine its extrinsics" in report["warnings"][0]
