"""The training loop: seeded, resumable bit for bit, with an average of the weights, a log and a summary.

Every batch is a function of (seed, step) and the optimiser's state is in the checkpoint, so no generator state needs
to be kept. With a budget in minutes the schedule follows the clock instead, and only the record tells the steps.
"""

from __future__ import annotations

import copy
import json
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from occ_perception.datasets.simulated import SimulatedDataset
from occ_perception.errors import ConfigurationError, TrainingError
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.batches import AugmentationConfig, Samples, collate, make_item
from occ_perception.training.calibrate import calibrate
from occ_perception.training.checkpoint import NETWORK, load_tensors, save_network, save_tensors
from occ_perception.training.evaluate import evaluate, network_predictor, spread
from occ_perception.training.losses import LossConfig, class_weights, walkocc_losses
from occ_perception.training.prior import count_labels

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]
CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
LOG = "log.jsonl"
SUMMARY = "summary.json"
SCHEDULES = ("cosine", "step")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a training depends on beside the data.

    Attributes:
        data: folder of the simulated splits.
        output: folder for checkpoint, log, model and summary.
        train_split, validation_split: names of the splits.
        network: sizes of the network.
        steps, max_minutes: the schedule ends at the first of them; at least one. Only `steps` alone is reproducible.
        batch_size: samples per step.
        learning_rate: peak of the schedule (linear warm-up, then a cosine to zero).
        warmup: part of the schedule spent warming up.
        weight_decay: of AdamW, on weights with two or more dimensions.
        gradient_clip: largest global norm of the gradient.
        average: decay of the running average of the weights, which is what is validated and shipped.
        seed: of initialisation, order and augmentation.
        bfloat16: multiply in bfloat16 (faster where the CPU has the instructions).
        threads: of torch; results are equal bit for bit only for equal numbers.
        validate_every: steps between validations on `validation_samples` samples.
        checkpoint_minutes: time between checkpoints.
        prior_samples: samples whose labels give the class weights and the first bias.
        calibration_samples: validation samples on which the final decision is calibrated; 0: not at all.
        extra_images: samples taken, evenly spread, from each of these 2D-only splits (hybrid training, section 3.2).
        images_per_batch: 2D-only samples added to the `batch_size` paired ones in each step.
        rays: rays drawn per image for the 2D-3D consistency loss; 0: none.
        schedule: after the warm-up a cosine to zero, or steps: x0.1 at 2/3 and 8/9 of what is left.
        trunk: pretrained backbone and neck to start from (`training.trunk`), or None.
        device: of torch, such as `cpu` or `cuda`.
        loaders: threads that make batches ahead.
    """

    data: Path
    output: Path
    train_split: str = "train"
    validation_split: str = "val"
    network: WalkOccConfig = field(default_factory=WalkOccConfig.lite)
    steps: int | None = None
    max_minutes: float | None = None
    batch_size: int = 4
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: float = 10.0
    average: float = 0.998
    seed: int = 0
    bfloat16: bool = False
    threads: int = 2
    validate_every: int = 500
    validation_samples: int = 40
    checkpoint_minutes: float = 4.0
    prior_samples: int = 100
    calibration_samples: int = 60
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    extra_images: Mapping[str, int] = field(default_factory=dict)
    images_per_batch: int = 0
    rays: int = 0
    schedule: Literal["cosine", "step"] = "cosine"
    trunk: Path | None = None
    device: str = "cpu"
    loaders: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.steps is None and self.max_minutes is None:
            faults.append("steps or max_minutes must be given")
        positive = ("steps", "max_minutes", "batch_size", "learning_rate", "gradient_clip", "threads",
                    "validate_every", "validation_samples", "checkpoint_minutes", "prior_samples", "loaders")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                faults.append(f"{name} must be positive, got {value}")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.weight_decay < 0:
            faults.append(f"weight_decay must be at least 0, got {self.weight_decay}")
        faults += [f"{name} must be at least 0, got {getattr(self, name)}" for name in ("images_per_batch", "rays")
                   if getattr(self, name) < 0]
        faults += [f"extra_images of {split} must be positive, got {count}"
                   for split, count in self.extra_images.items() if count < 1]
        if self.schedule not in SCHEDULES:
            faults.append(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if faults:
            raise ConfigurationError(faults, where="TrainingConfig")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        trunk = None if self.trunk is None else str(self.trunk)
        return {**asdict(self), "data": str(self.data), "output": str(self.output), "trunk": trunk}


def learning_rate_factor(progress: float, warmup: float, schedule: Literal["cosine", "step"] = "cosine") -> float:
    """Linear warm-up, then a cosine to zero, or steps: x0.1 at 2/3 and 8/9 of the rest; `progress` from 0 to 1."""
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / (1.0 - warmup))
    if schedule == "step":
        return 1.0 if rest < 2 / 3 else 0.1 if rest < 8 / 9 else 0.01
    return 0.5 * (1.0 + math.cos(math.pi * rest))


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Samples of one step: every epoch is a permutation of all `count`, drawn from (seed, epoch)."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {p // count for p in positions}
    }
    return [int(orders[p // count][p % count]) for p in positions]


def make_batch(samples: Samples, step: int, config: TrainingConfig) -> Batch:
    """The batch of one step; depends on nothing but (seed, step)."""
    items = []
    for slot, index in enumerate(batch_indices(step, len(samples), config.batch_size, config.seed)):
        rng = np.random.default_rng([config.seed, step, slot])
        items.append(make_item(samples[index], config.network, config.augmentation, rng))
    return collate(items)


def batches(samples: Samples, first: int, config: TrainingConfig, ahead: int = 3) -> Iterator[Batch]:
    """Batches from step `first` on, prepared ahead by one thread (decoding and tables release the GIL)."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting = [pool.submit(make_batch, samples, first + i, config) for i in range(ahead)]
        try:
            step = first + ahead
            while True:
                yield waiting.pop(0).result()
                waiting.append(pool.submit(make_batch, samples, step, config))
                step += 1
        finally:
            for future in waiting:
                future.cancel()


class Trainer:
    """Network, average, optimiser and their place in the schedule; everything a checkpoint holds."""

    def __init__(self, config: TrainingConfig, label_weights: Tensor, *, data: Mapping[str, Any] | None = None,
                 commit: str | None = None) -> None:
        self.config, self.label_weights = config, label_weights
        self.data, self.commit = dict(data or {}), commit
        self.step, self.elapsed_s = 0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = WalkOcc(config.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
        )

    @property
    def progress(self) -> float:
        """Part of the schedule that is done, 0 to 1."""
        parts = [0.0]
        if self.config.steps is not None:
            parts.append(self.step / self.config.steps)
        if self.config.max_minutes is not None:
            parts.append(self.elapsed_s / (60.0 * self.config.max_minutes))
        return min(1.0, max(parts))

    def start_from(self, frequencies_by_height: Tensor) -> None:
        """Let the occupancy head start from the label frequencies [K, nz]."""
        for network in (self.network, self.average):
            network.occupancy.set_prior(frequencies_by_height)

    def train_step(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, float]:
        """One step of the optimiser; the losses before it.

        Raises:
            TrainingError: the loss or its gradient is not finite; parameters are as before the step.
        """
        self.network.train()
        rate = self.config.learning_rate * learning_rate_factor(
            self.progress, self.config.warmup, self.config.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            outputs = self.network(**inputs)
        losses = walkocc_losses(outputs, targets, self.label_weights, self.config.loss)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["total"]) or not math.isfinite(float(norm)):
            raise TrainingError(f"losses {values}, gradient norm {float(norm)}", where=f"step {self.step}")
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return {**values, "gradient_norm": float(norm), "learning_rate": rate}

    def _update_average(self) -> None:
        # Early weights are forgotten fast, else the average would drag the initialisation along.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True)
            for kept, new in pairs:
                if kept.is_floating_point():
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

    def provenance(self) -> dict[str, Any]:
        """Where the weights come from: the data, the commit at which the training began, configuration and steps."""
        return {"data": self.data, "commit": self.commit, "steps": self.step, "seed": self.config.seed,
                "training": self.config.to_dict()}

    def save(self, path: Path) -> None:
        """Write everything to `path`; see `restore`."""
        tensors = {NETWORK + name: value for name, value in self.average.state_dict().items()}
        tensors |= {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        tensors["label_weights"] = self.label_weights
        header = {
            "network": self.config.network.to_dict(), "training": self.config.to_dict(),
            "step": self.step, "elapsed_s": self.elapsed_s, "provenance": self.provenance(),
        }
        save_tensors(path, tensors, header)

    def restore(self, path: Path) -> None:
        """Go on where the training that wrote `path` was.

        Raises:
            TrainingError: it was another training, or one on other data: what differs is named.
        """
        tensors, header = load_tensors(path)
        mine, theirs = json.loads(json.dumps(self.config.to_dict())), header.get("training", {})
        free = {"output", "data", "steps", "max_minutes", "checkpoint_minutes", "validate_every",
                "validation_samples", "calibration_samples"}
        different = [key for key in mine if key not in free and mine[key] != theirs.get(key)]
        if different:
            raise TrainingError(f"was written with another {', '.join(different)}", where=str(path),
                                fix="Resume with the configuration of the first run, or name another output folder")
        provenance = header.get("provenance", {})
        self._require_same_data(provenance.get("data", {}), path)
        for prefix, network in ((NETWORK, self.average), ("weights/", self.network)):
            network.load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
        state = self.optimiser.state_dict()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        state["state"] = {
            # In the memory format of its parameter.
            index: {
                key: torch.empty_like(parameter).copy_(value) if (value := tensors[f"optimiser/{index}/{key}"]).ndim
                else value
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            for index, parameter in enumerate(parameters) if f"optimiser/{index}/step" in tensors
        }
        self.optimiser.load_state_dict(state)
        self.label_weights = tensors["label_weights"]
        self.step, self.elapsed_s = int(header["step"]), float(header["elapsed_s"])
        self.commit = provenance.get("commit") or self.commit

    def _require_same_data(self, stored: Mapping[str, Any], path: Path) -> None:
        split = self.config.train_split
        theirs, mine = stored.get(split), self.data.get(split, {})
        if theirs is None:
            return
        different = [f"{key} {theirs.get(key)}, not {mine.get(key)}" for key in sorted(theirs.keys() | mine.keys())
                     if theirs.get(key) != mine.get(key)]
        if different:
            raise TrainingError(f"was trained on other data ({split}: {'; '.join(different)})", where=str(path),
                                fix="Resume with the data of the first run, or name another output folder")


def train(config: TrainingConfig, *, resume: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Train on the simulated splits that `config` names; see `train_on`."""
    splits = {name: SimulatedDataset(config.data, name) for name in (config.train_split, config.validation_split)}
    data = {name: {"version": split.version, "content_hash": split.content_hash, "samples": len(split)}
            for name, split in splits.items()}
    return train_on(config, splits[config.train_split], splits[config.validation_split], data=data, resume=resume,
                    console=console)


def train_on(
    config: TrainingConfig, training: Samples, validation: Samples, *, data: Mapping[str, Any] | None = None,
    resume: bool = False, console: Console | None = None,
) -> dict[str, Any]:
    """Train, and write model, log and summary to `config.output`.

    Args:
        data: per split what identifies it, such as version and content hash; kept in checkpoint and summary, and a
            checkpoint of a training on another train split is refused.
        resume: go on from the checkpoint in `config.output`; without one there, begin.

    Returns:
        The summary: steps, minutes, losses (mean over the last steps), scores on the validation samples.

    Raises:
        TrainingError: a loss that is not finite (the last checkpoint stays), or a checkpoint of another training.
    """
    console = console or Console()
    torch.set_num_threads(config.threads)
    checkpoint = config.output / CHECKPOINT
    resumed = resume and checkpoint.is_file()
    trainer = _begin(config, training, data, source_commit(), checkpoint if resumed else None)
    config.output.mkdir(parents=True, exist_ok=True)
    if resumed:
        _cut_log(config.output / LOG, trainer.step)
    recent: dict[str, float] = {}
    scores: dict[str, Any] = {}
    saved_s = last_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
               TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, (config.output / LOG).open("a" if resumed else "w") as log:
        task = progress.add_task("training", total=1.0)
        source = batches(training, trainer.step, config)
        while trainer.progress < 1.0:
            losses = _guarded_step(trainer, next(source), training, checkpoint)
            recent = {name: 0.98 * recent.get(name, value) + 0.02 * value for name, value in losses.items()}
            now = time.monotonic()
            trainer.elapsed_s += now - last_s
            last_s = now
            progress.update(task, completed=trainer.progress,
                            description=f"step {trainer.step}  loss {recent['total']:.3f}")
            if trainer.step % 20 == 0:
                _write_line(log, {"step": trainer.step, "elapsed_s": round(trainer.elapsed_s, 2), **recent})
            if trainer.step % config.validate_every == 0:
                scores = evaluate(network_predictor(trainer.average, bfloat16=config.bfloat16), validation,
                                  limit=config.validation_samples)
                _write_line(log, {"step": trainer.step, "validation": scores})
                progress.console.print(_one_line(trainer.step, recent, scores))
            if now - saved_s > 60 * config.checkpoint_minutes:
                trainer.save(checkpoint)
                saved_s = now
        source.close()  # type: ignore[attr-defined]
    trainer.save(checkpoint)
    model = copy.deepcopy(trainer.average)
    offsets = [0.0] * config.network.classes
    if config.calibration_samples:
        offsets = calibrate(model, validation, limit=config.calibration_samples).tolist()
    scores = evaluate(network_predictor(model), validation, limit=config.validation_samples)
    summary = {
        **trainer.provenance(), "samples": trainer.step * config.batch_size,
        "minutes": round(trainer.elapsed_s / 60, 2), "losses": recent, "validation": scores,
        "class_offsets": [round(v, 4) for v in offsets],
    }
    save_network(config.output / MODEL, model, summary)
    beside = config.output / f"{SUMMARY}.tmp"
    beside.write_text(json.dumps(summary, indent=1))
    beside.replace(config.output / SUMMARY)
    console.print(scores_table(scores, f"{config.validation_split}, {scores['samples']} samples"))
    return summary


def source_commit() -> str | None:
    """The commit this package is checked out at, or None where it is no checkout."""
    try:
        answer = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True,
                                text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _begin(config: TrainingConfig, training: Samples, data: Mapping[str, Any] | None, commit: str | None,
           checkpoint: Path | None) -> Trainer:
    """A trainer at step 0, its class weights and first bias taken from the data, or one restored."""
    if checkpoint is not None:
        trainer = Trainer(config, torch.ones(256), data=data, commit=commit)
        trainer.restore(checkpoint)
        return trainer
    if len(training) == 0:
        raise TrainingError("the training split has no samples", where=str(config.data))
    picked = (training[i] for i in spread(len(training), config.prior_samples))
    counts = count_labels(picked, config.network.classes, config.network.output_grid.shape)
    frequencies = torch.from_numpy(counts.frequencies()).float()
    trainer = Trainer(config, class_weights(frequencies, config.loss), data=data, commit=commit)
    trainer.start_from(torch.from_numpy(counts.frequencies_by_height()).float())
    return trainer


def _guarded_step(trainer: Trainer, batch: Batch, training: Samples, checkpoint: Path) -> dict[str, float]:
    """One step; an error names the samples of the batch."""
    step, config = trainer.step, trainer.config
    try:
        return trainer.train_step(*batch)
    except TrainingError as error:
        indices = batch_indices(step, len(training), config.batch_size, config.seed)
        names = ", ".join(f"{s.scene}[{s.index}]" for s in (training[i] for i in indices))
        kept = f"The last good state is in {checkpoint}; " if checkpoint.is_file() else ""
        raise TrainingError(f"the loss is not finite: {error.what}; batch: {names}", where=f"step {step}",
                            fix=f"{kept}look at these samples, or lower the learning rate") from error


def _cut_log(path: Path, step: int) -> None:
    """Drop what an interrupted run logged after its last checkpoint: those steps are made again."""
    if not path.is_file():
        return
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
    beside.replace(path)


def _write_line(log: Any, values: dict[str, Any]) -> None:
    log.write(json.dumps(values) + "\n")
    log.flush()


def _one_line(step: int, losses: dict[str, float], scores: dict[str, Any]) -> str:
    terms = "  ".join(f"{name} {losses[name]:.3f}" for name in ("occupancy", "depth", "semantics", "trajectory"))
    return f"step {step}: {terms}  |  IoU {100 * scores['iou']:.1f}  mIoU {100 * scores['miou']:.1f}"


def scores_table(scores: dict[str, Any], title: str) -> Table:
    """IoU of every class in percent, for the terminal."""
    table = Table(title=f"{title}: IoU {100 * scores['iou']:.2f}, mIoU {100 * scores['miou']:.2f}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in list(zip(SIDEWALK.classes, scores["per_class"], strict=True))[1:]:
        table.add_row(name, "-" if math.isnan(value) else f"{100 * value:.2f}")
    return table


