"""Fine-tuning SAM3 on annotated images of sidewalks (WalkOCC E.2): `finetune(FinetuneSettings(...))`.

The language backbone is frozen, the vision backbone learns slowly at a constant rate, all else by a schedule. What is
kept is the model with the best macro mIoU on merged class images, as a folder that `Sam3Segmenter.load` takes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.labeling.prompts import GROUPS
from occ_perception.labeling.segmenters.coco import CocoImages
from occ_perception.labeling.segmenters.sam3 import Sam3Segmenter, Sam3Settings
from occ_perception.labeling.segmenters.sam3_batches import Batch, make_batch
from occ_perception.labeling.segmenters.sam3_loss import Wanted, sam3_loss
from occ_perception.labeling.segmenters.sam3_model import load_sam3
from occ_perception.metrics.confusion import LabelCounter
from occ_perception.taxonomy import OCCLUSION, UNKNOWN
from occ_perception.training import distributed
from occ_perception.training.checkpoint import (
    differences,
    load_tensors,
    part,
    save_tensors,
)
from occ_perception.training.files import write_json
from occ_perception.training.prefetch import prefetched
from occ_perception.training.schedule import batch_indices

CHECKPOINT, BEST, SUMMARY = "checkpoint.safetensors", "best", "summary.json"
WEIGHTS, OPTIMISER = "weights/", "optimiser/"
FROZEN = ("text_encoder.", "text_projection.")
"""The language backbone (learning rate 0)."""
VISION = "vision_encoder."
FREE = frozenset({"output", "device", "loaders", "batch_size"})
"""Settings in which a resumed training may differ from the first."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """A fine-tuning; the defaults are those of E.2, or of the configuration `roboflow_v100` that it follows.

    Attributes:
        weights: folder of the released model.
        train, val: annotation files in COCO's format, beside their images.
        output: folder for checkpoint, best model and summary.
        epochs: passes over the training images.
        samples_per_step: images of one step of the optimiser, over all processes (8 GPUs of 2).
        batch_size: images that are in memory at once.
        prompts_per_image: prompts asked of each image; where others are annotated, one at least that it does not show.
        learning_rate: of all but the backbones, times an inverse square root of the step.
        vision_learning_rate: of the vision backbone, constant.
        weight_decay: of AdamW; none on biases and norms.
        gradient_clip: largest norm of the gradient.
        warmup, timescale, cooldown: steps of `inverse_square_root`.
        smallest: images are shrunk by a random factor from here to 1 and padded (480 of 1008 px).
        score_threshold: of the masks that count in validation.
        validate_every: epochs.
        bfloat16: mixed precision.
        device: of torch; of `cuda` every process takes its own GPU.
        loaders: threads that prepare images.
        seed: of order, prompts, sizes and drop-out.
    """

    weights: Path
    train: Path
    val: Path
    output: Path
    epochs: int = 100
    samples_per_step: int = 16
    batch_size: int = 2
    prompts_per_image: int = 4
    learning_rate: float = 8e-5
    vision_learning_rate: float = 1.6e-6
    weight_decay: float = 0.1
    gradient_clip: float = 0.1
    warmup: int = 20
    timescale: int = 20
    cooldown: int = 20
    smallest: float = 480 / 1008
    score_threshold: float = 0.5
    validate_every: int = 5
    bfloat16: bool = True
    device: str = "cpu"
    loaders: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "samples_per_step": 1, "batch_size": 1, "prompts_per_image": 1, "warmup": 0,
                 "timescale": 1, "cooldown": 0, "validate_every": 1, "loaders": 1}
        faults = [f"{name} must be at least {low}, got {getattr(self, name)}"
                  for name, low in least.items() if getattr(self, name) < low]
        faults += [f"{name} must be positive, got {getattr(self, name)}"
                   for name in ("learning_rate", "vision_learning_rate", "gradient_clip") if getattr(self, name) <= 0]
        if not 0 < self.smallest <= 1:
            faults.append(f"smallest must be in (0, 1], got {self.smallest}")
        if faults:
            raise ConfigurationError(faults, where="fine-tuning")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def inverse_square_root(step: int, steps: int, *, warmup: int, timescale: int, cooldown: int) -> float:
    """Factor of the learning rate: linear warm-up, then 1 / sqrt of the step in units of `timescale`, linear end.

    As SAM3's own training has it (Zhai et al. 2022): after the warm-up sqrt(t / (step - warmup + t)).
    """
    factor = math.sqrt(timescale / (step - warmup + timescale)) if step > warmup else 1.0
    if warmup:
        factor *= min(1.0, step / warmup)
    if cooldown:
        factor *= min(1.0, (steps - step) / cooldown)
    return factor


def finetune(settings: FinetuneSettings, *, resume: bool = False, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Fine-tune to the last epoch; the checkpoint is written after every epoch.

    Args:
        resume: go on from the checkpoint in the output folder, if there is one.

    Returns:
        The summary: epochs, best epoch, its macro mIoU and IoU by class, loss of every epoch.

    Raises:
        ConfigurationError: weights that cannot be loaded.
        DatasetError: annotations or images that cannot be read.
        TrainingError: a loss that is not finite, a full disk, or a checkpoint of another training.
    """
    with distributed.process_group(settings.device):
        return Finetuning(settings).run(resume=resume, say=say)


class Finetuning:
    """The state of a fine-tuning and its parts: batches, steps, validation, checkpoints."""

    def __init__(self, settings: FinetuneSettings) -> None:
        at_once = settings.batch_size * distributed.process_count()
        if settings.samples_per_step % at_once:
            raise ConfigurationError([f"{settings.samples_per_step} is no multiple of {at_once} (of all processes)"],
                                     where="samples_per_step", fix="Take a multiple, or a smaller batch_size")
        self.settings = settings
        self.images, self.held_out = CocoImages(settings.train), CocoImages(settings.val)
        self.device = distributed.own_device(settings.device)
        self.sam3 = load_sam3(settings.weights, str(self.device))
        self.text = self.sam3.prompted(self.images.prompts)  # never changes: its backbone is frozen
        self.steps_per_epoch = math.ceil(len(self.images) / settings.samples_per_step)
        self.step = 0
        self.best: dict[str, Any] = {"epoch": 0, "miou": -1.0, "iou": {}}
        self.losses: list[float] = []
        self.parameters = self._trainable()
        self.optimiser = torch.optim.AdamW(self._groups())

    def _trainable(self) -> dict[str, nn.Parameter]:
        named = dict(self.sam3.model.named_parameters())
        for name, parameter in named.items():
            parameter.requires_grad_(not name.startswith(FROZEN))
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    def _groups(self) -> list[dict[str, Any]]:
        """Vision backbone and the rest, each with and without weight decay."""
        return [{"params": [p for name, p in self.parameters.items()
                            if name.startswith(VISION) == vision and (p.ndim > 1) == decayed],
                 "lr": self.settings.vision_learning_rate if vision else self.settings.learning_rate,
                 "weight_decay": self.settings.weight_decay if decayed else 0.0, "vision": vision}
                for vision in (True, False) for decayed in (True, False)]

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.settings.epochs * self.steps_per_epoch

    def run(self, *, resume: bool = False, say: Callable[[str], None] = print) -> dict[str, Any]:
        """As of `finetune`."""
        output = self.settings.output
        if resume and (output / CHECKPOINT).is_file():
            self.restore(output / CHECKPOINT)
        total: list[float] = []
        with closing(prefetched(self.batches, range(self.step, self.steps), self.settings.loaders)) as source:
            for batches in source:
                total.append(self.train_step(batches))
                if self.step % self.steps_per_epoch:
                    continue
                epoch = self.step // self.steps_per_epoch
                self.losses.append(float(np.mean(total)))
                total.clear()
                if distributed.rank() == 0:
                    self._end_epoch(epoch, say)
        summary = {"epochs": self.settings.epochs, "best": self.best, "losses": self.losses,
                   "settings": self.settings.to_dict()}
        if distributed.rank() == 0:
            write_json(output / SUMMARY, summary)
        return summary

    def _end_epoch(self, epoch: int, say: Callable[[str], None]) -> None:
        words = f"epoch {epoch} of {self.settings.epochs}: loss {self.losses[-1]:.3f}"
        if epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs:
            scores = self.validate()
            words += f", macro mIoU {scores['miou']:.4f}"
            if scores["miou"] > self.best["miou"]:
                self.best = {"epoch": epoch, **scores}
                self._keep_best()
                words += " (best)"
        self.save(self.settings.output / CHECKPOINT)
        say(words)

    def batches(self, step: int) -> list[Batch]:
        """This process's images of one step; depends on nothing but seed and step."""
        size = self.settings.samples_per_step
        own = batch_indices(step, len(self.images), size, self.settings.seed)
        own = own[distributed.rank()::distributed.process_count()]
        rng = np.random.default_rng([self.settings.seed, step, distributed.rank()])
        at_once = self.settings.batch_size
        return [make_batch(self.sam3, [self.images[index] for index in own[first:first + at_once]], self.images.prompts,
                           per_image=self.settings.prompts_per_image, smallest=self.settings.smallest, rng=rng)
                for first in range(0, len(own), at_once)]

    def train_step(self, batches: list[Batch]) -> float:
        """One step of the optimiser over these batches; the loss before it.

        Raises:
            TrainingError: the loss or its gradient is not finite; parameters are as before.
        """
        settings, model = self.settings, self.sam3.model
        torch.manual_seed(settings.seed * 1_000_003 + self.step)  # drop-out: the same when resumed
        factor = inverse_square_root(self.step, self.steps, warmup=settings.warmup, timescale=settings.timescale,
                                     cooldown=settings.cooldown)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.vision_learning_rate if group["vision"] else settings.learning_rate * factor
        model.train()
        model.text_encoder.eval()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            loss = self._loss(batch) / len(batches)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        parameters = list(self.parameters.values())
        distributed.average_gradients(parameters)
        norm = float(nn.utils.clip_grad_norm_(parameters, settings.gradient_clip))
        total = float(distributed.average(torch.tensor(total)))
        if not math.isfinite(total) or not math.isfinite(norm):
            names = ", ".join(name for batch in batches for name in batch.names)
            raise TrainingError(f"the loss {total} or its gradient {norm} is not finite; images: {names}",
                                where=f"step {self.step}", fix="Look at these images, or lower the learning rate")
        self.optimiser.step()
        self.step += 1
        return total

    def _loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            vision = self.sam3.embedded(batch.pixels)
            outputs = self.sam3.asked(vision, batch.about.to(self.device), self.text.rows(batch.asked.to(self.device)))
        wanted = [Wanted(want.boxes.to(self.device), want.masks.to(self.device)) for want in batch.wanted]
        return sam3_loss(outputs, wanted)["total"]

    def validate(self) -> dict[str, Any]:
        """Macro mIoU on merged class images of the validation set and IoU by class, over the classes it shows."""
        self.sam3.model.eval()
        segmenter = Sam3Segmenter(self.sam3, Sam3Settings(prompts=self.images.prompts,
                                                          score_threshold=self.settings.score_threshold))
        counter = LabelCounter(OCCLUSION + 1, UNKNOWN)
        counts = np.zeros((OCCLUSION + 3, OCCLUSION + 3), np.int64)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            for index in range(len(self.held_out)):
                image = self.held_out[index]
                counts += counter.count(segmenter.classes(image.image), image.classes())
        right, true, found = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        iou = {group.name: float(right[c] / (true[c] + found[c] - right[c]))
               for group in GROUPS[1:] if true[c := group.label]}
        return {"miou": float(np.mean(list(iou.values()))) if iou else 0.0, "iou": iou}

    def _keep_best(self) -> None:
        """The model as a folder that `load_sam3` takes, written beside its place and renamed."""
        best = self.settings.output / BEST
        beside, before = best.with_name(f"{BEST}.tmp"), best.with_name(f"{BEST}.before")
        for folder in (beside, before):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            self.sam3.model.save_pretrained(beside)
            self.sam3.tokenizer.save_pretrained(beside)
            write_json(beside / "provenance.json", {"best": self.best, "settings": self.settings.to_dict()})
            if best.exists():
                best.rename(before)
            beside.rename(best)
        except OSError as error:
            raise TrainingError(f"cannot be written ({error})", where=str(best),
                                fix="Make room on the disk, then go on with resume") from error
        shutil.rmtree(before, ignore_errors=True)

    def save(self, path: Path) -> None:
        """Write what `restore` needs; the frozen weights stay in their folder."""
        tensors: dict[str, Tensor] = {WEIGHTS + name: value.detach() for name, value in self.parameters.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{OPTIMISER}{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        save_tensors(path, tensors, {"finetuning": self.settings.to_dict(), "step": self.step, "best": self.best,
                                     "losses": self.losses})

    def restore(self, path: Path) -> None:
        """Go on where the training that wrote `path` was; raises TrainingError naming what differs."""
        tensors, header = load_tensors(path)
        theirs, mine = ({name: value for name, value in about.items() if name not in FREE}
                        for about in (header.get("finetuning", {}), self.settings.to_dict()))
        if different := differences(theirs, mine):
            raise TrainingError(f"was written with other settings: {'; '.join(different)}", where=str(path),
                                fix="Resume with those of the first run, or name another output folder")
        kept = part(tensors, WEIGHTS)
        if {name: p.shape for name, p in kept.items()} != {name: p.shape for name, p in self.parameters.items()}:
            raise TrainingError("holds the weights of another model", where=str(path),
                                fix="Resume with the weights of the first run, or name another output folder")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])
        state = self.optimiser.state_dict()
        flat = [p for group in self.optimiser.param_groups for p in group["params"]]
        state["state"] = {index: {key: tensors[f"{OPTIMISER}{index}/{key}"]
                                  for key in ("step", "exp_avg", "exp_avg_sq")}
                          for index in range(len(flat)) if f"{OPTIMISER}{index}/step" in tensors}
        self.optimiser.load_state_dict(state)
        self.step, self.best, self.losses = int(header["step"]), dict(header["best"]), list(header["losses"])
