"""A simulated split with pseudo-labels in place of its truth, for trainings that are compared with those on the truth.

    python -m occ_perception.labeling.pseudo data/small/136x240_0.20m train

labels the split `train` in that folder and lists it as `train_pseudo` in the folder's `splits.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.datasets.files import new_file
from occ_perception.datasets.scene_folder import read_yaml
from occ_perception.datasets.shrink import coarser
from occ_perception.datasets.sidewalk3d import read_splits, write_sequence, write_splits
from occ_perception.errors import DatasetError, OccPerceptionError
from occ_perception.labeling.pipeline import label_clip
from occ_perception.labeling.segmenters.simulated import SimulatedErrors, SimulatedSegmenter, truth_of
from occ_perception.labeling.settings import LabelSettings
from occ_perception.labeling.sources import SimulatedScene

VERSION = "1"
"""Of pseudo-labels of a split; to be raised when they come out otherwise from the same recipe."""


def label_split(root: Path, split: str, errors: SimulatedErrors | None = None, *, console: Console | None = None
                ) -> str:
    """Labels every scene of a simulated split; returns the name of the new one. Scenes that are there are kept.

    Of the truth, only the 2D classes are looked at, by the simulated segmenter, which makes its errors in them. Images,
    scans, poses and waypoints are those of the split; boxes are not used. Grids are fused in cells of 0.1 m and brought
    to the split's cells as its truth was: a kerb of 0.15 m is found at 0.1 m and outlasts the pavement there.

    Args:
        root: folder that holds the split, simulated or shrunk; the labels come beside it.
        errors: of the segmenter.

    Raises:
        DatasetError: no such split, the folder holds labels by another recipe, or the disk is full.
        RecordingError: a scene of which no frame can be labelled.
    """
    errors = errors or SimulatedErrors()
    settings = LabelSettings(segmenter=errors)
    source, name = SimulatedDataset(root, split), f"{split}_pseudo"
    _require_recipe(root / name / "recipe.yaml", {"version": VERSION, "of": source.content_hash,
                                                  "settings": settings.to_dict()})
    first = 0
    for scene, frames in track(source.scenes, f"{split}: labels", console=console or Console()):
        if not (root / name / scene / "sequence.yaml").is_file():
            _label_scene([source[first + k] for k in range(frames)], errors, settings, source.folder / scene,
                         root / name / scene)
        first += frames
    version, splits = read_splits(root) if (root / "splits.yaml").is_file() else (f"pseudo {VERSION}", {})
    write_splits(root, version, {**splits, name: [f"{name}/{scene}" for scene, _ in source.scenes]})
    return name


def _label_scene(samples: Sequence[Sample], errors: SimulatedErrors, settings: LabelSettings, of: Path, folder: Path
                 ) -> None:
    raw = SimulatedScene(folder=of, boxes=False).open()
    found = label_clip(raw.clip, SimulatedSegmenter(truth_of(samples), errors), settings)
    cell_m, ways = float(samples[0].spec.cell[0]), {sample.stamp_ns: sample.waypoints_m for sample in samples}
    labelled = [replace(coarser(sample, cell_m), waypoints_m=ways[sample.stamp_ns]) for sample in found.samples]
    write_sequence(folder, labelled, found.clouds, area=raw.area, night=raw.night)


def _require_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Writes down what the labels in a folder are made by; DatasetError if some are there by another recipe."""
    if path.is_file() and read_yaml(path) != recipe:
        raise DatasetError("the folder holds labels by another recipe", where=str(path), fix="Remove the folder first")
    with new_file(path) as beside:
        beside.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))


def main(
    root: Annotated[Path, typer.Argument(help="folder of the split, simulated or shrunk")],
    splits: Annotated[list[str], typer.Argument(help="simulated splits to label")],
    error_rate: Annotated[float, typer.Option(help="share of pixels that the segmenter gets wrong")] = 0.1,
) -> None:
    """Label simulated splits as if they had been recorded; makes SPLIT_pseudo of each SPLIT in ROOT."""
    console = Console()
    try:
        for split in splits:
            label_split(root, split, SimulatedErrors(error_rate=error_rate), console=console)
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
