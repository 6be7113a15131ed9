"""`python -m occ_perception.training walkocc|trunk`: train a network, or pretrain its encoder, on labelled splits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape

from occ_perception.errors import ConfigurationError, OccPerceptionError, TrainingError
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training.augmentation import WORN_SCANS, AugmentationConfig
from occ_perception.training.distributed import process_count, process_group, rank
from occ_perception.training.free_space import WEIGHT
from occ_perception.training.loop import TrainingConfig, train
from occ_perception.training.losses import LossConfig
from occ_perception.training.runner import CHECKPOINT, Interrupted
from occ_perception.training.schedule import SCHEDULES, Schedule
from occ_perception.training.trunk import TrunkConfig, pretrain

SIGNAL_STATUS = 128
"""A shell adds the signal's number to it."""

main = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                   help="Train networks on labelled splits; several processes by torchrun.")


class Size(str, Enum):
    """Sizes of the network by name."""

    lite = "lite"
    paper = "paper"
    small = "small"


Data = Annotated[Path, typer.Argument(help="folder of the splits, simulated or labelled")]
Output = Annotated[Path, typer.Argument(help="folder for checkpoint, log, results and summary")]
SizeOption = Annotated[Size, typer.Option(help="sizes of the network")]
Steps = Annotated[int | None, typer.Option(help="length of the schedule in steps")]
MaxMinutes = Annotated[float | None, typer.Option(help="length of the schedule in minutes")]
BatchSize = Annotated[int, typer.Option(help="samples per step, of all processes together")]
LearningRate = Annotated[float, typer.Option(help="peak of the schedule")]
ScheduleOption = Annotated[str, typer.Option(help=f"after the warm-up: {' or '.join(SCHEDULES)}")]
Seed = Annotated[int, typer.Option(help="of initialisation, order and augmentation")]
Device = Annotated[str, typer.Option(help="of torch: cpu or cuda")]
Threads = Annotated[int, typer.Option(help="threads of torch")]
Loaders = Annotated[int, typer.Option(help="threads that make batches ahead")]
Bfloat16 = Annotated[bool, typer.Option(help="multiply in bfloat16")]
CheckpointMinutes = Annotated[float, typer.Option(help="time between checkpoints")]
Resume = Annotated[bool, typer.Option(help="go on from the checkpoint in the output folder")]
Overwrite = Annotated[bool, typer.Option(help="begin anew where the output folder holds another training")]


@main.command()
def walkocc(
    data: Data, output: Output, size: SizeOption = Size.lite,
    split: Annotated[str, typer.Option(help="split to learn from")] = TrainingConfig.train_split,
    validation_split: Annotated[
        str, typer.Option(help="split to validate and calibrate on")] = TrainingConfig.validation_split,
    steps: Steps = None, max_minutes: MaxMinutes = None,
    batch_size: BatchSize = TrainingConfig.batch_size,
    images: Annotated[
        list[str] | None, typer.Option(help="SPLIT=COUNT: so many 2D-only samples of this split; repeatable")] = None,
    images_per_batch: Annotated[
        int, typer.Option(help="2D-only samples added to each step")] = TrainingConfig.images_per_batch,
    rays: Annotated[int, typer.Option(help="rays per image for the two losses along rays")] = TrainingConfig.rays,
    consistency: Annotated[float, typer.Option(help="weight of the 2D-3D consistency loss")] = LossConfig.consistency,
    clear: Annotated[list[str] | None, typer.Option(
        help="of the --images those of other mounts by day, which clear the space before what they show; repeatable")
    ] = None,
    worn_scans: Annotated[bool, typer.Option(
        "--worn-scans", help="imitate LiDARs with few rings and wrong extrinsics")] = False,
    trunk: Annotated[Path | None, typer.Option(help="trunk.safetensors to start from")] = None,
    start: Annotated[Path | None, typer.Option(
        help="folder of an exported model to start from as a whole, such as models/walkocc_lite")] = None,
    learning_rate: LearningRate = TrainingConfig.learning_rate,
    schedule: ScheduleOption = TrainingConfig.schedule,
    seed: Seed = TrainingConfig.seed, device: Device = TrainingConfig.device,
    threads: Threads = TrainingConfig.threads, loaders: Loaders = TrainingConfig.loaders,
    bfloat16: Bfloat16 = TrainingConfig.bfloat16,
    validate_every: Annotated[int, typer.Option(help="steps between validations")] = TrainingConfig.validate_every,
    validation_samples: Annotated[int, typer.Option(
        help="samples of a validation")] = TrainingConfig.validation_samples,
    calibration_samples: Annotated[int, typer.Option(
        help="validation samples that the decision is calibrated on; rare classes need all")
    ] = TrainingConfig.calibration_samples,
    checkpoint_minutes: CheckpointMinutes = TrainingConfig.checkpoint_minutes, resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train WalkOCC on a split that was simulated or labelled, and validate on another."""
    with _processes(device) as console:
        config = TrainingConfig(
            data=data, output=output, train_split=split, validation_split=validation_split, network=_network(size),
            steps=steps, max_minutes=max_minutes, batch_size=batch_size, extra_images=_counts(images or []),
            images_per_batch=images_per_batch, rays=rays,
            clearing=tuple(clear or ()),
            loss=LossConfig(consistency=consistency, free_space=WEIGHT if clear else 0.0),
            augmentation=WORN_SCANS if worn_scans else AugmentationConfig(), trunk=trunk, start=start,
            learning_rate=learning_rate,
            schedule=cast(Schedule, schedule), seed=seed, device=device,
            threads=threads, loaders=loaders, bfloat16=bfloat16, validate_every=validate_every,
            validation_samples=validation_samples, calibration_samples=calibration_samples,
            checkpoint_minutes=checkpoint_minutes,
        )
        _require_room(output, resume or overwrite)
        train(config, resume=resume, console=console)


@main.command()
def trunk(
    data: Data, output: Output, size: SizeOption = Size.lite,
    split: Annotated[str, typer.Option(help="2D-only split to learn from")] = TrunkConfig.train_split,
    steps: Steps = None, max_minutes: MaxMinutes = None, batch_size: BatchSize = TrunkConfig.batch_size,
    learning_rate: LearningRate = TrunkConfig.learning_rate,
    schedule: ScheduleOption = TrunkConfig.schedule,
    seed: Seed = TrunkConfig.seed, device: Device = TrunkConfig.device, threads: Threads = TrunkConfig.threads,
    loaders: Loaders = TrunkConfig.loaders, bfloat16: Bfloat16 = TrunkConfig.bfloat16,
    checkpoint_minutes: CheckpointMinutes = TrunkConfig.checkpoint_minutes, resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Pretrain backbone and neck on images with 2D labels; makes OUTPUT/trunk.safetensors, for networks of SIZE."""
    with _processes(device) as console:
        config = TrunkConfig(
            data=data, output=output, network=_network(size), train_split=split, steps=steps, max_minutes=max_minutes,
            batch_size=batch_size, learning_rate=learning_rate, schedule=cast(Schedule, schedule), seed=seed,
            device=device, threads=threads, loaders=loaders, bfloat16=bfloat16, checkpoint_minutes=checkpoint_minutes,
        )
        _require_room(output, resume or overwrite)
        pretrain(config, resume=resume, console=console)


def _network(size: Size) -> WalkOccConfig:
    config: WalkOccConfig = getattr(WalkOccConfig, size.value)()
    return config


def _require_room(output: Path, may_hold_one: bool) -> None:
    """Hours of training are not overwritten by a forgotten option."""
    if (output / CHECKPOINT).is_file() and not may_hold_one:
        raise TrainingError("a training is there already", where=str(output / CHECKPOINT),
                            fix="Go on with --resume, begin anew with --overwrite, or name another output folder")


def _counts(named: list[str]) -> dict[str, int]:
    """`SPLIT=COUNT` options as a mapping."""
    pairs = [entry.partition("=")[::2] for entry in named]
    wrong = [f"--images must be SPLIT=COUNT, got {entry!r}"
             for entry, (split, count) in zip(named, pairs, strict=True) if not split or not count.isdigit()]
    if wrong:
        raise ConfigurationError(wrong, where="walkocc")
    return {split: int(count) for split, count in pairs}


@contextmanager
def _processes(device: str) -> Iterator[Console]:
    """The console of a training in its process group; errors of ours are one message and an exit status."""
    console = Console()
    with process_group(device):
        try:
            yield console
        except OccPerceptionError as error:
            who = f"process {rank()}: " if process_count() > 1 else ""
            console.print(f"{who}[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(SIGNAL_STATUS + error.number if isinstance(error, Interrupted) else 1) from error


if __name__ == "__main__":
    main()
