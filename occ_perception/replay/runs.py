"""The two ways to a score: a bag through the robot's own pipeline, or recorded node outputs against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.engines import Engine, Manifest
from occ_perception.errors import BadMessage, RecordingError
from occ_perception.geometry import se3
from occ_perception.pipelines import (
    FrameAssembler,
    OccupancyPipeline,
    OdometryBuffer,
    PathCheckSettings,
    SyncedSet,
    synchroniser_for,
)
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import decode_odometry, decode_trajectory, decode_voxel_grid, stamp_ns
from occ_perception.recordings.frames import TRUTH_OCCUPANCY_TOPIC, sensor_events, sensor_topics
from occ_perception.replay.about import about_engine, about_machine, about_model, about_recording, about_software
from occ_perception.replay.evaluation import Evaluation, FrameScore, Scorer, Snapshot
from occ_perception.replay.streams import SensorStream, Truth, TruthStream
from occ_perception.types import Trajectory, VoxelGrid

VOXELS_TOPIC = "/perception_node/output/voxels"
TRAJECTORY_TOPIC = "/perception_node/output/trajectory"
DIAGNOSTICS_TOPIC = "/diagnostics"

Tell = Callable[[int, int], None]
"""Told how many images were taken and how many there are."""


def replay_bag(bag: Path, rig: Rig, engine: Engine, manifest: Manifest, *, truth_bag: Path | None = None,
               topics: Mapping[str, str] | None = None, limit: int | None = None, worst: int = 4,
               path_check: PathCheckSettings | None = None, tell: Tell = lambda done, total: None) -> Evaluation:
    """Drive the node's pipeline over a bag as fast as it goes, and score it where there is truth.

    Args:
        bag: recording with the rig's sensors.
        rig: the robot that made it.
        engine: loaded from `manifest`.
        truth_bag: recording with the ground truth; default `bag` itself, where it holds one.
        topics: topic by sensor, where it is not the default.
        limit: stop after as many images of the anchor camera.
        worst: number of frames to keep for pictures.
        path_check: how paths are judged; default with the footprint of the rig.
        tell: called after each image.

    Raises:
        RecordingError: a bag that cannot be read or lacks a topic, or truth on another grid.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(BagReader(bag))
        truth, notes = _truth_stream(stack, reader, truth_bag)
        odometry = OdometryBuffer()
        assembler, pipeline = FrameAssembler(rig, odometry), OccupancyPipeline(engine, manifest, rig, path_check)
        sensors = {sensor for sensor, _ in sensor_topics(reader, rig, topics).values()}
        lidars = [name for name in pipeline.lidars if name in sensors]
        synchroniser = synchroniser_for(rig, lidars=lidars)
        scorer = Scorer(manifest.output_grid.spec(), manifest.taxonomy, rig, worst, path_check)
        pipeline.warm_up()
        began_s, images = time.perf_counter(), 0
        total = _anchor_count(reader, rig, topics, limit)
        for event in sensor_events(reader, rig, topics):
            if event.kind == "cloud" and event.sensor not in lidars:
                continue  # the model reads no clouds
            try:
                if event.kind == "odometry":
                    odometry.push(decode_odometry(event.message))
                    continue
            except BadMessage as error:
                scorer.drops[f"{event.sensor}: {error.reason}"] += 1
                continue
            if event.sensor == synchroniser.anchor:
                if limit is not None and images >= limit:
                    break
                images += 1
                tell(images, total)
            for synced in synchroniser.push(event.sensor, event.stamp_ns, event.message):
                _answer(synced, assembler, pipeline, scorer, truth)
        for synced in synchroniser.flush():
            _answer(synced, assembler, pipeline, scorer, truth)
        wall_s = time.perf_counter() - began_s
        for (sensor, reason), count in synchroniser.drops_by_sensor.items():
            scorer.drops[reason if sensor == synchroniser.anchor else f"{sensor}: {reason}"] += count
        for counter in (assembler.drops, odometry.drops):
            scorer.drops.update(counter)
        engine_about = about_engine(manifest, engine.describe())
        about = _about(bag, rig, truth_bag) | {"model": about_model(manifest), "engine": engine_about}
        return scorer.evaluation(about, images_in=images, wall_s=wall_s, notes=notes)


def _answer(synced: SyncedSet, assembler: FrameAssembler, pipeline: OccupancyPipeline, scorer: Scorer,
            truth: TruthStream | None) -> None:
    """One synchronised set through the pipeline and into the scores; a bad one is counted by its reason."""
    if synced.after_jump:
        pipeline.reset("clock_jump")
        scorer.drops["clock_jump: state reset"] += 1
    began_s = time.perf_counter()
    try:
        frame = assembler.assemble(synced)
        assembled_s = time.perf_counter()
        result = pipeline.step(frame)
    except BadMessage as error:
        scorer.drops[error.reason] += 1
        return
    assemble_ms = 1e3 * (assembled_s - began_s)
    timings_ms = {"assemble": assemble_ms, **result.timings_ms, "total": assemble_ms + result.timings_ms["total"]}
    known = truth.at(frame.stamp_ns) if truth else None
    score = scorer.add(result.grid, known, result.trajectory, timings_ms)
    if scorer.gallery.wants(score):
        images = {name: image.pixels for name, image in frame.images.items()}
        scorer.gallery.offer(_snapshot(score, result.grid, known, images, result.trajectory, frame.T_odom_base))


def score_outputs(outputs: Path, truth_bag: Path, rig: Rig, *, manifest: Manifest | None = None,
                  voxels_topic: str = VOXELS_TOPIC, trajectory_topic: str = TRAJECTORY_TOPIC, worst: int = 4,
                  path_check: PathCheckSettings | None = None,
                  tell: Tell = lambda done, total: None) -> Evaluation:
    """Score a bag of recorded node outputs against the recording that the node was fed with.

    Latencies and drops are the node's own, from its last diagnostics in the bag, where they were recorded. With
    `manifest` the report tells how the model was trained. `path_check` is how the node judged its paths (its
    parameters), for the same judgement on the true map; default with the footprint of the rig.

    Raises:
        RecordingError: a bag that cannot be read, a missing topic, no grid at all, truth on another grid, or another
            model than that of `manifest`.
    """
    began_s = time.perf_counter()
    with ExitStack() as stack:
        reader = stack.enter_context(BagReader(outputs))
        reader.require([voxels_topic])
        source = stack.enter_context(BagReader(truth_bag))
        truth = TruthStream(source)
        sensors = SensorStream(stack.enter_context(BagReader(truth_bag)), rig)
        scorer: Scorer | None = None
        model_id = ""
        for done, (grid, trajectory) in enumerate(_results(reader, voxels_topic, trajectory_topic), 1):
            scorer = scorer or Scorer(grid.spec, grid.taxonomy, rig, worst, path_check)
            model_id = grid.model_id
            known = truth.at(grid.stamp_ns)
            score = scorer.add(grid, known, trajectory)
            images, T_odom_base = sensors.at(grid.stamp_ns)
            if scorer.gallery.wants(score):
                scorer.gallery.offer(_snapshot(score, grid, known, images, trajectory, T_odom_base))
            tell(done, reader.counts[voxels_topic])
        if scorer is None:
            raise RecordingError(f"{voxels_topic} holds no message", where=str(outputs),
                                 fix="Was the node active while it was recorded?")
        if manifest is not None and manifest.model_id != model_id:
            raise RecordingError(f"was made by {model_id}, not by {manifest.model_id}", where=str(outputs))
        model = {"model": model_id} if manifest is None else about_model(manifest)
        extra = {"model": model, "outputs": about_recording(outputs)}
        evaluation = scorer.evaluation(
            _about(truth_bag, rig, None) | extra,
            images_in=_anchor_count(source, rig, None, None), wall_s=time.perf_counter() - began_s,
        )
        return _with_node_diagnostics(evaluation, reader)


def _results(reader: BagReader, voxels_topic: str,
             trajectory_topic: str) -> Iterator[tuple[VoxelGrid, Trajectory | None]]:
    """Grids in order, each with the path of the same stamp; the node publishes the path right behind its grid."""
    waiting: VoxelGrid | None = None
    for topic, _, message in reader.messages([voxels_topic, *({trajectory_topic} & reader.topics.keys())]):
        if topic == voxels_topic:
            if waiting is not None:
                yield waiting, None
            waiting = decode_voxel_grid(message)
        elif waiting is not None and stamp_ns(message.header) == waiting.stamp_ns:
            yield waiting, decode_trajectory(message)
            waiting = None
    if waiting is not None:
        yield waiting, None


def _with_node_diagnostics(evaluation: Evaluation, reader: BagReader) -> Evaluation:
    """Latency percentiles and drops as the node itself counted them, from the last diagnostics in the bag."""
    values: dict[str, str] = {}
    if DIAGNOSTICS_TOPIC in reader.topics:
        for _, _, message in reader.messages([DIAGNOSTICS_TOPIC]):
            for status in message.status:
                if status.name.endswith(": frames"):
                    values = {pair.key: pair.value for pair in status.values}
    if not values:
        note = "The outputs carry no diagnostics of the node: its latencies and drops are not known."
        return replace(evaluation, notes=[*evaluation.notes, note])
    latency_ms: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        stage, _, percentile = key.removesuffix("_ms").rpartition("_")
        if key.endswith("_ms") and percentile in ("p50", "p95", "p99") and stage != "step":  # as good as `total`
            latency_ms.setdefault(stage, {})[percentile] = float(value)
    drops = {key.removeprefix("dropped_"): int(value) for key, value in values.items() if key.startswith("dropped_")}
    return replace(evaluation, latency_ms=latency_ms, drops={k: n for k, n in drops.items() if n})


def _truth_stream(stack: ExitStack, reader: BagReader, truth_bag: Path | None) -> tuple[TruthStream | None, list[str]]:
    if truth_bag is None and TRUTH_OCCUPANCY_TOPIC not in reader.topics:
        return None, [f"The recording has no {TRUTH_OCCUPANCY_TOPIC}: nothing is scored, latencies and pictures only."]
    return TruthStream(stack.enter_context(BagReader(truth_bag or reader.path))), []


def _anchor_count(reader: BagReader, rig: Rig, topics: Mapping[str, str] | None, limit: int | None) -> int:
    anchor = rig.cameras[0].name
    topic = next(name for name, (sensor, _) in sensor_topics(reader, rig, topics).items() if sensor == anchor)
    count = reader.counts[topic]
    return count if limit is None else min(limit, count)


def _about(bag: Path, rig: Rig, truth_bag: Path | None) -> dict[str, Any]:
    about: dict[str, Any] = {"data": about_recording(bag), "rig": {"name": rig.name}, "machine": about_machine(),
                             "software": about_software()}
    return about | ({"truth": about_recording(truth_bag)} if truth_bag else {})


def _snapshot(score: FrameScore, grid: VoxelGrid, truth: Truth | None, images: Mapping[str, NDArray[np.uint8]],
              trajectory: Trajectory | None, T_odom_base: NDArray[np.float64] | None) -> Snapshot:
    """Everything that a picture of this frame needs."""
    T_grid_base = np.eye(4)
    if T_odom_base is not None:
        T_grid_base = se3.invert(se3.gravity_aligned(T_odom_base)) @ T_odom_base
    return Snapshot(score, grid, truth, dict(images), T_grid_base, trajectory)

