"""A clip becomes labels in one call, whatever its frames lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import RecordingError
from occ_perception.labeling.clip import Clip, LabelFrame
from occ_perception.labeling.pipeline import label_clip
from occ_perception.labeling.segmenters.simulated import SimulatedErrors
from occ_perception.labeling.settings import LabelSettings, NoVote
from occ_perception.labeling.vote import KnnVote, VoxelVote
from occ_perception.taxonomy import Sidewalk


@dataclass(frozen=True)
class Seeing:
    """A `FrameSegmenter` that is always right."""

    streets: ModuleType
    name: str = "seeing"

    def segment_frame(self, scene: str, frame: LabelFrame, rig: Rig) -> Mapping[str, NDArray[np.uint8]]:
        return {camera: self.streets.classes_at(frame.stamp_ns // 500_000_000) for camera in frame.images}


def labelled(streets: ModuleType, frames: list[LabelFrame], **settings: Any) -> Any:
    chosen = LabelSettings(segmenter=SimulatedErrors(), grid=streets.SPEC, **settings)
    return label_clip(Clip(name="way", rig=streets.rig_of(), frames=frames), Seeing(streets), chosen)


@pytest.fixture(scope="module")
def frames(streets: ModuleType) -> list[LabelFrame]:
    return [streets.frame_at(k) for k in range(4)]


@pytest.mark.parametrize("vote", [VoxelVote(), KnnVote(), NoVote()])
def test_a_clip_becomes_samples_and_clouds(streets: ModuleType, frames: list[LabelFrame], vote: Any) -> None:
    scene = labelled(streets, frames, vote=vote)
    assert [sample.index for sample in scene.samples] == [0, 1, 2, 3]
    assert [sample.stamp_ns for sample in scene.samples] == [k * 500_000_000 for k in range(4)]
    assert not scene.drops
    assert ({"vote"} <= scene.wall_s.keys()) == (not isinstance(vote, NoVote))
    assert scene.wall_s.keys() == scene.cpu_s.keys() >= {"segment", "lift", "accumulate", "fuse"}
    for k, (sample, cloud) in enumerate(zip(scene.samples, scene.clouds)):
        truth = streets.grid_at(k).labels
        there = (sample.labels == Sidewalk.WALL) | (sample.labels == Sidewalk.SIDEWALK)
        assert (sample.labels[there] == truth[there]).mean() > 0.95
        assert there.sum() > 3000
        assert sample.track_ids.tolist() == [41]
        assert sample.flow is not None
        assert len(sample.flow.cells) == (sample.instance_rows > 0).sum() > 50
        np.testing.assert_array_equal(sample.semantics["front"], streets.classes_at(k))
        assert len(cloud.labels) == len(cloud.points_m) == len(frames[k].points_m)
        assert set(np.unique(cloud.labels)) >= {Sidewalk.WALL, Sidewalk.SIDEWALK, Sidewalk.PERSON}


def test_one_frame_is_a_scene(streets: ModuleType, frames: list[LabelFrame]) -> None:
    scene = labelled(streets, frames[2:3])
    assert [sample.index for sample in scene.samples] == [0]
    assert (scene.samples[0].labels == Sidewalk.WALL).any()


def test_what_a_frame_lacks_costs_that_frame_alone(streets: ModuleType, frames: list[LabelFrame]) -> None:
    silent = replace(frames[1], points_m=np.zeros((0, 3), np.float32), point_sensor=np.zeros(0, np.uint8))
    blind = replace(frames[2], images={})
    scene = labelled(streets, [frames[0], silent, blind, frames[3]])
    assert scene.drops == {"no_returns": 1, "no_image": 1}
    assert [sample.stamp_ns for sample in scene.samples] == [0, 1_500_000_000]
    assert [frame.stamp_ns for frame in scene.clip.frames] == [0, 1_500_000_000]
    assert len(scene.classes) == len(scene.fused) == len(scene.clouds) == 2


def test_a_frame_without_images_still_shows_where_things_are(streets: ModuleType, frames: list[LabelFrame]) -> None:
    alone = labelled(streets, frames[:1]).samples[0].labels
    helped = labelled(streets, [frames[0], *(replace(frame, images={}) for frame in frames[1:])]).samples[0].labels
    unknown = [int((labels == 255).sum()) for labels in (alone, helped)]
    assert unknown[1] < 0.99 * unknown[0]


def test_a_clip_of_which_nothing_can_be_labelled_says_why(streets: ModuleType, frames: list[LabelFrame]) -> None:
    with pytest.raises(RecordingError, match=r"none of its 2 frames can be labelled \(no_image 2\)"):
        labelled(streets, [replace(frame, images={}) for frame in frames[:2]])
    with pytest.raises(RecordingError, match="none of its 0 frames"):
        labelled(streets, [])
