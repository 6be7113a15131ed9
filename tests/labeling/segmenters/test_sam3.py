"""SAM3 on a tiny random model: asked prompt by prompt, from a local folder, which is checked before it is used."""

import json
import shutil
import socket

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed (the extra `label`)")

import torch
from torch.nn import functional

from occ_perception.calibration.rig import RigCamera
from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.labeling.prompts import LABEL_OF, PROMPTS, without_scene
from occ_perception.labeling.segmenters.sam3 import Sam3Segmenter, Sam3Settings, two_passes
from occ_perception.labeling.segmenters.sam3_model import load_sam3
from occ_perception.taxonomy import OCCLUSION

pytestmark = pytest.mark.torch
SOME = ("sidewalk", "road", "fire hydrant", "person", "curb")


@pytest.fixture(scope="module")
def sam3(sam3_folder):
    return load_sam3(sam3_folder)


@pytest.fixture
def folder(sam3_folder, tmp_path):
    return shutil.copytree(sam3_folder, tmp_path / "weights")


def picture(height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def fisheye():
    return RigCamera(name="front", frame="front", width=90, height=60, model="equidistant",
                     parameters=(30.0, 30.0, 44.5, 29.5), max_theta_rad=1.3, T_base_camera=np.eye(4))


def test_prompts_are_asked_one_by_one_of_one_image_embedding(sam3):
    calls = {"vision_encoder": 0, "text_encoder": 0, "detr_decoder": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1
        return hook

    hooks = [getattr(sam3.model, name).register_forward_hook(count(name)) for name in calls]
    segmenter = Sam3Segmenter(sam3, Sam3Settings(prompts=SOME, prompts_at_once=2, score_threshold=0.1))
    for _ in range(2):
        classes = segmenter.classes(picture())
    for hook in hooks:
        hook.remove()
    assert calls == {"vision_encoder": 2, "text_encoder": 1, "detr_decoder": 6}
    assert classes.shape == (60, 90)
    assert classes.dtype == np.uint8
    assert set(np.unique(classes)) <= {0, *(LABEL_OF[prompt] for prompt in SOME)}


def test_masks_are_those_of_the_model_asked_for_one_prompt(sam3):
    """The union of the instances that count, as SAM3's own post-processing makes it, later prompts over earlier."""
    image, threshold = picture(), 0.3
    expected = np.zeros((60, 90), np.uint8)
    found = 0
    for prompt in SOME:
        tokens = sam3.tokenizer([prompt], padding="max_length", max_length=32, return_tensors="pt")
        with torch.inference_mode():
            out = sam3.model(pixel_values=sam3.pixels(image)[None], **tokens)
        scores = out.pred_logits.sigmoid() * out.presence_logits.sigmoid()
        masks = out.pred_masks[0][scores[0] > threshold].sigmoid()
        found += len(masks)
        if len(masks):
            fine = functional.interpolate(masks[None], (60, 90), mode="bilinear")[0]
            expected[(fine > 0.5).any(0).numpy()] = LABEL_OF[prompt]
    assert found
    assert 0.05 < (expected > 0).mean() < 0.999
    for at_once in (1, 3):
        settings = Sam3Settings(prompts=SOME, score_threshold=threshold, prompts_at_once=at_once)
        classes = Sam3Segmenter(sam3, settings).classes(image)
        assert (classes == expected).mean() > 0.98  # the best of several masks is resized, not each of them


def test_without_a_mask_that_counts_all_is_background(sam3):
    assert not Sam3Segmenter(sam3, Sam3Settings(prompts=SOME, score_threshold=1.0)).classes(picture()).any()


def test_pixels_without_scene_are_occlusion(sam3):
    camera = fisheye()
    segmenter = Sam3Segmenter(sam3, Sam3Settings(prompts=SOME, score_threshold=0.1))
    classes = segmenter.segment(picture(), camera)
    np.testing.assert_array_equal(classes == OCCLUSION, without_scene(camera))
    with pytest.raises(ShapeError, match="60 x 90"):
        segmenter.segment(picture(30, 45), camera)


def test_images_are_squares_of_the_models_size_between_minus_one_and_one(sam3):
    assert sam3.size_px == 112
    white = sam3.pixels(np.full((60, 90, 3), 255, np.uint8))
    assert white.shape == (3, 112, 112)
    assert (white == 1.0).all()
    assert (sam3.pixels(np.zeros((60, 90, 3), np.uint8)) == -1.0).all()


def test_images_are_what_the_processor_of_transformers_makes(sam3):
    pytest.importorskip("torchvision", reason="torchvision is not installed (no CPU build fits this torch)")
    from transformers import Sam3ImageProcessor

    theirs = Sam3ImageProcessor(size={"height": 112, "width": 112})(picture(), return_tensors="pt").pixel_values[0]
    assert (sam3.pixels(picture()) - theirs).abs().max() < 0.02


def test_two_passes_load_offline_and_are_merged(sam3_folder, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    segmenter = two_passes(sam3_folder, sam3_folder, dtype="bfloat16")
    assert segmenter.name == ("sam3 sam3-tiny (27 prompts, scores above 0.5) + "
                              "sam3 sam3-tiny (12 prompts, scores above 0.5)")
    assert segmenter.segment(picture(), fisheye()).shape == (60, 90)


def test_a_missing_folder_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no such folder(.|\n)*huggingface.co/facebook/sam3(.|\n)*--local-dir "
                                                 + str(tmp_path / "none")):
        Sam3Segmenter.load(tmp_path / "none")


@pytest.mark.parametrize(("missing", "names"), [
    ("config.json", "config.json is missing"),
    ("model.safetensors", "model.safetensors is missing"),
    ("tokenizer.json", "tokenizer.json is missing"),
])
def test_a_missing_file_is_named(folder, missing, names):
    (folder / missing).unlink()
    with pytest.raises(ConfigurationError, match=names + r"(.|\n)*hf download"):
        load_sam3(folder)


def test_all_missing_files_are_named_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="3 faults"):
        load_sam3(tmp_path)


def test_a_missing_part_of_the_weights_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ConfigurationError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_sam3(folder)


def test_weights_that_are_not_whole_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        load_sam3(folder)


def test_weights_that_lack_a_layer_are_refused(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("text_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"1 weights are missing, such as text_projection.weight"):
        load_sam3(folder)


def test_another_model_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigurationError, match="type 'bert', not sam3"):
        load_sam3(folder)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigurationError, match="3 faults"):
        Sam3Settings(score_threshold=2.0, prompts_at_once=0, dtype="int8")
    with pytest.raises(ConfigurationError, match="'kerb' belongs to no group"):
        Sam3Settings(prompts=("kerb",))
    assert Sam3Settings().prompts == PROMPTS
