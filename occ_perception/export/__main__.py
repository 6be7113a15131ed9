"""`python -m occ_perception.export`: a trained checkpoint to a model folder with graphs, manifest and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from occ_perception.errors import OccPerceptionError
from occ_perception.export.build import ExportSettings, export_model


def main(
    checkpoint: Annotated[Path, typer.Option(help="checkpoint or model file of the training")],
    data: Annotated[Path, typer.Option(help="folder of the splits, simulated or labelled")],
    out: Annotated[Path, typer.Option(help="model folder to make or replace; its name is the model's")],
    version: Annotated[str, typer.Option(help="version of the model")] = ExportSettings.version,
    splits: Annotated[str, typer.Option(help="splits to score on, by commas; empty for none")] = ",".join(
        ExportSettings.score_splits
    ),
    frames: Annotated[int | None, typer.Option(help="at most this many frames of each split")] = None,
    calibration_frames: Annotated[int, typer.Option(help="training frames that give the int8 ranges")] = 64,
) -> None:
    """Export, check parity, quantise, score, and write the manifest."""
    console = Console()
    settings = ExportSettings(
        data=data, version=version, score_splits=tuple(name for name in splits.split(",") if name),
        calibration_frames=calibration_frames, score_frames=frames,
    )
    try:
        manifest = export_model(checkpoint, out, settings, tell=lambda line: console.print(line, highlight=False))
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    size_mb = sum(manifest.path(name).stat().st_size for name in manifest.variants) / 1e6
    console.print(f"{manifest.model_id}: {size_mb:.1f} MB in {out}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
