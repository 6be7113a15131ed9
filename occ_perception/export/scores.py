"""Scores of a model folder's variants on named splits, through the pipeline that the robot runs, beside the prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from occ_perception.datasets import Sample
from occ_perception.datasets.registry import LabelledSplit
from occ_perception.engines import Engine, Manifest, load_engine
from occ_perception.engines.manifest import ScoreRecord
from occ_perception.errors import DatasetError
from occ_perception.geometry import se3
from occ_perception.pipelines import OccupancyPipeline
from occ_perception.taxonomy import get_taxonomy
from occ_perception.training.evaluate import Prediction, Predictor, constant_predictor, evaluate, spread
from occ_perception.training.prior import count_labels
from occ_perception.types import CameraImage, PointCloud, SensorFrame

PRIOR = "prior"
"""Name, among the scored variants, of each voxel's most frequent training label."""


def score_splits(
    manifest: Manifest,
    train: LabelledSplit,
    splits: Mapping[str, LabelledSplit],
    prior_frames: int,
    score_frames: int | None,
    tell: Callable[[str], None],
) -> list[ScoreRecord]:
    """Every variant on every split, on the CPU, and the prior of `prior_frames` training frames.

    A model that takes a LiDAR's ranges is scored without them and with them.
    """
    if not splits:
        return []
    tell(f"counting labels of {min(prior_frames, len(train))} training frames for the prior")
    shape, classes = manifest.output_grid.spec().shape, len(get_taxonomy(manifest.taxonomy))
    counted = (train[index] for index in spread(len(train), prior_frames))
    prior = count_labels(counted, classes, shape).most_frequent()
    predictors: list[tuple[str, bool, Predictor]] = [(PRIOR, False, constant_predictor(prior))]
    for variant in manifest.variants:
        engine = load_engine(manifest, device="cpu", variant=variant)
        for lidar in (False, True) if manifest.takes_ranges else (False,):
            predictors.append((variant, lidar, engine_predictor(engine, manifest, lidar=lidar)))
    records = []
    for split, samples in splits.items():
        for variant, lidar, predict in predictors:
            scores = evaluate(predict, samples, limit=score_frames)
            records.append(score_record(scores, variant, split, samples, manifest.taxonomy, lidar=lidar))
            tell(f"{split}, {variant}{' with LiDAR' if lidar else ''}: IoU {100 * scores['iou']:.2f}, "
                 f"mIoU {100 * scores['miou']:.2f} ({scores['samples']} frames)")
    return records


def engine_predictor(engine: Engine, manifest: Manifest, *, lidar: bool = False) -> Predictor:
    """An engine, inside the occupancy pipeline, as a predictor of samples of any rig; with their LiDAR or without."""
    pipelines: dict[str, OccupancyPipeline] = {}

    def predict(sample: Sample) -> Prediction:
        rig = sample.rig
        key = rig.model_dump_json()  # not its name: a robot may have been calibrated anew between two scenes
        if key not in pipelines:
            pipelines[key] = OccupancyPipeline(engine, manifest, rig)
        images = {name: CameraImage(name, sample.stamp_ns, pixels) for name, pixels in sample.images.items()}
        clouds = sample_clouds(sample) if lidar else {}
        # The tilt is the pose of a base whose grid frame is the world.
        frame = SensorFrame(sample.stamp_ns, images, clouds, T_odom_base=sample.T_grid_base)
        result = pipelines[key].step(frame)
        waypoints = result.trajectory.positions_m if result.trajectory else None
        return result.grid.labels, waypoints

    return predict


def sample_clouds(sample: Sample) -> dict[str, PointCloud]:
    """The points of a sample as the scan of the rig's first LiDAR, in that LiDAR's frame; nothing without points.

    Raises:
        DatasetError: the rig has no LiDAR, so that no score with one can be made.
    """
    if not sample.rig.lidars:
        raise DatasetError("its rig has no LiDAR to be scored with", where=f"{sample.scene}[{sample.index}]")
    if sample.points_m is None:
        return {}
    lidar = sample.rig.lidars[0]
    points_m = se3.apply(se3.invert(lidar.T_base_lidar), sample.points_m)
    return {lidar.name: PointCloud(lidar.name, sample.stamp_ns, points_m.astype(np.float32))}


def score_record(
    scores: Mapping[str, Any], variant: str, split: str, samples: LabelledSplit, taxonomy: str, *, lidar: bool
) -> ScoreRecord:
    """Fractions of `evaluate` as the percentages of a manifest."""
    values = {key: 100 * scores[key] for key in ("iou", "miou", "precision", "recall")}
    values |= {f"labelled_{key}": 100 * scores["labelled"][key] for key in ("iou", "miou")}
    values["waypoint_error_m"] = scores["waypoint_error_m"]
    names = get_taxonomy(taxonomy).classes
    per_class = {name: None if math.isnan(value) else round(100 * value, 2)
                 for name, value in list(zip(names, scores["per_class"], strict=True))[1:]}
    return ScoreRecord(
        variant=variant, split=split, data_version=samples.version, data_hash=samples.content_hash,
        frames=scores["samples"], lidar=lidar, per_class=per_class,
        values={key: round(value, 4) for key, value in values.items() if not math.isnan(value)},
    )
