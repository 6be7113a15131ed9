"""The deployed graph of WalkOCC: uint8 images and tables in, final grids out; equal in value to the network.

It rearranges what is slow in onnxruntime: batch normalisation is folded into weights, the two parts of a lifted
sample are never concatenated, and classes are compared in the layout in which the last convolution leaves them.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from occ_perception.errors import ConfigurationError
from occ_perception.networks.bev import ChannelToHeight
from occ_perception.networks.lifting import EXTRA_CHANNELS, LiftToBev
from occ_perception.networks.walkocc import WalkOcc


class WalkOccGraph(nn.Module):
    """`WalkOcc` for one frame, ready to be exported. The given network is copied and left as it is.

    Raises:
        ConfigurationError: the network is one of the baselines, which are there to be compared with, not deployed.
    """

    def __init__(self, network: WalkOcc) -> None:
        super().__init__()
        self.network = fold_batch_norm(network)
        lift, head = network.lift, self.network.occupancy
        if network.config.lifter != "depth" or not isinstance(lift, LiftToBev) or not isinstance(head, ChannelToHeight):
            raise ConfigurationError(["only lifter 'depth' with space 'bev' can be exported"], where="WalkOccConfig")
        self.lift, self.head = OneFrameLift(lift), head
        compare_with_free(cast(nn.Conv2d, head.last), head.classes)

    def forward(
        self, images: Tensor, rows: Tensor, bins: Tensor, weights: Tensor, ranges: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame.

        Args:
            images: uint8 RGB [cameras, H, W, 3].
            rows, bins, weights: the projection table, [hits, S], int32, int32 and float32.
            ranges: float32 [cameras, h, w] as in `WalkOcc.forward`; None for a network without LiDAR.

        Returns:
            `labels` uint8 [nz, ny, nx], `confidence` uint8 [nz, ny, nx] = 255 P(occupied), `waypoints` [10, 2].
        """
        network = self.network
        view = network.look(network.encode(images), ranges)
        depth = network.depth(view).permute(0, 2, 3, 1).flatten(0, 2).softmax(1)
        context = network.context(view).permute(0, 2, 3, 1).flatten(0, 2)
        bev = network.bev(self.lift(context, depth, rows, bins, weights))
        head = self.head
        columns = head.last(head.hidden(bev)).squeeze(0).permute(1, 2, 0)
        labels, confidence = decide(columns.reshape(*columns.shape[:2], head.classes, head.heights))
        return labels, confidence, network.trajectory(bev).squeeze(0)


def decide(margins: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely class and P(occupied) in 255ths, both uint8 [nz, ny, nx].

    `margins` [ny, nx, K, nz] are logits minus the logit of free, so that P(free) = 1 / sum(exp(margins)): no maximum
    is needed against overflow, since an infinite sum is the right P(free) of 0.
    """
    labels = margins.argmax(2).to(torch.uint8)
    confidence = 255.0 - 255.0 / margins.exp().sum(2)
    return labels.permute(2, 0, 1), confidence.round().to(torch.uint8).permute(2, 0, 1)


class OneFrameLift(nn.Module):
    """`LiftToBev` of one frame: features and depth terms meet their own weights, one matrix product each."""

    def __init__(self, lift: LiftToBev) -> None:
        super().__init__()
        norm = cast(nn.BatchNorm2d, lift.norm[0])
        scale = (norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)).detach()
        self.bias = nn.Parameter((norm.bias - cast(Tensor, norm.running_mean) * scale).detach())
        self.size = lift.size
        weight = (lift.collapse.weight.detach() * scale[:, None]).reshape(len(scale), lift.size[2], -1)
        parts = weight[..., :-EXTRA_CHANNELS], weight[..., -EXTRA_CHANNELS:]
        self.of_features, self.of_depth = (nn.Parameter(part.flatten(1).t().contiguous()) for part in parts)

    def forward(self, context: Tensor, depth: Tensor, rows: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
        """`context` [P, C], `depth` [P, D], tables [hits, S] in message order; returns [1, bev_channels, ny, nx]."""
        nx, ny, nz = self.size
        rows, bins, weights = (t.reshape(-1, nz, ny * nx).transpose(1, 2).flatten(1) for t in (rows, bins, weights))
        index = (rows * depth.shape[1] + bins).flatten()
        at_or_beyond = depth @ torch.ones(depth.shape[1], depth.shape[1]).tril()
        at_bin = depth.flatten().index_select(0, index).view_as(weights) * weights
        open_ray = at_or_beyond.flatten().index_select(0, index).view_as(weights) * weights
        features = nn.functional.embedding(rows, context) * at_bin.unsqueeze(-1)
        terms = torch.stack([at_bin, open_ray], -1)
        # Hits are summed behind the products, where they are a quarter of the size.
        bev = self.project(features, self.of_features) + self.project(terms, self.of_depth) + self.bias
        return torch.relu(bev).t().reshape(1, -1, ny, nx)

    def project(self, samples: Tensor, weight: Tensor) -> Tensor:
        """Samples [hits, ny nx nz, c] times weight [nz c, bev_channels], summed over the hits."""
        nx, ny, _ = self.size
        return torch.as_tensor((samples.reshape(-1, ny * nx, len(weight)) @ weight).sum(0))


def compare_with_free(last: nn.Conv2d, classes: int) -> None:
    """Make the last convolution give each class's logit minus that of free (class 0), in place."""
    with torch.no_grad():
        for parameter in (last.weight, cast(Tensor, last.bias)):
            by_class = parameter.view(classes, -1, *parameter.shape[1:])
            by_class -= by_class[:1].clone()


def fold_batch_norm(network: WalkOcc) -> WalkOcc:
    """A copy in evaluation mode whose batch normalisations are folded into the convolutions before them."""
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                conv, norm = module[i], module[i + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return folded
