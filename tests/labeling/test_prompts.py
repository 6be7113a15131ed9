"""Prompts and how their masks become one image of classes (WalkOCC D.1)."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from occ_perception.calibration.rig import RigCamera
from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.labeling import prompts
from occ_perception.taxonomy import OCCLUSION, Sidewalk


def test_there_are_39_prompts_in_15_groups_with_the_taxonomys_ids():
    assert len(prompts.PROMPTS) == len(set(prompts.PROMPTS)) == 39
    assert [group.label for group in prompts.GROUPS] == list(range(15))
    assert prompts.LABEL_OF["rider"] == Sidewalk.PERSON
    assert prompts.LABEL_OF["scooter"] == Sidewalk.CYCLIST
    assert prompts.LABEL_OF["driveway"] == Sidewalk.ROAD
    assert prompts.LABEL_OF["occlusion"] == OCCLUSION


def test_two_passes_ask_every_prompt_once():
    assert sorted(prompts.BASE_PROMPTS + prompts.FINETUNED_PROMPTS) == sorted(prompts.PROMPTS)
    assert len(prompts.FINETUNED_PROMPTS) == 12
    assert {"cyclist", "lawn", "fire hydrant"} <= set(prompts.BASE_PROMPTS)


def test_of_overlapping_masks_the_later_prompt_wins():
    masks = {name: np.zeros((1, 5), bool) for name in ("sidewalk", "curb", "person", "road")}
    masks["sidewalk"][0, :4] = masks["curb"][0, 1:4] = masks["person"][0, 2:4] = masks["road"][0, 3:5] = True
    merged = prompts.merge_prompts(masks, prompts.FINETUNED_PROMPTS)
    assert merged.dtype == np.uint8
    np.testing.assert_array_equal(merged, [[2, 12, 11, 11, 1]])
    upside_down = prompts.merge_prompts(masks, ("person", "curb", "road", "sidewalk"))
    np.testing.assert_array_equal(upside_down, [[2, 2, 2, 2, 1]])


@pytest.mark.parametrize(("masks", "order", "error", "names"), [
    ({"road": np.ones((2, 2), bool)}, ("roads",), ConfigurationError, "roads"),
    ({"road": np.ones((2, 2), bool)}, ("curb",), ConfigurationError, "road"),
    ({"road": np.ones((2, 2), bool)}, ("road", "road"), ConfigurationError, "twice"),
    ({}, ("road",), ShapeError, "no masks"),
    ({"road": np.ones((2, 2), bool), "curb": np.ones((3, 2), bool)}, ("road", "curb"), ShapeError, "3, 2"),
])
def test_masks_that_do_not_fit_are_named(masks, order, error, names):
    with pytest.raises(error, match=names):
        prompts.merge_prompts(masks, order)


def test_the_fine_tuned_pass_overwrites_all_but_cyclists():
    base = np.array([[0, 1, 8, 8, 5]], np.uint8)
    finetuned = np.array([[2, 12, 11, 0, 0]], np.uint8)
    np.testing.assert_array_equal(prompts.merge_passes(base, finetuned), [[2, 12, 8, 8, 5]])
    with pytest.raises(ShapeError):
        prompts.merge_passes(base, finetuned.T)


classes = arrays(np.uint8, (3, 4), elements=st.integers(0, 14))


@given(classes, classes)
def test_merging_takes_each_pixel_from_one_of_the_passes(base, finetuned):
    merged = prompts.merge_passes(base, finetuned)
    taken = (finetuned != 0) & (base != Sidewalk.CYCLIST)
    assert (merged[taken] == finetuned[taken]).all()
    assert (merged[~taken] == base[~taken]).all()
    np.testing.assert_array_equal(prompts.merge_passes(merged, finetuned), merged)


def fisheye(**changes):
    values = {"name": "front", "frame": "front", "width": 40, "height": 30, "model": "equidistant",
              "parameters": (10.0, 10.0, 19.5, 14.5), "max_theta_rad": 1.2, "T_base_camera": np.eye(4)}
    return RigCamera(**values | changes)


def test_pixels_outside_the_lens_are_occlusion_and_no_others():
    v, u = np.mgrid[:30, :40]
    outside = np.hypot(u - 19.5, v - 14.5) / 10.0 > 1.2  # equidistant: radius = f theta
    marked = prompts.mark_occlusion(np.full((30, 40), 2, np.uint8), fisheye())
    np.testing.assert_array_equal(marked, np.where(outside, OCCLUSION, 2))
    assert 0 < outside.sum() < outside.size


def test_the_robot_itself_is_occlusion(tmp_path):
    mask = np.full((30, 40), 255, np.uint8)
    mask[14:16, 18:21] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    marked = prompts.mark_occlusion(np.zeros((30, 40), np.uint8), fisheye(mask=str(tmp_path / "mask.png")))
    assert (marked[14:16, 18:21] == OCCLUSION).all()
    assert marked[13, 18] == 0


def test_an_image_of_another_size_than_the_cameras_is_refused():
    with pytest.raises(ShapeError, match=r"30 x 40, got 15 x 20.*resized"):
        prompts.mark_occlusion(np.zeros((15, 20), np.uint8), fisheye())
