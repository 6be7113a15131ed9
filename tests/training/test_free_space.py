"""Free space from images alone: a value worked out by hand, exact gradients, what counts, and that it clears."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from occ_perception.datasets.sample import ImageSample
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import collate, make_item
from occ_perception.training.free_space import SURE, free_space_loss
from occ_perception.training.losses import LossConfig, walkocc_losses

RANGES = (0.02, 0.04, 0.3, 0.24, 0.4)
"""How likely each range bin of the one pixel is."""


def scene() -> dict[str, Tensor]:
    """One ray through five of six voxels of three classes, the first free, the second not."""
    logits = torch.zeros(6, 3)
    logits[0, 0], logits[1, 1] = 2.0, 1.0
    return {
        "occupancy": logits.T.reshape(1, 3, 1, 1, 6), "depth": torch.tensor(RANGES).log().reshape(1, 5, 1, 1),
        "ray_pixels": torch.tensor([[0]]), "ray_cells": torch.tensor([[[0, 1, 2, 3, 4]]], dtype=torch.int32),
        "ray_clears": torch.tensor([[True]]),
    }


def random_scene(bins: int, kind: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Two volumes of 2x3x4 cells, 8 rays on the pixels of 3 cameras, a third of their bins outside."""
    generator = torch.Generator().manual_seed(bins)
    cells = torch.randint(0, 48, (3, 8, bins), generator=generator, dtype=torch.int32)
    cells[torch.rand(cells.shape, generator=generator) < 0.33] = -1
    return {
        "occupancy": torch.randn(2, 4, 2, 3, 4, generator=generator, dtype=kind),
        "depth": 3 * torch.randn(3, bins, 2, 3, generator=generator, dtype=kind),
        "ray_pixels": torch.randint(0, 18, (3, 8), generator=generator), "ray_cells": cells,
        "ray_clears": torch.rand(3, 8, generator=generator) < 0.5,
    }


def reference(occupancy: Tensor, depth: Tensor, ray_pixels: Tensor, ray_cells: Tensor, ray_clears: Tensor) -> Tensor:
    """The loss bin by bin."""
    voxels = occupancy.permute(0, 2, 3, 4, 1).reshape(-1, occupancy.shape[1])
    pixels = depth.detach().permute(0, 2, 3, 1).reshape(-1, depth.shape[1])
    losses = []
    for pixel, cells, clears in zip(ray_pixels.flatten(), ray_cells.flatten(0, 1).tolist(), ray_clears.flatten(),
                                    strict=True):
        D = pixels[pixel].softmax(0)
        losses += [-voxels[cell].log_softmax(0)[0] for d, cell in enumerate(cells)
                   if clears and cell >= 0 and D[2 * (d + 1):].sum() > SURE]
    return torch.stack(losses).mean()


def test_a_ray_has_the_value_worked_out_by_hand() -> None:
    # The range surely lies in the third bin or beyond, but not in the fifth: the first voxel alone is cleared.
    first, second = math.log(math.exp(2) + 2) - 2, math.log(2 + math.e)
    assert free_space_loss(**scene()).item() == pytest.approx(first, rel=1e-5)
    surer = scene()
    surer["depth"][0, 4] = 5.0
    assert free_space_loss(**surer).item() == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("bins", [3, 6, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_value_and_gradients_are_those_of_the_formula(bins: int, layout: torch.memory_format) -> None:
    ours, theirs = random_scene(bins), random_scene(bins)
    for given in (ours, theirs):
        given["occupancy"] = given["occupancy"].clone(memory_format=layout).requires_grad_()
        given["depth"].requires_grad_()
    loss, expected = free_space_loss(**ours), reference(**theirs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    expected.backward()
    assert theirs["occupancy"].grad.abs().sum() > 0
    assert torch.allclose(ours["occupancy"].grad, theirs["occupancy"].grad, atol=1e-12)
    assert ours["depth"].grad is None, "depth does not learn from what it clears"


def test_voxels_from_half_the_range_on_and_off_the_ray_get_no_gradient() -> None:
    given = scene()
    given["depth"][0, 4] = 5.0
    given["occupancy"].requires_grad_()
    free_space_loss(**given).backward()
    assert (given["occupancy"].grad[0, :, 0, 0].abs().sum(0) > 0).tolist() == [True, True, *[False] * 4]


@pytest.mark.parametrize(("name", "value"), [("ray_clears", False), ("ray_cells", -1)])
def test_rays_that_do_not_clear_and_cells_outside_do_not_count(name: str, value: int) -> None:
    one = free_space_loss(**scene()).item()
    both = {key: tensor.repeat(1, 2, *[1] * (tensor.ndim - 2)) if key.startswith("ray_") else tensor
            for key, tensor in scene().items()}
    both[name][0, 1] = value
    assert free_space_loss(**both).item() == pytest.approx(one)
    both[name][0, 0] = value
    assert free_space_loss(**both).item() == 0.0


def test_bfloat16_gives_nearly_the_same() -> None:
    exact = random_scene(7, torch.float32)
    exact["occupancy"] = exact["occupancy"].bfloat16().float()
    half = {**exact, "occupancy": exact["occupancy"].bfloat16(), "depth": exact["depth"].bfloat16()}
    assert free_space_loss(**half).item() == pytest.approx(free_space_loss(**exact).item(), rel=0.01)
    assert free_space_loss(**half).dtype == torch.float32


def test_images_alone_clear_what_stands_before_what_they_show(
    small: WalkOccConfig, image_samples: Sequence[ImageSample]
) -> None:
    torch.manual_seed(0)
    network = WalkOcc(small)
    only = LossConfig(occupancy=0.0, depth=0.0, semantics=0.0, trajectory=0.0, free_space=1.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)

    def loss_of(sample: ImageSample, clears: bool = True) -> Tensor:
        inputs, targets = collate([
            make_item(sample, small, NO_AUGMENTATION, np.random.default_rng(0), rays=60, clears=clears)])
        return walkocc_losses(network(**inputs), targets, torch.ones(256), only)["total"]

    assert loss_of(image_samples[0]).item() == 0.0, "an untrained network is not sure of any range"
    with torch.no_grad():
        network.depth.bias[-1] = 20.0  # now it is, and takes all to be far
    assert loss_of(image_samples[0], clears=False).item() == 0.0
    first = loss_of(image_samples[0]).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = loss_of(image_samples[0])
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * first
