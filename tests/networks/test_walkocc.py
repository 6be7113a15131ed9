"""Shapes, sizes, gradients and the lifting of WalkOCC and of the baselines made of its pieces."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry import VoxelGridSpec, make_camera, projection_table, se3
from occ_perception.geometry.tables import MountedCamera
from occ_perception.networks.lifting import LiftToBev, lift
from occ_perception.networks.volume import LiftToVolume
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig

COMBINATIONS = [
    pytest.param({"lifter": lifter, "space": space, "lidar": lidar}, id=f"{lifter}-{space}{'-lidar' if lidar else ''}")
    for lifter, space, lidar in itertools.product(("depth", "line_of_sight"), ("bev", "volume"), (False, True))
]


def random_ranges(config: WalkOccConfig, cameras: int) -> Tensor:
    """Half of the pixels have a range."""
    ranges_m = torch.rand(cameras, *config.feature_size, generator=torch.Generator().manual_seed(2)) - 0.5
    return 2 * config.bins.maximum_m * ranges_m.relu()


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


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_every_combination_has_the_same_outputs(small: WalkOccConfig, kind: dict[str, Any]) -> None:
    config = replace(small, **kind)
    network = WalkOcc(config).to(memory_format=torch.channels_last)
    ranges = random_ranges(config, 6) if config.lidar else None
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(*random_inputs(config, batch=2, hits=2, cameras=3), ranges)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "occupancy": (2, 14, 8, 16, 16), "depth": (6, 12, 8, 12), "semantics": (6, 15, 8, 12), "trajectory": (2, 10, 2),
    }
    assert all(value.isfinite().all() for value in outputs.values())


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_gradient_reaches_every_parameter(small: WalkOccConfig, kind: dict[str, Any]) -> None:
    config = replace(small, **kind)
    network = WalkOcc(config)
    for parameter in network.parameters():  # residual branches start at zero and would hide what lies behind them
        torch.nn.init.normal_(parameter, 0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    outputs = network(*random_inputs(config, 2), random_ranges(config, 2) if config.lidar else None)
    sum(value.square().mean() for value in outputs.values()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_the_trajectory_alone_trains_the_encoder(small: WalkOccConfig, kind: dict[str, Any]) -> None:
    """A.1: waypoints alone, no voxel and no 2D label; untouched heads get no gradient."""
    config = replace(small, **kind)
    network = WalkOcc(config)
    network(*random_inputs(config, 2))["trajectory"].square().mean().backward()
    encoder = [*network.backbone.stem.parameters(), *network.neck.parameters()]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder)
    untouched = [*network.occupancy.parameters(), *network.semantics.parameters()]
    assert all(parameter.grad is None for parameter in untouched)


@pytest.mark.parametrize("space", ["bev", "volume"])
@pytest.mark.parametrize("lifter", ["depth", "line_of_sight"])
def test_occupancy_trains_the_depth_only_where_depth_lifts(small: WalkOccConfig, lifter: Any, space: Any) -> None:
    network = WalkOcc(replace(small, lifter=lifter, space=space))
    outputs = network(*random_inputs(small, 2))
    outputs["depth"].retain_grad()
    outputs["occupancy"].square().mean().backward()
    gradient = outputs["depth"].grad
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == (lifter == "depth")


def test_all_kinds_share_one_trunk(small: WalkOccConfig) -> None:
    """Weights of backbone and neck fit every network with the same encoder."""

    def trunk(config: WalkOccConfig) -> dict[str, tuple[int, ...]]:
        state = WalkOcc(config).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(("backbone.", "neck."))}

    assert len(trunk(small)) > 50
    assert trunk(small) == trunk(WalkOccConfig.monoscene(small)) == trunk(replace(small, lidar=True))


def test_no_ranges_are_the_same_as_no_lidar(small: WalkOccConfig) -> None:
    network = WalkOcc(replace(small, lidar=True)).eval()
    inputs = random_inputs(small, 1)
    ranges = random_ranges(small, 1)
    with torch.no_grad():
        without = network(*inputs)
        zero = network(*inputs, torch.zeros_like(ranges))
        measured = network(*inputs, ranges)
    assert all(torch.equal(without[name], zero[name]) for name in without)
    assert torch.equal(measured["semantics"], without["semantics"])  # what an image shows is not changed by ranges
    for name in ("occupancy", "depth", "trajectory"):
        assert not torch.equal(measured[name], without[name]), name


def test_ranges_that_cannot_be_used_are_refused(small: WalkOccConfig) -> None:
    inputs = random_inputs(small, 1)
    with pytest.raises(ShapeError, match="lidar is off"):
        WalkOcc(small)(*inputs, random_ranges(small, 1))
    with pytest.raises(ShapeError, match=r"\[N, 8, 12\], got \[1, 64, 96\]"):
        WalkOcc(replace(small, lidar=True))(*inputs, torch.zeros(1, 64, 96))


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


def test_a_line_of_sight_carries_its_features_to_every_range(small: WalkOccConfig) -> None:
    """MonoScene: one lit pixel lights up all samples of its ray, near and far, and no other."""
    camera = make_camera("pinhole", 96, 64, [48.0, 48.0, 47.5, 31.5, 0, 0, 0, 0, 0])
    mounted = MountedCamera(camera, se3.make(se3.OPTICAL_IN_BODY, [0.0, 0.0, 0.0]))
    table = projection_table([mounted], small.lift_grid, small.bins, small.feature_size)
    h, w = small.feature_size
    pixel = 4 * w + 6
    context = torch.zeros(h * w, 1)
    context[pixel] = 7.0
    tables = [torch.from_numpy(t)[None] for t in (table.rows, table.bins, table.weights)]
    lifted = lift(context, None, *tables)[0, :, 0].numpy()
    on_ray = (table.rows[0] == pixel) & (table.weights[0] > 0)
    np.testing.assert_array_equal(lifted, np.where(on_ray, 7.0, 0.0))
    ranges_m = np.linalg.norm(small.lift_grid.centres().transpose(2, 1, 0, 3).reshape(-1, 3)[on_ray], axis=1)
    assert ranges_m.min() < 1.2
    assert ranges_m.max() > 3.0
    volume = LiftToVolume(1, small.lift_grid.shape, 1)
    volume.embed = torch.nn.Identity()
    nx, ny, nz = small.lift_grid.shape
    np.testing.assert_array_equal(volume(context, None, *tables)[0, 0].numpy(), lifted.reshape(nz, ny, nx))


def test_configurations_name_all_their_faults() -> None:
    with pytest.raises(ConfigurationError) as caught:
        WalkOccConfig(image_size=(100, 960), resnet_layers=34, stage_channels=(1, 2), bev_channels=(0,))
    assert len(caught.value.faults) == 4
    with pytest.raises(ConfigurationError) as caught:
        WalkOccConfig(feature_stride=4, lifter="nearest", space="tpv", image_size=(552, 960))
    assert [fault.split()[0] for fault in caught.value.faults] == ["feature_stride", "image_size", "lifter", "space"]
    with pytest.raises(ConfigurationError, match="4 or 8, got 0"):
        WalkOccConfig(feature_stride=0, halve_image=False)
    with pytest.raises(ConfigurationError, match="same columns"):
        WalkOccConfig(lift_grid=VoxelGridSpec((0, -5, 0), (8, 5, 2), 0.1))


@pytest.mark.parametrize(
    ("cell_m", "range_m", "shape", "lifted"),
    [(0.1, 10.0, (100, 100, 50), (100, 100, 8)), (0.2, 10.0, (50, 50, 25), (50, 50, 8)),
     (0.4, 10.0, (25, 25, 12), (25, 25, 8)), (0.2, 20.0, (100, 100, 25), (100, 100, 8))],
)
def test_small_networks_have_the_grid_that_was_asked_for(
    cell_m: float, range_m: float, shape: tuple[int, ...], lifted: tuple[int, ...]
) -> None:
    config = WalkOccConfig.small(cell_m, range_m)
    assert (config.output_grid.shape, config.lift_grid.shape, config.feature_size) == (shape, lifted, (34, 60))
    assert config.output_grid.minimum_m == (0.0, -range_m / 2, -2.0)
    assert config.bins.maximum_m >= np.hypot(range_m, range_m / 2)  # the far corners have a bin
    assert not config.lidar


def test_small_networks_run_with_features_at_stride_four() -> None:
    config = WalkOccConfig.small(0.4)
    for kind in (config, WalkOccConfig.monoscene(config)):
        outputs = WalkOcc(kind).eval()(*random_inputs(kind, 1))
        assert outputs["depth"].shape == (1, 60, 34, 60)
        assert outputs["occupancy"].shape == (1, 14, 12, 25, 25)


def test_configurations_survive_json() -> None:
    small = WalkOccConfig.small()
    for config in (WalkOccConfig.lite(), WalkOccConfig.paper(), small, WalkOccConfig.monoscene(small)):
        assert WalkOccConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigurationError, match="unknown fields"):
        WalkOccConfig.from_dict({"chanels": 3})


def test_configurations_of_older_checkpoints_mean_what_they_meant() -> None:
    values = WalkOccConfig.lite().to_dict()
    for added in ("feature_stride", "lifter", "space", "lidar"):
        del values[added]
    assert WalkOccConfig.from_dict(values) == replace(WalkOccConfig.lite(), lidar=False)
