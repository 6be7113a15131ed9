"""Fine-tuning on a tiny random SAM3: what is frozen stays, what learns learns, and nothing is lost when interrupted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.labeling.segmenters.finetune import (
    BEST,
    CHECKPOINT,
    FinetuneSettings,
    Finetuning,
    finetune,
    inverse_square_root,
)
from occ_perception.labeling.segmenters.sam3_batches import padded_pixels, picked_prompts, wanted_of
from occ_perception.labeling.segmenters.sam3_loss import Wanted, dice, focal, match, paired_giou, sam3_loss
from occ_perception.labeling.segmenters.sam3_model import load_sam3

pytestmark = pytest.mark.torch


def test_the_learning_rate_warms_up_falls_as_an_inverse_square_root_and_cools_down():
    def rate(step):
        return inverse_square_root(step, 200, warmup=20, timescale=20, cooldown=20)

    assert [rate(step) for step in (0, 10, 20)] == [0.0, 0.5, 1.0]
    assert rate(80) == pytest.approx(0.5)  # sqrt(20 / (80 - 20 + 20))
    assert rate(180) == pytest.approx((20 / 180)**0.5)
    assert rate(190) == pytest.approx(0.5 * (20 / 190)**0.5)
    assert inverse_square_root(0, 9, warmup=0, timescale=1, cooldown=0) == 1.0


def test_boxes_overlap_as_they_should():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.25, 1.0]])
    others = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0], [0.75, 0.0, 1.0, 1.0]])
    iou, giou = paired_giou(boxes, others)
    torch.testing.assert_close(iou, torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(giou, torch.tensor([1.0, 0.5, -0.5]))


def test_queries_are_matched_to_the_instances_they_fit():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.4, 0.4]])
    query, instance = match(torch.zeros(3), boxes, boxes[[2, 0]])
    assert dict(zip(instance.tolist(), query.tolist())) == {0: 2, 1: 0}
    assert match(torch.zeros(3), boxes, torch.zeros(0, 4))[0].tolist() == []


def test_mask_losses_have_their_known_values():
    sure = torch.full((1, 2, 2), 20.0)
    assert dice(sure, torch.ones(1, 2, 2)).item() == pytest.approx(0.0, abs=1e-6)
    assert dice(sure, torch.zeros(1, 2, 2)).item() == pytest.approx(1 - 1 / 5, abs=1e-6)
    assert focal(torch.zeros(1), torch.ones(1), 0.25).item() == pytest.approx(0.25 * 0.25 * np.log(2), abs=1e-6)


def outputs(boxes, logits, presence, masks):
    return SimpleNamespace(pred_boxes=boxes, pred_logits=logits, presence_logits=presence, pred_masks=masks,
                           semantic_seg=masks.amax(dim=1, keepdim=True))


def test_the_loss_is_nearly_zero_for_what_is_wanted_and_absent_prompts_cost_only_presence():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    masks = torch.full((1, 2, 4, 4), -15.0)
    masks[0, 0, :2, :2] = 15.0
    wanted = [Wanted(boxes[0, :1], (masks[0, :1] > 0).float())]
    perfect = sam3_loss(outputs(boxes, torch.tensor([[15.0, -15.0]]), torch.tensor([[15.0]]), masks), wanted)
    assert perfect["total"].item() < 0.01
    nothing = [Wanted(torch.zeros(0, 4), torch.zeros(0, 4, 4))]
    absent = sam3_loss(outputs(boxes, torch.tensor([[15.0, -15.0]]), torch.tensor([[-15.0]]),
                               torch.full((1, 2, 4, 4), -15.0)), nothing)
    assert absent["total"].item() < 0.01
    wrong = sam3_loss(outputs(boxes, torch.tensor([[15.0, -15.0]]), torch.tensor([[15.0]]), masks), nothing)
    assert wrong["presence"].item() == pytest.approx(15.0, abs=0.01)


def test_prompts_of_an_image_are_some_it_shows_and_one_it_does_not():
    everything = ("road", "sidewalk", "curb", "person")
    for seed in range(10):
        picked = picked_prompts(everything, ("road", "sidewalk", "road"), 2, np.random.default_rng(seed))
        assert len(picked) == 2
        assert len(set(picked) & {"road", "sidewalk"}) == 1
    assert sorted(picked_prompts(everything, everything, 9, np.random.default_rng(0))) == sorted(everything)
    assert picked_prompts(everything, ("road",), 1, np.random.default_rng(0)) == ["road"]


def test_targets_lie_where_the_shrunken_image_does():
    mask = np.zeros((3, 10, 20), bool)
    mask[0, :5, 10:] = True  # the upper right quarter; the second instance is empty, the third one line
    mask[2, 4, :] = True
    wanted = wanted_of(mask, 0.5, 8)
    torch.testing.assert_close(wanted.boxes, torch.tensor([[0.25, 0.0, 0.5, 0.25], [0.0, 0.2, 0.5, 0.25]]))
    expected = torch.zeros(8, 8)
    expected[:2, 2:4] = 1.0
    torch.testing.assert_close(wanted.masks[0], expected)
    assert wanted.masks[1].sum() > 0  # thin, and still there


@pytest.fixture
def settings(sam3_folder, annotated, tmp_path):
    return FinetuneSettings(weights=sam3_folder, train=annotated, val=annotated, output=tmp_path / "out", epochs=4,
                            samples_per_step=1, batch_size=1, learning_rate=1e-3, vision_learning_rate=1e-4,
                            warmup=0, cooldown=0, validate_every=2, bfloat16=False, loaders=1, score_threshold=0.1,
                            smallest=1.0)


def test_a_picture_is_learned_with_the_language_backbone_frozen(settings):
    training = Finetuning(replace(settings, epochs=40, gradient_clip=10.0))
    before = {name: value.clone() for name, value in training.sam3.model.state_dict().items()}
    losses = [training.train_step(training.batches(step)) for step in range(25)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    changed = {name.split(".")[0] for name, value in training.sam3.model.state_dict().items()
               if not torch.equal(value, before[name])}
    assert {"vision_encoder", "detr_decoder", "mask_decoder"} <= changed
    assert not changed & {"text_encoder", "text_projection"}
    rates = {group["vision"]: group["lr"] for group in training.optimiser.param_groups}
    assert rates[True] == 1e-4  # constant
    assert rates[False] == pytest.approx(1e-3 * (20 / 44)**0.5)


@pytest.fixture
def one_thread():
    """Several threads add in an order of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(settings):
    whole = finetune(settings, say=lambda _: None)
    other = replace(settings, output=settings.output.with_name("resumed"))
    first = Finetuning(other)
    for step in range(2):
        first.losses.append(first.train_step(first.batches(step)))
    first.best = {"epoch": 2, **first.validate()}
    first._keep_best()
    first.save(other.output / CHECKPOINT)
    said = []
    resumed = finetune(other, resume=True, say=said.append)
    assert resumed["losses"] == whole["losses"]
    assert resumed["best"] == whole["best"]
    assert len(said) == 2
    assert "epoch 4 of 4: loss" in said[-1]
    assert whole["best"]["iou"].keys() == {"road", "sidewalk", "pedestrian"}
    assert load_sam3(other.output / BEST).size_px == 112
    assert not list(other.output.glob("*.tmp*"))
    with pytest.raises(TrainingError, match=r"learning_rate 0\.001, not 0\.002"):
        finetune(replace(other, learning_rate=2e-3), resume=True)


def test_mixed_precision_takes_a_step(settings):
    training = Finetuning(replace(settings, bfloat16=True, smallest=0.5))
    assert np.isfinite(training.train_step(training.batches(0)))
    half = padded_pixels(training.sam3, np.full((10, 20, 3), 255, np.uint8), 0.5)
    assert (half[:, :56, :56] == 1.0).all()
    assert (half[:, 56:] == -1.0).all()


def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigurationError, match="3 faults"):
        replace(settings, epochs=0, learning_rate=0.0, smallest=0.0)
    with pytest.raises(ConfigurationError, match="3 is no multiple of 2"):
        Finetuning(replace(settings, samples_per_step=3, batch_size=2))
