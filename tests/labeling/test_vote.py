"""Votes take away flicker, keep narrow things, and never mix things with the static world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occ_perception.errors import ConfigurationError, ShapeError
from occ_perception.labeling.vote import KnnVote, VoxelVote, knn_vote, voxel_vote
from occ_perception.taxonomy import SIDEWALK, Sidewalk

STILL = [c for c in range(1, len(SIDEWALK)) if c not in SIDEWALK.things]
PLAIN = VoxelVote(fine_voxel_m=None)


def street(rng: np.random.Generator, points: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """6 x 4 m with a kerb of 0.15 m and a gutter of 0.3 m between sidewalk and road, and a pole of 0.1 m."""
    xyz = np.column_stack([rng.uniform(0, 6, points), rng.uniform(0, 4, points), np.zeros(points)])
    y = xyz[:, 1]
    labels = np.select([y > 2.15, y > 2.0, y > 1.7], [Sidewalk.SIDEWALK, Sidewalk.CURB, Sidewalk.GUTTER],
                       Sidewalk.ROAD).astype(np.uint8)
    pole = np.column_stack([3 + rng.uniform(-0.05, 0.05, (600, 2)), rng.uniform(0.0, 2.0, 600)])
    return (np.concatenate([xyz, pole]).astype(np.float32),
            np.concatenate([labels, np.full(600, Sidewalk.OBSTACLE, np.uint8)]))


def wrong(rng: np.random.Generator, labels: np.ndarray, share: float = 0.1) -> np.ndarray:
    return np.where(rng.random(len(labels)) < share, rng.choice(STILL, len(labels)), labels).astype(np.uint8)


def iou(labels: np.ndarray, truth: np.ndarray, label: int) -> float:
    return ((labels == label) & (truth == label)).sum() / ((labels == label) | (truth == label)).sum()


def test_the_papers_vote_gives_a_voxel_its_majority_without_the_unlabelled() -> None:
    points = np.tile(np.array([[0.1, 0.1, 0.1]], np.float32), (6, 1))
    labels = np.array([0, 0, 0, Sidewalk.ROAD, Sidewalk.ROAD, Sidewalk.GRASS], np.uint8)
    assert (voxel_vote(points, labels, PLAIN) == Sidewalk.ROAD).all()


@pytest.mark.parametrize("vote", [voxel_vote, knn_vote])
def test_a_vote_raises_every_class_and_spares_the_thin_ones(vote) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    points, truth = street(rng)
    noisy = wrong(rng, truth)
    voted = vote(points, noisy)
    for label in np.unique(truth):
        assert iou(voted, truth, label) > iou(noisy, truth, label), SIDEWALK.classes[label]
    assert iou(voted, truth, Sidewalk.CURB) > 0.7


def test_without_fine_voxels_the_kerb_is_lost() -> None:
    rng = np.random.default_rng(0)
    points, truth = street(rng)
    noisy = wrong(rng, truth)
    assert iou(voxel_vote(points, noisy, PLAIN), truth, Sidewalk.CURB) < 0.1


def test_a_lonely_wrong_vote_loses_and_a_strip_keeps_its_own() -> None:
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5), [0], indexing="ij"), axis=-1).reshape(-1, 3)
    points = ((grid + 0.5) * 0.1).astype(np.float32)
    strip = np.where(grid[:, 1] == 2, Sidewalk.CURB, Sidewalk.SIDEWALK).astype(np.uint8)
    assert (voxel_vote(np.tile(points, (2, 1)), np.tile(strip, 2)) == np.tile(strip, 2)).all()
    lonely = np.full(len(grid), Sidewalk.SIDEWALK, np.uint8)
    lonely[12] = Sidewalk.CURB
    assert (voxel_vote(points, lonely) == Sidewalk.SIDEWALK).all()


def test_a_scan_has_one_vote_however_many_points_it_has() -> None:
    points = np.full((12, 3), 0.05, np.float32)
    labels = np.array([Sidewalk.GRASS] * 10 + [Sidewalk.ROAD] * 2, np.uint8)
    scan = np.array([0] * 10 + [1, 2], np.int32)
    assert (voxel_vote(points, labels) == Sidewalk.GRASS).all()
    assert (voxel_vote(points, labels, scan=scan) == Sidewalk.ROAD).all()


def test_unlabelled_points_take_the_label_of_their_own_fine_voxel_only() -> None:
    points = np.array([[0.05, 0.05, 0.05], [0.06, 0.05, 0.05], [0.45, 0.45, 0.05]], np.float32)
    labels = np.array([Sidewalk.WALL, 0, 0], np.uint8)
    assert voxel_vote(points, labels).tolist() == [Sidewalk.WALL, Sidewalk.WALL, 0]
    labels[0] = Sidewalk.PERSON
    assert voxel_vote(points, labels).tolist() == [Sidewalk.PERSON, 0, 0]


@pytest.mark.parametrize("vote", [voxel_vote, knn_vote, lambda p, n: voxel_vote(p, n, PLAIN)])
@given(seed=st.integers(0, 2**31), count=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_things_and_the_static_world_never_change_places(vote, seed: int, count: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    labels = rng.integers(1, len(SIDEWALK), count).astype(np.uint8)
    things = sorted(SIDEWALK.things)
    assert (np.isin(vote(points, labels), things) == np.isin(labels, things)).all()


def test_the_order_of_points_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    points, truth = street(rng, 3000)
    noisy, shuffled = wrong(rng, truth, 0.3), rng.permutation(len(truth))
    assert (voxel_vote(points, noisy)[shuffled] == voxel_vote(points[shuffled], noisy[shuffled])).all()


def test_neighbours_need_the_ratio() -> None:
    points = np.column_stack([np.arange(5) * 0.01, np.zeros(5), np.zeros(5)]).astype(np.float32)
    labels = np.array([Sidewalk.ROAD] * 3 + [Sidewalk.GRASS] * 2, np.uint8)
    assert knn_vote(points, labels, KnnVote(neighbours=5, ratio=0.6)).tolist() == labels.tolist()  # 3/5 is not above
    assert (knn_vote(points, labels, KnnVote(neighbours=5, ratio=0.55)) == Sidewalk.ROAD).all()


def test_settings_and_arrays_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="multiple") as caught:
        VoxelVote(voxel_m=0.5, fine_voxel_m=0.3, prior_votes=-1)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigurationError) as caught:
        KnnVote(neighbours=0, ratio=2, thin_radius_m=1.0)
    assert len(caught.value.faults) == 3
    points = np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match="labels"):
        voxel_vote(points, np.zeros(3, np.uint8))
    with pytest.raises(ShapeError, match="go up to 14"):
        knn_vote(points, np.full(2, 14, np.uint8))
    with pytest.raises(ShapeError, match="origin"):
        voxel_vote(points + np.float32(1e7), np.ones(2, np.uint8))
