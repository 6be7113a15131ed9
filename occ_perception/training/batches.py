"""Samples to batches: projection tables, targets at feature resolution, augmentation.

Every random number comes from the generator that is passed in, so a batch is a function of its seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry.tables import projection_table, resize_affine
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training.losses import IGNORED

Item = dict[str, NDArray[Any]]

class Samples(Protocol):
    """A data set: a list of samples, or something that reads them one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


MIRROR_GRID = np.diag([1.0, -1.0, 1.0, 1.0])
"""Left becomes right in the grid's frame."""


@dataclass(frozen=True)
class AugmentationConfig:
    """What training changes at random; all zero means nothing.

    Attributes:
        flip: probability that left and right are exchanged, in image, table, labels and waypoints alike.
        log_gain_low, log_gain_high: range of the logarithm of a brightness factor (wide downwards: dusk and night).
        log_gamma: half width of the logarithm of an exponent.
        log_tint: standard deviation of the logarithm of a factor per colour.
        noise: largest amplitude of uniform noise per pixel, grey levels of 255.
    """

    flip: float = 0.5
    log_gain_low: float = -0.7
    log_gain_high: float = 0.35
    log_gamma: float = 0.3
    log_tint: float = 0.06
    noise: int = 12

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.flip <= 1:
            faults.append(f"flip must be a probability, got {self.flip}")
        if not self.log_gain_low <= 0 <= self.log_gain_high:
            faults.append(f"the range of log gains must hold 0, got {self.log_gain_low}..{self.log_gain_high}")
        if min(self.log_gamma, self.log_tint, self.noise) < 0:
            faults.append("log_gamma, log_tint and noise must be at least 0")
        if faults:
            raise ConfigurationError(faults, where="AugmentationConfig")


NO_AUGMENTATION = AugmentationConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0)


def photometric(
    image: NDArray[np.uint8], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Random gain, gamma, tint and noise of an RGB image [H, W, 3]; a new image."""
    gain = np.exp(rng.uniform(config.log_gain_low, config.log_gain_high) + config.log_tint * rng.standard_normal(3))
    gamma = np.exp(rng.uniform(-config.log_gamma, config.log_gamma))
    curve = 255.0 * (np.arange(256) / 255.0) ** gamma
    table = np.clip(np.rint(curve[:, None] * gain), 0, 255).astype(np.uint8)
    changed = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    amplitude = int(rng.integers(0, config.noise + 1))
    if amplitude == 0:
        return changed
    noise = rng.integers(-amplitude, amplitude + 1, image.shape, dtype=np.int8)
    bright = cv2.add(changed, np.maximum(noise, 0).view(np.uint8))
    return np.asarray(cv2.subtract(bright, np.maximum(-noise, 0).view(np.uint8)), np.uint8)


def _at_feature_pixels(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Nearest pixel of [H, W] at the centre of each feature pixel, [h, w]."""
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(int)
    return np.asarray(image[rows[:, None], columns])


def make_item(
    sample: Sample, network: WalkOccConfig, augmentation: AugmentationConfig, rng: np.random.Generator, *, hits: int = 1
) -> Item:
    """One sample as the network's inputs and targets, without the batch axis (see `collate`).

    Raises:
        DatasetError: the sample has no image of any camera of its rig, or labels of another grid.
    """
    if sample.labels.shape != network.output_grid.shape:
        raise DatasetError(f"labels are {sample.labels.shape}, the network predicts {network.output_grid.shape}",
                           where=f"{sample.scene}[{sample.index}]")
    cameras = [camera for camera in sample.rig.cameras if camera.name in sample.images]
    if not cameras:
        raise DatasetError("no image of any camera of the rig", where=f"{sample.scene}[{sample.index}]")
    flip = bool(rng.random() < augmentation.flip)
    height, width = network.image_size
    images, affines, depth, semantics = [], [], [], []
    for camera in cameras:
        image = sample.images[camera.name]
        affine = resize_affine(image.shape[:2], network.image_size)
        if image.shape[:2] != network.image_size:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        image = photometric(image, augmentation, rng) if augmentation != NO_AUGMENTATION else image
        range_m = _at_feature_pixels(sample.range_m[camera.name], network.feature_size)
        classes = _at_feature_pixels(sample.semantics[camera.name], network.feature_size)
        if flip:
            image, range_m, classes = image[:, ::-1], range_m[:, ::-1], classes[:, ::-1]
            affine = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]) @ np.vstack([affine, [0.0, 0.0, 1.0]])
        images.append(image)
        affines.append(affine)
        depth.append(np.where(range_m > 0, network.bins.index(range_m), IGNORED))
        semantics.append(np.where(classes < network.image_classes, classes, IGNORED))
    table = projection_table(
        [camera.mounted() for camera in cameras], network.lift_grid, network.bins, network.feature_size,
        input_size=network.image_size, T_grid_base=sample.T_grid_base, image_affine=affines,
        augmentation=MIRROR_GRID if flip else None, hits=hits,
    )
    mirror = slice(None, None, -1) if flip else slice(None)
    waypoints = np.full((network.waypoints, 2), np.nan, np.float32)
    if sample.waypoints_m is not None:
        waypoints[:] = sample.waypoints_m * (np.array([1.0, -1.0]) if flip else 1.0)
    return {
        "images": np.stack(images),
        "rows": table.rows, "bins": table.bins, "weights": table.weights,
        "labels": np.ascontiguousarray(sample.labels[:, mirror].transpose(2, 1, 0)),
        "visible": np.ascontiguousarray(sample.visible[:, mirror].transpose(2, 1, 0)),
        "depth": np.stack(depth).astype(np.int64), "semantics": np.stack(semantics).astype(np.int64),
        "waypoints": waypoints,
    }


def collate(items: Sequence[Item]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Items to (inputs, targets) with a batch axis; rows are moved on to each entry's own cameras.

    Inputs are the arguments of `WalkOcc.forward`, targets those of `losses.walkocc_losses`.
    """
    pixels = int(np.prod(items[0]["depth"].shape[1:]))
    cameras = [len(item["images"]) for item in items]
    first = np.cumsum([0, *cameras[:-1]])
    rows = [item["rows"] + np.int32(offset * pixels) for item, offset in zip(items, first, strict=True)]

    def stack(key: str) -> Tensor:
        return torch.from_numpy(np.stack([item[key] for item in items]))

    def join(key: str) -> Tensor:
        return torch.from_numpy(np.concatenate([item[key] for item in items]))

    inputs = {"images": join("images"), "rows": torch.from_numpy(np.stack(rows)), "bins": stack("bins"),
              "weights": stack("weights")}
    targets = {"labels": stack("labels"), "visible": stack("visible"), "depth": join("depth"),
               "semantics": join("semantics"), "waypoints": stack("waypoints")}
    return inputs, targets
