"""What a promptable segmenter is asked for, and how its masks become one image of classes (WalkOCC D.1, E.3).

A prompt is a word; a promptable segmenter finds its mask; the masks of a pass are written over each other in a fixed
order; two passes are merged by class. Pixels that show no scene become occlusion, whatever the segmenter said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import RigCamera
from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.taxonomy import FREE, OCCLUSION, Sidewalk


@dataclass(frozen=True)
class PromptGroup:
    """One class of the images and the words that ask for it."""

    label: int
    name: str
    prompts: tuple[str, ...]


GROUPS = (
    PromptGroup(FREE, "background", ("background",)),
    PromptGroup(Sidewalk.ROAD, "road", ("road", "driveway")),
    PromptGroup(Sidewalk.SIDEWALK, "sidewalk", ("sidewalk",)),
    PromptGroup(Sidewalk.CROSSWALK, "crosswalk", ("crosswalk",)),
    PromptGroup(Sidewalk.GRASS, "grass", ("natural", "lawn")),
    PromptGroup(Sidewalk.WALL, "wall", ("wall", "building", "fence")),
    PromptGroup(Sidewalk.TREES, "trees", ("trees", "potted plant", "planter", "flower pot")),
    PromptGroup(Sidewalk.VEHICLE, "vehicle", ("vehicle",)),
    PromptGroup(Sidewalk.CYCLIST, "cyclist", ("cyclist", "scooter", "wheelchair")),
    PromptGroup(Sidewalk.ANIMAL, "animal", ("animal",)),
    PromptGroup(Sidewalk.OBSTACLE, "generic obstacle", (
        "pillar", "signboard", "chair", "desk", "table", "stool", "bench", "sofa", "bed", "cabinet", "shelf", "drawer",
        "fire hydrant", "stroller", "bike rack",
    )),
    PromptGroup(Sidewalk.PERSON, "pedestrian", ("person", "rider")),
    PromptGroup(Sidewalk.CURB, "curb", ("curb",)),
    PromptGroup(Sidewalk.GUTTER, "gutter", ("gutter",)),
    PromptGroup(OCCLUSION, "occlusion", ("occlusion",)),
)
"""Table 8. It lists 38 of the paper's 39 prompts; the other one, `driveway`, is in the overwrite order of D.1 only,
right above road, and is taken as road: it is paved for vehicles."""

LABEL_OF = {prompt: int(group.label) for group in GROUPS for prompt in group.prompts}
"""Class of every prompt."""
PROMPTS = tuple(LABEL_OF)
"""All 39, in the order of Table 8: what one model alone is asked for, and the order in which it overwrites."""
FINETUNED_PROMPTS = (
    "sidewalk", "road", "driveway", "crosswalk", "gutter", "natural", "curb", "vehicle", "rider", "person", "animal",
    "occlusion",
)
"""The priority layer of D.1: what the fine-tuned model is asked for, from low to high priority."""
BASE_PROMPTS = tuple(prompt for prompt in PROMPTS if prompt not in FINETUNED_PROMPTS)
"""The complement of D.1: what the pretrained model is asked for beside a fine-tuned one, in prompt order."""
ANNOTATED_PROMPTS = (
    "road", "sidewalk", "crosswalk", "gutter", "natural", "curb", "vehicle", "person", "animal", "occlusion",
)
"""The ten annotated classes of E.1 in the overwrite order in which E.3 scores them."""


def labels_of(prompts: Sequence[str]) -> NDArray[np.uint8]:
    """Class of each prompt, uint8 [P].

    Raises:
        ConfigurationError: prompts that belong to no group, or that occur twice.
    """
    faults = [f"{prompt!r} belongs to no group" for prompt in prompts if prompt not in LABEL_OF]
    faults += [f"{prompt!r} occurs twice" for prompt in sorted({p for p in prompts if list(prompts).count(p) > 1})]
    if not prompts:
        faults.append("there are none")
    if faults:
        raise ConfigurationError(faults, where="prompts", fix="Take them from occ_perception.labeling.prompts.GROUPS")
    return np.array([LABEL_OF[prompt] for prompt in prompts], np.uint8)


def merge_prompts(masks: Mapping[str, NDArray[np.bool_]], order: Sequence[str]) -> NDArray[np.uint8]:
    """One image of classes from the masks of a pass: where masks overlap, the later in `order` wins (D.1).

    Args:
        masks: bool [H, W] by prompt; a prompt of `order` without a mask was not found.
        order: prompts from low to high priority.

    Returns:
        uint8 [H, W], 0 where no mask lies.

    Raises:
        ConfigurationError: a prompt without a class or without a place in the order.
        ShapeError: no mask at all, or masks of several shapes.
    """
    labels = labels_of(order)
    outside = sorted(masks.keys() - set(order))
    if outside:
        raise ConfigurationError([f"{prompt!r} has a mask and no place in the order" for prompt in outside],
                                 where="prompts")
    shapes = {mask.shape for mask in masks.values()}
    if len(shapes) != 1:
        raise ShapeError(f"must have one shape [H, W], got {sorted(shapes) or 'no masks'}", where="masks of prompts")
    classes = np.zeros(shapes.pop(), np.uint8)
    for prompt, label in zip(order, labels):
        if prompt in masks:
            classes[masks[prompt]] = label
    return classes


def merge_passes(base: NDArray[np.uint8], finetuned: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The base pass, overwritten by what the fine-tuned pass found except on cyclists (D.1): uint8 [H, W].

    L = L_base; L[M] = L_ft[M] with M = (L_ft != 0) and (L_base not in the cyclist group).

    Raises:
        ShapeError: the passes differ in shape.
    """
    if base.shape != finetuned.shape:
        raise ShapeError(f"must have one shape, got {base.shape} and {finetuned.shape}", where="passes of a segmenter")
    return np.where((finetuned != FREE) & (base != Sidewalk.CYCLIST), finetuned, base)


def without_scene(camera: RigCamera) -> NDArray[np.bool_]:
    """Pixels that show no scene, bool [H, W]: outside the lens's field of view, or the robot itself (its mask)."""
    blind: NDArray[np.bool_] = np.isnan(camera.camera.rays()[..., 0])
    usable = camera.mounted().usable
    return blind if usable is None else blind | ~usable


def mark_occlusion(classes: NDArray[np.uint8], camera: RigCamera) -> NDArray[np.uint8]:
    """The classes with occlusion wherever the camera shows no scene, uint8 [H, W].

    Raises:
        ShapeError: the image is not of the camera's size.
    """
    require_size(classes, camera)
    return np.where(without_scene(camera), np.uint8(OCCLUSION), classes)


def require_size(image: NDArray[np.uint8], camera: RigCamera) -> None:
    """Raise ShapeError unless an image [H, W] or [H, W, 3] has the camera's size."""
    if image.shape[:2] != (camera.height, camera.width):
        raise ShapeError(f"must be {camera.height} x {camera.width}, got {image.shape[0]} x {image.shape[1]}",
                         where=f"image of {camera.name}", fix="Take the camera of that size: camera.resized(...)")
