"""Annotated images as batches for SAM3: random sizes, prompts that an image shows and some that it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from occ_perception.labeling.segmenters.coco import Annotated
from occ_perception.labeling.segmenters.sam3_loss import Wanted
from occ_perception.labeling.segmenters.sam3_model import Sam3


@dataclass(frozen=True)
class Batch:
    """Images [B, 3, S, S] and P prompts: `about` int64 [P] names the image, `asked` int64 [P] the prompt."""

    pixels: Tensor
    about: Tensor
    asked: Tensor
    wanted: list[Wanted]
    names: tuple[str, ...]


def make_batch(sam3: Sam3, images: Sequence[Annotated], prompts: tuple[str, ...], *, per_image: int, smallest: float,
               rng: np.random.Generator) -> Batch:
    """Images with what their prompts ask for.

    Args:
        prompts: of the data set; `asked` counts in them.
        per_image: prompts of each image.
        smallest: each image is shrunk by a random factor from here to 1, then padded to the model's input.
    """
    pixels, about, asked, wanted = [], [], [], []
    for row, image in enumerate(images):
        part_of = float(rng.uniform(smallest, 1.0))
        pixels.append(padded_pixels(sam3, image.image, part_of))
        for prompt in picked_prompts(prompts, image.prompts, per_image, rng):
            about.append(row)
            asked.append(prompts.index(prompt))
            wanted.append(wanted_of(image.of(prompt), part_of, mask_size_px(sam3)))
    return Batch(torch.stack(pixels), torch.tensor(about), torch.tensor(asked), wanted,
                 tuple(image.name for image in images))


def picked_prompts(all_prompts: tuple[str, ...], shown: tuple[str, ...], count: int,
                   rng: np.random.Generator) -> list[str]:
    """Prompts for one image: such as it shows, and at least one of the others where there are any and room for two."""
    there = [prompt for prompt in all_prompts if prompt in shown]
    others = [prompt for prompt in all_prompts if prompt not in shown]
    kept = min(len(there), max(count - 1, 1) if others else count)
    picked = [there[i] for i in rng.permutation(len(there))[:kept]]
    return picked + [others[i] for i in rng.permutation(len(others))[:count - kept]]


def mask_size_px(sam3: Sam3) -> int:
    """Height and width of the masks the model gives (288 of 1008)."""
    vision = sam3.model.config.vision_config
    return int(sam3.size_px // vision.backbone_config.patch_size * max(vision.scale_factors))


def padded_pixels(sam3: Sam3, image: NDArray[np.uint8], part_of: float) -> Tensor:
    """The image as a square of that part of the model's input, black to the right and below: [3, S, S]."""
    side = max(round(part_of * sam3.size_px), 1)
    pixels = torch.full((3, sam3.size_px, sam3.size_px), -1.0)
    pixels[:, :side, :side] = sam3.pixels(image, side)
    return pixels


def wanted_of(masks: NDArray[np.bool_], part_of: float, size_px: int) -> Wanted:
    """Boxes and masks of instances, bool [M, H, W], in an input whose image takes up `part_of` of each side.

    Masks are shares of the area of each of the model's mask pixels, so that thin things do not vanish.
    """
    masks = masks[masks.any(axis=(1, 2))]
    side = max(round(part_of * size_px), 1)
    small = torch.zeros(len(masks), size_px, size_px)
    boxes = torch.zeros(len(masks), 4)
    if len(masks):
        planes = torch.from_numpy(masks.astype(np.float32))[:, None]
        small[:, :side, :side] = functional.interpolate(planes, (side, side), mode="area")[:, 0]
    for row, mask in enumerate(masks):
        v, u = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        corners = np.array([u[0], v[0], u[-1] + 1, v[-1] + 1]) / np.array([*mask.shape[::-1], *mask.shape[::-1]])
        boxes[row] = torch.from_numpy(corners * part_of)
    return Wanted(boxes, small)
