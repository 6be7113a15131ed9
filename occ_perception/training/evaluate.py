"""Scores of a network, or of the prior, on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.geometry import VoxelGridSpec
from occ_perception.metrics import OccupancyIoU
from occ_perception.networks.walkocc import WalkOcc
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import Samples, collate, make_item, resample
from occ_perception.training.precision import bfloat16_products
from occ_perception.training.prefetch import prefetched

Prediction = tuple[NDArray[np.uint8], NDArray[np.float32] | None]
Predictor = Callable[[Sample], Prediction]
"""Gives labels uint8 [nx, ny, nz] and waypoints float32 [T, 2] (or none) of a sample."""


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of `count` indices, evenly spread, so that a subset sees every scene."""
    if limit is None or limit >= count:
        return list(range(count))
    return [int((i + 0.5) * count / limit) for i in range(limit)]


class OnGrid:
    """The samples of a data set on a grid inside their own, with cells as theirs; labels and visibility are cut."""

    def __init__(self, samples: Samples, grid: VoxelGridSpec) -> None:
        self.samples, self.grid = samples, grid

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if sample.spec == self.grid:
            return sample
        labels, visible = resample(sample, self.grid, np.eye(4))  # [nz, ny, nx]
        return replace(sample, spec=self.grid, labels=labels.transpose(2, 1, 0), visible=visible.transpose(2, 1, 0),
                       instance_rows=None, flow=None)


def network_outputs(network: WalkOcc, sample: ImageSample, *, bfloat16: bool, use_lidar: bool = True
                    ) -> tuple[Tensor, Tensor]:
    """Occupancy logits [K, nz, ny, nx] and waypoints [T, 2] of one sample, without augmentation, on the CPU.

    Args:
        use_lidar: False withholds the LiDAR's ranges from a network that takes them.
    """
    item = make_item(sample, network.config, NO_AUGMENTATION, np.random.default_rng(0), use_lidar=use_lidar)
    device = next(network.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in collate([item])[0].items()}
    with torch.no_grad(), bfloat16_products(device.type, bfloat16):
        occupancy, waypoints = network.infer(**inputs)
    return occupancy[0].cpu(), waypoints[0].float().cpu()


def network_predictor(network: WalkOcc, *, bfloat16: bool = False, use_lidar: bool = True) -> Predictor:
    """The network as a predictor; it is put into evaluation mode at each call."""

    def predict(sample: ImageSample) -> Prediction:
        network.eval()
        occupancy, waypoints = network_outputs(network, sample, bfloat16=bfloat16, use_lidar=use_lidar)
        # Over the strided classes `max` is four times as fast as `argmax`.
        labels = occupancy.max(0).indices.to(torch.uint8).numpy().transpose(2, 1, 0)
        return labels, waypoints.numpy()

    return predict


def constant_predictor(labels: NDArray[np.uint8]) -> Predictor:
    """Always the same grid: the prior."""
    return lambda sample: (labels, None)


def evaluate(predict: Predictor, samples: Samples, *, limit: int | None = None) -> dict[str, Any]:
    """Scores on `samples`, or on `limit` of them evenly spread.

    Returns:
        `iou, miou, per_class, precision, recall` on labelled voxels that some sensor (camera or LiDAR) saw
        (the main score), the same under `labelled` on all labelled voxels, `waypoint_error_m` (mean distance), and
        `samples`.
    """
    visible, labelled = OccupancyIoU(len(SIDEWALK)), OccupancyIoU(len(SIDEWALK))
    errors_m: list[float] = []
    indices = spread(len(samples), limit)
    for sample in prefetched(samples.__getitem__, indices):
        labels, waypoints = predict(sample)
        visible.update(labels, sample.labels, sample.visible)
        labelled.update(labels, sample.labels)
        if waypoints is not None and sample.waypoints_m is not None:
            errors_m.append(float(np.linalg.norm(waypoints - sample.waypoints_m, axis=-1).mean()))
    return {
        **visible.compute(), "labelled": labelled.compute(),
        "waypoint_error_m": float(np.mean(errors_m)) if errors_m else float("nan"), "samples": len(indices),
    }
