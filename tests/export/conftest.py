"""A tiny WalkOCC, and a tiny simulated split on disk to export it with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from occ_perception.calibration import Rig, save_rig
from occ_perception.datasets import Sample
from occ_perception.datasets.scene_folder import write_sample
from occ_perception.geometry import RangeBins, VoxelGridSpec, se3
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig

OUTPUT = VoxelGridSpec((0.0, -4.0, -1.0), (8.0, 4.0, 1.5), 0.5)
T_BASE_LIDAR = se3.from_euler(0.0, 0.1, 0.5, (0.0, 0.0, 1.0))
LIFT = VoxelGridSpec((0.0, -4.0, -1.0), (8.0, 4.0, 1.0), (0.5, 0.5, 1.0))


@pytest.fixture(scope="session")
def config() -> WalkOccConfig:
    return WalkOccConfig(
        image_size=(64, 96), stem_channels=8, stage_channels=(8, 8, 16, 16), neck_channels=16, context_channels=8,
        bins=RangeBins(0.0, 8.0, 0.5), lift_grid=LIFT, output_grid=OUTPUT, bev_channels=(16, 16), trajectory_channels=8,
    )


@pytest.fixture(scope="session")
def network(config: WalkOccConfig) -> WalkOcc:
    """A network of cameras alone."""
    return as_trained(config)


@pytest.fixture(scope="session")
def lidar_network(config: WalkOccConfig) -> WalkOcc:
    """A network that takes ranges."""
    return as_trained(replace(config, lidar=True))


@pytest.fixture(scope="session")
def paper_network(config: WalkOccConfig) -> WalkOcc:
    """The structure of `WalkOccConfig.paper` in tiny sizes."""
    paper = WalkOccConfig.paper()
    return as_trained(replace(
        config, resnet_layers=paper.resnet_layers, halve_image=paper.halve_image, softplus=paper.softplus,
        lidar=paper.lidar, stage_channels=(16, 16, 32, 32),
    ))


def as_trained(config: WalkOccConfig) -> WalkOcc:
    """Random weights with batch statistics that are not the identity, as after a training."""
    torch.manual_seed(1)
    network = WalkOcc(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def rig() -> Rig:
    T = se3.from_euler(0.0, 0.2, 0.0, (0.2, 0.0, 0.8))
    T[:3, :3] = T[:3, :3] @ se3.OPTICAL_IN_BODY
    return Rig.model_validate({"name": "tiny", "cameras": [{
        "name": "front", "frame": "front", "width": 96, "height": 64, "model": "equidistant",
        "parameters": [30.0, 30.0, 47.5, 31.5], "max_theta_rad": 1.4, "T_base_camera": T.tolist(),
    }], "lidars": [{"name": "top", "frame": "top", "T_base_lidar": T_BASE_LIDAR.tolist()}]})


def sample(index: int) -> Sample:
    rng = np.random.default_rng(index)
    labels = np.zeros(OUTPUT.shape, np.uint8)
    labels[:, :, :2] = 1
    labels[:, :4, 1] = 2
    labels[index % 8, 8:10, 2:4] = 7
    return Sample(
        scene="scene", index=index, stamp_ns=10**9 * (index + 1), rig=rig(), spec=OUTPUT,
        images={"front": rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)},
        T_grid_base=se3.from_euler(0.02, -0.03, 0.0), T_world_grid=np.eye(4), labels=labels,
        visible=np.ones(OUTPUT.shape, bool), semantics={"front": np.zeros((64, 96), np.uint8)},
        range_m={"front": np.full((64, 96), 3.0, np.float32)},
        points_m=rng.uniform((0.5, -4, -1), (8, 4, 1.5), (500, 3)).astype(np.float32),
        waypoints_m=np.zeros((10, 2), np.float32),
    )


@pytest.fixture(scope="session")
def first_sample() -> Sample:
    return sample(0)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for split, frames in (("train", 3), ("test", 2)):
        scene = root / split / "scene"
        scene.mkdir(parents=True)
        save_rig(rig(), scene / "rig.yaml")
        for index in range(frames):
            write_sample(scene, sample(index))
        about = {"version": "7", "content_hash": f"hash of {split}", "taxonomy": "sidewalk14",
                 "scenes": [{"name": "scene", "frames": frames}]}
        (root / split / "split.yaml").write_text(yaml.safe_dump(about))
    return root
