"""Algorithm 1 of WalkOCC in one function: segment, lift, vote, accumulate, mesh, fuse."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from occ_perception.datasets.sample import Sample
from occ_perception.datasets.sidewalk3d import SemanticCloud
from occ_perception.errors import RecordingError
from occ_perception.labeling.accumulate import accumulate, vote
from occ_perception.labeling.clip import Clip, LabelFrame
from occ_perception.labeling.fuse import FusedFrame, fuse
from occ_perception.labeling.lift import lift_labels
from occ_perception.labeling.mesh import PoissonSettings, meshed
from occ_perception.labeling.segmenters.base import FrameSegmenter, Segmenter, segment_frame
from occ_perception.labeling.settings import LabelSettings, NoVote

DROPS = {
    "no_image": "no camera has an image in the frame",
    "no_returns": "the scan has no returns: where things were at that time nobody knows",
}
"""Why a frame of a clip gets no labels. What it has serves the others all the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledScene:
    """A clip with its labels; the lists hold one entry for each labelled frame.

    Attributes:
        clip: with the labelled frames only.
        classes: of the images, uint8 [H, W] by camera.
        fused: grids.
        samples, clouds: what `write_sequence` takes.
        drops: frames without labels, by reason (`DROPS`).
        wall_s, cpu_s: seconds by stage, by the clock and of this process; frames without labels cost time, too.
    """

    clip: Clip
    classes: Sequence[Mapping[str, NDArray[np.uint8]]]
    fused: Sequence[FusedFrame]
    samples: Sequence[Sample]
    clouds: Sequence[SemanticCloud]
    drops: Counter[str]
    wall_s: Mapping[str, float]
    cpu_s: Mapping[str, float]


def label_clip(clip: Clip, segmenter: Segmenter | FrameSegmenter, settings: LabelSettings) -> LabelledScene:
    """Labels for the frames of a clip.

    All frames serve voting and accumulation; labels get those with an image and returns of a LiDAR.

    Raises:
        RecordingError: no frame of the clip can be labelled; says how many were dropped for which reason.
        ConfigurationError: boxes in some frames only.
    """
    clock = Clock()
    with clock("read"):
        frames = list(clip.frames)
    kept, drops = _labelled(frames)
    if not kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(drops.items()))
        raise RecordingError(f"none of its {len(frames)} frames can be labelled ({reasons or 'it has none'})",
                             where=f"scene {clip.name}")
    with clock("segment"):
        classes = [segment_frame(segmenter, clip.name, frame, clip.rig) for frame in frames]
    with clock("lift"):
        labels = [lift_labels(frame.points_m, own, clip.rig, T_anchor_exposure=frame.T_anchor_exposure)
                  for frame, own in zip(frames, classes)]
    if not isinstance(settings.vote, NoVote):
        with clock("vote"):
            labels = vote(frames, labels, settings.vote)
    with clock("accumulate"):
        scene = accumulate(frames, labels, settings.grid, settings.accumulate)
    if isinstance(settings.surfaces, PoissonSettings):
        with clock("mesh"):
            scene = meshed(scene, settings.surfaces)
    with clock("fuse"):
        fused = [fuse(scene, k, settings.grid, clip.rig) for k in kept]
    return LabelledScene(
        clip=Clip(name=clip.name, rig=clip.rig, frames=[frames[k] for k in kept]),
        classes=[classes[k] for k in kept], fused=fused,
        samples=[_sample(clip, index, frames[k], classes[k], fused[index]) for index, k in enumerate(kept)],
        clouds=[SemanticCloud(frames[k].points_m, labels[k]) for k in kept], drops=drops,
        wall_s=clock.wall_s, cpu_s=clock.cpu_s)


class Clock:
    """Seconds by stage, by the clock and of this process: on a busy machine only the latter tell what a core does."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s[stage] = round(time.perf_counter() - wall, 4)
        self.cpu_s[stage] = round(time.process_time() - cpu, 4)


def _labelled(frames: Sequence[LabelFrame]) -> tuple[list[int], Counter[str]]:
    """Which frames get labels, and why the others do not."""
    kept, drops = [], Counter[str]()
    for k, frame in enumerate(frames):
        if not frame.images:
            drops["no_image"] += 1
        elif not len(frame.points_m):
            drops["no_returns"] += 1
        else:
            kept.append(k)
    return kept, drops


def _sample(clip: Clip, index: int, frame: LabelFrame, classes: Mapping[str, NDArray[np.uint8]], fused: FusedFrame
            ) -> Sample:
    """The frame as data sets hold it; ranges are left to the reader, who has the scan."""
    return Sample(
        scene=clip.name, index=index, stamp_ns=frame.stamp_ns, rig=clip.rig, images=frame.images, semantics=classes,
        T_grid_base=fused.T_grid_base, spec=fused.grid.spec, T_world_grid=fused.T_world_grid,
        labels=fused.grid.labels, visible=fused.visible, range_m={}, points_m=frame.points_m,
        instance_rows=fused.grid.instance_rows, track_ids=fused.grid.track_ids, flow=fused.flow)
