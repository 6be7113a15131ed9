"""One scene from its reference to a folder of labels with a report: what a worker of a fleet does."""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
import traceback
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import occ_perception
from occ_perception.datasets.files import writing
from occ_perception.datasets.sidewalk3d import write_sequence
from occ_perception.errors import ConfigurationError, DatasetError, OccPerceptionError
from occ_perception.geometry import se3
from occ_perception.labeling.clip import Clip, LabelFrame
from occ_perception.labeling.extrinsics import check_extrinsics
from occ_perception.labeling.pictures import scene_picture
from occ_perception.labeling.pipeline import Clock, LabelledScene, label_clip
from occ_perception.labeling.quality import score_scene
from occ_perception.labeling.segmenters.base import FrameSegmenter, Segmenter
from occ_perception.labeling.segmenters.simulated import SimulatedErrors, SimulatedSegmenter
from occ_perception.labeling.settings import LabelSettings, Sam3Folders
from occ_perception.labeling.sources import RawScene, SceneRef, SceneTruth
from occ_perception.replay.about import commit

REPORT, PICTURE = "report.json", "picture.jpg"
HEALTH_FRAMES = 5
"""Frames, from all over a scene, on which extrinsics are judged; each costs as much as labelling one."""
ENGINE_STAGES = ("lift", "vote", "accumulate", "mesh", "fuse")
"""What counts in `frames_per_core_s`: labelling itself, without reading, segmenting, judging and writing."""


class Status(str, Enum):
    """How a scene ended: labelled, left out for what it is, failed by a fault here, or the whole run must stop."""

    done = "done"
    skipped = "skipped"
    failed = "failed"
    stopped = "stopped"


@dataclass(frozen=True)
class Outcome:
    """What became of a scene, or of a source that could not be opened; `reason` unless it is done."""

    name: str
    status: Status
    reason: str = ""
    frames: int = 0


def label_scene(ref: SceneRef, out: Path, settings: LabelSettings) -> Outcome:
    """Label one scene into the new folder `out/<name>`, which appears when it is whole. Raises nothing."""
    try:
        model = _sam3(settings.segmenter) if isinstance(settings.segmenter, Sam3Folders) else None
    except (ConfigurationError, ImportError) as error:  # it would be the same for every scene
        return Outcome(ref.name, Status.stopped, str(error))
    try:
        clock = Clock()
        with clock("open"):
            raw = ref.open()
        segmenter = model or _simulated(settings.segmenter, raw)
        labelled = label_clip(raw.clip, segmenter, settings)
        report = _report(ref, raw, labelled, settings, clock) | {"segmenter": segmenter.name}
    except OccPerceptionError as error:
        return Outcome(ref.name, Status.skipped, str(error))
    except Exception:  # a fault here costs its scene, and is shown in full
        return Outcome(ref.name, Status.failed, traceback.format_exc(limit=-4).strip())
    try:
        _write(out / ref.name, raw, labelled, report, clock)
    except DatasetError as error:
        return Outcome(ref.name, Status.stopped, str(error))
    except OccPerceptionError as error:
        return Outcome(ref.name, Status.skipped, str(error))
    return Outcome(ref.name, Status.done, frames=len(labelled.samples))


@lru_cache(maxsize=1)
def _sam3(folders: Sam3Folders) -> Segmenter:
    """Weights are loaded once in a process."""
    from occ_perception.labeling.segmenters.sam3 import Sam3Segmenter, Sam3Settings, two_passes

    if folders.finetuned is None:
        return Sam3Segmenter.load(folders.base, Sam3Settings(device=folders.device, dtype=folders.dtype))
    return two_passes(folders.base, folders.finetuned, device=folders.device, dtype=folders.dtype)


def _simulated(errors: SimulatedErrors | Sam3Folders, raw: RawScene) -> FrameSegmenter:
    if raw.truth is None or not isinstance(errors, SimulatedErrors):
        raise ConfigurationError(["the simulated segmenter needs the true classes, which only simulated scenes have"],
                                 where=f"scene {raw.clip.name}", fix="Name a folder of SAM3 weights as the segmenter")
    return SimulatedSegmenter(raw.truth.classes, errors)


def _report(ref: SceneRef, raw: RawScene, labelled: LabelledScene, settings: LabelSettings, clock: Clock
            ) -> dict[str, Any]:
    """What a reader must know of the scene; plain values."""
    clip, frames = labelled.clip, len(labelled.samples)
    with clock("health"):
        health = [check_extrinsics(_spread(clip), camera) for camera in clip.rig.cameras]
    engine_s = sum(labelled.cpu_s.get(stage, 0.0) for stage in ENGINE_STAGES)
    report: dict[str, Any] = {
        "scene": ref.name, "source": ref.about(), "settings": settings.to_dict(),
        "version": occ_perception.__version__, "commit": commit(),
        "frames": frames, "points": sum(len(cloud.points_m) for cloud in labelled.clouds),
        "labelled_points": sum(int((cloud.labels > 0).sum()) for cloud in labelled.clouds),
        "tracks": len({int(track) for sample in labelled.samples for track in sample.track_ids}),
        "drops": dict(sorted((raw.drops + labelled.drops).items())),
        "health": {each.camera: None if np.isnan(each.health) else each.health for each in health},
        "warnings": [each.warning for each in health if each.warning],
        "wall_s": clock.wall_s | dict(labelled.wall_s), "cpu_s": clock.cpu_s | dict(labelled.cpu_s),
        "frames_per_core_s": round(frames / max(engine_s, 1e-9), 3)}
    if raw.levelling is not None:
        report["levelling"] = raw.levelling.to_dict()
        if raw.levelling.skipped:
            report["warnings"].append(f"poses are not levelled: {raw.levelling.skipped}")
    if raw.truth is not None:
        report["pose_error_m"] = _pose_error_m(clip, raw.truth)
        report["tilt_error_deg"] = _tilt_error_deg(clip, raw.truth)
        if settings.grid == raw.truth.grid(clip.frames[0].stamp_ns).spec:
            report["quality"] = score_scene(labelled.samples, raw.truth).to_dict()
    return report


def _spread(clip: Clip) -> list[LabelFrame]:
    """Some frames from the whole clip."""
    rows = np.unique(np.linspace(0, len(clip.frames) - 1, HEALTH_FRAMES).round().astype(int))
    return [clip.frames[row] for row in rows]


def _pose_error_m(clip: Clip, truth: SceneTruth) -> float:
    """How far the poses drift within the scene: the largest error of a position relative to the first frame."""
    first, true_first = clip.frames[0].T_world_base, truth.T_world_base(clip.frames[0].stamp_ns)
    errors = [np.linalg.norm((se3.invert(first) @ frame.T_world_base)[:3, 3]
                             - (se3.invert(true_first) @ truth.T_world_base(frame.stamp_ns))[:3, 3])
              for frame in clip.frames]
    return round(float(max(errors)), 4)


def _tilt_error_deg(clip: Clip, truth: SceneTruth) -> float:
    """The largest angle between the vertical of a pose and the true one."""
    cosines = [frame.T_world_base[2, :3] @ truth.T_world_base(frame.stamp_ns)[2, :3] for frame in clip.frames]
    return round(float(np.degrees(np.arccos(np.clip(min(cosines), -1.0, 1.0)))), 3)


def _write(folder: Path, raw: RawScene, labelled: LabelledScene, report: dict[str, Any], clock: Clock) -> None:
    """The scene's folder: sequence, report and picture, written in a hidden folder beside and moved as a whole.

    Raises:
        DatasetError: the disk refuses.
        ConfigurationError: the frames make no sequence.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):  # of a worker that was killed over this scene
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            staged, middle = Path(beside) / folder.name, len(labelled.samples) // 2
            with clock("write"):
                report["content_hash"] = write_sequence(staged, labelled.samples, labelled.clouds, area=raw.area,
                                                        night=raw.night)
            with clock("picture"):
                picture = scene_picture(labelled.clip, labelled.classes[middle], labelled.fused[middle], middle)
            if not cv2.imwrite(str(staged / PICTURE), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                raise DatasetError("cannot be written", where=str(staged / PICTURE), fix="Is the disk full?")
            report["wall_s"] |= clock.wall_s
            report["cpu_s"] |= clock.cpu_s
            report["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            (staged / REPORT).write_text(json.dumps(report, indent=1))
            os.replace(staged, folder)
