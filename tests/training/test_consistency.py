"""The 2D-3D consistency loss: a value worked out by hand, exact gradients, what counts, and that it teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import collate, make_item
from occ_perception.training.consistency import EPSILON, consistency_loss
from occ_perception.training.losses import LossConfig, walkocc_losses


def scene(known: bool = True, label: int = 2) -> dict[str, Tensor]:
    """One ray through three of four voxels of three classes; the middle pixel of three says 1/2, 1/4, 1/4."""
    # [B, K, nz, ny, nx]: voxel 0 is free, 1 and 2 are not, 3 is on no ray.
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 5.0, 0.0]])
    depth = torch.zeros(1, 3, 1, 3)
    depth[0, :, 0, 1] = torch.tensor([0.5, 0.25, 0.25]).log()
    return {
        "occupancy": logits.T.reshape(1, 3, 1, 1, 4), "depth": depth, "ray_pixels": torch.tensor([[1]]),
        "ray_cells": torch.tensor([[[0, 1, 2]]], dtype=torch.int32), "ray_labels": torch.tensor([[label]]),
        "ray_known": torch.tensor([[known]]),
    }


def random_scene(kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Two volumes of 2x3x4 cells, 8 rays of 5 bins on the pixels of 3 cameras, a third of the bins outside."""
    generator = torch.Generator().manual_seed(3)
    cells = torch.randint(0, 48, (3, 8, 5), generator=generator, dtype=torch.int32)
    cells[torch.rand(cells.shape, generator=generator) < 0.33] = -1
    labels = torch.randint(1, 4, (3, 8), generator=generator)
    labels[0, :3] = -100
    return {
        "occupancy": torch.randn(2, 4, 2, 3, 4, generator=generator, dtype=kind),
        "depth": torch.randn(3, 5, 2, 3, generator=generator, dtype=kind),
        "ray_pixels": torch.randint(0, 18, (3, 8), generator=generator), "ray_cells": cells, "ray_labels": labels,
        "ray_known": torch.rand(3, 8, generator=generator) < 0.5,
    }


def reference(occupancy: Tensor, depth: Tensor, ray_pixels: Tensor, ray_cells: Tensor, ray_labels: Tensor,
              ray_known: Tensor) -> Tensor:
    """Eqs. 3 to 5, ray by ray, over the classes of matter."""
    voxels = occupancy.permute(0, 2, 3, 4, 1).reshape(-1, occupancy.shape[1])
    pixels = depth.permute(0, 2, 3, 1).reshape(-1, depth.shape[1])
    losses = []
    for pixel, cells, label, known in zip(ray_pixels.flatten(), ray_cells.flatten(0, 1), ray_labels.flatten(),
                                          ray_known.flatten(), strict=True):
        D = pixels[pixel].softmax(0)
        valid = [d for d, cell in enumerate(cells.tolist()) if cell >= 0 and voxels[cell].argmax() != 0]
        if label < 0 or not valid or not (known or cells[D.argmax()] >= 0):
            continue
        total = sum(D[d] for d in valid) + EPSILON
        q = sum(D[d] / total * voxels[cells[d]] for d in valid)
        losses.append(-q[1:].log_softmax(0)[label - 1])
    return torch.stack(losses).mean()


def test_a_ray_has_the_value_worked_out_by_hand() -> None:
    # Voxel 0 is predicted free; 1 and 2 weigh 1/4 each, 5/12 beside the 0.1 of epsilon: q = (0, 5/12, 5/4).
    expected = math.log(math.exp(5 / 12) + math.exp(5 / 4)) - 5 / 4
    assert consistency_loss(**scene()).item() == pytest.approx(expected, rel=1e-5)
    assert consistency_loss(**scene(label=1)).item() == pytest.approx(expected + 10 / 12, rel=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_value_and_gradients_are_those_of_the_formula(layout: torch.memory_format) -> None:
    ours, theirs = random_scene(), random_scene()
    for given in (ours, theirs):
        given["occupancy"] = given["occupancy"].clone(memory_format=layout).requires_grad_()
        given["depth"].requires_grad_()
    loss, expected = consistency_loss(**ours), reference(**theirs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    expected.backward()
    for name in ("occupancy", "depth"):
        assert theirs[name].grad.abs().sum() > 0
        assert torch.allclose(ours[name].grad, theirs[name].grad, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    given = random_scene()
    rays = [given[f"ray_{name}"] for name in ("pixels", "cells", "labels", "known")]
    inputs = (given["occupancy"].requires_grad_(), given["depth"].requires_grad_())
    assert torch.autograd.gradcheck(lambda occupancy, depth: consistency_loss(occupancy, depth, *rays), inputs)


def test_background_and_cells_off_the_ray_get_no_gradient() -> None:
    given = scene()
    given["occupancy"].requires_grad_()
    consistency_loss(**given).backward()
    assert (given["occupancy"].grad[0, :, 0, 0].abs().sum(0) > 0).tolist() == [False, True, True, False]
    assert (given["occupancy"].grad[0, 0] == 0).all(), "that a pixel shows matter does not say where space is free"


def test_rays_without_a_label_or_a_valid_voxel_do_not_count() -> None:
    one = consistency_loss(**scene()).item()
    empty = scene(label=-100)
    assert consistency_loss(**empty).item() == 0.0
    both = {name: value.repeat(1, 2, *[1] * (value.ndim - 2)) if name.startswith("ray_") else value
            for name, value in scene().items()}
    assert consistency_loss(**both).item() == pytest.approx(one)
    for name, nothing in (("ray_labels", -100), ("ray_cells", -1)):
        without = {**both, name: both[name].clone()}
        without[name][0, 1] = nothing
        assert consistency_loss(**without).item() == pytest.approx(one)


def test_it_is_silent_while_nothing_is_predicted_as_occupied() -> None:
    given = random_scene()
    given["occupancy"][:, 0] = 10.0  # as at the start of a training
    for name in ("occupancy", "depth"):
        given[name].requires_grad_()
    loss = consistency_loss(**given)
    loss.backward()
    assert loss.item() == 0.0
    assert given["occupancy"].grad.abs().sum() == given["depth"].grad.abs().sum() == 0


def test_where_no_range_is_known_the_most_likely_bin_must_lie_in_the_grid() -> None:
    outside = scene()
    outside["ray_cells"][0, 0, 0] = -1  # where the pixel most likely lies
    assert consistency_loss(**outside).item() > 0
    assert consistency_loss(**{**outside, "ray_known": torch.tensor([[False]])}).item() == 0.0
    assert consistency_loss(**scene(known=False)).item() == consistency_loss(**scene()).item()


def test_improbable_rays_fade_and_stay_finite() -> None:
    given = scene()
    given["depth"][0, :, 0, 1] = torch.tensor([200.0, 0.0, 0.0])  # all but certain of the free voxel
    given["depth"].requires_grad_()
    loss = consistency_loss(**given)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert given["depth"].grad.isfinite().all()


def test_bfloat16_gives_nearly_the_same() -> None:
    exact = random_scene(torch.float32)
    exact["occupancy"] = exact["occupancy"].bfloat16().float()
    half = {**exact, "occupancy": exact["occupancy"].bfloat16(), "depth": exact["depth"].bfloat16()}
    assert consistency_loss(**half).item() == pytest.approx(consistency_loss(**exact).item(), rel=0.01)
    assert consistency_loss(**half).dtype == torch.float32


def test_gradients_reach_the_encoder_through_voxels_and_through_depth(
    small: WalkOccConfig, samples: Sequence[Sample], image_samples: Sequence[ImageSample]
) -> None:
    torch.manual_seed(0)
    network = WalkOcc(small)
    items = [make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=40)
             for sample in (samples[0], image_samples[0])]
    inputs, targets = collate(items)
    only = LossConfig(occupancy=0.0, depth=0.0, semantics=0.0, trajectory=0.0, consistency=1.0)
    for detached in ("depth", "occupancy", None):
        outputs = network(**inputs)
        if detached:
            outputs[detached] = outputs[detached].detach()
        network.zero_grad()
        losses = walkocc_losses(outputs, targets, torch.ones(256), only)
        assert set(losses) == {"consistency", "total"}
        assert losses["total"].item() > 0
        losses["total"].backward()
        for part in (network.backbone, network.neck):
            gradients = [p.grad for p in part.parameters() if p.grad is not None]
            assert sum(g.abs().sum().item() for g in gradients) > 0
            assert all(g.isfinite().all() for g in gradients)
        assert (network.depth.weight.grad.abs().sum() > 0) or detached == "depth"


def test_images_alone_teach_the_voxels_they_show(small: WalkOccConfig, image_samples: Sequence[ImageSample]) -> None:
    _, targets = collate([make_item(image_samples[0], small, NO_AUGMENTATION, np.random.default_rng(0), rays=60)])
    generator = torch.Generator().manual_seed(0)
    occupancy = torch.randn(1, 14, 8, 16, 16, generator=generator).requires_grad_()
    depth = torch.zeros(1, small.bins.count, 8, 12).requires_grad_()
    optimiser = torch.optim.Adam([occupancy, depth], lr=0.1)
    rays = [targets[f"ray_{name}"] for name in ("pixels", "cells", "labels", "known")]
    first = consistency_loss(occupancy, depth, *rays).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = consistency_loss(occupancy, depth, *rays)
        loss.backward()
        optimiser.step()
    assert first > 2.0
    assert loss.item() < 0.2
    # What stands along a ray of a labelled pixel now mostly has the pixel's class.
    predicted = occupancy.argmax(1).flatten()
    cells, labels = targets["ray_cells"][0], targets["ray_labels"][0]
    met = (cells >= 0) & (labels >= 0)[:, None]
    classes, wanted = predicted[cells[met]], labels[:, None].expand_as(cells)[met]
    assert (classes == wanted)[classes > 0].float().mean() > 0.6
