"""Segmenters by image, by frame, and two passes."""

import numpy as np

from occ_perception.calibration.rig import Rig, RigCamera
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.segmenters import TwoPassSegmenter, segment_frame


def camera(name="front"):
    return RigCamera(name=name, frame=name, width=4, height=3, model="pinhole", parameters=(4.0, 4.0, 1.5, 1.0),
                     T_base_camera=np.eye(4))


def frame(*cameras):
    return LabelFrame(stamp_ns=5, images={name: np.zeros((3, 4, 3), np.uint8) for name in cameras},
                      points_m=np.zeros((0, 3), np.float32), sensor_m=np.zeros((0, 3)),
                      point_sensor=np.zeros(0, np.uint8), T_world_base=np.eye(4))


class Constant:
    def __init__(self, label):
        self.label, self.name = label, f"constant {label}"

    def segment(self, image, camera):
        return np.full(image.shape[:2], self.label, np.uint8)


class ByFrame:
    name = "by frame"

    def segment_frame(self, scene, frame, rig):
        return {name: np.full((3, 4), frame.stamp_ns, np.uint8) for name in frame.images}


def test_two_passes_are_merged_by_class_and_named_both():
    image = np.zeros((3, 4, 3), np.uint8)
    both = TwoPassSegmenter(Constant(5), Constant(12))
    assert both.name == "constant 5 + constant 12"
    assert (both.segment(image, camera()) == 12).all()
    assert (TwoPassSegmenter(Constant(8), Constant(12)).segment(image, camera()) == 8).all()


def test_a_frame_is_segmented_camera_by_camera_or_as_a_whole():
    rig = Rig(name="r", cameras=(camera("front"), camera("rear")))
    found = segment_frame(Constant(3), "clip", frame("front", "rear"), rig)
    assert set(found) == {"front", "rear"}
    assert (found["rear"] == 3).all()
    assert (segment_frame(ByFrame(), "clip", frame("rear"), rig)["rear"] == 5).all()
