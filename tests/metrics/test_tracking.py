from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.metrics import OccSTQ

THING, STUFF, FREE = 0, 1, 2


def frame(*voxels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ids of a row of voxels given as (label, id)."""
    labels, ids = np.array(voxels).T
    return labels.astype(np.uint8), ids


def scored(prediction: list[tuple[int, int]], target: list[tuple[int, int]], **options: bool) -> dict[str, float]:
    metric = OccSTQ(3, (THING,), FREE, **options)
    metric.update(*frame(*prediction), *frame(*target), sequence=0)
    return {k: v for k, v in metric.compute().items() if isinstance(v, float)}


def test_perfect_prediction_scores_1_and_the_first_id_counts() -> None:
    row = [(THING, 1), (THING, 1), (STUFF, 0), (FREE, 0)]
    scores = scored(row, row)
    assert scores["occstq"] == scores["occaq"] == scores["occsq"] == scores["strict_occstq"] == 1.0
    assert scores["tubes"] == 1
    assert math.isnan(scored(row, row, published=True)["occaq"])  # the published evaluator takes id 1 for none


def test_association_by_hand() -> None:
    # true tube of 4 voxels: 3 carry predicted id 7, 1 carries id 8; id 8 also lies on one voxel of stuff
    target = [(THING, 5)] * 4 + [(STUFF, 0)] * 2
    prediction = [(THING, 7)] * 3 + [(THING, 8)] * 2 + [(STUFF, 0)]
    scores = scored(prediction, target)
    assert scores["occaq"] == pytest.approx((3 * 3 / 4 + 1 * 1 / 5) / 4)
    assert scores["occsq"] == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert scores["occstq"] == pytest.approx(math.sqrt(scores["occaq"] * scores["occsq"]))


def test_a_tube_goes_on_over_frames_and_an_id_switch_costs() -> None:
    kept, switched = OccSTQ(3, (THING,), FREE), OccSTQ(3, (THING,), FREE)
    for t in range(2):
        target = frame((THING, 3), (THING, 3))
        kept.update(*frame((THING, 9), (THING, 9)), *target, sequence="a")
        switched.update(*frame((THING, 9 + t), (THING, 9 + t)), *target, sequence="a")
    assert kept.compute()["occaq"] == 1.0
    assert switched.compute()["occaq"] == pytest.approx(2 * (2 * 2 / 4) / 4)


def test_ids_of_other_sequences_are_other_things() -> None:
    metric = OccSTQ(3, (THING,), FREE)
    for sequence in ("a", "b"):
        metric.update(*frame((THING, 1)), *frame((THING, 1)), sequence=sequence)
    assert metric.compute()["tubes"] == 2
    assert metric.compute()["occaq"] == 1.0


def test_flooding_free_space_costs_only_in_the_strict_variant() -> None:
    target = [(THING, 1), (STUFF, 0), (FREE, 0), (FREE, 0)]
    flood = [(THING, 1), (STUFF, 0), (THING, 1), (STUFF, 0)]
    scores = scored(flood, target)
    assert scores["occstq"] == 1.0
    assert scores["strict_occaq"] == pytest.approx(1 / 2)
    assert scores["strict_occsq"] == pytest.approx(1 / 2)


def test_wrong_thing_class_costs_segmentation_but_not_association() -> None:
    metric = OccSTQ(4, (0, 1), 3)
    metric.update(np.array([1], np.uint8), np.array([4]), np.array([0], np.uint8), np.array([4]), sequence=0)
    assert metric.compute()["occaq"] == 1.0
    assert metric.compute()["occsq"] == 0.0


def test_classes_that_occur_nowhere_count_0_and_are_left_out_of_the_present_scores() -> None:
    scores = scored([(STUFF, 0)], [(STUFF, 0)])
    assert scores["occsq"] == 0.5
    assert scores["occsq_present"] == 1.0
    assert math.isnan(scores["occaq"])


def test_masked_and_unknown_voxels_do_not_count() -> None:
    metric = OccSTQ(3, (THING,), FREE)
    sem_p, ins_p = frame((THING, 1), (THING, 2), (THING, 3))
    sem_t, ins_t = frame((THING, 1), (THING, 1), (255, 0))
    metric.update(sem_p, ins_p, sem_t, ins_t, np.array([True, False, True]), sequence=0)
    assert metric.compute()["occaq"] == 1.0
    assert metric.compute()["predicted_tubes"] == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_merge_is_one_pass_and_names_of_instances_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, renamed, parts = OccSTQ(4, (0, 1), 3), OccSTQ(4, (0, 1), 3), [OccSTQ(4, (0, 1), 3) for _ in range(2)]
    names = rng.permutation(np.arange(1, 7)).astype(np.uint64) * np.uint64(2**60)
    for t in range(4):
        sem_p, sem_t = rng.integers(0, 4, (2, 60), np.uint8)
        ins_p, ins_t = rng.integers(0, 6, (2, 60))
        other = np.concatenate([np.zeros(1, np.uint64), names])[ins_p]
        for metric, ids in ((one, ins_p), (renamed, other), (parts[t % 2], ins_p)):
            metric.update(sem_p, ids, sem_t, ins_t, sequence=t // 3)
    parts[0].merge(parts[1])
    for name, value in one.compute().items():
        np.testing.assert_allclose(parts[0].compute()[name], value, rtol=1e-12)
        np.testing.assert_allclose(renamed.compute()[name], value, rtol=1e-12)
