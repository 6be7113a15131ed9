"""The interface of segmenters, and what joins two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig, RigCamera
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.prompts import merge_passes


class Segmenter(Protocol):
    """Classes of single images."""

    @property
    def name(self) -> str:
        """What it is and with which weights; goes into the provenance of what is made with it."""

    def segment(self, image: NDArray[np.uint8], camera: RigCamera) -> NDArray[np.uint8]:
        """Classes of the sidewalk taxonomy, uint8 [H, W]; 0 background, 14 occlusion.

        Args:
            image: uint8 RGB [H, W, 3].
            camera: that took it, at the image's size.

        Raises:
            ShapeError: the image is not of the camera's size.
        """


@runtime_checkable
class FrameSegmenter(Protocol):
    """Classes of all images of a frame by one who must know which frame it is, such as one that looks the truth up."""

    @property
    def name(self) -> str:
        """As of `Segmenter`."""

    def segment_frame(self, scene: str, frame: LabelFrame, rig: Rig) -> dict[str, NDArray[np.uint8]]:
        """Classes as of `Segmenter.segment` by camera of `frame.images`; `scene` is the name of the clip."""


def segment_frame(segmenter: Segmenter | FrameSegmenter, scene: str, frame: LabelFrame,
                  rig: Rig) -> dict[str, NDArray[np.uint8]]:
    """Classes of every image of a frame, uint8 [H, W] by camera: what `lift_labels` takes.

    Args:
        scene: name of the clip.
    """
    if isinstance(segmenter, FrameSegmenter):
        return segmenter.segment_frame(scene, frame, rig)
    return {name: segmenter.segment(image, rig.camera(name)) for name, image in frame.images.items()}


@dataclass(frozen=True)
class TwoPassSegmenter:
    """A pretrained and a fine-tuned pass over the same image, merged by class (WalkOCC D.1)."""

    base: Segmenter
    finetuned: Segmenter

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.base.name} + {self.finetuned.name}"

    def segment(self, image: NDArray[np.uint8], camera: RigCamera) -> NDArray[np.uint8]:
        """As of `Segmenter`."""
        return merge_passes(self.base.segment(image, camera), self.finetuned.segment(image, camera))
