"""The 2D-3D consistency loss of WalkOCC (section 3.2, Eqs. 3 to 5): voxels along a ray must show what the image shows.

It teaches from images alone: the labels of the image reach the voxels through the depth distribution and back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from occ_perception.taxonomy import FREE
from occ_perception.training.means import Average, mean_over, own

EPSILON = 0.1
"""Eq. 4; the paper gives no figure. A ray whose valid voxels together are less likely than this fades to no opinion:
where depth and voxels disagree, as they do for unknown bodies, its class belongs to neither."""


def in_columns(occupancy: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The volume [B, K, nz, ny, nx] as columns [B * ny * nx, K, nz], and column and height of flat cells.

    That is the order in which a channels_last head over the bird's-eye view writes, so nothing is copied, and
    reductions over classes and gradients of gathered voxels run through memory as it lies.
    """
    _, classes, nz, ny, nx = occupancy.shape
    columns = occupancy.permute(0, 3, 4, 1, 2).reshape(-1, classes, nz)
    layer = torch.div(cells, ny * nx, rounding_mode="floor")
    return columns, torch.div(layer, nz, rounding_mode="floor") * (ny * nx) + cells % (ny * nx), layer % nz


def consistency_loss(
    occupancy: Tensor,
    depth: Tensor,
    ray_pixels: Tensor,
    ray_cells: Tensor,
    ray_labels: Tensor,
    ray_known: Tensor,
    average: Average = own,
) -> Tensor:
    """Eq. 5: the mean over rays of the cross entropy between what the voxels on a ray show and the pixel's label.

    The classes compared are those of matter. A pixel is never labelled background, so a background logit in the
    comparison could only be pushed down: where no voxel labels push back, as in images alone, voxels before the camera
    fill up.

    Voxel logits are averaged with the weights of Eq. 4, the probability of each range bin among those whose voxel is
    valid: in the grid and not predicted background. Which voxels are valid passes no gradient. Rays without a valid
    voxel have no opinion and do not count, so the loss is silent until something is predicted as occupied.

    Args:
        occupancy: logits [B, K, nz, ny, nx].
        depth: logits [N, D, h, w].
        ray_pixels: int64 [N, R], rows of the flattened features [N * h * w].
        ray_cells: int32 [N, R, D], flat index (x fastest) into the volumes of the batch, -1 outside the grid.
        ray_labels: int64 [N, R], class of the pixel; rays of negative labels do not count.
        ray_known: bool [N, R], what the pixel shows is known to lie in the grid. Of other rays those count whose most
            likely range bin lies in the grid.
        average: mean of a count over processes.
    """
    classes, bins = occupancy.shape[1], depth.shape[1]
    pixels, cells, labels = ray_pixels.flatten(), ray_cells.reshape(-1, bins).long(), ray_labels.flatten()
    kind = torch.promote_types(occupancy.dtype, torch.float32)
    inside = cells >= 0
    columns, column, height = in_columns(occupancy, cells.clamp(min=0))
    features = depth.permute(0, 2, 3, 1).flatten(0, 2)
    probability = functional.embedding(pixels, features).to(kind).softmax(1)
    with torch.no_grad():
        matter = columns[:, FREE + 1 :].amax(1) > columns[:, FREE]
        valid = inside & matter[column, height]
        expected = inside.gather(1, probability.argmax(1, keepdim=True)).squeeze(1)
        counted = (labels >= 0) & (ray_known.flatten() | expected) & valid.any(1)
        ray, at = (valid & counted[:, None]).nonzero(as_tuple=True)
    likely = probability[ray, at]
    total = likely.new_zeros(len(pixels)).index_add(0, ray, likely)
    weights = likely / (total[ray] + EPSILON)
    voxels = columns[column[ray, at], :, height[ray, at]].to(kind)
    shown = voxels.new_zeros(len(pixels), classes).index_add(0, ray, weights[:, None] * voxels)
    first = FREE + 1
    entropy = functional.cross_entropy(shown[:, first:], (labels - first).where(counted, -1), ignore_index=-1,
                                       reduction="sum")
    return mean_over(entropy, counted, average)
