"""Backward lifting: every sample of the lift grid gathers the feature and the depth probability of its pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EXTRA_CHANNELS = 2
"""Weighed by depth, a sample carries beside its features its depth probability and the chance that nothing stands
before it."""


def lift(context: Tensor, depth: Tensor | None, rows: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
    """Features of 3D samples, WalkOCC Eq. 1 read backwards: a sample lies in exactly one range bin of its ray.

    Without depth it is MonoScene's projection along lines of sight (Cao and de Charette 2022, Eq. 1, at one scale):
    all samples of a ray carry the same features.

    Args:
        context: [P, C] features of all pixels of all cameras.
        depth: [P, D] probability of each range bin; rows sum to one. None: do not weigh by it.
        rows: int32 [B, hits, S], row of `context` seen by each sample.
        bins: int32 [B, hits, S], range bin of each sample on that pixel's ray.
        weights: float32 [B, hits, S], 0 where no camera sees the sample.

    Returns:
        [B, S, C + 2]: the sum over hits of `weight * P(bin) * context`, of `weight * P(bin)` and of
        `weight * P(range >= bin)`. The last is 1 up to the surface and 0 behind it, which tells free from hidden.
        Without depth [B, S, C]: the sum over hits of `weight * context`.
    """
    if depth is None:
        return (functional.embedding(rows, context) * weights.to(context.dtype).unsqueeze(-1)).sum(1)
    index = rows * depth.shape[1] + bins
    at_bin = depth.flatten().index_select(0, index.flatten()).view_as(weights)
    # A triangular product is a reversed running sum that every engine does fast.
    beyond = depth @ torch.ones(depth.shape[1], depth.shape[1], dtype=depth.dtype, device=depth.device).tril()
    open_ray = beyond.flatten().index_select(0, index.flatten()).view_as(weights)
    weights = weights.to(depth.dtype)
    at_bin, open_ray = at_bin * weights, open_ray * weights
    features = functional.embedding(rows, context) * at_bin.unsqueeze(-1)
    return torch.cat([features, at_bin.unsqueeze(-1), open_ray.unsqueeze(-1)], -1).sum(1)


class LiftToBev(nn.Module):
    """Lifted samples to a bird's-eye view; the sum over height is learned (one weight per height and channel).

    A plain sum would forget which height a feature came from, and kerbs differ from roads by just that.

    Args:
        lifted_channels: channels of a lifted sample (see `lift`).
        size: cells of the lift grid, (nx, ny, nz).
        bev_channels: of the bird's-eye view.
    """

    def __init__(self, lifted_channels: int, size: tuple[int, int, int], bev_channels: int) -> None:
        super().__init__()
        self.size = size
        self.collapse = nn.Linear(lifted_channels * size[2], bev_channels, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(bev_channels), nn.ReLU(inplace=True))

    def forward(self, context: Tensor, depth: Tensor | None, rows: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
        """Arguments as in `lift`, samples in message order (x fastest). Returns [B, bev_channels, ny, nx]."""
        nx, ny, nz = self.size
        batch = rows.shape[0]

        def height_last(table: Tensor) -> Tensor:
            # Reordering the small tables is free beside reordering what they gather.
            return table.reshape(batch, -1, nz, ny * nx).transpose(2, 3).reshape(batch, -1, nz * ny * nx)

        samples = lift(context, depth, height_last(rows), height_last(bins), height_last(weights))
        flat = self.collapse(samples.reshape(batch, ny, nx, -1))
        return torch.as_tensor(self.norm(flat.permute(0, 3, 1, 2)))
