"""A simulated split with pseudo-labels in place of its truth, for trainings that are compared with those on the truth.

    python -m occ_perception.labeling.pseudo data/sim data/small/136x240_0.20m train

labels the simulated split `data/sim/train`, brings the labels to the size of its smaller copy in the other folder, and
lists them there in `splits.yaml` as `train_pseudo`.
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
from occ_perception.datasets.shrink import coarser, in_view, smaller_images
from occ_perception.datasets.sidewalk3d import SemanticCloud, read_splits, write_sequence, write_splits
from occ_perception.errors import DatasetError, OccPerceptionError
from occ_perception.labeling.pipeline import label_clip
from occ_perception.labeling.segmenters.simulated import SimulatedErrors, SimulatedSegmenter
from occ_perception.labeling.settings import LabelSettings
from occ_perception.labeling.sources import SimulatedScene

VERSION = "2"
"""Of pseudo-labels of a split; to be raised when they come out otherwise from the same recipe."""


def label_split(root: Path, target: Path, split: str, errors: SimulatedErrors | None = None, *,
                console: Console | None = None) -> str:
    """Labels every scene of a simulated split; returns the name of the new one. Scenes that are there are kept.

    Of the truth, only the 2D classes are looked at, by the simulated segmenter, which makes its errors in them. Images,
    scans, poses and waypoints are those of the split; boxes are not used. Labels are made as of a recording, from whole
    images and in cells of 0.1 m, and then brought to the size of the copy in the way in which its truth was.

    Args:
        root: folder that holds the split as it was simulated.
        target: folder that holds it in the size that is wanted, such as `datasets.shrink` writes it; or `root` again.
        errors: of the segmenter.

    Raises:
        DatasetError: no such split, `target` holds labels by another recipe, or the disk is full.
        RecordingError: a scene of which no frame can be labelled.
    """
    errors = errors or SimulatedErrors()
    settings = LabelSettings(segmenter=errors)
    source, copy, name = SimulatedDataset(root, split), SimulatedDataset(target, split), f"{split}_pseudo"
    _require_recipe(target / name / "recipe.yaml", {"version": VERSION, "of": source.content_hash,
                                                    "size_of": copy.content_hash, "settings": settings.to_dict()})
    first = 0
    for scene, frames in track(copy.scenes, f"{split}: labels", console=console or Console()):
        if not (target / name / scene / "sequence.yaml").is_file():
            _label_scene(source.folder / scene, [copy[first + k] for k in range(frames)], errors, settings,
                         target / name / scene)
        first += frames
    version, splits = read_splits(target) if (target / "splits.yaml").is_file() else (f"pseudo {VERSION}", {})
    write_splits(target, version, {**splits, name: [f"{name}/{scene}" for scene, _ in copy.scenes]})
    return name


def _label_scene(scene: Path, copies: Sequence[Sample], errors: SimulatedErrors, settings: LabelSettings, folder: Path
                 ) -> None:
    """One scene, with labels of the size of its `copies`."""
    raw = SimulatedScene(folder=scene, boxes=False).open()
    assert raw.truth is not None
    found = label_clip(raw.clip, SimulatedSegmenter(raw.truth.classes, errors), settings)
    rig, cell_m = copies[0].rig, float(copies[0].spec.cell[0])
    ways = {sample.stamp_ns: sample.waypoints_m for sample in copies}
    samples, clouds = [], []
    for sample, cloud in zip(found.samples, found.clouds, strict=True):
        seen = in_view(cloud.points_m, rig)
        clouds.append(SemanticCloud(cloud.points_m[seen], cloud.labels[seen]))
        samples.append(replace(coarser(smaller_images(sample, rig), cell_m), waypoints_m=ways[sample.stamp_ns]))
    write_sequence(folder, samples, clouds, area=raw.area, night=raw.night)


def _require_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Writes down what the labels in a folder are made by; DatasetError if some are there by another recipe."""
    if path.is_file() and read_yaml(path) != recipe:
        raise DatasetError("the folder holds labels by another recipe", where=str(path), fix="Remove the folder first")
    with new_file(path) as beside:
        beside.write_text(yaml.safe_dump(dict(recipe), sort_keys=False))


def main(
    root: Annotated[Path, typer.Argument(help="folder of the simulated splits")],
    target: Annotated[Path, typer.Argument(help="folder of their copies in the size of the labels; may be the same")],
    splits: Annotated[list[str], typer.Argument(help="simulated splits to label")],
    error_rate: Annotated[float, typer.Option(help="share of pixels that the segmenter gets wrong")] = 0.1,
) -> None:
    """Label simulated splits as if they had been recorded; makes SPLIT_pseudo of each SPLIT in TARGET."""
    console = Console()
    try:
        for split in splits:
            label_split(root, target, split, SimulatedErrors(error_rate=error_rate), console=console)
    except OccPerceptionError as error:
        console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
