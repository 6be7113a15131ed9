"""Shapes, sizes, gradients and the lifting of WalkOCC."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec, make_camera, projection_table, se3
from occ_perception.geometry.tables import MountedCamera
from occ_perception.networks.lifting import LiftToBev, lift
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig


def random_inputs(config: WalkOccConfig, batch: int, hits: int = 1, cameras: int = 1) -> tuple[Tensor, ...]:
    """Images and tables that point anywhere; a tenth of the samples is seen by no camera."""
    generator = torch.Generator().manual_seed(0)
    pixels = int(np.prod(config.feature_size))
    shape = (batch, hits, config.lift_grid.size)
    images = torch.randint(0, 256, (batch * cameras, *config.image_size, 3), generator=generator, dtype=torch.uint8)
    rows = torch.randint(0, cameras * pixels, shape, generator=generator, dtype=torch.int32)
    rows += (torch.arange(batch) * cameras * pixels).int().view(-1, 1, 1)
    bins = torch.randint(0, config.bins.count, shape, generator=generator, dtype=torch.int32)
    weights = (torch.rand(shape, generator=generator) > 0.1).float() / hits
    return images, rows, bins, weights


def test_lite_fits_its_budget_and_both_sizes_have_the_documented_outputs() -> None:
    config = WalkOccConfig.lite()
    network = WalkOcc(config).eval()
    assert sum(p.numel() for p in network.parameters()) <= 3_500_000
    with torch.no_grad():
        outputs = network(*random_inputs(config, 1))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "occupancy": (1, 14, 50, 100, 100), "depth": (1, 60, 68, 120), "semantics": (1, 15, 68, 120),
        "trajectory": (1, 10, 2),
    }


def test_paper_has_the_sizes_of_section_4_1() -> None:
    config = WalkOccConfig.paper()
    assert (config.bins.count, config.bev_channels[0], config.image_size) == (236, 128, (544, 960))
    with torch.device("meta"):
        network = WalkOcc(config)
    assert 25e6 < sum(p.numel() for p in network.parameters()) < 45e6


def test_paper_layout_runs_with_two_hits_and_several_cameras(small: WalkOccConfig) -> None:
    config = replace(small, halve_image=False, resnet_layers=50, stage_channels=(16, 16, 32, 32), softplus=True)
    outputs = WalkOcc(config)(*random_inputs(config, batch=2, hits=2, cameras=3))
    assert outputs["occupancy"].shape == (2, 14, 8, 16, 16)
    assert outputs["depth"].shape == (6, 12, 8, 12)


def test_gradient_reaches_every_parameter(small: WalkOccConfig) -> None:
    network = WalkOcc(small)
    for parameter in network.parameters():  # residual branches start at zero and would hide what lies behind them
        torch.nn.init.normal_(parameter, 0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    outputs = network(*random_inputs(small, 2))
    sum(value.square().mean() for value in outputs.values()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_infer_answers_as_forward_does(small: WalkOccConfig) -> None:
    network = WalkOcc(small).eval()
    inputs = random_inputs(small, 1)
    with torch.no_grad():
        outputs = network(*inputs)
        occupancy, waypoints = network.infer(*inputs)
    assert torch.equal(occupancy, outputs["occupancy"])
    assert torch.equal(waypoints, outputs["trajectory"])


def test_lift_equals_a_loop_over_samples() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels, depth_bins, channels, hits, samples = 30, 7, 4, 2, 50
    context = torch.randn(pixels, channels, generator=generator)
    depth = torch.randn(pixels, depth_bins, generator=generator).softmax(1)
    rows = torch.randint(0, pixels, (2, hits, samples), generator=generator, dtype=torch.int32)
    bins = torch.randint(0, depth_bins, (2, hits, samples), generator=generator, dtype=torch.int32)
    weights = torch.rand(2, hits, samples, generator=generator).round()
    expected = torch.zeros(2, samples, channels + 2)
    for b in range(2):
        for h in range(hits):
            for s in range(samples):
                row, at, weight = int(rows[b, h, s]), int(bins[b, h, s]), float(weights[b, h, s])
                probability = depth[row, at]
                expected[b, s, :channels] += weight * probability * context[row]
                expected[b, s, channels] += weight * probability
                expected[b, s, channels + 1] += weight * depth[row, at:].sum()
    assert torch.allclose(lift(context, depth, rows, bins, weights), expected, atol=1e-6)


def test_lifting_puts_a_sample_at_its_own_column_and_height() -> None:
    nx, ny, nz = 5, 4, 3
    module = LiftToBev(3, (nx, ny, nz), nz)
    with torch.no_grad():  # output channel z passes on exactly the context feature of height z
        module.collapse.weight.zero_()
        for z in range(nz):
            module.collapse.weight[z, z * 3] = 1.0
    module.norm = torch.nn.Identity()
    x, y, z = 3, 1, 2
    sample = x + nx * (y + ny * z)
    rows = torch.zeros(1, 1, nx * ny * nz, dtype=torch.int32)
    weights = torch.zeros(1, 1, nx * ny * nz)
    rows[..., sample], weights[..., sample] = 1, 1.0
    context, depth = torch.tensor([[0.0], [7.0]]), torch.ones(2, 1)
    bev = module(context, depth, rows, torch.zeros_like(rows), weights)
    assert bev.shape == (1, nz, ny, nx)
    assert torch.equal(bev.nonzero(), torch.tensor([[0, z, y, x]]))
    assert bev[0, z, y, x] == 7.0


def test_an_object_before_the_camera_is_lifted_to_where_it_is(small: WalkOccConfig) -> None:
    """A real table: one pixel with certain depth lights up the one region of the grid that lies on its ray there."""
    camera = make_camera("pinhole", 96, 64, [48.0, 48.0, 47.5, 31.5, 0, 0, 0, 0, 0])
    mounted = MountedCamera(camera, se3.make(se3.OPTICAL_IN_BODY, [0.0, 0.0, 0.0]))
    table = projection_table([mounted], small.lift_grid, small.bins, small.feature_size)
    h, w = small.feature_size
    depth = torch.full((h * w, small.bins.count), 0.0)
    depth[:, small.bins.index(np.array(2.05))] = 1.0
    context = torch.zeros(h * w, 1)
    context[4 * w + 6] = 1.0  # the feature pixel right and below the centre: y < 0, z < 0
    tables = [torch.from_numpy(t)[None] for t in (table.rows, table.bins, table.weights)]
    lit = lift(context, depth, *tables)[0, :, 0].numpy().reshape(small.lift_grid.shape[::-1]).transpose(2, 1, 0)
    points = small.lift_grid.centres()[lit > 0]
    assert len(points) > 0
    assert np.all(np.abs(np.linalg.norm(points, axis=1) - 1.95) <= 0.25)
    assert np.all((points[:, 1] < 0) & (points[:, 1] > -0.5) & (points[:, 2] < 0) & (points[:, 2] > -0.5))


def test_configurations_name_all_their_faults() -> None:
    with pytest.raises(ConfigurationError) as caught:
        WalkOccConfig(image_size=(100, 960), resnet_layers=34, stage_channels=(1, 2), bev_channels=(0,))
    assert len(caught.value.faults) == 4
    with pytest.raises(ConfigurationError, match="same columns"):
        WalkOccConfig(lift_grid=VoxelGridSpec((0, -5, 0), (8, 5, 2), 0.1))


def test_configurations_survive_json() -> None:
    for config in (WalkOccConfig.lite(), WalkOccConfig.paper()):
        assert WalkOccConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigurationError, match="unknown fields"):
        WalkOccConfig.from_dict({"chanels": 3})
