"""Free space from images alone (beyond WalkOCC): what a pixel shows is not hidden behind something much nearer.

The consistency loss says what stands along a ray, never that nothing does. Before cameras that are mounted otherwise
than those of the paired samples, voxels that no label ever spoke of then fill up. So this is for images of such
cameras, by day: by night the predicted ranges are not to be trusted with it, and where a camera hangs as those of the
paired samples do, their labels speak of the same voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from occ_perception.taxonomy import FREE
from occ_perception.training.consistency import in_columns
from occ_perception.training.means import Average, mean_over, own

WEIGHT = 1.0
"""The first that was tried."""
SURE = 0.9
"""How likely a pixel's range must be far enough. Chosen on `val_night` and `val_embodiments`: of the pixels of persons
it would clear up to 8 % where they stand, of all other classes looked at not more than 1 %. Weighing by the probability
instead cleared 40 % of persons and 14 % of vehicles by night, which cost one training most of its dark vehicles."""


def free_space_loss(
    occupancy: Tensor,
    depth: Tensor,
    ray_pixels: Tensor,
    ray_cells: Tensor,
    ray_clears: Tensor,
    average: Average = own,
) -> Tensor:
    """The mean over cleared range bins of the cross entropy between their voxels and free space.

    A bin is cleared where the pixel's range is all but certain (`SURE`) to be twice as far, in bins. At half its range
    a ray to level ground is still half the camera's height above it: rays that graze the ground do not clear its voxels
    if the camera is at least two cells above it. A kerb before a camera as low as a quadruped's is at the edge of that.

    Depth gets no gradient: it says where space is free and does not learn from it. What it surely takes for more than
    twice as far as it is, is cleared too.

    Args:
        occupancy, depth, ray_pixels, ray_cells, average: as in `consistency.consistency_loss`.
        ray_clears: bool [N, R], the ray counts.
    """
    bins = depth.shape[1]
    nearer = (bins - 1) // 2  # of these bins the one that is twice as far exists
    kind = torch.promote_types(occupancy.dtype, torch.float32)
    cells = ray_cells.reshape(-1, bins)[:, :nearer].long()
    columns, column, height = in_columns(occupancy, cells.clamp(min=0))
    with torch.no_grad():
        pixels = depth.permute(0, 2, 3, 1).flatten(0, 2)
        probability = functional.embedding(ray_pixels.flatten(), pixels).to(kind).softmax(1)
        at_least = probability.flip(1).cumsum(1).flip(1)
        twice = at_least[:, 2 : 2 * nearer + 1 : 2]
        counted = (cells >= 0) & ray_clears.reshape(-1, 1) & (twice > SURE)
        ray, at = counted.nonzero(as_tuple=True)
    voxels = columns[column[ray, at], :, height[ray, at]].to(kind)
    entropy = functional.cross_entropy(voxels, torch.full_like(ray, FREE), reduction="sum")
    return mean_over(entropy, counted, average)
