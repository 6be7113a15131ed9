"""WalkOCC's training: paired and 2D-only samples to batches, its losses, its start, validation and calibration.

Every batch is a function of (seed, step) and the optimiser's state is in the checkpoint, so no generator state needs
to be kept and a resumed training equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from occ_perception.datasets.images import ImageDataset
from occ_perception.datasets.registry import open_split
from occ_perception.datasets.sample import ImageSample
from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training import distributed
from occ_perception.training.augmentation import AugmentationConfig
from occ_perception.training.batches import Samples, collate, make_item
from occ_perception.training.calibrate import calibrate
from occ_perception.training.checkpoint import save_network, source_commit
from occ_perception.training.config import RunConfig
from occ_perception.training.evaluate import OnGrid, evaluate, network_predictor, spread
from occ_perception.training.files import write_json
from occ_perception.training.losses import LossConfig, class_weights, walkocc_losses
from occ_perception.training.prior import count_labels
from occ_perception.training.runner import (
    CHECKPOINT,
    LOG,
    SUMMARY,
    about_split,
    finished,
    names_of,
    quiet,
    require_share,
    restored,
    run,
    seeded,
)
from occ_perception.training.schedule import batch_indices, learning_rate_factor
from occ_perception.training.start import about_model, start_from_model
from occ_perception.training.trainer import Batch, Tensors, Trainer
from occ_perception.training.trunk import Images, about_trunk, load_trunk

__all__ = ["CHECKPOINT", "LOG", "MODEL", "SUMMARY", "TrainingConfig", "batch_indices", "learning_rate_factor",
           "scores_table", "train", "train_on"]

MODEL = "model.safetensors"
STATISTICS_SAMPLES = 16
"""Of these the first statistics of batch normalisation are taken where a training starts from a model."""


@dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """Everything a training depends on beside the data; the rest as in `RunConfig`.

    Attributes:
        batch_size: paired samples per step, of all processes together.
        validation_split: name of the split that is looked at during training and calibrated on.
        network: sizes of the network.
        extra_images: samples taken, evenly spread, from each of these 2D-only splits (hybrid training, section 3.2).
        clearing: those of these splits whose images clear the space before what they show (`free_space`): images by day
            of cameras that are mounted otherwise than those of the paired samples.
        images_per_batch: 2D-only samples added to the `batch_size` paired ones in each step.
        rays: rays drawn per image for the losses along rays (2D-3D consistency, free space); 0: none.
        trunk: pretrained backbone and neck to start from (`training.trunk`), or None.
        start: folder of an exported model to start from as a whole (`training.start`), or None.
        validation_samples: of a validation.
        prior_samples: samples whose labels give the class weights and the first bias.
        calibration_samples: validation samples on which the final decision is calibrated; 0: not at all.
        loss, augmentation: their configurations.
    """

    validation_split: str = "val"
    network: WalkOccConfig = field(default_factory=WalkOccConfig.lite)
    extra_images: Mapping[str, int] = field(default_factory=dict)
    clearing: tuple[str, ...] = ()
    images_per_batch: int = 0
    rays: int = 0
    trunk: Path | None = None
    start: Path | None = None
    validation_samples: int = 40
    prior_samples: int = 100
    calibration_samples: int = 60
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    FREE: ClassVar[frozenset[str]] = RunConfig.FREE | {"trunk", "start", "validation_samples", "calibration_samples"}
    POSITIVE: ClassVar[tuple[str, ...]] = (*RunConfig.POSITIVE, "validation_samples", "prior_samples")

    def _faults(self) -> list[str]:
        faults = super()._faults()
        faults += [f"{name} must be at least 0, got {getattr(self, name)}"
                   for name in ("images_per_batch", "rays", "calibration_samples") if getattr(self, name) < 0]
        faults += [f"extra_images of {split} must be positive, got {count}"
                   for split, count in self.extra_images.items() if count < 1]
        if self.extra_images and self.images_per_batch == 0:
            faults.append("extra_images are named, but images_per_batch is 0: no step would take any")
        if self.loss.along_rays and self.rays == 0:
            faults.append(f"{' and '.join(self.loss.along_rays)} need rays, but rays is 0")
        faults += [f"clearing names {split}, which is not among extra_images"
                   for split in self.clearing if split not in self.extra_images]
        if (self.loss.free_space > 0) != bool(self.clearing):
            faults.append("the loss of free space needs a weight and clearing, only one of them is given")
        if self.trunk is not None and self.start is not None:
            faults.append("trunk and start are both named, but a training starts from one of them")
        return faults

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.validation_split,)

    @property
    def samples_per_step(self) -> int:
        return self.batch_size + self.images_per_batch


class WalkOccLoss(nn.Module):
    """`walkocc_losses` with its class weights, which are kept in checkpoints."""

    label_weights: Tensor

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("label_weights", torch.ones(256))

    def forward(self, outputs: Tensors, targets: Tensors) -> Tensors:
        return walkocc_losses(outputs, targets, self.label_weights, self.config, average=distributed.average)


class Picked:
    """So many samples, evenly spread, of each of several data sets, one after the other.

    Args:
        parts: by name a data set and how many of its samples are taken.

    Raises:
        ConfigurationError: a data set has fewer samples than are asked for; all of them are listed.
    """

    def __init__(self, parts: Mapping[str, tuple[Images, int]]) -> None:
        if short := [f"{name} has {len(samples)} samples, {count} are asked for"
                     for name, (samples, count) in parts.items() if count > len(samples)]:
            raise ConfigurationError(short, where="extra_images")
        self.places = [(name, samples, index) for name, (samples, count) in parts.items()
                       for index in spread(len(samples), count)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> ImageSample:
        _, samples, place = self.places[index]
        return samples[place]

    def those_of(self, names: Container[str]) -> frozenset[int]:
        """Indices of the samples of these data sets."""
        return frozenset(index for index, (name, _, _) in enumerate(self.places) if name in names)


class WalkOccTask:
    """Batches of paired and 2D-only samples, and validation.

    Args:
        training: paired samples.
        images: 2D-only samples.
        validation: samples to validate on.
        clearing: indices of the 2D-only samples that clear space.
    """

    def __init__(self, config: TrainingConfig, training: Samples, images: Images, validation: Samples,
                 clearing: frozenset[int] = frozenset()) -> None:
        self.config, self.training, self.images, self.validation = config, training, images, validation
        self.clearing = clearing

    def slots(self, step: int) -> list[tuple[Callable[[], ImageSample], bool]]:
        """The samples of one step, paired ones first, read when they are called, and whether they clear space."""
        config = self.config
        paired = batch_indices(step, len(self.training), config.batch_size, config.seed)
        alone = batch_indices(step, len(self.images), config.images_per_batch, config.seed, stream=1)
        return [*((partial(self.training.__getitem__, i), False) for i in paired),
                *((partial(self.images.__getitem__, i), i in self.clearing) for i in alone)]

    def batch(self, step: int) -> Batch:
        """This process's share: every n-th slot. Depends on nothing but (seed, step)."""
        config = self.config
        slots = list(enumerate(self.slots(step)))[distributed.rank()::distributed.process_count()]
        return collate([
            make_item(read(), config.network, config.augmentation, np.random.default_rng([config.seed, step, slot]),
                      rays=config.rays, clears=clears)
            for slot, (read, clears) in slots
        ])

    def names(self, step: int) -> str:
        """The samples of a step's whole batch."""
        return names_of(read() for read, _ in self.slots(step))

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], str]:
        """Scores on `validation_samples` samples; of a network that takes ranges `cameras_alone` too."""
        scores = self.scores(cast(WalkOcc, network))
        words = f"|  IoU {100 * scores['iou']:.1f}  mIoU {100 * scores['miou']:.1f}"
        if (alone := scores.get("cameras_alone")) is not None:
            words += f" (cameras alone {100 * alone['iou']:.1f}, {100 * alone['miou']:.1f})"
        return scores, words

    def scores(self, network: WalkOcc) -> dict[str, Any]:
        """What `validate` logs."""
        config = self.config

        def scored(use_lidar: bool) -> dict[str, Any]:
            predict = network_predictor(network, bfloat16=config.bfloat16, use_lidar=use_lidar)
            return evaluate(predict, self.validation, limit=config.validation_samples)

        return scored(True) | ({"cameras_alone": scored(False)} if config.network.lidar else {})


def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Train on the splits that `config` names, simulated or labelled ones (`open_split`); see `train_on`."""
    splits = {name: open_split(config.data, name) for name in (config.train_split, config.validation_split)}
    extra = {name: ImageDataset(config.data, name) for name in config.extra_images}
    data = {name: about_split(split) for name, split in {**splits, **extra}.items()}
    images = Picked({name: (extra[name], count) for name, count in config.extra_images.items()})
    return train_on(config, splits[config.train_split], splits[config.validation_split], images=images,
                    clearing=images.those_of(config.clearing), data=data, resume=resume, console=console)


def train_on(
    config: TrainingConfig, training: Samples, validation: Samples, *, images: Images = (),
    clearing: frozenset[int] = frozenset(), data: Mapping[str, Mapping[str, Any]] | None = None, resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, and write model, log and summary to `config.output`.

    In a process group (`distributed.process_group`) every process calls this; the first one alone writes and prints.

    Args:
        training, validation: paired samples; a grid larger than the network's is cut to it.
        images: 2D-only samples, of which each step takes `config.images_per_batch`.
        clearing: indices of those that clear the space before what they show.
        data: per split what identifies it, such as version and content hash; kept in checkpoint and summary, and a
            checkpoint of a training on other data is refused.
        resume: go on from the checkpoint in `config.output`; without one there, begin.

    Returns:
        The summary: steps, minutes, losses (mean over the last steps), scores on the validation samples.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the state is in the checkpoint.
        TrainingError: a loss that is not finite (the last checkpoint stays), a checkpoint of another training, too
            few samples, or a full disk.
    """
    require_share(config, len(training))
    if config.images_per_batch and len(images) == 0:
        raise TrainingError(f"images_per_batch is {config.images_per_batch}, but there are no 2D-only images",
                            where="TrainingConfig", fix="Name their splits in extra_images")
    console = quiet(console)
    grid = config.network.output_grid
    task = WalkOccTask(config, OnGrid(training, grid), images, OnGrid(validation, grid), clearing)
    about = dict(data or {})
    if config.trunk is not None:
        about[config.trunk.name] = about_trunk(config.trunk)
    if config.start is not None:
        about[config.start.name] = about_model(config.start)
    network, loss = seeded(config.seed, lambda: WalkOcc(config.network)), WalkOccLoss(config.loss)
    if not (resume and (config.output / CHECKPOINT).is_file()):
        _start_from_data(network, loss, task)
    trainer = Trainer(network, loss, config, data=about, commit=source_commit())
    resumed = restored(trainer, resume)
    if resumed and (done := finished(trainer, MODEL, console)):
        return done
    run(trainer, task, resumed=resumed, console=console)
    return distributed.from_first(lambda: _finish(trainer, task, console))


def _start_from_data(network: WalkOcc, loss: WalkOccLoss, task: WalkOccTask) -> None:
    """Class weights and what comes before any step: the whole of a model, or the trunk if there is one and the
    occupancy head's first bias, which are the label frequencies at each height."""
    config = task.config
    if config.trunk is not None:
        load_trunk(network, config.trunk)
    picked = (task.training[i] for i in spread(len(task.training), config.prior_samples))
    counts = count_labels(picked, config.network.classes, config.network.output_grid.shape)
    loss.label_weights = class_weights(torch.from_numpy(counts.frequencies()).float(), config.loss)
    if config.start is not None:
        start_from_model(network, config.start, _some_inputs(task))
    else:
        network.occupancy.set_prior(torch.from_numpy(counts.frequencies_by_height()).float())


def _some_inputs(task: WalkOccTask) -> Tensors:
    """The network's arguments for `STATISTICS_SAMPLES` samples of the training, the same in every process."""
    config, samples = task.config, task.training
    items = [make_item(samples[i], config.network, config.augmentation, np.random.default_rng([config.seed, i]), rays=0)
             for i in spread(len(samples), STATISTICS_SAMPLES)]
    return collate(items)[0]


def _finish(trainer: Trainer, task: WalkOccTask, console: Console) -> dict[str, Any]:
    """Calibrate, validate and write the model and the summary."""
    config = task.config
    model = cast(WalkOcc, copy.deepcopy(trainer.average))
    offsets = [0.0] * config.network.classes
    if config.calibration_samples:
        offsets = calibrate(model, task.validation, limit=config.calibration_samples,
                            bfloat16=config.bfloat16).tolist()
    scores = task.scores(model)
    summary = {
        **trainer.provenance(), "samples": trainer.step * config.batch_size,
        "image_samples": trainer.step * config.images_per_batch, "minutes": round(trainer.elapsed_s / 60, 2),
        "losses": trainer.recent, "validation": scores, "class_offsets": [round(v, 4) for v in offsets],
    }
    save_network(config.output / MODEL, model, summary)
    write_json(config.output / SUMMARY, summary, allow_nan=True)  # IoU of classes that do not occur
    console.print(scores_table(scores, f"{config.validation_split}, {scores['samples']} samples"))
    return summary


def scores_table(scores: dict[str, Any], title: str) -> Table:
    """IoU of every class in percent, for the terminal."""
    title = f"{title}: IoU {100 * scores['iou']:.2f}, mIoU {100 * scores['miou']:.2f}"
    table = Table(title=title, min_width=len(title))
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in list(zip(SIDEWALK.classes, scores["per_class"], strict=True))[1:]:
        table.add_row(name, "-" if math.isnan(value) else f"{100 * value:.2f}")
    return table
