"""Edges of depth on edges of the image: the right place scores best, a wrong one warns and is found back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occ_perception import cli
from occ_perception.calibration import Rig, RigCamera, RigLidar, load_rig, save_rig
from occ_perception.errors import ConfigurationError
from occ_perception.geometry import se3
from occ_perception.labeling.clip import LabelFrame
from occ_perception.labeling.extrinsics import alignment_picture, check_extrinsics, depth_edges, refine_extrinsics

T_BASE_CAMERA = se3.make(se3.from_euler(0.0, 0.1, 0.0)[:3, :3] @ se3.OPTICAL_IN_BODY, (0.28, 0.0, 0.75))
LIDAR_M = np.array([0.05, 0.0, 0.95])
CAMERA = RigCamera(name="front", frame="front", width=480, height=272, model="equidistant",
                   parameters=(165.0, 165.0, 239.5, 135.5, -0.012, 0.004), max_theta_rad=1.4,
                   T_base_camera=T_BASE_CAMERA)


def boxes_of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners (low, high) [N, 3] of posts and crates on a floor before a wall, and their brightness [N]."""
    rng = np.random.default_rng(seed)
    azimuth, distance = np.linspace(-1.1, 1.1, 14) + rng.uniform(-0.05, 0.05, 14), rng.uniform(2.5, 7.0, 14)
    size = rng.uniform([0.1, 0.1, 0.5], [0.6, 0.6, 2.5], (14, 3))
    middle = np.column_stack([distance * np.cos(azimuth), distance * np.sin(azimuth), 0.5 * size[:, 2]])
    low = np.vstack([middle - 0.5 * size, [-30.0, -30.0, -1.0], [12.0, -30.0, 0.0]])
    high = np.vstack([middle + 0.5 * size, [30.0, 30.0, 0.0], [13.0, 30.0, 6.0]])
    return low, high, np.append(rng.choice([30.0, 60.0, 190.0, 230.0], 14), [120.0, 150.0])


def cast(boxes: tuple[np.ndarray, np.ndarray, np.ndarray], origin: np.ndarray,
         rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range of the nearest box along each ray (inf: none), and its brightness (sky 255)."""
    best, bright = np.full(len(rays), np.inf), np.full(len(rays), 255.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / rays
    for low, high, value in zip(*boxes):
        ends = np.stack([(low - origin) * inverse, (high - origin) * inverse])
        enter, leave = ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)
        nearer = (enter < leave) & (enter > 0) & (enter < best)
        best[nearer], bright[nearer] = enter[nearer], value
    return best, bright


def frame_of(seed: int, T_base_camera: np.ndarray = T_BASE_CAMERA) -> LabelFrame:
    boxes = boxes_of(seed)
    rng = np.random.default_rng(seed + 100)
    rays = np.nan_to_num(CAMERA.camera.rays().reshape(-1, 3).astype(float), nan=0.0) @ T_base_camera[:3, :3].T
    _, bright = cast(boxes, T_base_camera[:3, 3], rays)
    image = (bright + rng.normal(0, 4, len(bright))).clip(0, 255).reshape(272, 480, 1).astype(np.uint8)
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 720, endpoint=False),
                                     np.radians(np.linspace(-35, 12, 64)))
    beams = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], -1)
    beams = beams.reshape(-1, 3)
    range_m, _ = cast(boxes, LIDAR_M, beams)
    kept = range_m < 40.0
    measured = range_m[kept] + rng.normal(0, 0.01, int(kept.sum()))
    points = (LIDAR_M + beams[kept] * measured[:, None]).astype(np.float32)
    return LabelFrame(stamp_ns=seed + 1, images={"front": np.repeat(image, 3, axis=2)}, points_m=points,
                      sensor_m=LIDAR_M[None], point_sensor=np.zeros(len(points), np.uint8), T_world_base=np.eye(4))


def turned(degrees: tuple[float, float, float]) -> RigCamera:
    """The camera as a wrong rig would place it."""
    T = T_BASE_CAMERA @ se3.make(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(), np.zeros(3))
    return RigCamera(**{name: getattr(CAMERA, name) for name in RigCamera.model_fields} | {"T_base_camera": T})


def error_deg(camera: RigCamera) -> float:
    return float(np.degrees(Rotation.from_matrix(T_BASE_CAMERA[:3, :3].T @ camera.T_base_camera[:3, :3]).magnitude()))


@pytest.fixture(scope="module")
def frames() -> list[LabelFrame]:
    return [frame_of(seed) for seed in range(6)]


def test_depth_edges_are_the_borders_of_what_stands_in_front(frames: list[LabelFrame]) -> None:
    edges = depth_edges(frames[0].points_m, LIDAR_M)
    assert 100 < len(edges) < 0.1 * len(frames[0].points_m)
    low, high, _ = boxes_of(0)
    inside = ((edges[:, None] > low[:-2] - 0.15) & (edges[:, None] < high[:-2] + 0.15)).all(axis=2).any(axis=1)
    assert inside.mean() > 0.95  # on posts and crates, not on the floor or the wall behind


@pytest.mark.parametrize("degrees", [(1.5, 0.0, 0.0), (0.0, -1.5, 0.0), (0.0, 0.0, 1.5)])
def test_a_wrong_camera_scores_lower_and_warns(frames: list[LabelFrame], degrees: tuple[float, float, float]) -> None:
    right, wrong = check_extrinsics(frames, CAMERA), check_extrinsics(frames, turned(degrees))
    assert right.health == 1.0
    assert right.warning == ""
    assert wrong.score < 0.95 * right.score
    assert wrong.health < 1.0
    assert "camera front: depth edges miss image edges" in wrong.warning


def test_refinement_takes_most_of_the_error_back(frames: list[LabelFrame]) -> None:
    wrong = turned((0.9, -1.0, 0.7))
    assert error_deg(wrong) == pytest.approx(1.5, abs=0.1)
    found = refine_extrinsics(frames, wrong)
    assert error_deg(found.camera) < 0.4
    assert found.after.health > found.before.health
    assert found.after.score > found.before.score
    assert found.after.warning == ""
    assert found.turned_deg == pytest.approx(1.5, abs=0.3)
    assert found.moved_m == 0.0
    np.testing.assert_allclose(found.camera.T_base_camera[:3, 3], wrong.T_base_camera[:3, 3], atol=1e-9)


def test_the_place_is_searched_within_its_limit(frames: list[LabelFrame]) -> None:
    found = refine_extrinsics(frames[:3], turned((0.0, 1.0, 0.0)), translate=True)
    assert error_deg(found.camera) < 0.5
    assert found.moved_m < 0.1


def test_a_bare_floor_cannot_be_judged() -> None:
    frame = frame_of(0)
    floor = np.random.default_rng(0).uniform([1, -5, 0], [9, 5, 0.01], (500, 3)).astype(np.float32)
    bare = LabelFrame(stamp_ns=1, images=frame.images, points_m=floor, sensor_m=frame.sensor_m,
                      point_sensor=np.zeros(500, np.uint8), T_world_base=np.eye(4))
    health = check_extrinsics([bare], CAMERA)
    assert np.isnan(health.health)
    assert "too few to judge" in health.warning
    with pytest.raises(ConfigurationError, match="too few to judge"):
        refine_extrinsics([bare], CAMERA)
    empty = LabelFrame(stamp_ns=1, images=frame.images, points_m=np.zeros((0, 3), np.float32), sensor_m=frame.sensor_m,
                       point_sensor=np.zeros(0, np.uint8), T_world_base=np.eye(4))
    assert check_extrinsics([empty], CAMERA).points == 0


def test_where_image_edges_are_everywhere_nothing_is_judged(frames: list[LabelFrame]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (272, 480, 3), dtype=np.uint8)
    leaves = [replace(frame, images={"front": noise}) for frame in frames[:2]]
    for camera in (CAMERA, turned((0.0, 2.0, 0.0))):
        health = check_extrinsics(leaves, camera)
        assert health.points > 1000
        assert np.isnan(health.health)
        assert "cannot be judged" in health.warning


def test_points_move_to_the_exposure_of_the_camera(frames: list[LabelFrame]) -> None:
    """A camera that exposed when the base was elsewhere scores as one that exposed at the anchor."""
    frame = frames[0]
    T_anchor_exposure = se3.from_euler(0.0, 0.0, 0.05, (0.3, 0.0, 0.0))
    still = check_extrinsics([frame], CAMERA)
    late = LabelFrame(stamp_ns=1, images=frame.images, sensor_m=se3.apply(T_anchor_exposure, frame.sensor_m),
                      points_m=se3.apply(T_anchor_exposure, frame.points_m).astype(np.float32),
                      point_sensor=frame.point_sensor, T_world_base=np.eye(4),
                      T_anchor_exposure={"front": T_anchor_exposure})
    moved = check_extrinsics([late], CAMERA)
    assert moved.points == pytest.approx(still.points, rel=0.1)
    assert moved.score == pytest.approx(still.score, abs=0.03)


def test_the_picture_shows_points_and_edges(frames: list[LabelFrame]) -> None:
    picture = alignment_picture(frames[0], CAMERA)
    assert picture.shape == (272, 480, 3)
    changed = (picture != frames[0].images["front"]).any(axis=2)
    assert 0.01 < changed.mean() < 0.9
    assert (picture[changed] == 255).all(axis=1).any()


def test_the_command_judges_refines_and_draws(
        frames: list[LabelFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, frame in enumerate(frames[:3]):
        (tmp_path / "front").mkdir(exist_ok=True)
        (tmp_path / "top").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "front" / f"{k}.png"), frame.images["front"])
        np.save(tmp_path / "top" / f"{k}.npy", (frame.points_m - LIDAR_M).astype(np.float32))
    lidar = RigLidar(name="top", frame="top", T_base_lidar=se3.make(np.eye(3), LIDAR_M))

    def judged(camera: RigCamera) -> tuple[int, str]:
        save_rig(Rig(name="test", cameras=(camera,), lidars=(lidar,)), tmp_path / "rig.yaml")
        with pytest.raises(SystemExit) as end:
            cli.main(["rig", "health", str(tmp_path / "rig.yaml"), "--images", str(tmp_path), "--cloud",
                      str(tmp_path), "--out", str(tmp_path / "drawn"), "--refine", str(tmp_path / "new.yaml")])
        return int(end.value.code or 0), capsys.readouterr().out

    status, out = judged(CAMERA)
    assert status == 0
    assert "no rig was written" in out
    assert not (tmp_path / "new.yaml").exists()
    one = cv2.imread(str(tmp_path / "drawn" / "front.png"))
    status, out = judged(turned((0.0, -1.5, 0.0)))
    assert status == 0
    assert "depth edges miss image edges" in out
    assert error_deg(load_rig(tmp_path / "new.yaml").camera("front")) < 0.6
    assert (one.shape != cv2.imread(str(tmp_path / "drawn" / "front.png")).shape)  # two beside each other are lower
