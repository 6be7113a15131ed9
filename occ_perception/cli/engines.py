"""`occ-perception engine`: models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from occ_perception.cli.shared import Device, DeviceOption, ThreadsOption, VariantOption, model_folder

engine_app = typer.Typer(no_args_is_help=True, help="Models: check that they load and how fast they run.")


@engine_app.command("check")
def engine_check(
    model: Annotated[Path | None, typer.Argument(help="Model folder. Default: models/walkocc_lite.")] = None,
    device: DeviceOption = Device.auto, variant: VariantOption = None, threads: ThreadsOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Number of timed runs.")] = 30,
) -> None:
    """Check hashes, shapes and provider of a model, and time it on empty images."""
    from occ_perception.engines import load_engine, load_manifest
    from occ_perception.replay.engine_check import engine_table

    manifest = load_manifest(model_folder(model))
    engine = load_engine(manifest, device=device.value, variant=variant, allow_cpu=device is Device.auto,
                         threads=threads)
    Console().print(engine_table(engine, runs))
