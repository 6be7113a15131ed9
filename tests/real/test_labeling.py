"""Labelling on real robots: returns take the classes of the right pixels, samples lie on each other, things move along.

Nobody annotated pixels here; classes are rules of thumb (scripts/real_labels.py), boxes and poses are real.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from occ_perception.geometry import se3
from occ_perception.labeling.accumulate import accumulate
from occ_perception.labeling.fuse import fuse
from occ_perception.labeling.lift import lift_labels
from occ_perception.taxonomy import FREE, UNKNOWN, Sidewalk

pytestmark = pytest.mark.real

FOLLOWER, TRUCK = 1545514913, 1740587446
"""Tracks of the car's recording: a car that drives behind it, and a truck that is parked beside the road."""
PEOPLE_M = np.array([[-0.72, 1.99], [1.17, 2.52]])
"""Where the two beside the tracked robot stand."""


def labels_of(labelled):
    return [lift_labels(frame.points_m, classes, labelled.clip.rig, T_anchor_exposure=frame.T_anchor_exposure)
            for frame, classes in zip(labelled.clip.frames, labelled.classes)]


@pytest.fixture(scope="module")
def car_scene(labelled_car):
    return labelled_car.scene()


def box_of(frame, track):
    [box] = [box for box in frame.boxes if box.track_id == track]
    return box


def within(points_m, box, *, grown_m=0.0, floor_m=0.0):
    """Which points of the world [N, 3] a box holds, its lowest `floor_m` left out."""
    local, half = se3.apply(se3.invert(box.T_world_object), points_m), box.size_m / 2 + grown_m
    return (np.abs(local) <= half).all(axis=1) & (local[:, 2] > floor_m - box.size_m[2] / 2)


def compactness(labelled, shift_px=0):
    """Share of the returns labelled person within 0.4 m of the two who stand there, seen from above."""
    [frame], [classes] = labelled.clip.frames, labelled.classes
    shifted = {name: np.roll(image, shift_px, axis=1) for name, image in classes.items()}
    people = frame.points_m[lift_labels(frame.points_m, shifted, labelled.clip.rig) == Sidewalk.PERSON, :2]
    return np.mean(cKDTree(PEOPLE_M).query(people)[0] < 0.4)


def test_returns_on_people_are_labelled_and_what_is_behind_them_is_not(labelled_robot):
    right = compactness(labelled_robot)
    assert right > 0.85
    for shift_px in (-90, 90):  # four degrees
        assert compactness(labelled_robot, shift_px) < right - 0.2


def test_voxels_of_people_are_where_returns_met_them(labelled_robot):
    [frame], [labels] = labelled_robot.clip.frames, labels_of(labelled_robot)
    grid = fuse(labelled_robot.scene(), 0, labelled_robot.spec, labelled_robot.clip.rig).grid
    cells = grid.spec.centre_of(np.argwhere(grid.labels == Sidewalk.PERSON))
    assert len(cells) > 100
    assert cKDTree(frame.points_m[labels == Sidewalk.PERSON]).query(cells)[0].max() < 0.3
    for place in PEOPLE_M:
        assert np.sum(np.linalg.norm(cells[:, :2] - place, axis=1) < 0.6) > 50


def test_returns_of_vehicles_take_their_class_from_six_cameras_that_expose_at_other_times(labelled_car):
    for frame, labels in zip(labelled_car.clip.frames, labels_of(labelled_car)):
        points = se3.apply(frame.T_world_base, frame.points_m)
        for track, share in ((FOLLOWER, 0.95), (TRUCK, 0.7)):  # trees stand before the truck
            own = within(points, box_of(frame, track), floor_m=0.4)
            assert own.sum() > 150
            assert np.mean(labels[own] == Sidewalk.VEHICLE) > share


def test_boxes_hold_the_accumulated_returns_of_their_track(labelled_car, car_scene):
    inside, size = [], {box.track_id: box.size_m for box in labelled_car.clip.frames[0].boxes}
    for track, cloud in car_scene.tracks.items():
        inside.append((np.abs(cloud.points_m) <= size[track] / 2).all(axis=1))  # without the margin it was taken with
    every = np.concatenate(inside)
    assert len(every) > 2500
    assert every.mean() >= 0.95


def test_boxes_hold_the_same_share_of_what_the_annotators_counted(labelled_car, car_folder):
    """The stored clouds hold about a fifth of the returns that were annotated; a shifted box would hold less."""
    for frame, path in zip(labelled_car.clip.frames, sorted((car_folder / "bounding_box_3d" / "LIDAR").glob("*"))):
        counted = {each["instance_id"]: each["num_points"] for each in json.loads(path.read_text())["annotations"]}
        points = se3.apply(frame.T_world_base, frame.points_m)
        for track in (FOLLOWER, TRUCK):
            assert within(points, box_of(frame, track)).sum() / counted[track] == pytest.approx(0.2, abs=0.04)


def test_samples_of_the_static_world_lie_on_each_other(labelled_car):
    first, _, last = labelled_car.clip.frames
    near = [frame.points_m[(np.hypot(*frame.points_m[:, :2].T) < 40) & (frame.points_m[:, 2] > 0.7)]
            for frame in (first, last)]
    tree = cKDTree(se3.apply(first.T_world_base, near[0]))

    def apart_m(T_world_base):
        return np.percentile(tree.query(se3.apply(T_world_base, near[1]))[0], 75)

    right = apart_m(last.T_world_base)
    assert np.linalg.norm((last.T_world_base - first.T_world_base)[:3, 3]) > 2.0
    assert right < 0.3
    assert apart_m(first.T_world_base) > 3 * right  # as if it had stood
    for yaw_deg in (-1.0, 1.0):
        assert apart_m(last.T_world_base @ se3.from_euler(0, 0, np.radians(yaw_deg))) > 1.15 * right


def trail(scene, labelled, index, track):
    """Cells of matter that a track has left or not yet reached, and cells of it now."""
    frames, spec = labelled.clip.frames, labelled.spec
    fused = fuse(scene, index, spec, labelled.clip.rig)
    cells = np.argwhere((fused.grid.labels != FREE) & (fused.grid.labels != UNKNOWN))
    world = se3.apply(fused.T_world_grid, spec.centre_of(cells))
    now = within(world, box_of(frames[index], track), grown_m=0.5, floor_m=0.1)  # a cell is 0.4 m wide
    then = [within(world, box_of(frame, track), floor_m=0.6) for frame in frames]
    return int((np.any(then, axis=0) & ~now).sum()), int(now.sum())


def test_a_car_that_drives_leaves_no_trail_and_would_without_boxes(labelled_car, car_scene):
    frames = labelled_car.clip.frames
    untracked = accumulate([replace(frame, boxes=[]) for frame in frames], labels_of(labelled_car), labelled_car.spec)
    without_boxes = [trail(untracked, labelled_car, index, FOLLOWER)[0] for index in range(len(frames))]
    assert sum(without_boxes) > 10 * len(frames)
    for index in range(len(frames)):
        behind, now = trail(car_scene, labelled_car, index, FOLLOWER)
        assert now > 50
        assert behind <= 3
        assert without_boxes[index] > behind + 3
        assert trail(car_scene, labelled_car, index, TRUCK)[0] == 0
