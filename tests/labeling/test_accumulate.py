"""Scans become one static world; what moves is kept with its box or with its frame and leaves no trail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling.accumulate import AccumulateSettings, accumulate, vote
from occ_perception.labeling.clip import LabelFrame, WorldBox
from occ_perception.labeling.vote import KnnVote, VoxelVote
from occ_perception.taxonomy import Sidewalk

SPEC = VoxelGridSpec((0.0, -3.0, -1.0), (6.0, 3.0, 2.0), 0.1)
PERSON_M = np.array([0.5, 0.5, 1.7])
FAR_AWAY = np.array([500_000.0, 4_000_000.0, 120.0])  # as in a map frame


def ground() -> tuple[np.ndarray, np.ndarray]:
    """Sidewalk left of y = 0, road to its right, 5 cm apart."""
    x, y = np.meshgrid(np.arange(0.5, 6.0, 0.05), np.arange(-2.5, 2.5, 0.05))
    points = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    return points, np.where(points[:, 1] > 0, Sidewalk.SIDEWALK, Sidewalk.ROAD).astype(np.uint8)


def wall() -> tuple[np.ndarray, np.ndarray]:
    """The plane x = 5.55, wide and high enough that rays to it cross all that stands before it."""
    y, z = np.meshgrid(np.arange(-5.0, 5.0, 0.05), np.arange(0.1, 3.5, 0.05))
    points = np.column_stack([np.full(y.size, 5.55), y.ravel(), z.ravel()])
    return points, np.full(y.size, Sidewalk.WALL, np.uint8)


def person(y_m: float) -> tuple[np.ndarray, np.ndarray]:
    """The front of somebody at x = 3."""
    y, z = np.meshgrid(np.arange(-0.2, 0.21, 0.05), np.arange(0.1, 1.7, 0.05))
    points = np.column_stack([np.full(y.size, 2.8), y_m + y.ravel(), z.ravel()])
    return points, np.full(y.size, Sidewalk.PERSON, np.uint8)


def box(y_m: float, track_id: int = 7) -> WorldBox:
    return WorldBox(track_id, int(Sidewalk.PERSON),
                    se3.make(np.eye(3), np.array([3.0, y_m, 0.85]) + FAR_AWAY), PERSON_M, np.array([0.0, 1.0, 0.0]))


def frame_of(k: int, parts: Sequence[tuple[np.ndarray, np.ndarray]], boxes: tuple[WorldBox, ...] | None
             ) -> tuple[LabelFrame, np.ndarray]:
    points = np.concatenate([p for p, _ in parts]).astype(np.float32)
    frame = LabelFrame(stamp_ns=k * 500_000_000, images={}, points_m=points, sensor_m=np.array([[0.0, 0.0, 1.0]]),
                       point_sensor=np.zeros(len(points), np.uint8), T_world_base=se3.make(np.eye(3), FAR_AWAY),
                       boxes=boxes)
    return frame, np.concatenate([labels for _, labels in parts])


def walk(boxes: bool, frames: int = 6, step_m: float = 0.7, label: int = Sidewalk.PERSON
         ) -> tuple[list[LabelFrame], list[np.ndarray]]:
    """Somebody walks past the wall; what he hides is not measured."""
    made = []
    for k in range(frames):
        y = -2.0 + step_m * k
        back, own = wall()
        hidden = np.abs(back[:, 1] * 3.0 / 5.55 - y) < 0.3
        body, labels = person(y)
        made.append(frame_of(k, [ground(), (back[~hidden], own[~hidden]), (body, np.full_like(labels, label))],
                             (box(y),) if boxes else None))
    return [frame for frame, _ in made], [labels for _, labels in made]


def test_the_static_world_is_ground_and_solids_far_from_the_worlds_origin() -> None:
    frame, labels = frame_of(0, [ground(), wall()], None)
    scene = accumulate([frame], [labels], SPEC)
    assert np.allclose(scene.origin_m, FAR_AWAY)
    heights = scene.ground.height_at(np.array([[2.0, 1.0], [2.0, -1.0], [2.0, 9.0]]))
    assert heights[:2] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert np.isnan(heights[2])
    assert set(scene.solids.labels) == {Sidewalk.WALL}
    assert scene.solids.points_m[:, 0] == pytest.approx(5.55, abs=1e-3)
    assert np.abs(scene.solids.normals[:, 0]).min() > 0.99


def test_a_box_takes_its_points_along_and_leaves_the_world_clean() -> None:
    scene = accumulate(*walk(boxes=True), SPEC)
    assert (scene.solids.points_m[:, 0] > 5.0).all()
    cloud = scene.tracks[7]
    assert cloud.label == Sidewalk.PERSON
    assert len(np.unique(cloud.stamp_ns)) == 6
    assert cloud.points_m[:, 0] == pytest.approx(-0.2, abs=1e-5)
    assert np.abs(cloud.points_m[:, 1]).max() < 0.21
    assert scene.ground.height_at(np.array([[3.0, 0.1]])) == pytest.approx(0.0, abs=1e-3)


def test_without_boxes_a_walker_stays_in_his_frames() -> None:
    scene = accumulate(*walk(boxes=False), SPEC)
    assert (scene.solids.points_m[:, 0] > 5.0).all()
    for k, frame in enumerate(scene.frames):
        assert len(frame.loose.points_m) > 200
        assert frame.loose.points_m[:, 1].mean() == pytest.approx(-2.0 + 0.7 * k, abs=0.04)


def test_a_walker_with_a_static_label_is_removed_by_the_rays_that_pass_later() -> None:
    frames, labels = walk(boxes=False, label=Sidewalk.WALL)
    left = accumulate(frames, labels, SPEC).solids.points_m
    kept = accumulate(frames, labels, SPEC, AccumulateSettings(remnant_ratio=1e6)).solids.points_m
    body = kept[:, 0] < 5.0
    assert body.sum() > 1000
    assert (left[:, 0] < 5.0).sum() < 0.1 * body.sum()
    assert (left[:, 0] > 5.0).sum() == (~body).sum()


@pytest.mark.parametrize("missed", [0, Sidewalk.WALL])
def test_a_thing_takes_along_what_its_label_missed_and_what_it_left_in_other_frames_is_gone(missed: int) -> None:
    """A third of his returns are missed in every frame, and all of them in one."""
    frames, labels = walk(boxes=False)
    for k, own in enumerate(labels):
        body = np.flatnonzero(own == Sidewalk.PERSON)
        own[body if k == 2 else body[::3]] = missed
    scene = accumulate(frames, labels, SPEC)
    left = scene.solids.points_m[scene.solids.points_m[:, 0] < 5.0]
    crossed = (np.abs(left[:, 1]) < 1.3) & (left[:, 2] > 0.11)  # low at the sides no ray of this scene ever passes
    assert not crossed.any()
    for k, frame in enumerate(scene.frames):
        body = frame.loose.points_m[:, 2] > 0.15
        assert body.sum() > 200
        assert set(frame.loose.labels[body]) == {0 if k == 2 else Sidewalk.PERSON}
        assert frame.loose.points_m[:, 1].mean() == pytest.approx(-2.0 + 0.7 * k, abs=0.04)


def test_feet_with_the_label_of_the_ground_do_not_raise_it() -> None:
    frames, labels = walk(boxes=False)
    for frame, own in zip(frames, labels):
        own[(own == Sidewalk.PERSON) & (frame.points_m[:, 2] < 0.22)] = Sidewalk.SIDEWALK
    heights = accumulate(frames, labels, SPEC).ground.height_at(np.array([[2.81, -2.0 + 0.7 * k] for k in range(6)]))
    assert np.abs(heights).max() < 0.02


def test_a_pole_that_is_hit_now_here_and_now_a_cell_aside_stays() -> None:
    made = []
    for k in range(6):
        z = np.arange(0.3, 2.0, 0.05)
        pole = np.column_stack([np.full(z.size, 2.8), np.full(z.size, 0.06 if k % 3 else 0.14), z])
        made.append(frame_of(k, [ground(), wall(), (pole, np.full(z.size, Sidewalk.OBSTACLE, np.uint8))], None))
    scene = accumulate([frame for frame, _ in made], [labels for _, labels in made], SPEC)
    assert (scene.solids.labels == Sidewalk.OBSTACLE).sum() > 30
    assert all(len(frame.loose.points_m) == 0 for frame in scene.frames)


def test_what_stands_belongs_to_the_world() -> None:
    frames, labels = walk(boxes=False, step_m=0.0)
    scene = accumulate(frames, labels, SPEC)
    assert (scene.solids.labels == Sidewalk.PERSON).sum() > 200
    assert all(len(frame.loose.points_m) == 0 for frame in scene.frames)
    assert (accumulate(frames[:3], labels[:3], SPEC).solids.labels != Sidewalk.PERSON).all()  # one second is too short


def test_a_things_label_outside_of_every_box_is_an_error() -> None:
    made = [frame_of(k, [ground(), wall()], ()) for k in range(2)]
    for _, labels in made:
        labels[np.flatnonzero(labels == Sidewalk.WALL)[1000:2000]] = Sidewalk.PERSON
    scene = accumulate([frame for frame, _ in made], [labels for _, labels in made], SPEC)
    assert set(scene.solids.labels) == {0, Sidewalk.WALL}
    assert not scene.tracks


def test_gaps_between_rings_are_closed_and_wide_ones_are_not() -> None:
    points, labels = ground()
    rings = ((points[:, 0] % 0.8) < 0.1) & ((points[:, 0] < 3.0) | (points[:, 0] > 4.7))
    frame, labels = frame_of(0, [(points[rings], labels[rings])], None)
    scene = accumulate([frame], [labels], SPEC, AccumulateSettings(ground_gap_m=0.5))
    heights = scene.ground.height_at(np.array([[1.2, 1.0], [2.0, -1.0], [4.2, 0.0]]))
    assert heights[:2] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert np.isnan(heights[2])


def test_the_shadow_of_a_kerb_belongs_to_the_gutter() -> None:
    points, _ = ground()
    high = points[:, 1] > 0
    points[high, 2] = 0.12
    seen = high | (points[:, 1] < -0.25)
    labels = np.where(high, Sidewalk.CURB, Sidewalk.GUTTER).astype(np.uint8)
    frame, labels = frame_of(0, [(points[seen], labels[seen])], None)
    heights = accumulate([frame], [labels], SPEC).ground.height_at(np.array([[2.0, 0.05], [2.0, -0.08]]))
    assert heights == pytest.approx([0.12, 0.0], abs=1e-3)


@pytest.mark.parametrize("settings", [VoxelVote(), KnnVote()])
def test_the_vote_runs_over_all_scans_and_is_split_back(settings: VoxelVote | KnnVote) -> None:
    frames, labels = walk(boxes=False, frames=3)
    truth = [own.copy() for own in labels]
    rng = np.random.default_rng(1)
    for own in labels:
        wrong = (rng.random(len(own)) < 0.1) & (own != Sidewalk.PERSON)
        own[wrong] = Sidewalk.GRASS
    voted = vote(frames, labels, settings)
    assert [len(own) for own in voted] == [len(own) for own in truth]
    for before, after, own in zip(labels, voted, truth):
        assert (after == own).mean() > 0.97 > (before == own).mean()


def test_faults_are_listed() -> None:
    with pytest.raises(ConfigurationError, match="at least one frame"):
        accumulate([], [], SPEC)
    frame, labels = frame_of(0, [ground()], None)
    boxed, _ = frame_of(1, [ground()], ())
    with pytest.raises(ConfigurationError) as caught:
        accumulate([frame, boxed], [labels, labels[:5]], SPEC)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigurationError, match="remnant_ratio"):
        AccumulateSettings(remnant_ratio=-1.0)


def test_a_scan_without_returns_is_no_fault() -> None:
    frame, labels = frame_of(0, [(np.zeros((0, 3)), np.zeros(0, np.uint8))], None)
    scene = accumulate([frame], [labels], SPEC)
    assert len(scene.solids.points_m) == 0
    assert np.isnan(scene.ground.height_m).all()
