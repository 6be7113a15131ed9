"""WalkOCC (sections 3.1 and A.1): fisheye images to labelled voxels and waypoints, through tables that are inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from occ_perception.errors import ConfigurationError
from occ_perception.geometry.grid import LIFT_GRID, SIDEWALK_GRID, VoxelGridSpec
from occ_perception.geometry.tables import RangeBins
from occ_perception.networks.backbone import BLOCKS_PER_STAGE, FeaturePyramid, ResNet, conv_bn
from occ_perception.networks.bev import BevEncoder, ChannelToHeight, TrajectoryHead
from occ_perception.networks.lifting import LiftToBev
from occ_perception.taxonomy import OCCLUSION, SIDEWALK

FEATURE_STRIDE = 8
"""Pixels of the full image per feature pixel, in both sizes of the network."""
MEAN_RGB = (108.0, 108.0, 108.0)
SCALE_RGB = (1 / 64.0, 1 / 64.0, 1 / 64.0)


@dataclass(frozen=True)
class WalkOccConfig:
    """Sizes of a WalkOCC network.

    Attributes:
        image_size: (height, width) of the input image, pixels; multiples of 16.
        halve_image: average 2x2 pixels inside the graph before the encoder.
        resnet_layers: 18 or 50.
        stem_channels: channels after the first convolution.
        stage_channels: output channels of the four stages.
        neck_channels: channels of the fused feature map at stride 8 of the full image.
        context_channels: channels that are lifted.
        bins: range bins of the depth distribution, metres along the ray.
        lift_grid: where features are lifted to.
        output_grid: where labels are predicted; the same columns as `lift_grid`.
        bev_channels: channels of the bird's-eye view, finest scale first.
        trajectory_channels: channels of the trajectory head's convolutions.
        softplus: Softplus as in FlashOcc, or ReLU, which survives int8, in the occupancy head.
        waypoints: number of future waypoints (2 Hz).
        classes: voxel classes, free included.
        image_classes: classes of the 2D head (with occlusion).
    """

    image_size: tuple[int, int] = (544, 960)
    halve_image: bool = True
    resnet_layers: int = 18
    stem_channels: int = 32
    stage_channels: tuple[int, ...] = (32, 64, 128, 160)
    neck_channels: int = 64
    context_channels: int = 32
    bins: RangeBins = RangeBins(0.2, 12.2, 0.2)  # noqa: RUF009  (frozen)
    lift_grid: VoxelGridSpec = LIFT_GRID
    output_grid: VoxelGridSpec = SIDEWALK_GRID
    bev_channels: tuple[int, ...] = (64, 96, 112)
    trajectory_channels: int = 32
    softplus: bool = False
    waypoints: int = 10
    classes: int = len(SIDEWALK)
    image_classes: int = OCCLUSION + 1

    def __post_init__(self) -> None:
        faults = []
        height, width = self.image_size
        if height <= 0 or width <= 0 or height % 16 or width % 16:
            faults.append(f"image_size must be multiples of 16, got {height}x{width}")
        if self.resnet_layers not in BLOCKS_PER_STAGE:
            faults.append(f"resnet_layers must be one of {sorted(BLOCKS_PER_STAGE)}, got {self.resnet_layers}")
        if len(self.stage_channels) != 4:
            faults.append(f"stage_channels must be 4 numbers, got {len(self.stage_channels)}")
        if len(self.bev_channels) < 1:
            faults.append("bev_channels must name at least one scale")
        counts = [self.stem_channels, *self.stage_channels, self.neck_channels, self.context_channels,
                  *self.bev_channels, self.trajectory_channels, self.waypoints]
        if min(counts) < 1:
            faults.append(f"channel counts and waypoints must be positive, got {counts}")
        if self.classes < 2 or self.image_classes < 2:
            faults.append(f"at least two classes are needed, got {self.classes} and {self.image_classes}")
        if self.lift_grid.shape[:2] != self.output_grid.shape[:2]:
            faults.append(f"lift_grid and output_grid must have the same columns, "
                          f"got {self.lift_grid.shape[:2]} and {self.output_grid.shape[:2]}")
        if min(self.lift_grid.shape[:2]) < 8:
            faults.append(f"the grids need at least 8x8 columns, got {self.lift_grid.shape[:2]}")
        if faults:
            raise ConfigurationError(faults, where="WalkOccConfig")

    @property
    def feature_size(self) -> tuple[int, int]:
        """(height, width) of the feature map that the projection tables index."""
        return self.image_size[0] // FEATURE_STRIDE, self.image_size[1] // FEATURE_STRIDE

    @classmethod
    def lite(cls) -> WalkOccConfig:
        """For a CPU: about a half-width ResNet-18 over the halved image, 2.74 M parameters."""
        return cls()

    @classmethod
    def paper(cls) -> WalkOccConfig:
        """The sizes of section 4.1: ResNet-50 over 544x960, 236 bins of 0.05 m, 128 channels in BEV."""
        return cls(
            halve_image=False, resnet_layers=50, stem_channels=64, stage_channels=(256, 512, 1024, 2048),
            neck_channels=256, context_channels=64, bins=RangeBins(0.2, 12.0, 0.05), bev_channels=(128, 192, 256),
            trajectory_channels=128, softplus=True,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WalkOccConfig:
        """The inverse of `to_dict`, after a round trip through JSON too."""
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigurationError([f"unknown fields {unknown}"], where="WalkOccConfig")
        for key in ("lift_grid", "output_grid"):
            if key in fields:
                fields[key] = VoxelGridSpec(**fields[key])
        if "bins" in fields:
            fields["bins"] = RangeBins(**fields["bins"])
        return cls(**fields)


class WalkOcc(nn.Module):
    """Encoder, depth-aware lifting, bird's-eye view, heads.

    The network knows no lens, no extrinsics and no tilt: all of them live in the tables it is given
    (`occ_perception.geometry.tables.projection_table` with `config.lift_grid`, `config.bins`, `config.feature_size`).
    """

    def __init__(self, config: WalkOccConfig) -> None:
        super().__init__()
        self.config = config
        # Features at stride 8 of the full image are stride 4 of the halved one.
        self.first_stage = 0 if config.halve_image else 1
        self.backbone = ResNet(config.resnet_layers, config.stem_channels, config.stage_channels)
        self.neck = FeaturePyramid(config.stage_channels[self.first_stage:], config.neck_channels)
        self.view = conv_bn(config.neck_channels, config.neck_channels)
        self.depth = nn.Conv2d(config.neck_channels, config.bins.count, 1)
        self.context = nn.Conv2d(config.neck_channels, config.context_channels, 1)
        self.semantics = nn.Sequential(
            conv_bn(config.neck_channels, config.neck_channels // 2),
            nn.Conv2d(config.neck_channels // 2, config.image_classes, 1),
        )
        self.lift = LiftToBev(config.context_channels, config.lift_grid.shape, config.bev_channels[0])
        self.bev = BevEncoder(config.bev_channels)
        nx, ny, nz = config.output_grid.shape
        self.occupancy = ChannelToHeight(config.bev_channels[0], config.classes, nz, softplus=config.softplus)
        self.trajectory = TrajectoryHead(config.bev_channels[0], config.trajectory_channels, (ny, nx), config.waypoints)

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] to normalised float [N, 3, H', W'] (halved if the configuration says so)."""
        x = images.permute(0, 3, 1, 2).float()
        if self.config.halve_image:
            x = functional.avg_pool2d(x, 2)
        mean = torch.tensor(MEAN_RGB, device=x.device).view(1, 3, 1, 1)
        return (x - mean) * torch.tensor(SCALE_RGB, device=x.device).view(1, 3, 1, 1)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] to features [N, neck_channels, h, w]."""
        return torch.as_tensor(self.neck(self.backbone(self.prepare(images))[self.first_stage:]))

    def decode(self, features: Tensor, rows: Tensor, bins: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, C, h, w] and tables to occupancy logits, waypoints and depth logits (see `forward`)."""
        view = self.view(features)
        depth_logits = self.depth(view)
        context = self.context(view).permute(0, 2, 3, 1).flatten(0, 2)
        depth = depth_logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2)
        bev = self.bev(self.lift(context, depth, rows, bins, weights))
        return self.occupancy(bev), self.trajectory(bev), depth_logits

    def infer(self, images: Tensor, rows: Tensor, bins: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What a robot needs (the 2D head is not run): occupancy logits and waypoints; arguments as in `forward`."""
        occupancy, trajectory, _ = self.decode(self.encode(images), rows, bins, weights)
        return occupancy, trajectory

    def forward(self, images: Tensor, rows: Tensor, bins: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """All heads.

        Args:
            images: uint8 RGB [N, H, W, 3]; N is the number of cameras of all batch entries together.
            rows: int32 [B, hits, S] rows of the flattened features [N * h * w, C] (of the entry's own cameras).
            bins: int32 [B, hits, S] range bins.
            weights: float32 [B, hits, S], 0 where no camera sees the sample.

        Returns:
            `occupancy` logits [B, K, nz, ny, nx], `depth` logits [N, D, h, w], `semantics` logits [N, 15, h, w],
            `trajectory` [B, 10, 2] metres in the grid's frame.
        """
        features = self.encode(images)
        occupancy, trajectory, depth = self.decode(features, rows, bins, weights)
        return {
            "occupancy": occupancy, "depth": depth, "semantics": self.semantics(features), "trajectory": trajectory,
        }
