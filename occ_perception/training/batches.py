"""Samples to batches: projection tables, targets at feature resolution, rays.

Samples of images alone mix freely with paired ones: what a sample lacks is marked as absent and costs nothing.
Every random number comes from the generator that is passed in, so a batch is a function of its seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from occ_perception.calibration.rig import RigCamera
from occ_perception.datasets.sample import ImageSample, Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import VoxelGridSpec, projection_table, se3
from occ_perception.geometry.range_image import range_image
from occ_perception.geometry.ray_cells import grid_rays, ray_cells
from occ_perception.geometry.tables import resize_affine
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.taxonomy import FREE, OCCUPIED, SIDEWALK, UNKNOWN
from occ_perception.training.augmentation import (
    NO_AUGMENTATION,
    AugmentationConfig,
    bev_augmentation,
    photometric,
    worn_scan,
)
from occ_perception.training.losses import IGNORED

Item = dict[str, NDArray[Any]]
MAP_FIRST = "Map the labels to the sidewalk classes first (`to_sidewalk` of the data set)"


class Samples(Protocol):
    """A data set: a list of samples, or something that reads them one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def _at_feature_pixels(image: NDArray[Any], size: tuple[int, int], flip: bool) -> NDArray[Any]:
    """Nearest pixel of [H, W] at the centre of each feature pixel, [h, w]; mirrored after that if `flip`."""
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(int)
    return np.asarray(image[rows[:, None], columns[::-1] if flip else columns])


def resample(sample: Sample, grid: VoxelGridSpec, augmentation: NDArray[np.float64]
             ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Labels and visibility of the augmented `grid`: each cell takes the sample's cell in which its centre lies.

    Args:
        grid: cells of the sample's size, aligned with them; what the sample's grid has beyond it is cut off.
        augmentation: as from `bev_augmentation`, which leaves heights alone.

    Returns:
        Both [nz, ny, nx]; 255 and not visible where the sample has no cell.

    Raises:
        DatasetError: the sample's grid has other cells, or does not hold `grid`.
    """
    offset = (np.asarray(grid.minimum_m) - sample.spec.minimum_m) / sample.spec.cell
    first = np.rint(offset).astype(int)
    aligned = np.allclose(grid.cell, sample.spec.cell) and np.allclose(offset, first, atol=1e-3)
    if not aligned or (first < 0).any() or (first + grid.shape > sample.spec.shape).any():
        raise DatasetError(f"labels are over {_extent(sample.spec)}, the network predicts {_extent(grid)}",
                           where=_name(sample), fix="Cells must be equal and aligned, and the labels' grid no smaller")
    nx, ny, nz = grid.shape
    y, x = np.mgrid[:ny, :nx]
    centres = grid.centre_of(np.stack([x, y, np.zeros_like(x)], -1))
    cells, inside = sample.spec.index(se3.apply(np.linalg.inv(augmentation), centres))
    cells[~inside] = 0
    heights = slice(first[2], first[2] + nz)
    labels = np.where(inside[..., None], sample.labels[cells[..., 0], cells[..., 1], heights], np.uint8(UNKNOWN))
    visible = inside[..., None] & sample.visible[cells[..., 0], cells[..., 1], heights]
    return np.ascontiguousarray(labels.transpose(2, 0, 1)), np.ascontiguousarray(visible.transpose(2, 0, 1))


def draw_rays(
    camera: RigCamera, classes: NDArray[np.integer[Any]], range_m: NDArray[np.float32] | None, network: WalkOccConfig,
    count: int, rng: np.random.Generator, *, T_grid_base: NDArray[np.float64], image_affine: NDArray[np.float64],
    augmentation: NDArray[np.float64],
) -> Item:
    """Rays of one image for the losses along rays (WalkOCC, Eqs. 3 to 5; free space), drawn without replacement.

    A class of n pixels is drawn with weight sqrt(n): the paper takes every pixel, which are mostly ground and walls.
    A pixel can count if it shows a voxel class, so neither background nor occlusion, and if what it shows lies in the
    grid. Where no range was measured only the prediction can tell; then its ray has to cross the grid.

    Args:
        classes: [h, w] at the feature pixels.
        range_m: [h, w] at the feature pixels, 0 none; None where nothing was measured.
        count: number of rays; with fewer pixels that can count, the rest is filled up with rays that do not.

    Returns:
        `ray_pixels` int64 [count] rows of the flattened features of this image, `ray_cells` int32 [count, bins] flat
        cells of `network.output_grid` or -1, `ray_labels` int64 [count] or -100, `ray_known` bool [count].
    """
    grid, size = network.output_grid, network.feature_size
    mounted = camera.mounted()
    shown = (classes > FREE) & (classes < network.classes)
    if range_m is not None:
        shown &= range_m > 0
    pixels = np.argwhere(shown)

    def cells_along(pixels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        return ray_cells(mounted, pixels, network.bins, grid, size, input_size=network.image_size,
                         T_grid_base=T_grid_base, image_affine=image_affine, augmentation=augmentation)

    if range_m is None:
        in_grid = (cells_along(pixels) >= 0).any(1)
    else:
        origin, directions = grid_rays(mounted, pixels, size, input_size=network.image_size, T_grid_base=T_grid_base,
                                       image_affine=image_affine, augmentation=augmentation)
        _, in_grid = grid.index(origin + range_m[shown][:, None] * directions)
    pixels = pixels[in_grid]
    labels = classes[pixels[:, 0], pixels[:, 1]]
    rarity = np.bincount(labels, minlength=network.classes)[labels] ** -0.5
    # The smallest of exponential waiting times are a weighted draw without replacement.
    pixels = pixels[np.argsort(rng.exponential(size=len(pixels)) / rarity)[:count]]
    drawn = len(pixels)
    rays: Item = {
        "ray_pixels": np.zeros(count, np.int64), "ray_cells": np.full((count, network.bins.count), -1, np.int32),
        "ray_labels": np.full(count, IGNORED, np.int64), "ray_known": np.zeros(count, np.bool_),
    }
    rays["ray_pixels"][:drawn] = pixels[:, 0] * size[1] + pixels[:, 1]
    rays["ray_cells"][:drawn] = cells_along(pixels)
    rays["ray_labels"][:drawn] = classes[pixels[:, 0], pixels[:, 1]]
    rays["ray_known"][:drawn] = range_m is not None
    return rays


def make_item(
    sample: ImageSample, network: WalkOccConfig, augmentation: AugmentationConfig, rng: np.random.Generator, *,
    rays: int = 0, clears: bool = False, use_lidar: bool = True, hits: int = 1,
) -> Item:
    """One sample as the network's inputs and targets, without the batch axis (see `collate`).

    Args:
        sample: a paired sample, or images alone: without voxels, ranges and waypoints its targets for them are empty.
        rays: rays per image for the losses along rays; 0: none.
        clears: whether they clear the space before what they show (`free_space`).
        use_lidar: False leaves the range image empty (only of a network that takes one).
        hits: cameras that a lift sample may read at most.

    Raises:
        DatasetError: the sample has no image of any camera of its rig, an image or a voxel carries a class that the
            network does not have, its classes are of another taxonomy, or its labels are over a grid that does not
            hold the network's.
    """
    cameras = [camera for camera in sample.rig.cameras if camera.name in sample.images]
    if not cameras:
        raise DatasetError("no image of any camera of the rig", where=_name(sample))
    paired = sample if isinstance(sample, Sample) else None
    if paired is not None:
        _require_known_labels(paired, network.classes)
    T_augmented_grid, flip = bev_augmentation(augmentation, rng)
    images, affines, depth, semantics, drawn = [], [], [], [], []
    for camera in cameras:
        image, affine = _input_image(sample.images[camera.name], network.image_size, flip)
        images.append(photometric(image, augmentation, rng) if augmentation != NO_AUGMENTATION else image)
        affines.append(affine)
        classes = _classes(sample, camera.name, network, flip)
        semantics.append(classes)
        range_m = None
        if paired is not None and camera.name in paired.range_m:
            range_m = _at_feature_pixels(paired.range_m[camera.name], network.feature_size, flip)
        depth.append(np.full(network.feature_size, IGNORED, np.int64) if range_m is None
                     else np.where(range_m > 0, network.bins.index(range_m), IGNORED).astype(np.int64))
        if rays > 0:
            drawn.append(draw_rays(camera, classes, range_m, network, rays, rng, T_grid_base=sample.T_grid_base,
                                   image_affine=affine, augmentation=T_augmented_grid))
    mounted = [camera.mounted() for camera in cameras]
    table = projection_table(
        mounted, network.lift_grid, network.bins, network.feature_size, input_size=network.image_size,
        T_grid_base=sample.T_grid_base, image_affine=affines, augmentation=T_augmented_grid, hits=hits,
    )
    item: Item = {
        "images": np.stack(images), "rows": table.rows, "bins": table.bins, "weights": table.weights,
        **_volume_targets(paired, network, T_augmented_grid),
        "depth": np.stack(depth), "semantics": np.stack(semantics),
    }
    if network.lidar:
        scan = paired.points_m if paired is not None and use_lidar else None
        lidar = sample.rig.lidars[0].T_base_lidar if len(sample.rig.lidars) == 1 else None
        points_m = np.zeros((0, 3), np.float32) if scan is None else worn_scan(scan, lidar, augmentation, rng)
        item["ranges"] = range_image(points_m, mounted, network.feature_size, input_size=network.image_size,
                                     image_affine=affines)
    if rays > 0:
        item |= {key: np.stack([part[key] for part in drawn]) for key in drawn[0]}
        item["ray_clears"] = (item["ray_labels"] != IGNORED) & clears
        item["ray_pixels"] += math.prod(network.feature_size) * np.arange(len(cameras))[:, None]
    return item


def _input_image(image: NDArray[np.uint8], size: tuple[int, int], flip: bool
                 ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The image as the network takes it, and the affine [2, 3] from raw pixels into it."""
    affine = resize_affine(image.shape[:2], size)
    if image.shape[:2] != size:
        image = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        affine = np.array([[-1.0, 0.0, size[1] - 1.0], [0.0, 1.0, 0.0]]) @ np.vstack([affine, [0.0, 0.0, 1.0]])
    return image, affine


def _classes(sample: ImageSample, camera: str, network: WalkOccConfig, flip: bool) -> NDArray[np.int64]:
    """Classes [h, w] at the feature pixels; -100 where the camera has none."""
    if camera not in sample.semantics:
        return np.full(network.feature_size, IGNORED, np.int64)
    classes = sample.semantics[camera]
    if classes.max() >= network.image_classes:
        foreign = np.unique(classes[classes >= network.image_classes]).tolist()
        raise DatasetError(f"the image of {camera} carries the classes {foreign}, the network has "
                           f"0..{network.image_classes - 1}", where=_name(sample), fix=MAP_FIRST)
    return _at_feature_pixels(classes, network.feature_size, flip).astype(np.int64)


def _volume_targets(sample: Sample | None, network: WalkOccConfig, augmentation: NDArray[np.float64]) -> Item:
    """Labels, visibility and waypoints in the augmented frame; unknown, unseen and NaN without a sample."""
    waypoints = np.full((network.waypoints, 2), np.nan, np.float32)
    if sample is None:
        shape = network.output_grid.shape[::-1]
        return {"labels": np.full(shape, UNKNOWN, np.uint8), "visible": np.zeros(shape, np.bool_),
                "waypoints": waypoints}
    labels, visible = resample(sample, network.output_grid, augmentation)
    if sample.waypoints_m is not None:
        waypoints[:] = sample.waypoints_m @ augmentation[:2, :2].T
    return {"labels": labels, "visible": visible, "waypoints": waypoints}


def _require_known_labels(sample: Sample, classes: int) -> None:
    if sample.taxonomy != SIDEWALK.name:
        raise DatasetError(f"its classes are of the taxonomy {sample.taxonomy!r}, the network's of {SIDEWALK.name!r}",
                           where=_name(sample), fix=MAP_FIRST)
    foreign = sample.labels[(sample.labels >= classes) & (sample.labels < OCCUPIED)]
    if foreign.size:
        raise DatasetError(f"its voxels carry the labels {np.unique(foreign).tolist()}, the network has "
                           f"0..{classes - 1}, {OCCUPIED} and {UNKNOWN}", where=_name(sample), fix=MAP_FIRST)


def _name(sample: ImageSample) -> str:
    return f"{sample.scene}[{sample.index}]"


def _extent(grid: VoxelGridSpec) -> str:
    return f"{grid.shape} cells of {grid.cell_m} m from {grid.minimum_m}"


def collate(items: Sequence[Item]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Items to (inputs, targets) with a batch axis; rows and cells are moved on to each entry's own.

    Inputs are the arguments of `WalkOcc.forward`, targets those of `losses.walkocc_losses`.
    """
    pixels = math.prod(items[0]["depth"].shape[1:])
    cameras = [len(item["images"]) for item in items]
    first = np.cumsum([0, *cameras[:-1]]) * pixels

    def stack(key: str) -> Tensor:
        return torch.from_numpy(np.stack([item[key] for item in items]))

    def join(key: str) -> Tensor:
        return torch.from_numpy(np.concatenate([item[key] for item in items]))

    rows = np.stack([item["rows"] + np.int32(offset) for item, offset in zip(items, first, strict=True)])
    inputs = {"images": join("images"), "rows": torch.from_numpy(rows), "bins": stack("bins"),
              "weights": stack("weights")}
    if "ranges" in items[0]:
        inputs["ranges"] = join("ranges")
    targets = {"labels": stack("labels"), "visible": stack("visible"), "depth": join("depth"),
               "semantics": join("semantics"), "waypoints": stack("waypoints")}
    if "ray_pixels" in items[0]:
        voxels = items[0]["labels"].size
        cells = [np.where(item["ray_cells"] >= 0, item["ray_cells"] + np.int32(entry * voxels), np.int32(-1))
                 for entry, item in enumerate(items)]
        seen = [item["ray_pixels"] + offset for item, offset in zip(items, first, strict=True)]
        targets |= {"ray_pixels": torch.from_numpy(np.concatenate(seen)), "ray_labels": join("ray_labels"),
                    "ray_cells": torch.from_numpy(np.concatenate(cells)), "ray_known": join("ray_known"),
                    "ray_clears": join("ray_clears")}
    return inputs, targets
