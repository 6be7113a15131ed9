"""Losses at values that can be worked out by hand, and their gradients against torch's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import ConfigurationError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import collate, make_item
from occ_perception.training.losses import (
    TERMS,
    LossConfig,
    class_weights,
    focal_cross_entropy,
    masked_cross_entropy,
    trajectory_loss,
    walkocc_losses,
)

WITH_RAYS = LossConfig(consistency=1.0, free_space=1.0)
WEIGHTS = class_weights(torch.tensor([0.9, *[0.1 / 13] * 13]), LossConfig())


def reference(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Eq. 2 as written, by autograd."""
    log_p = logits.log_softmax(1)
    of_label = log_p.gather(1, labels.where(labels < 254, 0).long().unsqueeze(1)).squeeze(1)
    of_any = log_p[:, 1:].logsumexp(1)
    log_likely = torch.where(labels == 254, of_any, of_label)
    loss = -weights * (1 - log_likely.exp()) ** gamma * log_likely
    return loss.sum() / (weights > 0).sum()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_focal_loss_and_gradient_equal_the_formula(gamma: float, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 20, 21, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(0, 5, (2, 3, 20, 21), generator=generator, dtype=torch.uint8)
    labels[0, 0, :4] = 254
    labels[1, 1, :4] = 255
    weights = torch.rand(labels.shape, generator=generator, dtype=torch.float64) * (labels != 255)
    ours = logits.clone(memory_format=layout).requires_grad_()
    theirs = logits.clone().requires_grad_()
    loss, expected = focal_cross_entropy(ours, labels, weights, gamma), reference(theirs, labels, weights, gamma)
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-10)


def test_focal_loss_of_chance_and_of_certainty() -> None:
    labels = torch.tensor([1, 0, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    weights = torch.tensor([2.0, 1.0, 0.0]).view(1, 1, 1, 3)
    even = focal_cross_entropy(torch.zeros(1, 4, 1, 1, 3), labels, weights, 1.0)
    assert even.item() == pytest.approx((2 + 1) * 0.75 * math.log(4) / 2, rel=1e-5)
    sure = functional.one_hot(torch.tensor([1, 0, 2]), 4).T.reshape(1, 4, 1, 1, 3) * 50.0
    assert focal_cross_entropy(sure, labels, weights, 1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_bfloat16_logits_give_nearly_the_same_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 14, 5, 10, 10, generator=generator)
    labels = torch.randint(0, 14, (1, 5, 10, 10), generator=generator, dtype=torch.uint8)
    gradients = []
    for kind in (torch.float32, torch.bfloat16):
        leaf = logits.to(kind, copy=True).detach().requires_grad_()
        focal_cross_entropy(leaf, labels, torch.ones(labels.shape), 1.0).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.float())
    assert (gradients[0] - gradients[1]).abs().max() < 0.02 * gradients[0].abs().max()


def test_trajectory_loss_counts_only_waypoints_that_exist() -> None:
    target = torch.full((2, 10, 2), float("nan"))
    target[0] = 1.0
    predicted = torch.zeros(2, 10, 2, requires_grad=True)
    loss = trajectory_loss(predicted, target)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)  # smooth L1 at distance 1
    assert predicted.grad is not None
    assert predicted.grad[1].abs().sum() == 0
    assert trajectory_loss(torch.zeros(1, 10, 2), target[1:]).item() == 0.0


def test_class_weights_grow_with_rarity_up_to_their_bound() -> None:
    weights = class_weights(torch.tensor([0.9, 0.09, 0.009, 0.0]), LossConfig(balance=0.5, largest_class_weight=8.0))
    assert weights[:4].tolist() == pytest.approx([1.0, math.sqrt(10), 8.0, 8.0])
    assert weights[254].item() == pytest.approx(math.sqrt(10))
    assert weights[255].item() == 0.0


def test_total_is_the_weighed_sum_and_hidden_voxels_count_less() -> None:
    config = LossConfig(occupancy=2.0, depth=3.0, semantics=0.0, trajectory=1.0, hidden_weight=0.5, focal_gamma=0.0)
    outputs = {
        "occupancy": torch.zeros(1, 2, 1, 1, 2), "depth": torch.zeros(1, 4, 2, 1), "semantics": torch.zeros(1, 3, 2, 1),
        "trajectory": torch.zeros(1, 10, 2),
    }
    targets = {
        "labels": torch.zeros(1, 1, 1, 2, dtype=torch.uint8), "visible": torch.tensor([True, False]).view(1, 1, 1, 2),
        "depth": torch.tensor([2, -100]).view(1, 2, 1), "semantics": torch.zeros(1, 2, 1, dtype=torch.long),
        "waypoints": torch.full((1, 10, 2), float("nan")),
    }
    losses = walkocc_losses(outputs, targets, torch.ones(256), config)
    assert losses["occupancy"].item() == pytest.approx((1 + 0.5) * math.log(2) / 2)
    assert losses["depth"].item() == pytest.approx(math.log(4))
    assert losses["total"].item() == pytest.approx(1.5 * math.log(2) + 3 * math.log(4))


def test_terms_without_weight_are_not_computed_and_absent() -> None:
    config = LossConfig.trajectory_only()
    outputs = {"trajectory": torch.zeros(1, 10, 2)}  # what the other terms would need is not even there
    losses = walkocc_losses(outputs, {"waypoints": torch.ones(1, 10, 2)}, torch.ones(256), config)
    assert set(losses) == {"trajectory", "total"}
    assert losses["total"].item() == pytest.approx(0.5 * config.trajectory)


def test_terms_along_rays_without_rays_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="consistency and free_space need rays"):
        walkocc_losses({}, {}, torch.ones(256), WITH_RAYS)


def random_outputs(config: WalkOccConfig, entries: int) -> dict[str, Tensor]:
    """Outputs of as many entries, those of the first ones alike for any number of them."""
    generators = [torch.Generator().manual_seed(entry) for entry in range(entries)]
    nx, ny, nz = config.output_grid.shape
    h, w = config.feature_size
    shapes = {"occupancy": (config.classes, nz, ny, nx), "depth": (config.bins.count, h, w),
              "semantics": (config.image_classes, h, w), "trajectory": (config.waypoints, 2)}
    return {name: torch.stack([torch.randn(shape, generator=g) for g in generators]).requires_grad_()
            for name, shape in shapes.items()}


def test_images_alone_change_no_loss_and_no_gradient_but_those_of_the_image(
    small: WalkOccConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    def losses_of(batch: Sequence[ImageSample]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=20,
                           clears=sample not in samples) for sample in batch]
        outputs = random_outputs(small, len(batch))
        terms = walkocc_losses(outputs, collate(items)[1], WEIGHTS, WITH_RAYS)
        return terms, outputs

    paired, outputs = losses_of(samples[:2])
    mixed, mixed_outputs = losses_of([*samples[:2], *image_samples])
    for term in ("occupancy", "depth", "trajectory"):
        assert mixed[term].item() == pytest.approx(paired[term].item(), rel=1e-6)
        paired[term].backward(retain_graph=True)
        mixed[term].backward(retain_graph=True)
        gradient, mixed_gradient = outputs[term].grad, mixed_outputs[term].grad
        assert gradient is not None
        assert mixed_gradient is not None
        assert gradient.abs().sum() > 0
        assert torch.equal(mixed_gradient[:2], gradient)
        assert not mixed_gradient[2:].any()
    for term in ("semantics", *WITH_RAYS.along_rays):
        for values in mixed_outputs.values():
            values.grad = None
        mixed[term].backward(retain_graph=True)
        reached = mixed_outputs["semantics" if term == "semantics" else "occupancy"].grad
        assert reached is not None
        of_paired = term != "free_space"
        assert (reached.flatten(1).abs().sum(1) > 0).tolist() == [of_paired] * 2 + [True] * len(image_samples)


def test_a_batch_of_images_alone_trains_without_nan(
    small: WalkOccConfig, image_samples: Sequence[ImageSample]
) -> None:
    torch.manual_seed(0)
    network = WalkOcc(small)
    items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=20) for sample in image_samples]
    inputs, targets = collate(items)
    losses = walkocc_losses(network(**inputs), targets, WEIGHTS, WITH_RAYS)
    assert set(losses) == {*TERMS, "total"}
    assert [losses[name].item() for name in ("occupancy", "depth", "trajectory")] == [0.0, 0.0, 0.0]
    assert losses["semantics"].item() > 0
    losses["total"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_several_processes_normalise_alike(small: WalkOccConfig, samples: Sequence[Sample]) -> None:
    """Two processes with unequal counts: the mean of their losses is the loss of the whole batch."""
    items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=20) for sample in samples]
    items[1]["labels"][4:] = 255
    items[2]["depth"][:, :4] = -100
    config = WITH_RAYS
    outputs = random_outputs(small, 4)
    whole = walkocc_losses(outputs, collate(items)[1], WEIGHTS, config)
    halves = [({name: value[part] for name, value in outputs.items()}, collate(items[part])[1])
              for part in (slice(0, 2), slice(2, 4))]
    counts: list[list[Tensor]] = [[], []]
    for seen, half in zip(counts, halves, strict=True):
        walkocc_losses(*half, WEIGHTS, config, lambda count, seen=seen: seen.append(count) or count)
    assert any(first != second for first, second in zip(*counts, strict=True))
    spread = []
    for half in halves:
        means = iter([(first + second) / 2 for first, second in zip(*counts, strict=True)])
        spread.append(walkocc_losses(*half, WEIGHTS, config, lambda _, means=means: next(means)))
    for term in (*TERMS, "total"):
        mean = (spread[0][term] + spread[1][term]).item() / 2
        assert mean == pytest.approx(whole[term].item(), rel=1e-5)


def test_masked_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.zeros(1, 4, 1, 3)
    assert masked_cross_entropy(logits, torch.tensor([[[1, -100, 2]]])).item() == pytest.approx(math.log(4))
    assert masked_cross_entropy(logits, torch.full((1, 1, 3), -100)).item() == 0.0


def test_loss_configuration_lists_its_faults() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LossConfig(depth=-1.0, largest_class_weight=0.5)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigurationError, match="must have a weight"):
        LossConfig(occupancy=0.0, depth=0.0, semantics=0.0, trajectory=0.0)
