"""From a trained checkpoint to a model folder: graphs, parity, int8, scores against the prior, manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from occ_perception.datasets import Sample, SimulatedDataset, open_split
from occ_perception.datasets.registry import LabelledSplit
from occ_perception.engines import (
    Manifest,
    RangeBinsSpec,
    TensorSpec,
    TrainingRecord,
    Variant,
    load_manifest,
    save_manifest,
    sha256_of,
)
from occ_perception.engines.manifest import MANIFEST_NAME, GridSpec, ScoreRecord
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.export.onnx import export_onnx, input_names
from occ_perception.export.parity import Parity, measure_parity
from occ_perception.export.quantise import Feeds, quantise
from occ_perception.export.scores import score_splits
from occ_perception.networks.walkocc import WalkOcc, WalkOccConfig
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.augmentation import NO_AUGMENTATION
from occ_perception.training.batches import make_item
from occ_perception.training.checkpoint import load_network
from occ_perception.training.config import RunConfig
from occ_perception.training.evaluate import spread

WAYPOINT_STEP_S = 0.5
Tell = Callable[[str], None]


@dataclass(frozen=True)
class ExportSettings:
    """How a checkpoint is exported.

    Attributes:
        data: folder of the splits, simulated or labelled; the one that the checkpoint was trained on calibrates int8
            and gives the prior.
        version: of the model.
        score_splits: splits to score on; none gives a manifest without scores.
        calibration_frames, parity_frames, prior_frames: frames of the train split, evenly spread.
        score_frames: at most this many frames of each split, evenly spread (default: all).
    """

    data: Path
    version: str = "1.0.0"
    score_splits: tuple[str, ...] = ("test", "night", "districts", "embodiments")
    calibration_frames: int = 64
    parity_frames: int = 4
    prior_frames: int = 1000
    score_frames: int | None = None


def export_model(checkpoint: Path, out: Path, settings: ExportSettings, tell: Tell = print) -> Manifest:
    """Make the model folder `out` (its name is the model's name) from a checkpoint or model file of the training.

    Everything is made in a folder beside `out`, which then takes its place: `out` is never half a model.

    Args:
        tell: called with one line per step.

    Raises:
        TrainingError: no such checkpoint.
        DatasetError: a split is missing.
        EngineError: the graph does not answer as the network does.
    """
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST_NAME).is_file():
        raise ConfigurationError(["is no model folder: it would be replaced"], where=str(out))
    network, provenance = load_network(checkpoint)
    train = open_split(settings.data, provenance.get("training", {}).get("train_split", RunConfig.train_split))
    splits = {name: open_split(settings.data, name) for name in settings.score_splits}
    if empty := [split.split for split in (train, *splits.values()) if len(split) == 0]:
        raise DatasetError(f"no samples in {', '.join(empty)}", where=str(settings.data))
    beside = out.with_name(f"{out.name}.tmp{os.getpid()}")
    beside.mkdir(parents=True)
    try:
        variants, parity = _write_graphs(network, train, beside, out.name, settings, tell)
        manifest = Manifest(
            name=out.name,
            version=settings.version,
            variants=variants,
            training=_training_record(checkpoint, provenance, train, parity),
            **describe_graph(network.config),
        )
        save_manifest(manifest, beside)
        scores = score_splits(load_manifest(beside), train, splits, settings.prior_frames, settings.score_frames, tell)
        update = {"scores": tuple(scores), "variants": _noted(variants, scores)}
        save_manifest(manifest.model_copy(update=update), beside)
        load_manifest(beside)
        _take_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return load_manifest(out)


def describe_graph(config: WalkOccConfig) -> dict[str, Any]:
    """The fields of a manifest that follow from the network's sizes."""
    samples, (nx, ny, nz) = config.lift_grid.size, config.output_grid.shape

    def tensor(name: str, shape: tuple[int | str, ...], dtype: Any, meaning: str) -> TensorSpec:
        return TensorSpec(name=name, shape=shape, dtype=dtype, meaning=meaning)

    inputs = {
        "images": tensor("images", ("cameras", *config.image_size, 3), "uint8", "RGB, one image per camera"),
        "rows": tensor("rows", ("hits", samples), "int32", "row of the flattened features that a sample of the lift"
                       " grid reads; samples in message order"),
        "bins": tensor("bins", ("hits", samples), "int32", "range bin of the sample on that pixel's ray"),
        "weights": tensor("weights", ("hits", samples), "float32", "0 where no camera sees the sample, else 1 / hits"),
        "ranges": tensor("ranges", ("cameras", *config.feature_size), "float32", "metres along the ray to the nearest"
                         " LiDAR return in each feature pixel, 0 where there is none; all 0 without a LiDAR"),
    }
    return {
        "tasks": ("occupancy", "trajectory"),
        "taxonomy": SIDEWALK.name,
        "output_grid": GridSpec.of(config.output_grid),
        "lift_grid": GridSpec.of(config.lift_grid),
        "range_bins": RangeBinsSpec(**asdict(config.bins)),
        "image_size": config.image_size,
        "feature_size": config.feature_size,
        "maximum_hits": 2,
        "waypoint_times_s": tuple(WAYPOINT_STEP_S * (i + 1) for i in range(config.waypoints)),
        "inputs": tuple(inputs[name] for name in input_names(config)),
        "outputs": (
            tensor("labels", (nz, ny, nx), "uint8", "class of every cell; flat in message order"),
            tensor("confidence", (nz, ny, nx), "uint8", "255 P(occupied)"),
            tensor("waypoints", (config.waypoints, 2), "float32", "x forward and y left in the grid's frame, metres"),
        ),
        "licence": "Apache-2.0",
    }


def engine_inputs(samples: Sequence[Sample] | LabelledSplit, frames: int, config: WalkOccConfig) -> Iterator[Feeds]:
    """Inputs of the graph for `frames` samples, evenly spread; every second one as if it had no LiDAR."""
    for place, index in enumerate(spread(len(samples), frames)):
        item = make_item(samples[index], config, NO_AUGMENTATION, np.random.default_rng(0), use_lidar=place % 2 == 0)
        yield {name: item[name] for name in input_names(config)}


def _write_graphs(
    network: WalkOcc, train: LabelledSplit, folder: Path, name: str, settings: ExportSettings, tell: Tell
) -> tuple[dict[str, Variant], Parity]:
    fp32, int8 = folder / f"{name}_fp32.onnx", folder / f"{name}_int8.onnx"
    tell("exporting fp32")
    export_onnx(network, fp32)
    parity = measure_parity(network, fp32, engine_inputs(train, settings.parity_frames, network.config))
    parity.require()
    tell(f"parity on {parity.frames} frames: floats within {max(parity.margin_error, parity.waypoint_error_m):.1e}, "
         f"{100 * parity.equal_labels:.4f} % equal labels")
    tell(f"quantising to int8 on {settings.calibration_frames} frames")
    quantise(fp32, int8, engine_inputs(train, settings.calibration_frames, network.config))
    return {
        "int8": Variant(file=int8.name, sha256=sha256_of(int8), precision="int8", devices=("cpu",),
                        note=f"QDQ, uint8 activations, int8 weights per channel, ranges from "
                             f"{settings.calibration_frames} frames of {train.split}"),
        "fp32": Variant(file=fp32.name, sha256=sha256_of(fp32), precision="fp32", devices=("cpu", "cuda", "tensorrt")),
    }, parity


def _training_record(
    checkpoint: Path, provenance: dict[str, Any], train: LabelledSplit, parity: Parity
) -> TrainingRecord:
    """Where the weights come from, with all data by name: 2D-only splits, the trunk or the model at the start too; no
    paths of the machine."""
    trained_on = provenance.get("data", {}).get(train.split, {})
    kind = "SidewalkSim" if isinstance(train, SimulatedDataset) else "Sidewalk3D"
    configuration = {key: value for key, value in provenance.get("training", {}).items()
                     if key not in ("data", "output", "network", "trunk", "start")}
    return TrainingRecord(
        data=f"{kind} {train.split}",
        data_version=str(trained_on.get("version", "unknown")),
        data_hash=str(trained_on.get("content_hash", "unknown")),
        commit=str(provenance.get("commit") or "unknown"),
        seed=int(provenance.get("seed", 0)),
        steps=int(provenance.get("steps", 0)),
        checkpoint_sha256=sha256_of(checkpoint),
        settings=json.loads(json.dumps({
            **configuration,
            **{key: provenance[key] for key in ("data", "samples", "image_samples", "minutes", "class_offsets")
               if key in provenance},
            "parity": asdict(parity),
        })),
    )


def _noted(variants: dict[str, Variant], scores: Sequence[ScoreRecord]) -> dict[str, Variant]:
    """The variants; int8 with what it costs against fp32, cameras alone, on the first split that was scored."""
    first = {score.variant: score for score in scores if score.split == scores[0].split and not score.lidar}
    if not {"int8", "fp32"} <= first.keys():
        return variants
    loss = {key: first["int8"].values[key] - first["fp32"].values[key] for key in ("iou", "miou")}
    cost = f"{loss['iou']:+.2f} IoU, {loss['miou']:+.2f} mIoU against fp32 on {scores[0].split}"
    return {**variants, "int8": variants["int8"].model_copy(update={"note": f"{variants['int8'].note}; {cost}"})}


def _take_place(new: Path, place: Path) -> None:
    """Put folder `new` at `place`; what was there goes away only once the new one stands."""
    old = place.with_name(f"{place.name}.old{os.getpid()}")
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
