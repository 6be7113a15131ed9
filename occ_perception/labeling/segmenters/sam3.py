"""Images to classes by SAM3: one text prompt per inference, one image embedding for all prompts (WalkOCC D.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from occ_perception.calibration import RigCamera
from occ_perception.errors import ConfigurationError
from occ_perception.labeling.prompts import (
    BASE_PROMPTS,
    FINETUNED_PROMPTS,
    PROMPTS,
    labels_of,
    mark_occlusion,
    merge_prompts,
    require_size,
)
from occ_perception.labeling.segmenters.base import TwoPassSegmenter
from occ_perception.labeling.segmenters.sam3_model import Prompted, Sam3, load_sam3

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Sam3Settings:
    """How SAM3 is asked.

    Attributes:
        prompts: from low to high priority; where masks overlap the later wins.
        score_threshold: a mask counts where its score times the chance that the prompt is there at all is above it
            (0.5, as in SAM3's own image processor).
        mask_threshold: a pixel belongs to a mask above this probability.
        prompts_at_once: inferences in one batch; each holds one prompt. 200 masks of 288 x 288 take 66 MB each.
        device: of torch.
        dtype: of weights and activations.
    """

    prompts: tuple[str, ...] = PROMPTS
    score_threshold: float = 0.5
    mask_threshold: float = 0.5
    prompts_at_once: int = 8
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        labels_of(self.prompts)
        faults = [f"{name} must be in 0..1, got {getattr(self, name)}" for name in ("score_threshold", "mask_threshold")
                  if not 0 <= getattr(self, name) <= 1]
        if self.prompts_at_once < 1:
            faults.append(f"prompts_at_once must be at least 1, got {self.prompts_at_once}")
        if self.dtype not in DTYPES:
            faults.append(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if faults:
            raise ConfigurationError(faults, where="SAM3 segmenter")


class Sam3Segmenter:
    """A `Segmenter`: every prompt is asked alone, masks are written over each other in the order of the prompts."""

    def __init__(self, sam3: Sam3, settings: Sam3Settings | None = None) -> None:
        self.sam3, self.settings = sam3, settings or Sam3Settings()
        self._text = sam3.prompted(self.settings.prompts)

    @classmethod
    def load(cls, folder: Path | str, settings: Sam3Settings | None = None) -> Sam3Segmenter:
        """From a folder of weights; raises ConfigurationError as `load_sam3`."""
        settings = settings or Sam3Settings()
        return cls(load_sam3(folder, settings.device, DTYPES[settings.dtype]), settings)

    @property
    def name(self) -> str:
        """With the folder of the weights and what was asked."""
        return (f"sam3 {self.sam3.folder.name} ({len(self.settings.prompts)} prompts, scores above "
                f"{self.settings.score_threshold:g})")

    def segment(self, image: NDArray[np.uint8], camera: RigCamera) -> NDArray[np.uint8]:
        """As of `Segmenter`; pixels without scene are occlusion by the lens, too."""
        require_size(image, camera)
        return mark_occlusion(self.classes(image), camera)

    @torch.inference_mode()
    def classes(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The classes of an image of any size, uint8 [H, W], by the masks alone."""
        vision = self.sam3.embedded(self.sam3.pixels(image)[None])
        masks: list[NDArray[np.bool_]] = []
        for first in range(0, len(self.settings.prompts), self.settings.prompts_at_once):
            masks += self._masks(vision, self._text.rows(slice(first, first + self.settings.prompts_at_once)),
                                 (image.shape[0], image.shape[1]))
        return merge_prompts(dict(zip(self.settings.prompts, masks)), self.settings.prompts)

    def _masks(self, vision: Any, text: Prompted, size: tuple[int, int]) -> list[NDArray[np.bool_]]:
        """Mask of each prompt about one image, bool [H, W]."""
        about = torch.zeros(len(text.mask), dtype=torch.long, device=self.sam3.device)
        found = prompt_probability(self.sam3.asked(vision, about, text), self.settings.score_threshold)
        fine = functional.interpolate(found[:, None], size, mode="bilinear")[:, 0]
        return list((fine > self.settings.mask_threshold).cpu().numpy())


def prompt_probability(outputs: Any, score_threshold: float) -> Tensor:
    """Probability that a pixel belongs to what a prompt asks for, float32 [P, h, w]: the best of the masks that count.

    A mask counts where score times presence is above the threshold; without any the probability is 0.
    """
    scores = outputs.pred_logits.float().sigmoid() * outputs.presence_logits.float().sigmoid()  # [P, Q]
    left_out = (scores <= score_threshold)[..., None, None]
    best: Tensor = outputs.pred_masks.float().masked_fill(left_out, -torch.inf).amax(dim=1)
    return best.sigmoid()


def two_passes(base: Path | str, finetuned: Path | str, *, device: str = "cpu",
               dtype: Literal["float32", "bfloat16", "float16"] = "float32") -> TwoPassSegmenter:
    """The paper's segmenter: the released weights for the complement, the fine-tuned ones for the priority layer."""
    return TwoPassSegmenter(
        Sam3Segmenter.load(base, Sam3Settings(prompts=BASE_PROMPTS, device=device, dtype=dtype)),
        Sam3Segmenter.load(finetuned, Sam3Settings(prompts=FINETUNED_PROMPTS, device=device, dtype=dtype)),
    )
