"""RELLIS-3D's files become samples: labelled scans as voxels, a camera that looks where the robot goes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.datasets.rellis_3d import LABELS, OFFROAD_GRID, Rellis3dDataset
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import se3

# the published calibration of sequence 00000
INTRINSICS = (2813.643275, 2808.326079, 969.285772, 624.049972)
Q_WXYZ, T = (-0.50507811, 0.51206185, 0.49024953, -0.49228464), (-0.13165462, 0.03870398, -0.17253834)
FRAMES = 61  # at 10 Hz


def image_name(k: int) -> str:
    return f"frame{k:06d}-{1581624652 + k // 10}_{k % 10}50"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rellis_3d")
    folder = root / "00000"
    for name in ("os1_cloud_node_kitti_bin", "os1_cloud_node_semantickitti_label_id", "pylon_camera_node",
                 "pylon_camera_node_label_id"):
        (folder / name).mkdir(parents=True)
    (folder / "camera_info.txt").write_text(" ".join(map(str, INTRINSICS)) + "\n")
    w, x, y, z = Q_WXYZ
    (folder / "transforms.yaml").write_text(
        f"os1_cloud_node-pylon_camera_node:\n  q:\n    w: {w}\n    x: {x}\n    y: {y}\n    z: {z}\n"
        f"  t:\n    x: {T[0]}\n    y: {T[1]}\n    z: {T[2]}\n")
    # the LiDAR looks backwards: driving 1 m/s along the world's x, its own x points to -x; the robot pitches a little
    poses = [se3.make(np.diag([-1.0, -1.0, 1.0]), (0.1 * k, 0.0, 0.0)) @ se3.from_euler(0.0, 0.05 if k else 0.0, 0.0)
             for k in range(FRAMES)]
    (folder / "poses.txt").write_text(
        "".join(" ".join(f"{value:.9f}" for value in pose[:3].ravel()) + "\n" for pose in poses))
    image = np.full((60, 96, 3), (0, 120, 40), np.uint8)
    for k in range(FRAMES):
        cv2.imwrite(str(folder / "pylon_camera_node" / f"{image_name(k)}.jpg"), image)
    classes = np.full((60, 96), 7, np.uint8)
    classes[30:] = 3
    classes[40:, :20] = 17
    cv2.imwrite(str(folder / "pylon_camera_node_label_id" / f"{image_name(0)}.png"), classes)
    for k in (0, 20):
        points = np.array([[-6.1, 0.1, -1.04, 0.1], [-6.15, 0.15, -1.04, 0.1], [-4.1, -3.1, -0.24, 0.2],
                           [0.0, 0.0, 0.0, 0.0], [-9.1, 4.1, 0.5, 0.4], [-9.1, 2.1, 3.0, 0.4]], "<f4")
        points.tofile(folder / "os1_cloud_node_kitti_bin" / f"{k:06d}.bin")
        # grass twice (with an instance above), a person, no return, void, sky
        np.array([3, 3 | 5 << 16, 17, 0, 0, 7], "<u4").tofile(
            folder / "os1_cloud_node_semantickitti_label_id" / f"{k:06d}.label")
    lines = [f"00000/os1_cloud_node_kitti_bin/{k:06d}.bin 00000/os1_cloud_node_semantickitti_label_id/{k:06d}.label\n"
             for k in (0, 20)]
    (root / "pt_train.lst").write_text("".join(lines))
    return root


def test_the_base_looks_where_the_camera_looks(root: Path) -> None:
    sample = Rellis3dDataset(root, "train")[0]
    camera = sample.rig.camera("pylon_camera_node")
    assert camera.T_base_camera[:3, 2] @ [1.0, 0.0, 0.0] > 0.99
    assert camera.T_base_camera[:3, 1] @ [0.0, 0.0, -1.0] > 0.99
    assert (camera.width, camera.height) == (96, 60)
    assert camera.parameters == (*INTRINSICS, -0.134313, -0.025905, 0.002181, 0.00084, 0.0)
    np.testing.assert_allclose(sample.T_world_grid, se3.make(np.eye(3), (0.0, 0.0, -1.14)), atol=1e-9)


def test_points_meet_the_pixels_of_the_published_projection(root: Path) -> None:
    w, x, y, z = Q_WXYZ
    T_camera_lidar = se3.invert(se3.from_quaternion((x, y, z, w), T))
    K = np.array([[INTRINSICS[0], 0, INTRINSICS[2]], [0, INTRINSICS[1], INTRINSICS[3]], [0, 0, 1]])
    in_lidar = np.array([[-20.0, 1.0, 0.5], [-15.0, -2.0, 0.3]])
    rotation, _ = cv2.Rodrigues(T_camera_lidar[:3, :3])
    expected, _ = cv2.projectPoints(in_lidar, rotation, T_camera_lidar[:3, 3], K,
                                    np.array([-0.134313, -0.025905, 0.002181, 0.00084, 0.0]))
    rig = Rellis3dDataset(root, "train")[0].rig
    in_base = se3.apply(rig.lidars[0].T_base_lidar, in_lidar)
    camera = rig.cameras[0]
    pixels, _ = camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), in_base))
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-6)


def test_the_labelled_scan_becomes_voxels(root: Path) -> None:
    data = Rellis3dDataset(root, "train")
    sample, names = data[0], data.taxonomy.classes
    assert sample.points_m is not None
    assert sample.points_m.shape == (5, 3)  # the beam without a return is left out
    np.testing.assert_allclose(sample.points_m[0], [6.1, -0.1, 0.1], atol=1e-6)
    assert sample.spec == OFFROAD_GRID

    def label_at(*place_m: float) -> int:
        cells, inside = sample.spec.index(place_m)
        assert inside
        return int(sample.labels[tuple(cells)])

    assert names[label_at(6.1, -0.1, 0.1)] == "grass"
    assert names[label_at(4.1, 3.1, 0.9)] == "person"
    assert label_at(9.1, -4.1, 1.64) == 254
    assert label_at(9.1, -2.1, 4.14) == 255  # sky is no matter
    assert label_at(3.05, -0.05, 0.62) == 0  # half way to the grass
    assert ((sample.labels != 0) & (sample.labels != 255)).sum() == 3
    np.testing.assert_array_equal(sample.visible, sample.labels != 255)


def test_the_grid_stands_upright_when_the_robot_pitches(root: Path) -> None:
    sample = Rellis3dDataset(root, "train")[1]
    assert sample.index == 20
    np.testing.assert_allclose(sample.T_world_grid[:3, 2], [0.0, 0.0, 1.0], atol=1e-9)
    assert math.asin(abs(sample.T_grid_base[2, 0])) == pytest.approx(0.05, abs=1e-6)
    assert sample.waypoints_m is None  # 4 s are left


def test_stamps_and_waypoints_come_from_the_images(root: Path) -> None:
    sample = Rellis3dDataset(root, "train")[0]
    assert sample.stamp_ns == 1581624652_050_000_000
    assert sample.waypoints_m is not None
    assert sample.waypoints_m[9, 0] == pytest.approx(5.0, abs=0.1)


def test_annotated_images_have_classes(root: Path) -> None:
    data = Rellis3dDataset(root, "train")
    classes = data[0].semantics["pylon_camera_node"]
    assert [data.taxonomy.classes[label] for label in classes[[0, 35, 50], [0, 50, 10]]] == ["free", "grass", "person"]
    assert data[1].semantics == {}
    to = dict(zip(LABELS.taxonomy.classes, LABELS.to_sidewalk.tolist()))
    assert (to["mud"], to["bush"], to["fence"], to["log"], to["person"]) == (4, 6, 5, 10, 11)


def test_what_is_missing_is_named_with_its_download(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"pt_val\.lst: is missing\. Download the LiDAR split file"):
        Rellis3dDataset(root, "val")
    with pytest.raises(ConfigurationError, match="unknown split 'valid'"):
        Rellis3dDataset(root, "valid")
    copy = shutil.copytree(root, tmp_path / "copy")
    folder = copy / "00000"
    data = Rellis3dDataset(copy, "train")
    assert data.content_hash == Rellis3dDataset(root, "train").content_hash
    (folder / "os1_cloud_node_semantickitti_label_id" / "000000.label").write_bytes(bytes(8))
    with pytest.raises(DatasetError, match=r"000000\.label: must hold 6 numbers uint32"):
        data[0]
    (folder / "pylon_camera_node" / f"{image_name(20)}.jpg").unlink()
    with pytest.raises(DatasetError, match="has no image of frame 20"):
        Rellis3dDataset(copy, "train")[1]
    (folder / "transforms.yaml").write_text("other: {}\n")
    with pytest.raises(DatasetError, match=r"transforms\.yaml: holds no camera's place"):
        Rellis3dDataset(copy, "train")
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(DatasetError, match=r"poses\.txt: has 1 rows, none for frame 60"):
        Rellis3dDataset(copy, "train")
    (copy / "pt_train.lst").write_text("00000/000000\n")
    with pytest.raises(DatasetError, match=r"pt_train\.lst: must name a scan"):
        Rellis3dDataset(copy, "train")
