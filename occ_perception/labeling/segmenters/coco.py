"""Annotated images in COCO's format: instance masks as polygons or run lengths, categories that are prompts.

    {"images": [{"id", "file_name", "height", "width"}], "categories": [{"id", "name"}],
     "annotations": [{"image_id", "category_id", "segmentation": polygons | {"size", "counts"}}]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import DatasetError
from occ_perception.labeling.prompts import ANNOTATED_PROMPTS, LABEL_OF, merge_prompts

PROMPT_OF = {"pedestrian": "person", "grass": "natural"}
"""Names of annotated classes (E.1) that are asked for by another word; any prompt is its own."""

_FINER = 5
"""Polygons are drawn so many times larger; odd, so that a pixel's centre is the centre of one of its parts."""


@dataclass(frozen=True)
class Annotated:
    """One image with its instances: `image` uint8 RGB [H, W, 3], `masks` bool [N, H, W], `prompts` N words."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    prompts: tuple[str, ...]

    def of(self, prompt: str) -> NDArray[np.bool_]:
        """The instances a prompt asks for, bool [M, H, W]."""
        return self.masks[[row for row, own in enumerate(self.prompts) if own == prompt]]

    def classes(self) -> NDArray[np.uint8]:
        """All masks merged in the order of E.3, uint8 [H, W]."""
        order = [*(p for p in LABEL_OF if p not in ANNOTATED_PROMPTS), *ANNOTATED_PROMPTS]
        union = {prompt: np.asarray(self.of(prompt).any(axis=0)) for prompt in set(self.prompts)}
        return merge_prompts(union, order) if union else np.zeros(self.image.shape[:2], np.uint8)


class CocoImages:
    """The images of one annotation file, in the order of the file.

    Args:
        annotations: the JSON file.
        images: folder of the images; the file's own by default.

    Raises:
        DatasetError: no such file, not of this format, or a category that is no prompt.
    """

    def __init__(self, annotations: Path | str, images: Path | str | None = None) -> None:
        self.path = Path(annotations)
        self.folder = Path(images) if images is not None else self.path.parent
        data = self._read()
        try:
            self._images = [dict(image) for image in data["images"]]
            self._prompt_of = {int(category["id"]): PROMPT_OF.get(name := str(category["name"]), name)
                               for category in data["categories"]}
            self._instances: dict[int, list[Mapping[str, Any]]] = {}
            for instance in data["annotations"]:
                self._instances.setdefault(int(instance["image_id"]), []).append(instance)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"is not in COCO's format ({type(error).__name__}: {error})",
                               where=str(self.path)) from None
        foreign = sorted(prompt for prompt in self._prompt_of.values() if prompt not in LABEL_OF)
        if foreign:
            raise DatasetError(f"has categories that are no prompts: {', '.join(foreign)}", where=str(self.path),
                               fix=f"Rename them to prompts ({', '.join(ANNOTATED_PROMPTS)}, ...) or leave them out")
        if not self._images:
            raise DatasetError("names no images", where=str(self.path))

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise DatasetError("no such annotation file", where=str(self.path)) from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot be read as JSON ({error})", where=str(self.path)) from None

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of its categories, in the order of E.3 with others first."""
        own = set(self._prompt_of.values())
        return (*(p for p in LABEL_OF if p in own and p not in ANNOTATED_PROMPTS),
                *(p for p in ANNOTATED_PROMPTS if p in own))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Annotated:
        about = self._images[index]
        path = self.folder / str(about["file_name"])
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DatasetError("is missing or no image", where=str(path), fix=f"It is named in {self.path}")
        image = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        instances = self._instances.get(int(about["id"]), [])
        masks = np.zeros((len(instances), *image.shape[:2]), bool)
        for row, instance in enumerate(instances):
            try:
                masks[row] = decode_mask(instance["segmentation"], image.shape[0], image.shape[1])
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"the mask of annotation {instance.get('id', row)} cannot be read ({error})",
                                   where=f"{self.path}: {path.name}") from None
        prompts = tuple(self._prompt_of[int(instance["category_id"])] for instance in instances)
        return Annotated(path.name, image, masks, prompts)


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """A mask, bool [height, width], from polygons, a list of run lengths, or their compressed string.

    Runs go down the columns and begin with zeros, as in COCO.

    Raises:
        ValueError: of another size than the image, or runs that do not fill it.
    """
    if isinstance(segmentation, list):
        # OpenCV fills the pixels of the border, too: on a finer canvas that is less than a pixel, centres are sampled.
        fine = np.zeros((_FINER * height, _FINER * width), np.uint8)
        corners = [np.round(_FINER * np.asarray(polygon, float).reshape(-1, 2) - 0.5).astype(np.int32)
                   for polygon in segmentation]
        cv2.fillPoly(fine, corners, 1)
        return fine[_FINER // 2::_FINER, _FINER // 2::_FINER].astype(bool)
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its size is {segmentation['size']}, the image's {[height, width]}")
    counts = segmentation["counts"]
    runs = np.asarray(_decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ValueError(f"its runs cover {runs.sum()} of {height * width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """COCO's run lengths: 5 bits a character above '0', the sixth says that more follow; from the third run on they
    are differences to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
