"""The simulated segmenter: as wrong as asked for, wrong where real ones are, the same again with the same seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.calibration.rig import Rig, RigCamera
from occ_perception.datasets.sample import ImageSample
from occ_perception.errors import ConfigurationError, DatasetError, ShapeError
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.segmenters import segment_frame
from occ_perception.labeling.segmenters.simulated import (
    LOOK_ALIKES,
    SimulatedErrors,
    SimulatedSegmenter,
    truth_of,
    with_errors,
)
from occ_perception.taxonomy import OCCLUSION, Sidewalk

SECOND = 1_000_000_000


def street(height=136, width=240, seed=0):
    """True classes of a street in a fisheye: sky, trees, wall, pavement, kerb, gutter, road, things."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.uint8)
    for upto, label in ((0.35, 0), (0.5, 5), (0.68, 2), (0.7, 12), (0.72, 13), (1.0, 1)):
        truth[(np.arange(height) < upto * height) & (truth[:, 0] == 0)] = label
    truth[:height // 3, :width // 4] = 6
    for label in rng.choice([7, 8, 10, 11], 12):
        u, v, half = rng.integers(width), rng.integers(height // 3, height), int(rng.integers(2, height // 10 + 3))
        truth[max(v - half, 0):v + half, max(u - half // 2, 0):u + half // 2 + 1] = label
    v, u = np.mgrid[:height, :width]
    truth[np.hypot(u - width / 2, v - height / 2) > width / 2] = OCCLUSION
    return truth


def wrong_share(found, truth):
    labelled = (truth > 0) & (truth < OCCLUSION)
    return float((found != truth)[labelled].mean())


@pytest.mark.parametrize("size", [(136, 240), (544, 960)])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_so_many_labelled_pixels_are_wrong(rate, size):
    for seed in range(3):
        truth = street(*size, seed=seed)
        found = with_errors(truth, SimulatedErrors(error_rate=rate, seed=seed), "clip/front", seed * SECOND)
        assert wrong_share(found, truth) == pytest.approx(rate, abs=0.01)


def test_without_errors_it_is_the_truth():
    truth = street()
    np.testing.assert_array_equal(with_errors(truth, SimulatedErrors(error_rate=0.0), "clip/front", 0), truth)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), stamp_ns=st.integers(0, 2**60), height=st.integers(8, 70), width=st.integers(8, 90),
       rate=st.floats(0, 1))
def test_any_image_keeps_its_occlusion_and_gets_classes(seed, stamp_ns, height, width, rate):
    truth = street(height, width, seed % 7)
    found = with_errors(truth, SimulatedErrors(error_rate=rate, seed=seed), "a/b", stamp_ns)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found == OCCLUSION, truth == OCCLUSION)
    assert wrong_share(found, truth) <= rate + 1e-9


def test_errors_repeat_with_the_seed_and_differ_between_streams():
    truth, errors = street(), SimulatedErrors()
    first = with_errors(truth, errors, "clip/front", SECOND)
    np.testing.assert_array_equal(first, with_errors(truth, errors, "clip/front", SECOND))
    assert (first != with_errors(truth, errors, "clip/rear", SECOND)).any()
    assert (first != with_errors(truth, replace(errors, seed=1), "clip/front", SECOND)).any()


def test_lasting_errors_stay_and_flicker_changes_them_every_frame():
    truth = street()

    def repeated(flicker):
        """Share of the errors of one frame that the next one, half a second later, has too."""
        frames = [with_errors(truth, SimulatedErrors(flicker=flicker), "clip/front", stamp_ns) != truth
                  for stamp_ns in (4 * SECOND, 4 * SECOND + SECOND // 2)]
        return (frames[0] & frames[1]).sum() / frames[0].sum()

    assert repeated(0.0) == 1.0
    assert repeated(1.0) < 0.4
    assert repeated(1.0) < repeated(0.3) < 1.0


def test_classes_are_taken_for_their_look_alikes():
    truth = np.full((136, 240), Sidewalk.GUTTER, np.uint8)
    found = with_errors(truth, SimulatedErrors(error_rate=0.5), "clip/front", 0)
    assert set(np.unique(found)) == {Sidewalk.GUTTER, Sidewalk.ROAD, Sidewalk.CURB}
    for shares in LOOK_ALIKES.values():
        assert sum(shares.values()) == pytest.approx(1.0)
    assert set(LOOK_ALIKES) == set(range(1, OCCLUSION))


def test_borders_are_wrong_more_often_than_what_lies_inside():
    truth = street()
    near = np.zeros(truth.shape, bool)
    changes = truth[1:] != truth[:-1]
    near[1:] |= changes
    near[:-1] |= changes
    frames = [with_errors(truth, SimulatedErrors(), "clip/front", k * SECOND) for k in range(6)]
    wrong = np.mean([found != truth for found in frames], axis=0)
    inside = (truth > 0) & (truth < OCCLUSION) & ~near
    assert wrong[near].mean() > 1.5 * wrong[inside].mean()


def test_small_things_are_missed_and_large_ones_are_not():
    truth = np.full((136, 240), Sidewalk.SIDEWALK, np.uint8)
    places = [(v, u) for v in range(10, 130, 20) for u in range(10, 230, 20)]
    for v, u in places:
        truth[v:v + 4, u:u + 2] = Sidewalk.PERSON
    found = with_errors(truth, SimulatedErrors(missed=0.3, border_px=0.0), "clip/front", 0)
    missed = np.mean([(found[v:v + 4, u:u + 2] == 0).all() for v, u in places])
    assert 0.15 < missed < 0.45


def test_the_truth_is_found_by_scene_stamp_and_camera():
    camera = RigCamera(name="front", frame="front", width=240, height=136, model="pinhole",
                       parameters=(200.0, 200.0, 119.5, 67.5), T_base_camera=np.eye(4))
    rig, image, truth = Rig(name="r", cameras=(camera,)), np.zeros((136, 240, 3), np.uint8), street()
    sample = ImageSample(scene="clip", index=0, stamp_ns=7, rig=rig, images={"front": image},
                         semantics={"front": truth}, T_grid_base=np.eye(4))
    frame = LabelFrame(stamp_ns=7, images={"front": image}, points_m=np.zeros((0, 3), np.float32),
                       sensor_m=np.zeros((0, 3)), point_sensor=np.zeros(0, np.uint8), T_world_base=np.eye(4))
    segmenter = SimulatedSegmenter(truth_of([sample]), SimulatedErrors(error_rate=0.1, seed=3))
    assert segmenter.name == "simulated, error rate 0.1, seed 3"
    found = segment_frame(segmenter, "clip", frame, rig)
    assert wrong_share(found["front"], truth) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(DatasetError, match="camera front at 8 ns"):
        segmenter.segment_frame("clip", replace(frame, stamp_ns=8), rig)
    with pytest.raises(ShapeError, match="136 x 240"):
        SimulatedSegmenter(lambda *_: truth[:100]).segment_frame("clip", frame, rig)


def test_settings_and_truths_that_make_no_sense_are_refused():
    with pytest.raises(ConfigurationError, match="3 faults"):
        SimulatedErrors(error_rate=1.5, border_px=-1.0, lasting_s=0.0)
    with pytest.raises(ShapeError, match="up to 200"):
        with_errors(np.full((20, 20), 200, np.uint8), SimulatedErrors(), "a/b", 0)
