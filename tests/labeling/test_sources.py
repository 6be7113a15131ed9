"""Scenes are found, described by little, and opened by whoever gets the description."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError, DatasetError, RecordingError
from occ_perception.geometry import se3
from occ_perception.labeling.sources import BOXES_WITHIN_M, Bag, SimulatedScenes, boxes_at, sources_of
from occ_perception.simulation.world import make_world


def test_a_simulated_scene_is_opened_from_its_description(streets: ModuleType, tmp_path: Path) -> None:
    streets.write_scene(tmp_path / "sim" / "b")
    streets.write_scene(tmp_path / "sim" / "a", frames=1)
    [source] = sources_of([tmp_path / "sim"], boxes=False)
    refs = source.scenes()
    assert [ref.name for ref in refs] == ["a", "b"]
    assert len(pickle.dumps(refs)) < 1000
    raw = pickle.loads(pickle.dumps(refs[1])).open()
    assert (raw.clip.name, len(raw.clip.frames), raw.area, raw.night) == ("b", 2, "residential", True)
    frame, made = raw.clip.frames[1], streets.frame_at(1)
    assert frame.stamp_ns == made.stamp_ns
    assert frame.boxes is None
    np.testing.assert_allclose(frame.points_m, made.points_m, atol=6e-4)  # kept in millimetres
    np.testing.assert_allclose(frame.T_world_base, made.T_world_base)
    np.testing.assert_allclose(frame.sensor_m, [[0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(raw.truth.classes("b", frame.stamp_ns, "front"), streets.classes_at(1))
    grid, true = raw.truth.grid(frame.stamp_ns), streets.grid_at(1)
    np.testing.assert_array_equal(grid.labels, true.labels)
    np.testing.assert_array_equal(grid.moving, true.moving)
    assert refs[1].about()["content_hash"] == "0"
    [alone] = sources_of([tmp_path / "sim" / "a"])
    assert [ref.name for ref in alone.scenes()] == ["a"]


def test_boxes_need_the_simulator_that_made_the_scene(streets: ModuleType, tmp_path: Path) -> None:
    [ref] = SimulatedScenes(path=streets.write_scene(tmp_path / "old", version="0")).scenes()
    with pytest.raises(DatasetError, match=r"version '0'.*label without boxes"):
        ref.open()
    [ref] = SimulatedScenes(path=streets.write_scene(tmp_path / "flat", images_only=True)).scenes()
    with pytest.raises(DatasetError, match="without scans"):
        ref.open()
    [ref] = SimulatedScenes(path=streets.write_scene(tmp_path / "odd", seed="x")).scenes()
    with pytest.raises(DatasetError, match="does not describe"):
        ref.open()


def test_boxes_are_where_a_tracker_on_board_would_see_them() -> None:
    world = make_world(2_000_001, "residential", duration_s=3.0)
    true = world.robot.pose_at(1.0)
    believed = se3.from_euler(0.0, 0.0, 1.2, (5.0, -3.0, 0.1)) @ true  # a drifting odometry
    boxes = boxes_at(world, 1.0, believed)
    actors = {actor.track_id: actor for actor in world.actors}
    assert len(boxes) > 3
    for box in boxes:
        actor = actors[box.track_id]
        seen = se3.invert(believed) @ box.T_world_object
        foot = se3.invert(true) @ actor.pose_at(1.0)
        np.testing.assert_allclose(seen[:3, :3], foot[:3, :3], atol=1e-9)
        height = actor.pose_at(1.0)[:3, 2] * actor.size_m[2] / 2
        np.testing.assert_allclose(seen[:3, 3], foot[:3, 3] + true[:3, :3].T @ height, atol=1e-9)
        np.testing.assert_allclose(believed[:3, :3].T @ box.velocity_mps, true[:3, :3].T @ actor.velocity_at(1.0),
                                   atol=1e-9)
    away = [np.hypot(*(actor.pose_at(1.0) - true)[:2, 3]) for actor in world.actors]
    assert len(boxes) == sum(distance < BOXES_WITHIN_M for distance in away) < len(away)


def test_paths_that_are_no_sources_are_listed_at_once(streets: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "drive.mcap").write_bytes(b"")
    with pytest.raises(ConfigurationError) as caught:
        sources_of([tmp_path / "absent", tmp_path / "drive.mcap"], rig=streets.rig_of(), area="rural")
    text = str(caught.value)
    assert "absent does not exist" in text
    assert "drive.mcap is a bag, which needs a rig and an area" in text
    assert "got test and rural" in text


def test_a_bag_that_cannot_be_read_says_so(streets: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "drive.mcap").write_bytes(b"no bag")
    [bag] = sources_of([tmp_path / "drive.mcap"], rig=streets.rig_of(), area="residential")
    assert isinstance(bag, Bag)
    with pytest.raises(RecordingError, match=r"drive\.mcap"):
        bag.scenes()
