"""Scores of labels against truth: right ones are perfect, a trail is seen, counts of scenes add up."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.labeling.quality import Quality, score_scene, total
from occ_perception.taxonomy import FREE, Sidewalk


def samples_of(streets: ModuleType, labels: list[NDArray[np.uint8]]) -> list[Sample]:
    return [Sample(scene="way", index=k, stamp_ns=k * 500_000_000, rig=streets.rig_of(), images={}, semantics={},
                   T_grid_base=np.eye(4), spec=streets.SPEC, T_world_grid=streets.pose_at(k), labels=own,
                   visible=np.ones(streets.SPEC.shape, np.bool_), range_m={}) for k, own in enumerate(labels)]


@pytest.fixture
def truth(streets: ModuleType) -> list[NDArray[np.uint8]]:
    return [streets.grid_at(k).labels for k in range(3)]


def test_the_truth_scores_full_marks(streets: ModuleType, truth: list[NDArray[np.uint8]]) -> None:
    quality = score_scene(samples_of(streets, truth), streets.Street("way").open().truth)
    scores = quality.scores()
    assert scores == {"iou": 1.0, "miou": 1.0, "curb": None, "gutter": None, "obstacle": None, "trail": 0.0}
    assert quality.crossed > 500  # where the person is in the other two frames


def test_a_trail_is_counted_where_somebody_was(streets: ModuleType, truth: list[NDArray[np.uint8]]) -> None:
    was = [truth[1].copy(), *truth[1:]]  # the first frame has the person of the second, half a metre aside
    was[0][truth[0] != Sidewalk.PERSON] = truth[0][truth[0] != Sidewalk.PERSON]
    left = (streets.grid_at(1).labels == Sidewalk.PERSON)
    shifted = np.roll(left, round(streets.STEP_M / 0.1), axis=0)  # the second frame is 0.4 m farther on
    was[0][shifted & (was[0] == FREE)] = Sidewalk.OBSTACLE
    quality = score_scene(samples_of(streets, was), streets.Street("way").open().truth)
    assert 0.2 * shifted.sum() < quality.trail <= shifted.sum()
    assert quality.scores()["trail"] == pytest.approx(quality.trail / quality.crossed, abs=1e-5)


def test_counts_add_up_and_come_back(streets: ModuleType, truth: list[NDArray[np.uint8]]) -> None:
    wrong = [np.where(own == Sidewalk.WALL, np.uint8(Sidewalk.TREES), own) for own in truth]
    known = streets.Street("way").open().truth
    parts = [score_scene(samples_of(streets, labels), known) for labels in (truth, wrong)]
    whole = total(parts)
    assert whole is not None
    assert (whole.confusion == parts[0].confusion + parts[1].confusion).all()
    assert parts[1].scores()["iou"] == 1.0
    assert parts[0].scores()["miou"] > whole.scores()["miou"] > parts[1].scores()["miou"]
    again = Quality.from_dict(whole.to_dict())
    assert again.scores() == whole.scores()
    assert total([]) is None


def test_labels_in_another_grid_are_not_scored(streets: ModuleType) -> None:
    other = VoxelGridSpec((0.0, -3.0, -1.0), (9.0, 3.0, 2.0), 0.5)
    [sample] = samples_of(streets, [streets.grid_at(0).labels])
    coarse = replace(sample, spec=other, labels=np.zeros(other.shape, np.uint8), visible=np.ones(other.shape, np.bool_))
    with pytest.raises(ConfigurationError, match="the truth over"):
        score_scene([coarse], streets.Street("way").open().truth)
