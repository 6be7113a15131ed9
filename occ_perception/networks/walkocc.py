"""WalkOCC (sections 3.1 and A.1): fisheye images to labelled voxels and waypoints, through tables that are inputs.

The baselines it is compared with are the same pieces put together otherwise: `WalkOccConfig.lifter` and `.space`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.geometry.grid import LIFT_GRID, SIDEWALK_GRID, VoxelGridSpec
from occ_perception.geometry.tables import RangeBins
from occ_perception.networks.backbone import BLOCKS_PER_STAGE, FeaturePyramid, ResNet, conv_bn
from occ_perception.networks.bev import ChannelToHeight, TrajectoryHead, UShape
from occ_perception.networks.lifting import EXTRA_CHANNELS, LiftToBev
from occ_perception.networks.ranges import RangeEncoder
from occ_perception.networks.volume import LiftToVolume, VoxelHead, volume_conv_bn
from occ_perception.taxonomy import OCCLUSION, SIDEWALK

Lifter = Literal["depth", "line_of_sight"]
Space = Literal["bev", "volume"]
BACKBONE_STRIDE = 4
"""Pixels of the encoder's input per pixel of its finest stage (He et al. 2016)."""
MEAN_RGB = (108.0, 108.0, 108.0)
SCALE_RGB = (1 / 64.0, 1 / 64.0, 1 / 64.0)


@dataclass(frozen=True)
class WalkOccConfig:
    """Sizes of a WalkOCC network.

    Attributes:
        image_size: (height, width) of the input image, pixels; multiples of `feature_stride` (of 16 if halved).
        halve_image: average 2x2 pixels inside the graph before the encoder.
        feature_stride: pixels of the full image per feature pixel, 4 or 8.
        resnet_layers: 18 or 50.
        stem_channels: channels after the first convolution.
        stage_channels: output channels of the four stages.
        neck_channels: channels of the fused feature map at `feature_stride`.
        context_channels: channels that are lifted.
        bins: range bins of the depth distribution, metres along the ray.
        lift_grid: where features are lifted to.
        output_grid: where labels are predicted; the same columns as `lift_grid`.
        lifter: `depth` weighs features by the depth distribution (WalkOCC, FlashOcc), `line_of_sight` puts them along
            the whole ray (MonoScene).
        space: what is lifted to, a bird's-eye view (`bev`: WalkOCC, FlashOcc) or a `volume` (MonoScene).
        bev_channels: channels of the bird's-eye view, or of the volume, finest scale first.
        trajectory_channels: channels of the trajectory head's convolutions.
        softplus: Softplus as in FlashOcc, or ReLU, which survives int8, in the occupancy head.
        waypoints: number of future waypoints (2 Hz).
        classes: voxel classes, free included.
        image_classes: classes of the 2D head (with occlusion).
        lidar: takes a sparse range image beside the images (beyond the paper, whose network has cameras alone).
    """

    image_size: tuple[int, int] = (544, 960)
    halve_image: bool = True
    feature_stride: int = 8
    resnet_layers: int = 18
    stem_channels: int = 32
    stage_channels: tuple[int, ...] = (32, 64, 128, 160)
    neck_channels: int = 64
    context_channels: int = 32
    bins: RangeBins = RangeBins(0.2, 12.2, 0.2)  # noqa: RUF009  (frozen)
    lift_grid: VoxelGridSpec = LIFT_GRID
    output_grid: VoxelGridSpec = SIDEWALK_GRID
    lifter: Lifter = "depth"
    space: Space = "bev"
    bev_channels: tuple[int, ...] = (64, 96, 112)
    trajectory_channels: int = 32
    softplus: bool = False
    waypoints: int = 10
    classes: int = len(SIDEWALK)
    image_classes: int = OCCLUSION + 1
    lidar: bool = False

    def __post_init__(self) -> None:
        faults = []
        height, width = self.image_size
        if self.feature_stride not in (4, 8):
            faults.append(f"feature_stride must be 4 or 8, got {self.feature_stride}")
        elif self.halve_image and self.feature_stride == 4:
            faults.append("feature_stride 4 needs halve_image to be off: the finest features of halved images have 8")
        multiple = 16 if self.halve_image else self.feature_stride
        if height <= 0 or width <= 0 or multiple <= 0 or height % multiple or width % multiple:
            faults.append(f"image_size must be multiples of {multiple}, got {height}x{width}")
        if self.resnet_layers not in BLOCKS_PER_STAGE:
            faults.append(f"resnet_layers must be one of {sorted(BLOCKS_PER_STAGE)}, got {self.resnet_layers}")
        if len(self.stage_channels) != 4:
            faults.append(f"stage_channels must be 4 numbers, got {len(self.stage_channels)}")
        if len(self.bev_channels) < 1:
            faults.append("bev_channels must name at least one scale")
        for name, kinds in (("lifter", get_args(Lifter)), ("space", get_args(Space))):
            if getattr(self, name) not in kinds:
                faults.append(f"{name} must be one of {', '.join(kinds)}, got {getattr(self, name)!r}")
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
        return self.image_size[0] // self.feature_stride, self.image_size[1] // self.feature_stride

    @property
    def first_stage(self) -> int:
        """The stage of the backbone that has the features' size: the neck takes it and all coarser ones."""
        finest = BACKBONE_STRIDE * (2 if self.halve_image else 1)
        return 0 if self.feature_stride == finest else 1

    @classmethod
    def lite(cls) -> WalkOccConfig:
        """For a CPU: about a half-width ResNet-18 over the halved image, 2.75 M parameters."""
        return cls(lidar=True)

    @classmethod
    def paper(cls) -> WalkOccConfig:
        """The sizes of section 4.1: ResNet-50 over 544x960, 236 bins of 0.05 m, 128 channels in BEV."""
        return cls(
            halve_image=False, resnet_layers=50, stem_channels=64, stage_channels=(256, 512, 1024, 2048),
            neck_channels=256, context_channels=64, bins=RangeBins(0.2, 12.0, 0.05), bev_channels=(128, 192, 256),
            trajectory_channels=128, softplus=True, lidar=True,
        )

    @classmethod
    def small(cls, cell_m: float = 0.2, range_m: float = 10.0) -> WalkOccConfig:
        """For experiments on a CPU: 136x240 images, a grid of `cell_m` cubes that ends `range_m` ahead.

        It reaches half as far to each side, and from -2 m as many whole cells up as stay below 3 m.
        """
        top_m = -2.0 + int(5.0 / cell_m + 1e-6) * cell_m
        low, high = (0.0, -range_m / 2), (range_m, range_m / 2)
        return cls(
            image_size=(136, 240), halve_image=False, feature_stride=4, stage_channels=(32, 64, 96, 128),
            bins=RangeBins(0.2, 0.2 + 1.2 * range_m, 0.2),
            lift_grid=VoxelGridSpec(
                (*low, LIFT_GRID.minimum_m[2]), (*high, LIFT_GRID.maximum_m[2]), (cell_m, cell_m, LIFT_GRID.cell[2])
            ),
            output_grid=VoxelGridSpec((*low, -2.0), (*high, top_m), cell_m), bev_channels=(48, 64, 96),
        )

    @classmethod
    def monoscene(cls, base: WalkOccConfig) -> WalkOccConfig:
        """The baseline MonoScene in the sizes of `base`: a 3D U-Net, of half as many channels, over lines of sight."""
        channels = tuple(max(1, count // 2) for count in base.bev_channels)
        return replace(base, lifter="line_of_sight", space="volume", bev_channels=channels)

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
    """Encoder, lifting, bird's-eye view (or volume), heads.

    The network knows no lens, no extrinsics and no tilt: all of them live in the tables it is given
    (`occ_perception.geometry.tables.projection_table` with `config.lift_grid`, `config.bins`, `config.feature_size`).
    """

    def __init__(self, config: WalkOccConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.resnet_layers, config.stem_channels, config.stage_channels)
        self.neck = FeaturePyramid(config.stage_channels[config.first_stage:], config.neck_channels)
        self.ranges = RangeEncoder(config.bins, config.neck_channels) if config.lidar else None
        self.view = conv_bn(config.neck_channels, config.neck_channels)
        self.depth = nn.Conv2d(config.neck_channels, config.bins.count, 1)
        self.context = nn.Conv2d(config.neck_channels, config.context_channels, 1)
        self.semantics = nn.Sequential(
            conv_bn(config.neck_channels, config.neck_channels // 2),
            nn.Conv2d(config.neck_channels // 2, config.image_classes, 1),
        )
        self._build_space(config)
        nx, ny, _ = config.output_grid.shape
        self.trajectory = TrajectoryHead(config.bev_channels[0], config.trajectory_channels, (ny, nx), config.waypoints)

    def _build_space(self, config: WalkOccConfig) -> None:
        """The pieces that a bird's-eye view and a volume do not share."""
        lifted = config.context_channels + (EXTRA_CHANNELS if config.lifter == "depth" else 0)
        size, channels = config.lift_grid.shape, config.bev_channels
        self.lift: LiftToBev | LiftToVolume
        self.occupancy: ChannelToHeight | VoxelHead
        if config.space == "bev":
            self.lift = LiftToBev(lifted, size, channels[0])
            self.bev = UShape(channels)
            self.occupancy = ChannelToHeight(
                channels[0], config.classes, config.output_grid.shape[2], softplus=config.softplus
            )
        else:
            self.lift = LiftToVolume(lifted, size, channels[0])
            self.bev = UShape(channels, volume_conv_bn)
            self.occupancy = VoxelHead(channels[0], config.classes, config.lift_grid, config.output_grid)

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] to normalised float [N, 3, H', W'] (halved if the configuration says so)."""
        x = images.permute(0, 3, 1, 2).float()
        if self.config.halve_image:
            x = functional.avg_pool2d(x, 2)
        mean = torch.tensor(MEAN_RGB, device=x.device).view(1, 3, 1, 1)
        return (x - mean) * torch.tensor(SCALE_RGB, device=x.device).view(1, 3, 1, 1)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] to features [N, neck_channels, h, w]."""
        return torch.as_tensor(self.neck(self.backbone(self.prepare(images))[self.config.first_stage:]))

    def look(self, features: Tensor, ranges: Tensor | None) -> Tensor:
        """What depth and context are read from: image features [N, C, h, w] and, if there are any, measured ranges.

        Raises:
            ShapeError: ranges were given to a network that takes none, or have another shape.
        """
        if self.ranges is None:
            if ranges is not None:
                raise ShapeError("the network takes no ranges (lidar is off)", where="WalkOcc")
            return torch.as_tensor(self.view(features))
        if ranges is None:
            ranges = torch.zeros(features[:, 0].shape, device=features.device)
        elif ranges.shape[1:] != features.shape[2:]:
            raise ShapeError(f"must be [N, {features.shape[2]}, {features.shape[3]}], got {list(ranges.shape)}",
                             where="ranges of WalkOcc")
        return torch.as_tensor(self.view(features + self.ranges(ranges)))

    def decode(
        self, features: Tensor, rows: Tensor, bins: Tensor, weights: Tensor, ranges: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, C, h, w] and tables to occupancy logits, waypoints and depth logits (see `forward`)."""
        view = self.look(features, ranges)
        depth_logits = self.depth(view)
        context = self.context(view).permute(0, 2, 3, 1).flatten(0, 2)
        depth = None
        if self.config.lifter == "depth":
            depth = depth_logits.softmax(1).permute(0, 2, 3, 1).flatten(0, 2)
        space = self.bev(self.lift(context, depth, rows, bins, weights))
        bev = space if self.config.space == "bev" else space.mean(2)
        return self.occupancy(space), self.trajectory(bev), depth_logits

    def infer(
        self, images: Tensor, rows: Tensor, bins: Tensor, weights: Tensor, ranges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What a robot needs (the 2D head is not run): occupancy logits and waypoints; arguments as in `forward`."""
        occupancy, trajectory, _ = self.decode(self.encode(images), rows, bins, weights, ranges)
        return occupancy, trajectory

    def forward(
        self, images: Tensor, rows: Tensor, bins: Tensor, weights: Tensor, ranges: Tensor | None = None
    ) -> dict[str, Tensor]:
        """All heads.

        Args:
            images: uint8 RGB [N, H, W, 3]; N is the number of cameras of all batch entries together.
            rows: int32 [B, hits, S] rows of the flattened features [N * h * w, C] (of the entry's own cameras).
            bins: int32 [B, hits, S] range bins.
            weights: float32 [B, hits, S], 0 where no camera sees the sample.
            ranges: float32 [N, h, w], metres along the ray to the nearest LiDAR return in each feature pixel, 0 where
                there is none; None is the same as all 0. Only with `config.lidar`.

        Returns:
            `occupancy` logits [B, K, nz, ny, nx], `depth` logits [N, D, h, w], `semantics` logits [N, 15, h, w],
            `trajectory` [B, 10, 2] metres in the grid's frame.

        Raises:
            ShapeError: ranges were given to a network that takes none, or have another shape.
        """
        features = self.encode(images)
        occupancy, trajectory, depth = self.decode(features, rows, bins, weights, ranges)
        return {
            "occupancy": occupancy, "depth": depth, "semantics": self.semantics(features), "trajectory": trajectory,
        }
