from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.metrics import PanopticQuality

THING, STUFF, FREE = 0, 1, 2


def frame(*voxels: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    labels, ids = np.array(voxels).T
    return labels.astype(np.uint8), ids


def scored(prediction: list[tuple[int, int]], target: list[tuple[int, int]],
           matching: str = "iou") -> dict[str, object]:
    metric = PanopticQuality(3, (THING,), FREE, matching)  # type: ignore[arg-type]
    metric.update(*frame(*prediction), *frame(*target))
    return dict(metric.compute())


@pytest.mark.parametrize("matching", ["iou", "hungarian"])
def test_perfect_prediction_scores_1_with_the_lowest_id_counted(matching: str) -> None:
    row = [(THING, 1), (THING, 2), (STUFF, 0), (FREE, 0)]
    assert scored(row, row, matching)["pq"] == 1.0
    metric = PanopticQuality(3, (THING,), FREE, matching)  # type: ignore[arg-type]
    metric.update(*frame(*row), *frame(*row))
    assert metric.tp.tolist() == [2, 1, 0]


def test_pq_by_hand() -> None:
    # thing 1: IoU 3/4; thing 2 missed; predicted thing 9 on stuff is a false alarm; stuff IoU 2/3
    target = [(THING, 1)] * 4 + [(THING, 2)] + [(STUFF, 0)] * 3
    prediction = [(THING, 5)] * 3 + [(FREE, 0)] * 2 + [(THING, 9)] + [(STUFF, 0)] * 2
    scores = scored(prediction, target)
    assert scores["pq_things"] == pytest.approx(3 / 4 / (1 + 0.5 + 0.5))
    assert scores["pq_stuff"] == pytest.approx(2 / 3)
    assert scores["pq"] == pytest.approx((3 / 8 + 2 / 3) / 2)


def test_hungarian_matching_takes_what_the_threshold_refuses() -> None:
    target = [(THING, 1)] * 4
    prediction = [(THING, 5)] * 2 + [(THING, 6)] * 2  # both halves have IoU 1/2, which does not exceed 1/2
    assert scored(prediction, target)["pq"] == 0.0
    assert scored(prediction, target, "hungarian")["pq"] == pytest.approx(0.5 / (1 + 0.5))


def test_segments_of_other_classes_never_match_but_free_space_enlarges_them() -> None:
    target = [(THING, 1)] * 2 + [(FREE, 0)] * 2
    assert scored([(THING, 1)] * 4, target, "hungarian")["pq"] == 0.5
    assert scored([(STUFF, 0)] * 4, target, "hungarian")["pq"] == 0.0


def test_labels_of_another_taxonomy_are_refused() -> None:
    for label in (FREE, 254, 255):
        scored([(label, 0)], [(label, 0)], "iou")
    with pytest.raises(ShapeError, match="PanopticQuality: sem_prediction"):
        scored([(FREE + 1, 0)], [(STUFF, 0)], "iou")
    with pytest.raises(ShapeError, match="PanopticQuality: sem_target"):
        scored([(STUFF, 0)], [(253, 0)], "iou")


def test_an_unknown_matching_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="iou, hungarian"):
        PanopticQuality(3, (THING,), FREE, "best")  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["iou", "hungarian"]))
@settings(max_examples=30, deadline=None)
def test_merge_is_one_pass_and_names_of_instances_do_not_matter(seed: int, matching: str) -> None:
    rng = np.random.default_rng(seed)
    one, renamed, first, second = (PanopticQuality(4, (0, 1), 3, matching) for _ in range(4))  # type: ignore[arg-type]
    names = np.append(0, rng.permutation(np.arange(1, 4)) * 1000)
    for part in (first, second):
        sem_p, sem_t = rng.integers(0, 4, (2, 40), np.uint8)
        ins_p, ins_t = rng.integers(0, 4, (2, 40))
        one.update(sem_p, ins_p, sem_t, ins_t)
        part.update(sem_p, ins_p, sem_t, ins_t)
        renamed.update(sem_p, names[ins_p], sem_t, names[ins_t])
    first.merge(second)
    for name, value in one.compute().items():
        np.testing.assert_allclose(first.compute()[name], value, rtol=1e-12)
        np.testing.assert_allclose(renamed.compute()[name], value, rtol=1e-12)
