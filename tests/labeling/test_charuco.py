"""Calibration from rendered boards: lenses, the board in scans, and where the camera sits beside the LiDAR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from occ_perception import cli
from occ_perception.calibration import Rig, RigCamera, load_rig, save_rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.errors import CalibrationError, ConfigurationError
from occ_perception.geometry import Camera, make_camera, se3
from occ_perception.labeling.charuco import (
    Board,
    calibrate_lens,
    calibrate_place,
    calibrate_rig,
    find_board,
    find_board_returns,
)
from occ_perception.labeling.rig_data import pairs_of_bag
from occ_perception.recordings.create import create_bag
from occ_perception.types import PointCloud

BOARD = Board()
LENSES = {"pinhole": (380.0, 385.0, 316.0, 243.0, -0.08, 0.02),
          "equidistant": (230.0, 231.0, 322.0, 238.0, 0.02, -0.01)}
T_BASE_LIDAR = se3.from_euler(0.0, 0.02, 0.1, (0.1, 0.0, 0.9))
T_BASE_CAMERA = se3.make(se3.from_euler(0.01, 0.05, -0.03)[:3, :3] @ se3.OPTICAL_IN_BODY, (0.25, 0.04, 0.75))
PLATE_M = 0.5


def poses(aside_m: float = 0.15) -> list[np.ndarray]:
    """T_camera_board of boards near and far, aside and tilted to all sides."""
    rng = np.random.default_rng(1)
    result = []
    for k in range(9):
        tilt = np.radians([25.0 * np.cos(k), 25.0 * np.sin(1.7 * k), 12.0 * np.sin(k)])
        at = np.array([np.cos(2.1 * k), 0.6 * np.sin(2.6 * k), 0.0]) * aside_m
        at += rng.normal(0, 0.01, 3) + (0.0, 0.0, 0.55 + 0.05 * (k % 4))
        R = Rotation.from_rotvec(tilt).as_matrix()
        result.append(se3.make(R, at - R @ BOARD.centre_m))
    return result


def onto_board(origin: np.ndarray, rays: np.ndarray, T_frame_board: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays [N, 3] meet the board's plane: on the board relative to its middle [N, 2]; distance (inf: never)."""
    T = se3.invert(T_frame_board)
    start, direction = se3.apply(T, origin), rays @ T[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = -start[2] / direction[:, 2]
    distance = np.where(distance > 0, distance, np.inf)
    hit = np.where(np.isfinite(distance)[:, None], start + distance[:, None] * direction, 1e3)
    return hit[:, :2] - BOARD.centre_m[:2], distance


def photograph(lens: Camera, T_camera_board: np.ndarray) -> np.ndarray:
    """The board before a grey wall, four rays to a pixel."""
    per_square = 60
    pattern = BOARD.pattern.generateImage((BOARD.columns * per_square, BOARD.rows * per_square)).astype(np.float32)
    u, v = np.meshgrid(np.arange(-0.25, lens.width - 0.5, 0.5), np.arange(-0.25, lens.height - 0.5, 0.5))
    rays = lens.unproject(np.column_stack([u.ravel(), v.ravel()]))
    at, _ = onto_board(np.zeros(3), np.nan_to_num(rays), T_camera_board)
    texel = ((at + BOARD.centre_m[:2]) / BOARD.square_m * per_square - 0.5).astype(np.float32)
    shape = u.shape
    seen = cv2.remap(pattern, texel[:, 0].reshape(shape), texel[:, 1].reshape(shape), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_CONSTANT, borderValue=255.0)
    seen[(np.linalg.norm(at, axis=1) > PLATE_M).reshape(shape)] = 110.0
    small = cv2.resize(seen, (lens.width, lens.height), interpolation=cv2.INTER_AREA)
    return np.repeat(np.clip(small, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def scan(T_lidar_board: np.ndarray, *, ring: bool = True) -> PointCloud:
    """Plate with a bright ring before a dull wall at 4 m."""
    rng = np.random.default_rng(3)
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-70, 70, 0.35)), np.radians(np.arange(-45, 35, 0.8)))
    rays = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3)
    at, distance = onto_board(np.zeros(3), rays, T_lidar_board)
    radius = np.linalg.norm(at, axis=1)
    on_plate = radius < PLATE_M
    on_ring = np.abs(radius - BOARD.ring_radius_m) < 0.5 * BOARD.tape_m
    range_m = np.where(on_plate, distance, 4.0 / rays[:, 0]) + rng.normal(0, 0.01, len(rays))
    intensity = rng.uniform(5, 40, len(rays))
    if ring:
        intensity[on_plate & on_ring] = 220.0
    return PointCloud("top", 0, (rays * range_m[:, None]).astype(np.float32), intensity.astype(np.float32))


def rig_of(model: str, T_base_camera: np.ndarray, parameters: Sequence[float]) -> Rig:
    camera = {"name": "front", "frame": "front", "width": 640, "height": 480, "model": model,
              "parameters": list(parameters), "T_base_camera": T_base_camera.tolist()}
    lidar = {"name": "top", "frame": "top", "T_base_lidar": T_BASE_LIDAR.tolist()}
    return rig_from_dict({"name": "bench", "cameras": [camera], "lidars": [lidar]}, where="test")


@pytest.mark.parametrize("model", ["pinhole", "equidistant"])
def test_lens_and_place_are_found_again(model: str) -> None:
    lens = make_camera(model, 640, 480, LENSES[model])
    boards = poses(0.15 if model == "pinhole" else 0.35)
    images = [photograph(lens, T) for T in boards]
    T_lidar_camera = se3.invert(T_BASE_LIDAR) @ T_BASE_CAMERA
    clouds = [scan(T_lidar_camera @ T) for T in boards]
    clouds[4] = scan(T_lidar_camera @ boards[4], ring=False)
    images[7] = np.full_like(images[7], 90)
    believed = T_BASE_CAMERA @ se3.from_euler(0.05, 0.05, 0.05, (0.1, 0.0, 0.0))
    wrong = rig_of(model, believed, (300.0, 300.0, 320.0, 240.0))
    found = calibrate_rig(wrong, "front", "top", images, clouds, BOARD)
    assert found.used == (0, 1, 2, 3, 5, 6, 8)
    assert found.skipped == {7: "the camera does not see the board", 4: "the LiDAR does not see the ring"}
    assert found.rms_px < 0.4
    assert found.rms_m < 0.025
    camera: RigCamera = found.rig.camera("front")
    grid = np.column_stack([a.ravel() for a in np.meshgrid(np.arange(160, 500, 80.0), np.arange(120, 380, 60.0))])
    angles = np.arccos(np.clip((camera.camera.unproject(grid) * lens.unproject(grid)).sum(axis=1), -1, 1))
    assert np.degrees(angles).max() < 0.4
    off = se3.invert(T_BASE_CAMERA) @ camera.T_base_camera
    assert np.degrees(Rotation.from_matrix(off[:3, :3]).magnitude()) < 0.4
    assert np.linalg.norm(off[:3, 3]) < 0.015
    assert found.rig.lidar("top") == wrong.lidar("top")


def test_corners_are_found_where_the_lens_puts_them() -> None:
    lens = make_camera("pinhole", 640, 480, LENSES["pinhole"])
    view = find_board(photograph(lens, poses()[0]), BOARD)
    assert view is not None
    assert len(view.pixels) == (BOARD.columns - 1) * (BOARD.rows - 1)
    expected, _ = lens.project(se3.apply(poses()[0], view.corners_m))
    assert np.linalg.norm(view.pixels - expected, axis=1).max() < 0.6


def test_the_ring_gives_middle_and_normal() -> None:
    T = se3.make(Rotation.from_euler("zyx", [-90.0, 15.0, -80.0], degrees=True).as_matrix(), np.zeros(3))
    T[:3, 3] = np.array([1.6, 0.2, -0.1]) - T[:3, :3] @ BOARD.centre_m
    seen = find_board_returns(scan(T), BOARD)
    assert seen is not None
    np.testing.assert_allclose(seen.centre_m, [1.6, 0.2, -0.1], atol=0.01)
    assert abs(seen.normal @ T[:3, 2]) > np.cos(np.radians(1.0))
    assert seen.normal @ seen.centre_m < 0
    assert len(seen.plate_m) > len(seen.ring_m) > 50


def test_a_scan_without_intensities_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no intensities"):
        find_board_returns(PointCloud("top", 0, np.ones((5, 3), np.float32)), BOARD)


def test_too_few_and_parallel_boards_are_refused() -> None:
    with pytest.raises(CalibrationError, match="2 images show the board, needed are 5"):
        calibrate_lens([None, None], (640, 480), "pinhole")  # type: ignore[list-item]
    T = se3.make(np.eye(3), (0.0, 0.0, 1.0))
    seen = find_board_returns(scan(se3.invert(T_BASE_LIDAR) @ T_BASE_CAMERA @ T), BOARD)
    assert seen is not None
    with pytest.raises(CalibrationError, match="1 boards were seen by both"):
        calibrate_place([T], [seen], BOARD)
    with pytest.raises(CalibrationError, match="face one way within 0 degrees"):
        calibrate_place([T] * 3, [seen] * 3, BOARD)


def test_all_faults_of_the_input_are_listed() -> None:
    rig = rig_of("double_sphere", T_BASE_CAMERA, (300.0, 300.0, 320.0, 240.0, 0.1, 0.5))
    with pytest.raises(CalibrationError) as caught:
        calibrate_rig(rig, "front", "top", [np.zeros((2, 3, 3), np.uint8)], [], BOARD)
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigurationError) as wrong:
        Board(columns=2, marker_m=0.2, tape_m=1.0, dictionary="DICT_9")
    assert len(wrong.value.faults) == 4


def test_the_command_names_what_it_leaves_out_and_a_bag_gives_the_same_pairs_as_folders(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lens = make_camera("pinhole", 640, 480, LENSES["pinhole"])
    (tmp_path / "images").mkdir()
    (tmp_path / "scans").mkdir()
    for k, T in enumerate(poses()[:7]):
        cloud = scan(se3.invert(T_BASE_LIDAR) @ T_BASE_CAMERA @ T, ring=k != 3)
        cv2.imwrite(str(tmp_path / "images" / f"{k}.png"), photograph(lens, T))
        np.save(tmp_path / "scans" / f"{k}.npy", np.column_stack([cloud.points_m, cloud.intensity]))
    wrong = T_BASE_CAMERA @ se3.from_euler(0.03, 0.0, 0.0)
    save_rig(rig_of("pinhole", wrong, (300.0, 300.0, 320.0, 240.0)), tmp_path / "rig.yaml")
    with pytest.raises(SystemExit) as end:
        cli.main(["rig", "calibrate", str(tmp_path / "rig.yaml"), "--camera", "front", "--images",
                  str(tmp_path / "images"), "--cloud", str(tmp_path / "scans"), "--out",
                  str(tmp_path / "made" / "new.yaml"), "--pictures", str(tmp_path / "made")])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "6 of 7" in out
    assert "pair 3 is left out: the LiDAR does not see the ring" in out
    off = se3.invert(T_BASE_CAMERA) @ load_rig(tmp_path / "made" / "new.yaml").camera("front").T_base_camera
    assert np.degrees(Rotation.from_matrix(off[:3, :3]).magnitude()) < 0.6
    picture = cv2.imread(str(tmp_path / "made" / "front.png"))[..., ::-1]
    assert (picture == (255, 60, 60)).all(axis=2).sum() > 500  # returns of the ring
    rig = load_rig(tmp_path / "rig.yaml")
    create_bag(tmp_path / "board.mcap", rig, {"front": tmp_path / "images"}, {"top": tmp_path / "scans"}, rate_hz=1.0)
    pairs = pairs_of_bag(tmp_path / "board.mcap", rig, "front", "top")  # images are logged before their scans
    for k, (image, cloud) in enumerate(pairs):
        assert (image == cv2.imread(str(tmp_path / "images" / f"{k}.png"))[..., ::-1]).all()
        assert (cloud.points_m == np.load(tmp_path / "scans" / f"{k}.npy")[:, :3]).all()
    assert len(pairs) == 7
