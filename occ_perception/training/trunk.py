"""Pretraining of backbone and neck on images with 2D labels: which share of each coarse cell has which class.

The closest to image-level pretraining that a simulator offers: no depth, no outlines. All compared networks start from
the same trunk, as published ones start from an encoder trained on ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from occ_perception.datasets.images import ImageDataset
from occ_perception.datasets.sample import ImageSample
from occ_perception.engines.manifest import sha256_of
from occ_perception.errors import DatasetError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.training import distributed
from occ_perception.training.augmentation import AugmentationConfig, photometric
from occ_perception.training.checkpoint import (
    differences,
    load_tensors,
    load_weights,
    save_tensors,
    source_commit,
)
from occ_perception.training.config import RunConfig
from occ_perception.training.files import write_json
from occ_perception.training.runner import (
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
from occ_perception.training.schedule import batch_indices
from occ_perception.training.trainer import Batch, Tensors, Trainer

TRUNK = "trunk.safetensors"
OTHER_TRUNK = "Name another trunk, or pretrain one with this network's sizes"


class Images(Protocol):
    """A data set of images with 2D labels, in 3D labelled or not."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ImageSample: ...


@dataclass(frozen=True)
class TrunkConfig(RunConfig):
    """Everything the pretraining depends on beside the data; the rest as in `RunConfig`.

    Attributes:
        network: sizes of the network whose backbone and neck are trained; `image_size` may be another one later.
        cells: (rows, columns) of the coarse grid over the image.
        augmentation: its photometric part and flips are used.
    """

    train_split: str = "trunk"
    batch_size: int = 16
    network: WalkOccConfig = field(default_factory=WalkOccConfig.small)
    cells: tuple[int, int] = (4, 8)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def _faults(self) -> list[str]:
        faults = super()._faults()
        if min(self.cells) < 1 or any(n > size for n, size in zip(self.cells, self.network.feature_size, strict=True)):
            faults.append(f"cells must be between 1x1 and the feature map's {self.network.feature_size}, "
                          f"got {self.cells}")
        return faults


class CoarseClasses(nn.Module):
    """Image to logits of the classes in each coarse cell: features, their mean over the cell, one linear layer.

    Of `walkocc` only backbone and neck are run and learn.
    """

    def __init__(self, config: WalkOccConfig, cells: tuple[int, int]) -> None:
        super().__init__()
        self.cells = cells
        self.walkocc = WalkOcc(config)
        self.head = nn.Conv2d(config.neck_channels, config.image_classes, 1)

    def forward(self, images: Tensor) -> Tensors:
        """uint8 [N, H, W, 3] to `classes` logits [N, K, rows, columns]."""
        features = self.walkocc.encode(images)
        return {"classes": self.head(functional.adaptive_avg_pool2d(features, self.cells))}


class ShareLoss(nn.Module):
    """Soft cross entropy less what no answer could avoid, the entropy of the shares: 0 is perfect."""

    def forward(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """`total` in nats per cell, and `commonest`: how often a cell's commonest class is found."""
        logits, shares = outputs["classes"].float(), targets["shares"]
        cells = distributed.average(torch.tensor(shares[:, 0].numel(), device=shares.device))
        divergence = functional.kl_div(logits.log_softmax(1), shares, reduction="sum")
        found = (logits.detach().argmax(1) == shares.argmax(1)).sum()
        return {"total": divergence / cells, "commonest": found / cells}


def class_shares(classes: NDArray[np.integer[Any]], cells: tuple[int, int], count: int) -> NDArray[np.float32]:
    """Share of each of `count` classes in each cell of an image [H, W]: [count, rows, columns].

    Pixels of other values do not count; a cell without any other has shares of 0.
    """
    rows, columns = (np.arange(pixels) * n // pixels for pixels, n in zip(classes.shape, cells, strict=True))
    cell = rows[:, None] * cells[1] + columns
    counted = classes < count
    numbers = np.bincount((cell * count + classes)[counted], minlength=cells[0] * cells[1] * count)
    by_cell = numbers.reshape(*cells, count).transpose(2, 0, 1)
    return np.asarray(by_cell / np.maximum(by_cell.sum(0), 1), np.float32)


def trunk_item(
    sample: ImageSample, config: TrunkConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images [n, H, W, 3] of all cameras of a sample, flipped and changed at random, and their shares.

    Raises:
        DatasetError: an image without classes.
    """
    flip = -1 if rng.random() < config.augmentation.flip else 1
    images, shares = [], []
    height, width = config.network.image_size
    for camera, image in sample.images.items():
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        images.append(photometric(image, config.augmentation, rng)[:, ::flip])
        if camera not in sample.semantics:
            raise DatasetError(f"the image of {camera} has no classes to learn from",
                               where=f"{sample.scene}[{sample.index}]", fix="Label it, or leave the sample out")
        shares.append(class_shares(sample.semantics[camera][:, ::flip], config.cells, config.network.image_classes))
    return np.stack(images), np.stack(shares)


class TrunkTask:
    """Batches of images and shares; nothing is held back to validate on."""

    def __init__(self, config: TrunkConfig, images: Images) -> None:
        self.config, self.images = config, images

    def batch(self, step: int) -> Batch:
        """This process's share: every n-th sample."""
        config = self.config
        slots = list(enumerate(batch_indices(step, len(self.images), config.batch_size, config.seed)))
        items = [trunk_item(self.images[index], config, np.random.default_rng([config.seed, step, slot]))
                 for slot, index in slots[distributed.rank()::distributed.process_count()]]
        images, shares = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*items, strict=True))
        return {"images": images}, {"shares": shares}

    def names(self, step: int) -> str:
        """The samples of a step's whole batch."""
        indices = batch_indices(step, len(self.images), self.config.batch_size, self.config.seed)
        return names_of(self.images[index] for index in indices)

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], str]:
        """Nothing."""
        return {}, ""


def pretrain(config: TrunkConfig, *, resume: bool = False, console: Console | None = None) -> Path:
    """Pretrain on the split that `config` names; see `pretrain_on`."""
    split = ImageDataset(config.data, config.train_split)
    return pretrain_on(config, split, data={config.train_split: about_split(split)}, resume=resume, console=console)


def pretrain_on(config: TrunkConfig, images: Images, *, data: Mapping[str, Mapping[str, Any]] | None = None,
                resume: bool = False, console: Console | None = None) -> Path:
    """Pretrain backbone and neck, and write them to `trunk.safetensors` in `config.output`, which is returned.

    In a process group every process calls this; the first one alone writes and prints.

    Args:
        data: what identifies the split; kept in the trunk, and a checkpoint of a training on other data is refused.
        resume: go on from the checkpoint in `config.output`; without one there, begin.

    Raises:
        Interrupted, TrainingError: as in `loop.train_on`.
    """
    require_share(config, len(images))
    console = quiet(console)
    network = seeded(config.seed, lambda: CoarseClasses(config.network, config.cells))
    trainer = Trainer(network, ShareLoss(), config, data=data, commit=source_commit())
    path = config.output / TRUNK
    resumed = restored(trainer, resume)
    if resumed and finished(trainer, TRUNK, console):
        return path
    run(trainer, TrunkTask(config, images), resumed=resumed, console=console)

    def finish() -> Path:
        provenance = {**trainer.provenance(), "minutes": round(trainer.elapsed_s / 60, 2),
                      "losses": trainer.recent}
        walkocc = cast(CoarseClasses, trainer.average).walkocc
        save_tensors(path, _parts(walkocc).state_dict(), {"network": config.network.to_dict(),
                                                          "provenance": provenance})
        write_json(config.output / SUMMARY, provenance)
        console.print(trunk_table(provenance))
        return path

    return distributed.from_first(finish)


def trunk_table(summary: Mapping[str, Any]) -> Table:
    """What the pretraining came to, for the terminal."""
    table = Table("steps", "minutes", "divergence, nats per cell", "commonest class found %", title="trunk")
    losses = summary["losses"]  # empty if an old checkpoint, which has none, was all that was left to finish
    figures = (f"{losses['total']:.3f}", f"{100 * losses['commonest']:.1f}") if losses else ("-", "-")
    table.add_row(str(summary["steps"]), f"{summary['minutes']:.1f}", *figures)
    return table


def load_trunk(network: WalkOcc, path: Path) -> dict[str, Any]:
    """Start backbone and neck of `network` from a trunk, whatever the image size of either; its provenance.

    Raises:
        TrainingError: no trunk, or one of another encoder; what differs is named, and the network is unchanged.
    """
    tensors, header = load_tensors(path)
    if not any(name.startswith("backbone.") for name in tensors):
        raise TrainingError("holds no trunk", where=str(path),
                            fix="Make one with `python -m occ_perception.training trunk`")
    theirs, mine = (_encoder(config) for config in (WalkOccConfig.from_dict(header["network"]), network.config))
    if different := differences(theirs, mine):
        raise TrainingError(f"is the trunk of another encoder: {'; '.join(different)}", where=str(path),
                            fix=OTHER_TRUNK)
    load_weights(_parts(network), tensors, where=str(path), fix=OTHER_TRUNK)
    return dict(header.get("provenance", {}))


def about_trunk(path: Path) -> dict[str, Any]:
    """What identifies a trunk and what it was made from."""
    provenance = load_tensors(path)[1].get("provenance", {})
    return {"sha256": sha256_of(path), **{key: provenance.get(key) for key in ("data", "commit", "steps", "seed")}}


def _parts(network: WalkOcc) -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": network.backbone, "neck": network.neck})


def _encoder(config: WalkOccConfig) -> dict[str, Any]:
    """What decides the shapes of backbone and neck; the size of the image does not."""
    return {name: getattr(config, name) for name in ("resnet_layers", "stem_channels", "stage_channels",
                                                     "neck_channels", "first_stage")}
