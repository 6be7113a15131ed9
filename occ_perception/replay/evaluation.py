"""Scores of a run: frames against truth, latencies by stage, drops by reason, and the frames worth looking at."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import RecordingError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.metrics import NavigationRates, OccupancyIoU, RayIoU
from occ_perception.pipelines import PathChecker, PathCheckSettings
from occ_perception.replay.streams import Truth
from occ_perception.taxonomy import FREE, get_taxonomy
from occ_perception.types import Trajectory, VoxelGrid, WaypointFlag

PERCENTILES = (50, 95, 99)
RAY_THRESHOLDS_CELLS = (2.5, 5, 10)
"""The published 1, 2 and 4 m were chosen for cells of 0.4 m; these are as many cells."""


@dataclass(frozen=True)
class FrameScore:
    """One answered frame. Scores are NaN without truth; `latency_ms` is what the whole frame took, NaN if unknown.

    `path` is the status of its path (clear, caution, blocked, unchecked), empty without one.
    """

    stamp_ns: int
    iou: float
    miou: float
    latency_ms: float
    flags: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything needed to draw one frame. Images are RGB by camera; `T_grid_base` [4, 4] is the tilt of the base."""

    score: FrameScore
    prediction: VoxelGrid
    truth: Truth | None
    images: Mapping[str, NDArray[np.uint8]]
    T_grid_base: NDArray[np.float64]
    trajectory: Trajectory | None = None


class Latencies:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, list[float]] = {}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Take the stages of one frame."""
        for stage, value in timings_ms.items():
            self.stages_ms.setdefault(stage, []).append(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """By stage: p50, p95, p99, mean, max (ms) and the number of frames."""
        return {
            stage: {
                **{f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES},
                "mean": float(np.mean(values)), "max": float(np.max(values)), "frames": float(len(values)),
            }
            for stage, values in self.stages_ms.items()
        }


class Gallery:
    """Keeps the frames with the lowest scores, and the best one for comparison; nothing else stays in memory."""

    def __init__(self, worst: int) -> None:
        self._size = worst
        self._worst: list[tuple[float, int, Snapshot]] = []
        self._best: Snapshot | None = None

    def offer(self, snapshot: Snapshot) -> None:
        """Consider one frame; frames without a score only fill the room that scored ones leave."""
        if self._best is None or _goodness(snapshot.score) > _goodness(self._best.score):
            self._best = snapshot
        item = (_badness(snapshot.score), -snapshot.score.stamp_ns, snapshot)
        if len(self._worst) < self._size:
            heapq.heappush(self._worst, item)
        elif item > self._worst[0]:
            heapq.heapreplace(self._worst, item)

    def wants(self, score: FrameScore) -> bool:
        """Whether a frame of this score would be kept: a snapshot of others need not be made."""
        full = len(self._worst) >= self._size
        return not full or (_badness(score), -score.stamp_ns) > self._worst[0][:2] or (
            self._best is None or _goodness(score) > _goodness(self._best.score))

    def snapshots(self) -> list[Snapshot]:
        """The worst frames, worst first, then the best one unless it is among them."""
        worst = [item[2] for item in sorted(self._worst, key=lambda item: item[:2], reverse=True)]
        return worst if self._best is None or any(s is self._best for s in worst) else [*worst, self._best]


def _badness(score: FrameScore) -> float:
    return -math.inf if math.isnan(score.miou) else -score.miou


def _goodness(score: FrameScore) -> float:
    return -math.inf if math.isnan(score.miou) else score.miou


@dataclass
class Evaluation:
    """The result of a run. `scores` are fractions; `about` names data, model, hardware.

    `paths` counts frames by the status of their path, `trajectories` are these paths; all but them and the snapshots
    is ready for JSON.
    """

    about: dict[str, Any]
    classes: list[str]
    colours: list[tuple[int, int, int]]
    scores: dict[str, dict[str, Any]]
    latency_ms: dict[str, dict[str, float]]
    drops: dict[str, int]
    frames: list[FrameScore]
    answered: int
    scored: int
    images_in: int
    wall_s: float
    notes: list[str] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)
    trajectories: list[Trajectory] = field(default_factory=list)


class Scorer:
    """Scores predictions of one rig, frame by frame.

    Args:
        spec: grid of predictions and truth.
        taxonomy: name of the taxonomy of both.
        rig: gives the origins of rays (its cameras) and the robot's footprint.
        worst: number of frames to keep for pictures.
        path_check: how the robot judges its paths, for the same judgement on the true map; default with the footprint
            of the rig.
    """

    def __init__(self, spec: VoxelGridSpec, taxonomy: str, rig: Rig, worst: int = 4,
                 path_check: PathCheckSettings | None = None) -> None:
        self.spec, self.taxonomy = spec, get_taxonomy(taxonomy)
        self.visible = OccupancyIoU(len(self.taxonomy))
        self.known = OccupancyIoU(len(self.taxonomy))
        thresholds_m = tuple(round(n * float(spec.cell.min()), 6) for n in RAY_THRESHOLDS_CELLS)
        self.rays = RayIoU(spec, len(self.taxonomy), FREE, self.taxonomy.things, thresholds_m)
        self.paths = NavigationRates(spec, self.taxonomy, rig.footprint_radius_m)
        self.true_paths = NavigationRates(spec, self.taxonomy, rig.footprint_radius_m)
        self._path_check = path_check or PathCheckSettings(rig.footprint_radius_m)
        self._blocked = np.zeros((2, 2), np.int64)  # waypoints [truly blocked, said to be]
        self.trajectories: list[Trajectory] = []
        self.gallery = Gallery(worst)
        self.frames: list[FrameScore] = []
        self.latencies = Latencies()
        self.drops: Counter[str] = Counter()
        self.scored = 0
        self._path_errors_m: list[tuple[float, float]] = []
        self._origins_m = np.stack([camera.T_base_camera[:3, 3] for camera in rig.cameras])

    def add(self, prediction: VoxelGrid, truth: Truth | None, trajectory: Trajectory | None = None,
            timings_ms: Mapping[str, float] | None = None) -> FrameScore:
        """Score one answered frame; without truth only its latencies count.

        Raises:
            RecordingError: truth and prediction are on other grids or of other taxonomies.
            ConfigurationError: `path_check` does not fit the grid, and a path that was checked came.
        """
        self.latencies.add(timings_ms or {})
        latency_ms = (timings_ms or {}).get("total", math.nan)
        iou = miou = math.nan
        if truth is not None:
            self._require_comparable(prediction, truth.grid)
            frame = OccupancyIoU(len(self.taxonomy))
            frame.update(prediction.labels, truth.grid.labels, truth.visible)
            self.visible.merge(frame)
            self.known.update(prediction.labels, truth.grid.labels)
            # The tilt of the base moves a camera by centimetres: its place at rest is near enough for rays.
            self.rays.update(prediction.labels, truth.grid.labels, self._origins_m)
            scores = frame.compute()
            iou, miou = float(scores["iou"]), float(scores["miou"])  # type: ignore[arg-type]
            self._add_paths(trajectory, truth)
            self.scored += 1
        path = ""
        if trajectory is not None:
            self.trajectories.append(trajectory)
            path = trajectory.status.name.lower()
        score = FrameScore(prediction.stamp_ns, iou, miou, latency_ms, tuple(sorted(prediction.flags)), path)
        self.frames.append(score)
        return score

    @cached_property
    def _true_checker(self) -> PathChecker:
        """Made for the first path that was checked: grids without paths need not fit its settings."""
        return PathChecker(self.spec, self.taxonomy, self._path_check)

    def _add_paths(self, trajectory: Trajectory | None, truth: Truth) -> None:
        if trajectory is not None:
            self.paths.update(trajectory.positions_m, truth.grid.labels)
            if trajectory.check is not None:
                true = self._true_checker.check(truth.grid.labels, trajectory.positions_m)
                pair = [(check.flags & WaypointFlag.BLOCKED) > 0 for check in (true, trajectory.check)]
                np.add.at(self._blocked, tuple(np.array(pair, np.int64)), 1)
        if truth.trajectory is None or not len(truth.trajectory.positions_m):
            return
        self.true_paths.update(truth.trajectory.positions_m, truth.grid.labels)
        if trajectory is not None and trajectory.positions_m.shape == truth.trajectory.positions_m.shape:
            distance_m = np.linalg.norm(trajectory.positions_m - truth.trajectory.positions_m, axis=1)
            self._path_errors_m.append((float(distance_m.mean()), float(distance_m[-1])))

    def _require_comparable(self, prediction: VoxelGrid, truth: VoxelGrid) -> None:
        if truth.spec != self.spec or prediction.spec != self.spec:
            raise RecordingError(f"the prediction is on {prediction.spec}, the truth on {truth.spec}",
                                 where="scoring", fix="Score with a truth on the grid of the model.")
        if truth.taxonomy != self.taxonomy.name or prediction.taxonomy != self.taxonomy.name:
            raise RecordingError(f"the prediction is in {prediction.taxonomy}, the truth in {truth.taxonomy}",
                                 where="scoring")

    def scores(self) -> dict[str, dict[str, Any]]:
        """`visible` (the main one), `known`, `rays`; where paths were given `navigation` and `navigation_truth`.

        Where they were checked also `path_check`: `foreseen` of the waypoints that are blocked on the true map (by the
        same judgement) those that the check called blocked, `right` of those that it called blocked the ones that are.
        """
        if not self.scored:
            return {}
        scores: dict[str, dict[str, Any]] = {
            "visible": dict(self.visible.compute()), "known": dict(self.known.compute()),
            "rays": dict(self.rays.compute()),
        }
        if self.paths.paths or self.paths.skipped:
            scores["navigation"] = dict(self.paths.compute())
            if self._path_errors_m:
                mean_m, final_m = np.mean(self._path_errors_m, axis=0).tolist()
                scores["navigation"] |= {"displacement_m": mean_m, "final_displacement_m": final_m}
        if self.true_paths.paths:
            scores["navigation_truth"] = dict(self.true_paths.compute())
        if self._blocked.any():
            found = float(self._blocked[1, 1])
            true, said = float(self._blocked[1].sum()), float(self._blocked[:, 1].sum())
            scores["path_check"] = {"foreseen": found / true if true else math.nan,
                                    "right": found / said if said else math.nan, "waypoints": int(self._blocked.sum())}
        return scores

    def evaluation(self, about: dict[str, Any], *, images_in: int, wall_s: float,
                   notes: list[str] | None = None) -> Evaluation:
        """Everything that was counted so far."""
        return Evaluation(
            about=about, classes=list(self.taxonomy.classes), colours=list(self.taxonomy.colours),
            scores=self.scores(), latency_ms=self.latencies.summary(), drops=dict(sorted(self.drops.items())),
            frames=self.frames, answered=len(self.frames), scored=self.scored, images_in=images_in, wall_s=wall_s,
            notes=list(notes or []), snapshots=self.gallery.snapshots(),
            paths=dict(Counter(frame.path for frame in self.frames if frame.path)), trajectories=self.trajectories,
        )
