from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest

from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.geometry import VoxelGridSpec
from occ_perception.taxonomy import Sidewalk
from occ_perception.training.evaluate import Prediction, Predictor
from occ_perception.training.experiments.scoring import Scores, score_split


@dataclass
class Scenes:
    """Samples as a split of scenes of two frames."""

    samples: Sequence[Sample]

    @property
    def scenes(self) -> list[tuple[str, int]]:
        return [(f"scene {i}", 2) for i in range(len(self.samples) // 2)]

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def score(predict: Predictor, samples: Sequence[Sample], grid: VoxelGridSpec, **options: bool) -> Scores:
    return score_split(predict, cast(SimulatedDataset, Scenes(samples)), grid, **options)


def truth(sample: Sample) -> Prediction:
    return sample.labels, sample.waypoints_m


def test_the_truth_scores_full_marks_scene_by_scene(samples: Sequence[Sample]) -> None:
    scores = score(truth, samples, samples[0].spec)
    assert scores["scenes"] == ["scene 0", "scene 1"]
    voxels = np.asarray(scores["voxels"])
    assert voxels.shape == (2, 2, 14)
    np.testing.assert_array_equal(voxels[:, 0], voxels[:, 1])
    known = [(sample.labels[sample.labels < 14] > 0).sum() for sample in samples]
    assert voxels[:, 0, 0].tolist() == [known[0] + known[1], known[2] + known[3]]
    assert scores["waypoints"] == [[0.0, 2], [0.0, 1]]  # the last sample has no future
    assert scores["navigation"] == scores["true_navigation"]
    assert "pixels" not in scores


def test_a_smaller_grid_is_cut_from_the_truth(samples: Sequence[Sample]) -> None:
    spec = samples[0].spec
    near = VoxelGridSpec((0, -1, -1), (2, 1, 1), spec.cell_m)

    def predict(sample: Sample) -> Prediction:
        return sample.labels[:8, 4:12], None

    scores = score(predict, samples, near)
    voxels = np.asarray(scores["voxels"])
    np.testing.assert_array_equal(voxels[:, 0], voxels[:, 1])
    assert voxels[0, 0, 0] == sum((s.labels[:8, 4:12] % 255 > 0).sum() for s in samples[:2])
    assert scores["waypoints"] == [[0, 0], [0, 0]]


def test_paths_are_scored_on_finer_truth_which_the_network_gets_in_its_own_cells(samples: Sequence[Sample]) -> None:
    spec = samples[0].spec
    coarse = VoxelGridSpec(spec.minimum_m, spec.maximum_m, 2 * float(spec.cell[0]))
    seen = []

    def predict(sample: Sample) -> Prediction:
        seen.append(sample.spec)
        return sample.labels, sample.waypoints_m

    scores = score(predict, samples, coarse, voxels=False)
    assert set(seen) == {coarse}
    assert "voxels" not in scores
    assert scores["navigation"] == score(truth, samples, spec)["navigation"]


def test_what_can_walk_away_is_no_standing_obstacle(samples: Sequence[Sample]) -> None:
    def wall_or_person(label: int) -> Scores:
        labels = np.full(samples[0].spec.shape, Sidewalk.SIDEWALK, np.uint8)
        labels[4:6, 7:9] = label
        changed = [replace(s, labels=labels, waypoints_m=np.full((10, 2), [1.25, 0.0], np.float32))
                   for s in samples[:2]]
        return score(truth, changed, samples[0].spec)

    assert wall_or_person(Sidewalk.PERSON)["navigation"] == [[2, 2.0, 0.0, 0.0]]
    assert wall_or_person(Sidewalk.PERSON)["standing"] == [[2, 0.0, 0.0, 2.0]]
    assert wall_or_person(Sidewalk.WALL)["standing"] == [[2, 2.0, 0.0, 0.0]]


def test_pixels_compare_projected_labels_with_the_image(samples: Sequence[Sample]) -> None:
    pixels = np.asarray(score(truth, samples, samples[0].spec, pixels=True)["pixels"])
    nothing = score(lambda s: (np.zeros_like(s.labels), None), samples, samples[0].spec, pixels=True)["pixels"]
    assert (pixels[:, 1, 0] > 0).all()
    assert (pixels[:, 0, 0] > 0).all()
    assert np.asarray(nothing)[:, 0].sum() == 0
    np.testing.assert_array_equal(np.asarray(nothing)[:, 1, 0], pixels[:, 1, 0])


def test_a_path_that_is_not_finite_is_skipped_and_can_be_written(samples: Sequence[Sample]) -> None:
    def astray(sample: Sample) -> Prediction:
        waypoints_m = np.array(sample.waypoints_m if sample.waypoints_m is not None else np.zeros((10, 2)), np.float32)
        if sample.index == 1:
            waypoints_m[3, 0] = np.nan
        return sample.labels, waypoints_m

    scores = score(astray, samples, samples[0].spec)
    assert scores["waypoints"] == [[0.0, 1], [0.0, 1]]
    assert [paths[0] for paths in scores["navigation"]] == [1, 1]
    assert [paths[0] for paths in scores["true_navigation"]] == [2, 1]
    json.dumps(scores, allow_nan=False)


def test_progress_is_told_sample_by_sample(samples: Sequence[Sample]) -> None:
    told: list[int] = []
    score_split(truth, cast(SimulatedDataset, Scenes(samples)), samples[0].spec, tell=told.append)
    assert told == [1] * len(samples)
    with pytest.raises(IndexError):
        score(truth, [], samples[0].spec)["scenes"][0]
