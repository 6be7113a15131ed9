"""Fused grids: surfaces where they are, free where rays passed, unknown elsewhere, things where they are now."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.calibration import Rig, load_rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.labeling import fuse as fusing
from occ_perception.labeling.accumulate import Scene, accumulate, vote
from occ_perception.labeling.clip import LabelFrame, WorldBox
from occ_perception.labeling.fuse import fuse
from occ_perception.labeling.lift import lift_labels
from occ_perception.labeling.vote import VoxelVote
from occ_perception.metrics import OccupancyIoU
from occ_perception.simulation.voxels import GROUND_BIAS
from occ_perception.taxonomy import FREE, OCCUPIED, SIDEWALK, UNKNOWN, Sidewalk

SPEC = VoxelGridSpec((0.0, -3.0, -1.0), (9.0, 3.0, 2.0), 0.1)
WALL_M = 8.05
PERSON_M = np.array([0.5, 0.5, 1.7])
STEP_M = 0.4
RIGS = Path(__file__).resolve().parents[2] / "calibration"


def person_at(k: int) -> np.ndarray:
    """Centre of somebody who crosses the way at 1 m/s."""
    return np.array([4.0, -1.5 + 0.5 * k, 0.85])


def scan(x_m: float, centre_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points and labels of a LiDAR at (x, 0, 1) before ground, a wall and a box; 1 cm of noise."""
    azimuth, elevation = np.meshgrid(np.linspace(-1.3, 1.3, 500), np.linspace(-0.75, 0.25, 64))
    rays = np.column_stack([(np.cos(elevation) * np.cos(azimuth)).ravel(),
                            (np.cos(elevation) * np.sin(azimuth)).ravel(), np.sin(elevation).ravel()])
    origin = np.array([x_m, 0.0, 1.0])
    with np.errstate(divide="ignore"):
        ground = np.where(rays[:, 2] < 0, -1.0 / rays[:, 2], np.inf)
        wall = (WALL_M - x_m) / rays[:, 0]
        near, far = np.sort([(centre_m + s * PERSON_M / 2 - origin) / rays for s in (-1, 1)], axis=0)
    enter, leave = near.max(axis=1), far.min(axis=1)
    body = np.where((enter < leave) & (enter > 0), enter, np.inf)
    which = np.argmin([ground, wall, body], axis=0)
    distance = np.min([ground, wall, body], axis=0) + np.random.default_rng(0).normal(0, 0.01, len(rays))
    labels = np.array([Sidewalk.SIDEWALK, Sidewalk.WALL, Sidewalk.PERSON], np.uint8)[which]
    return (origin + rays * distance[:, None]), labels


def rig_of() -> Rig:
    T = se3.make(se3.OPTICAL_IN_BODY, (0.2, 0.0, 1.0))
    return rig_from_dict({"name": "test", "cameras": [{
        "name": "front", "frame": "optical", "width": 160, "height": 120, "model": "pinhole",
        "parameters": [80.0, 80.0, 79.5, 59.5], "T_base_camera": T.tolist()}]}, where="test")


def scene_of(boxes: bool, frames: int = 6, yaw_step: float = 0.0) -> Scene:
    made, labels = [], []
    for k in range(frames):
        points, own = scan(STEP_M * k, person_at(k))
        T = se3.make(np.eye(3), (STEP_M * k, 0.0, 0.0))
        box = WorldBox(41, int(Sidewalk.PERSON), se3.from_euler(0, 0, yaw_step * k, person_at(k)), PERSON_M,
                       np.array([0.0, 1.0, 0.0]))
        made.append(LabelFrame(
            stamp_ns=k * 500_000_000, images={}, points_m=se3.apply(se3.invert(T), points).astype(np.float32),
            sensor_m=np.array([[0.0, 0.0, 1.0]]), point_sensor=np.zeros(len(points), np.uint8), T_world_base=T,
            boxes=(box,) if boxes else None))
        labels.append(own)
    return accumulate(made, labels, SPEC)


@pytest.fixture(scope="module")
def boxed() -> Scene:
    return scene_of(boxes=True)


@pytest.fixture(scope="module")
def unboxed() -> Scene:
    return scene_of(boxes=False)


def test_ground_wall_free_and_unknown_are_where_they_are(boxed: Scene) -> None:
    labels = fuse(boxed, 1, SPEC, rig_of()).grid.labels
    ground_level, wall = 10, round((WALL_M - STEP_M) / 0.1 - 0.5)
    columns = labels[15:70, 12:48, ground_level]
    assert (columns == Sidewalk.SIDEWALK).mean() > 0.99
    assert (labels[15:70, 12:48, :ground_level] == UNKNOWN).all()  # the underground
    assert (labels[wall, 15:45, 12:25] == Sidewalk.WALL).mean() > 0.97
    assert (labels[wall - 1, 15:45, 12:25] == FREE).mean() > 0.97  # the shell is one cell thick
    assert (labels[wall + 1:, 15:45, 12:25] == UNKNOWN).all()  # interiors
    assert (labels[15:30, 25:35, 12:18] == FREE).mean() > 0.99


@pytest.mark.parametrize("which", ["boxed", "unboxed"])
def test_a_walking_person_leaves_no_trail(which: str, request: pytest.FixtureRequest) -> None:
    scene: Scene = request.getfixturevalue(which)
    for k in range(len(scene.frames)):
        labels = fuse(scene, k, SPEC, rig_of()).grid.labels
        centre = person_at(k) - (STEP_M * k, 0.0, 0.0)
        cells = np.argwhere(labels == Sidewalk.PERSON)
        away = (np.abs(SPEC.centre_of(cells) - centre) > PERSON_M / 2 + 0.1).any(axis=1)
        assert len(cells) > 50
        assert not away.any()
        # and nothing else stands in the open either
        solid = (labels[:, :, 12:] != FREE) & (labels[:, :, 12:] != UNKNOWN) & (labels[:, :, 12:] != Sidewalk.PERSON)
        assert (np.argwhere(solid)[:, 0] * 0.1 + STEP_M * k > WALL_M - 0.3).all()


def test_a_thing_has_its_row_its_id_and_its_velocity(boxed: Scene) -> None:
    fused = fuse(boxed, 2, SPEC, rig_of())
    assert fused.grid.track_ids.tolist() == [41]
    assert ((fused.grid.instance_rows == 1) == (fused.grid.labels == Sidewalk.PERSON)).all()
    assert len(fused.flow.cells) == (fused.grid.instance_rows == 1).sum()
    assert fused.flow.velocity_mps == pytest.approx(np.tile([0.0, 1.0, 0.0], (len(fused.flow.cells), 1)), abs=1e-6)


def test_a_turning_thing_moves_faster_outside() -> None:
    fused = fuse(scene_of(boxes=True, frames=3, yaw_step=0.25), 1, SPEC, rig_of())  # 0.5 rad/s
    arm = SPEC.centre_of(fused.flow.cells) - (person_at(1) - (STEP_M, 0.0, 0.0))
    assert fused.flow.velocity_mps[:, 0] == pytest.approx(-0.5 * arm[:, 1], abs=1e-5)
    assert fused.flow.velocity_mps[:, 1] == pytest.approx(1.0 + 0.5 * arm[:, 0], abs=1e-5)


def test_visible_is_known_and_the_confidence_says_the_same(boxed: Scene) -> None:
    fused = fuse(boxed, 1, SPEC, rig_of())
    assert not (fused.visible & (fused.grid.labels == UNKNOWN)).any()
    assert ((fused.grid.confidence == 255) == fused.visible).all()
    wall = round((WALL_M - STEP_M) / 0.1 - 0.5)
    assert fused.visible[wall, 25:35, 12:20].mean() > 0.95
    assert not fused.visible[wall + 1:].any()


def test_a_coarser_grid_is_fused_from_the_same_scene_and_a_finer_one_is_not(boxed: Scene) -> None:
    coarse = VoxelGridSpec((0.0, -3.0, -1.0), (9.0, 3.0, 2.0), 0.2)
    labels = fuse(boxed, 0, coarse, rig_of()).grid.labels
    assert labels.shape == coarse.shape
    assert (labels[10:30, 5:25, 5] == Sidewalk.SIDEWALK).mean() > 0.9
    with pytest.raises(ConfigurationError, match="smaller"):
        fuse(boxed, 0, VoxelGridSpec((0.0, -3.0, -1.0), (9.0, 3.0, 2.0), 0.05), rig_of())


def test_one_frame_is_a_scene_and_matter_without_a_class_is_254() -> None:
    points, labels = scan(0.0, person_at(0))
    labels[labels == Sidewalk.WALL] = 0
    frame = LabelFrame(stamp_ns=5, images={}, points_m=points.astype(np.float32), sensor_m=np.array([[0.0, 0.0, 1.0]]),
                       point_sensor=np.zeros(len(points), np.uint8), T_world_base=np.eye(4))
    grid = fuse(accumulate([frame], [labels], SPEC), 0, SPEC, rig_of()).grid
    assert grid.stamp_ns == 5
    assert set(np.unique(grid.labels)) == {FREE, Sidewalk.SIDEWALK, Sidewalk.PERSON, OCCUPIED, UNKNOWN}


def test_the_ground_lies_in_the_same_cells_as_in_the_simulations_truth() -> None:
    assert fusing.GROUND_BIAS == GROUND_BIAS


def spoilt(classes: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """The classes with blobs of about 30 pixels of a random class over that share of the image."""
    height, width = classes.shape
    noise = cv2.resize(rng.normal(size=(height // 24, width // 24)).astype(np.float32), (width, height),
                       interpolation=cv2.INTER_CUBIC)
    bad = (noise > np.quantile(noise, 1 - share)) & (classes != 14)
    count, blob = cv2.connectedComponents(bad.astype(np.uint8))
    return np.where(bad, rng.integers(1, len(SIDEWALK), count).astype(np.uint8)[blob], classes)


@pytest.mark.slow
def test_a_simulated_street_with_a_tenth_of_its_labels_wrong_is_fused_as_well_as_the_paper() -> None:
    """WalkOCC, table 1, first row: pseudo-labels reach 88.98 IoU and 56.71 mIoU."""
    sim_module = pytest.importorskip("occ_perception.simulation.sim")
    from occ_perception.simulation.world import make_world

    rng = np.random.default_rng(0)
    rig = load_rig(RIGS / "sidewalk_wheeled.yaml")
    sim = sim_module.SidewalkSim(make_world(2_000_001, "residential", duration_s=11.0), rig)
    frames, lifted, truths = [], [], []
    for time_s in 0.5 + 0.5 * np.arange(9):
        seen, points = sim.frame(time_s, clouds=False), sim.points_m(time_s)
        classes = {name: spoilt(view.semantics, rng, 0.1) for name, view in seen.views.items()}
        actors = [a for a in sim.world.actors
                  if np.hypot(*(a.pose_at(time_s) - sim.world.robot.pose_at(time_s))[:2, 3]) < 25.0]
        boxes = tuple(WorldBox(a.track_id, int(a.label),
                               a.pose_at(time_s) @ se3.make(np.eye(3), (0.0, 0.0, a.size_m[2] / 2)),
                               np.asarray(a.size_m, float), np.asarray(a.velocity_at(time_s), float)) for a in actors)
        frames.append(LabelFrame(
            stamp_ns=seen.stamp_ns, images={}, points_m=points, sensor_m=rig.lidars[0].T_base_lidar[None, :3, 3],
            point_sensor=np.zeros(len(points), np.uint8), T_world_base=sim.world.robot.pose_at(time_s), boxes=boxes))
        lifted.append(lift_labels(points, classes, rig))
        truths.append(seen.truth)
    scores = {}
    for name, labels in {"lifted": lifted, "voted": vote(frames, lifted, VoxelVote())}.items():
        spec, score = truths[0].grid.spec, OccupancyIoU(len(SIDEWALK))
        scene = accumulate(frames, labels, spec)
        for k in (0, 4, 8):
            fused, truth = fuse(scene, k, spec, rig), truths[k]
            assert np.allclose(fused.T_world_grid, truth.T_world_grid)
            score.update(fused.grid.labels, truth.grid.labels, truth.visible)
        scores[name] = score.compute()
    assert scores["voted"]["iou"] >= 0.90
    assert scores["voted"]["miou"] >= 0.60
    assert scores["voted"]["miou"] > scores["lifted"]["miou"] + 0.05
    for label in (Sidewalk.CURB, Sidewalk.GUTTER):
        assert scores["voted"]["per_class"][label] >= 0.40
        assert scores["voted"]["per_class"][label] > scores["lifted"]["per_class"][label] - 0.01
