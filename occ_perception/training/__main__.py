"""`python -m occ_perception.training`: train a WalkOCC network on the simulated splits."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from occ_perception.errors import OccPerceptionError
from occ_perception.networks.walkocc import WalkOccConfig
from occ_perception.training.loop import TrainingConfig, train


class Size(str, Enum):
    """Sizes of the network by name."""

    lite = "lite"
    paper = "paper"


def main(
    data: Annotated[Path, typer.Argument(help="folder of the simulated splits")],
    output: Annotated[Path, typer.Argument(help="folder for checkpoint, log, model and summary")],
    size: Annotated[Size, typer.Option(help="sizes of the network")] = Size.lite,
    steps: Annotated[int | None, typer.Option(help="length of the schedule in steps")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="length of the schedule in minutes")] = None,
    batch_size: Annotated[int, typer.Option(help="samples per step")] = TrainingConfig.batch_size,
    learning_rate: Annotated[float, typer.Option(help="peak of the schedule")] = TrainingConfig.learning_rate,
    seed: Annotated[int, typer.Option(help="of initialisation, order and augmentation")] = TrainingConfig.seed,
    threads: Annotated[int, typer.Option(help="threads of torch")] = TrainingConfig.threads,
    bfloat16: Annotated[bool, typer.Option(help="multiply in bfloat16")] = TrainingConfig.bfloat16,
    validate_every: Annotated[int, typer.Option(help="steps between validations")] = TrainingConfig.validate_every,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="time between checkpoints")
    ] = TrainingConfig.checkpoint_minutes,
    resume: Annotated[bool, typer.Option(help="go on from the checkpoint in the output folder")] = False,
) -> None:
    """Train on the train split, validate on val."""
    console = Console()
    try:
        config = TrainingConfig(
            data=data, output=output, network=getattr(WalkOccConfig, size.value)(), steps=steps,
            max_minutes=max_minutes, batch_size=batch_size, learning_rate=learning_rate, seed=seed, threads=threads,
            bfloat16=bfloat16, validate_every=validate_every, checkpoint_minutes=checkpoint_minutes,
        )
        train(config, resume=resume, console=console)
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
