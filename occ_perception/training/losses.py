"""Losses of WalkOCC (Eq. 2, the depth and segmentation terms of Eq. 6, waypoints of A.1) and the weights of all terms.

The 2D-3D consistency term is in `consistency`, that of free space in images alone in `free_space`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from occ_perception.errors import ConfigurationError
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN
from occ_perception.training.consistency import consistency_loss
from occ_perception.training.free_space import free_space_loss
from occ_perception.training.means import Average, mean_over, own

IGNORED = -100
"""Target of pixels without depth or class, label of rays that do not count: torch's default for `ignore_index`."""
COLUMNS_PER_CHUNK = 256
"""Grid columns per pass: 256 x 14 x 50 floats stay in a core's second-level cache, and no pass copies the volume."""

TERMS = ("occupancy", "depth", "semantics", "trajectory", "consistency", "free_space")
ALONG_RAYS = ("consistency", "free_space")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms and shape of the occupancy loss.

    Attributes:
        occupancy, depth, semantics, trajectory, consistency, free_space: weights of the terms; a term of weight 0 is
            not computed. The last two need rays (`batches.make_item`).
        focal_gamma: focusing exponent of Eq. 2; 0 is plain cross entropy.
        balance: class weights are (frequency of free / frequency of class) ** balance, so 0 weighs all alike.
        largest_class_weight: no class weighs more than this many free voxels.
        hidden_weight: weight of labelled voxels that no sensor (camera or LiDAR) saw, beside 1 for seen ones.
    """

    occupancy: float = 10.0
    depth: float = 1.0
    semantics: float = 1.0
    trajectory: float = 0.2
    consistency: float = 0.0
    free_space: float = 0.0
    focal_gamma: float = 1.0
    balance: float = 0.25
    largest_class_weight: float = 10.0
    hidden_weight: float = 0.25

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 0, got {value}" for name, value in vars(self).items() if not value >= 0
        ]
        if self.largest_class_weight < 1:
            faults.append(f"largest_class_weight must be at least 1, got {self.largest_class_weight}")
        if not any(getattr(self, name) for name in TERMS):
            faults.append(f"at least one of {', '.join(TERMS)} must have a weight")
        if faults:
            raise ConfigurationError(faults, where="LossConfig")

    @classmethod
    def trajectory_only(cls) -> LossConfig:
        """Only the waypoints teach: WalkOCC's training without occupancy supervision (A.1, Table 4)."""
        return cls(occupancy=0.0, depth=0.0, semantics=0.0)

    @property
    def along_rays(self) -> tuple[str, ...]:
        """Terms with a weight that need rays."""
        return tuple(name for name in ALONG_RAYS if getattr(self, name) > 0)


def class_weights(frequencies: Tensor, config: LossConfig) -> Tensor:
    """Weights [256] by label from class frequencies [K]: free 1, rare ones more, 255 nothing, 254 as the commonest."""
    occupied = torch.arange(len(frequencies)) != FREE
    ratio = (frequencies[FREE] / frequencies.clamp(min=1e-9)).clamp(min=1.0) ** config.balance
    weights = torch.zeros(256)
    weights[: len(frequencies)] = torch.where(occupied, ratio.clamp(max=config.largest_class_weight), 1.0)
    weights[OCCUPIED] = weights[1 : len(frequencies)].min()
    weights[UNKNOWN] = 0.0
    return weights


class _FocalCrossEntropy(torch.autograd.Function):
    """Sum of weighted focal cross entropies; the gradient is made in the same pass over cache-sized chunks.

    With p the probability of what the label allows (its class; all but free for 254) the loss of a voxel is
    -w (1 - p)^g log p. Its gradient is s (softmax - onehot(r)) with r the label, or free for 254.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, gamma: float) -> Tensor:
        # [B, K, nz, ny, nx] -> [columns, K, nz]: a view of what a channels_last convolution wrote.
        volume = logits.permute(0, 3, 4, 1, 2)
        columns = volume.reshape(-1, *volume.shape[3:])
        targets = labels.permute(0, 2, 3, 1).reshape(len(columns), 1, -1)
        scale = weights.permute(0, 2, 3, 1).reshape(len(columns), 1, -1)
        gradient = torch.zeros_like(columns)
        total = logits.new_zeros((), dtype=torch.float64)
        # Whole heights have no label at all, such as everything below the ground.
        labelled = (weights > 0).any(0).flatten(1).any(1).nonzero().flatten().tolist() or [0]
        heights = slice(labelled[0], labelled[-1] + 1)
        # Whole entries of a batch have none either: images alone.
        used = (weights > 0).any(1).flatten().cpu()
        for start in range(0, len(columns), COLUMNS_PER_CHUNK):
            if not used[start : start + COLUMNS_PER_CHUNK].any():
                continue
            part = slice(start, start + COLUMNS_PER_CHUNK)
            target, weight = targets[part, :, heights], scale[part, :, heights]
            any_class = target == OCCUPIED
            reference = torch.where(target >= OCCUPIED, FREE, target).long()
            p = columns[part, :, heights].to(weight.dtype).softmax(1)
            p_reference = p.gather(1, reference)
            likely = torch.where(any_class, 1 - p_reference, p_reference).clamp_(min=1e-7)
            log_p = likely.log()
            unlikely = 1 - likely
            total += -(weight * unlikely**gamma * log_p).sum()
            # dL/dp * p; the focal factor's own derivative vanishes at gamma 0.
            slope = -unlikely**gamma
            if gamma > 0:
                slope = slope + gamma * unlikely.clamp(min=1e-7) ** (gamma - 1) * likely * log_p
            slope = weight * torch.where(any_class, slope * p_reference / likely, -slope)
            p.scatter_add_(1, reference, -torch.ones_like(p_reference))
            gradient[part, :, heights] = p.mul_(slope)
        ctx.save_for_backward(gradient.view(volume.shape).permute(0, 3, 4, 1, 2))
        return total.to(weights.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream[0]), None, None, None


def focal_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float, average: Average = own
                        ) -> Tensor:
    """WalkOCC Eq. 2: the mean over valid voxels of the weighted focal cross entropy.

    Args:
        logits: [B, K, nz, ny, nx], float32 or bfloat16.
        labels: uint8 [B, nz, ny, nx]; 254 takes any class but free, 255 is not valid.
        weights: float [B, nz, ny, nx]; must be 0 where the label is 255. The mean is over their count above 0.
        gamma: focusing exponent.
        average: mean of a count over processes.
    """
    total: Tensor = _FocalCrossEntropy.apply(logits, labels, weights, gamma)  # type: ignore[no-untyped-call]
    return mean_over(total, weights > 0, average)


def masked_cross_entropy(logits: Tensor, targets: Tensor, average: Average = own) -> Tensor:
    """Mean cross entropy of logits [N, C, h, w] over pixels; targets int64 [N, h, w], where -100 does not count."""
    entropy = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return mean_over(entropy, targets != IGNORED, average)


def trajectory_loss(waypoints_m: Tensor, targets_m: Tensor, average: Average = own) -> Tensor:
    """Smooth-L1 over waypoints [B, T, 2]; entries whose target is NaN have no full future and do not count."""
    present = targets_m.isfinite()
    reachable = torch.where(present, targets_m, waypoints_m.detach())
    return mean_over(functional.smooth_l1_loss(waypoints_m, reachable, reduction="sum"), present, average)


def walkocc_losses(
    outputs: dict[str, Tensor], targets: dict[str, Tensor], label_weights: Tensor, config: LossConfig,
    average: Average = own,
) -> dict[str, Tensor]:
    """The terms that have a weight (not yet weighed), and their weighed sum under `total`.

    Each term is a mean over what its targets say of the batch; a sample without such targets, as images alone are for
    all but `semantics` and those along rays, changes neither its value nor its gradient.

    Args:
        outputs: of `WalkOcc.forward`.
        targets: of `batches.collate`: `labels` uint8 [B, nz, ny, nx], `visible` bool alike, `depth` int64 [N, h, w]
            (range bin or -100), `semantics` int64 [N, h, w], `waypoints` float32 [B, T, 2] (NaN: none), and
            `ray_pixels, ray_cells, ray_labels, ray_known, ray_clears` for the terms along rays.
        label_weights: [256] weight by label, from `class_weights`.
        average: mean of a count over processes, so that several of them normalise alike.

    Raises:
        ConfigurationError: a term along rays has a weight, but the targets have no rays.
    """
    if config.along_rays and "ray_pixels" not in targets:
        raise ConfigurationError([f"{' and '.join(config.along_rays)} need rays, the batch has none"],
                                 where="walkocc_losses", fix="Make items with rays > 0, or set these weights to 0")

    def occupancy() -> Tensor:
        labels = targets["labels"]
        weights = label_weights[labels.long()] * torch.where(targets["visible"], 1.0, config.hidden_weight)
        return focal_cross_entropy(outputs["occupancy"], labels, weights, config.focal_gamma, average)

    def along_rays(term: Callable[..., Tensor], *about: str) -> Tensor:
        return term(outputs["occupancy"], outputs["depth"],
                    *(targets[f"ray_{name}"] for name in ("pixels", "cells", *about)), average)

    compute: dict[str, Callable[[], Tensor]] = {
        "occupancy": occupancy,
        "depth": lambda: masked_cross_entropy(outputs["depth"], targets["depth"], average),
        "semantics": lambda: masked_cross_entropy(outputs["semantics"], targets["semantics"], average),
        "trajectory": lambda: trajectory_loss(outputs["trajectory"].float(), targets["waypoints"], average),
        "consistency": lambda: along_rays(consistency_loss, "labels", "known"),
        "free_space": lambda: along_rays(free_space_loss, "clears"),
    }
    terms = {name: compute[name]() for name in TERMS if getattr(config, name) > 0}
    terms["total"] = torch.stack([getattr(config, name) * value for name, value in terms.items()]).sum()
    return terms
