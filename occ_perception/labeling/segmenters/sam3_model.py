"""SAM3 from a local folder: model, tokenizer, what goes in and what comes out. Nothing is ever downloaded.

The processor of transformers is not used: it needs torchvision, of which no CPU build fits this torch. What it does to
an image is three lines, and its tokenizer is used as it is.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from occ_perception.errors import ConfigurationError

MODEL_TYPES = ("sam3", "sam3_video")
"""What `config.json` may name: the image model, or the published one, which holds it beside a tracker."""


@dataclass(frozen=True)
class Prompted:
    """Text prompts as the model takes them: `features` [P, L, C], `mask` bool [P, L] (false: padding)."""

    features: Tensor
    mask: Tensor

    def rows(self, rows: Tensor | slice) -> Prompted:
        """Some of the prompts."""
        return Prompted(self.features[rows], self.mask[rows])


@dataclass(frozen=True)
class Sam3:
    """A model and its tokenizer. `folder` is where they came from."""

    model: Any
    tokenizer: Any
    folder: Path

    @property
    def size_px(self) -> int:
        """Height and width of its input."""
        size = self.model.config.vision_config.backbone_config.image_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return torch.device(self.model.device)

    def pixels(self, image: NDArray[np.uint8], size_px: int | None = None) -> Tensor:
        """The image, uint8 RGB [H, W, 3], resized to a square and normalised by mean and std 0.5: float32 [3, S, S].

        Args:
            size_px: of the square; the model's own by default.
        """
        square = (size_px or self.size_px,) * 2
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        resized = functional.interpolate(planes, square, mode="bilinear", antialias=True)[0]
        return resized.float() / 127.5 - 1.0

    @torch.no_grad()
    def prompted(self, prompts: Sequence[str]) -> Prompted:
        """Embeddings of the prompts; the language backbone needs to see each of them only once."""
        length = int(self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length,
                                return_tensors="pt").to(self.device)
        text = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return Prompted(text.pooler_output, tokens["attention_mask"].bool())

    def embedded(self, pixels: Tensor) -> Any:
        """Embeddings of images [B, 3, S, S], which serve any number of prompts."""
        return self.model.get_vision_features(pixel_values=pixels.to(self.device, self.model.dtype))

    def asked(self, vision: Any, images: Tensor, text: Prompted) -> Any:
        """The model's outputs for P prompts, each about one embedded image.

        Args:
            vision: of `embedded`.
            images: int64 [P], which of its images each prompt is about.

        Returns:
            `pred_masks` [P, Q, h, w], `pred_boxes` [P, Q, 4] (x0 y0 x1 y1 in 0..1), `pred_logits` [P, Q],
            `presence_logits` [P, 1] and `semantic_seg` [P, 1, h, w].
        """
        outputs = importlib.import_module("transformers.modeling_outputs")
        shared = type(vision)(
            fpn_hidden_states=tuple(level[images] for level in vision.fpn_hidden_states),
            fpn_position_encoding=tuple(level[images] for level in vision.fpn_position_encoding),
        )
        return self.model(vision_embeds=shared, attention_mask=text.mask,
                          text_embeds=outputs.BaseModelOutputWithPooling(pooler_output=text.features))


def load_sam3(folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Sam3:
    """SAM3 in evaluation mode from a folder in the layout of transformers.

    Raises:
        ConfigurationError: transformers is not installed; the folder or files in it are missing, with what to fetch
            and where to put it; files that are no whole SAM3; a device that is not there.
    """
    folder = Path(folder)
    _require_files(folder)
    try:
        transformers = importlib.import_module("transformers")
    except ModuleNotFoundError:
        raise ConfigurationError(["transformers is not installed"], where="SAM3",
                                 fix='Install the extra: pip install "occ_perception[label]"') from None
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError([f"device {device!r} was asked for and torch sees no GPU"], where="SAM3",
                                 fix="Take device cpu, or install a torch build with CUDA")
    try:
        model, about = transformers.Sam3Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, safetensors and tokenizers each have their own
        raise ConfigurationError([f"cannot be loaded ({type(error).__name__}: {error})"], where=str(folder),
                                 fix=_how_to_fetch(folder)) from error
    faults = [f"{len(about[kind])} weights are {what}, such as {min(map(str, about[kind]))}"
              for kind, what in (("missing_keys", "missing"), ("mismatched_keys", "of another shape")) if about[kind]]
    if faults:
        raise ConfigurationError(faults, where=str(folder), fix=_how_to_fetch(folder))
    return Sam3(model.to(device, dtype).eval(), tokenizer, folder)


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(["no such folder of SAM3 weights"], where=str(folder), fix=_how_to_fetch(folder))
    names = {path.name for path in folder.iterdir()}
    faults = [] if "config.json" in names else ["config.json is missing (the sizes of the model)"]
    if "model.safetensors.index.json" in names:
        shards = set(_json(folder / "model.safetensors.index.json").get("weight_map", {}).values())
        faults += [f"{shard} is missing (a part of the weights)" for shard in sorted(shards - names)]
    elif "model.safetensors" not in names:
        faults.append("model.safetensors is missing (the weights)")
    if "tokenizer.json" not in names and not {"vocab.json", "merges.txt"} <= names:
        faults.append("tokenizer.json is missing (or vocab.json and merges.txt: the words)")
    if "config.json" in names:
        kind = _json(folder / "config.json").get("model_type")
        if kind not in MODEL_TYPES:
            faults.append(f"config.json describes a model of type {kind!r}, not {' or '.join(MODEL_TYPES)}")
    if faults:
        raise ConfigurationError(faults, where=str(folder), fix=_how_to_fetch(folder))


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ConfigurationError([f"is no readable JSON ({error})"], where=str(path),
                                 fix=_how_to_fetch(path.parent)) from None


def _how_to_fetch(folder: Path) -> str:
    return ("Nothing is downloaded here. Accept the licence at https://huggingface.co/facebook/sam3, then, where there "
            f"is a network, run: hf download facebook/sam3 --exclude '*.pt' --local-dir {folder}, and copy that folder "
            "here. A fine-tuned model is the folder `best` of its training")
