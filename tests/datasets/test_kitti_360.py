"""KITTI-360's files become samples with its fisheyes; SSCBench's voxels keep their labels."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.datasets.kitti_360 import Kitti360Dataset, SscBenchKitti360Dataset, read_rig
from occ_perception.errors import DatasetError
from occ_perception.geometry import se3

DRIVE = "2013_05_28_drive_0006_sync"
# the published numbers but for the fisheye's place, which looks straight to the left here
CAM_TO_POSE = {
    "image_00": "0.0371783278 -0.0986182135 0.9944306009 1.5752681039 0.9992675562 -0.0053553387 -0.0378902567 "
                "0.0043914093 0.0090621821 0.9951109327 0.0983468786 -0.6500000000",
    "image_02": "1.0 0.0 0.0 0.8 0.0 0.0 -1.0 -0.7 0.0 1.0 0.0 -0.76",
}
CAM_TO_VELO = ("0.04307104361 -0.08829286498 0.995162929 0.8043914418 -0.999004371 0.007784614041 0.04392796942 "
               "0.2993489574 -0.01162548558 -0.9960641394 -0.08786966659 -0.1770225824")
PERSPECTIVE = """calib_time: 2013-05-28
S_rect_00: 1408.0 376.0
R_rect_00: 0.999974 -0.007141 -0.000089 0.007141 0.999969 -0.003247 0.000112 0.003247 0.999995
P_rect_00: 552.554261 0.0 682.049453 0.0 0.0 552.554261 238.769549 0.0 0.0 0.0 1.0 0.0
"""
FISHEYE = """%YAML:1.0
---
model_type: MEI
camera_name: image_02
image_width: 1400
image_height: 1400
mirror_parameters:
   xi: 2.2134047507854890e+00
distortion_parameters:
   k1: 1.6798235660113681e-02
   k2: 1.6548773243373522e+00
   p1: 4.2223943394772046e-04
   p2: 4.2462134260997584e-04
projection_parameters:
   gamma1: 1.3363220825849971e+03
   gamma2: 1.3357883350012958e+03
   u0: 7.1694323510126321e+02
   v0: 7.0576498308221585e+02
"""
FRAMES = (250, 251)


def write_calibration(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "calib_cam_to_pose.txt").write_text("".join(f"{name}: {T}\n" for name, T in CAM_TO_POSE.items()))
    (folder / "calib_cam_to_velo.txt").write_text(CAM_TO_VELO + "\n")
    (folder / "perspective.txt").write_text(PERSPECTIVE)
    (folder / "image_02.yaml").write_text(FISHEYE)


def matrix(numbers: str) -> np.ndarray:
    return np.vstack([np.array(numbers.split(), float).reshape(3, 4), [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kitti_360")
    write_calibration(root / "calibration")
    raw, scans = root / "data_2d_raw" / DRIVE, root / "data_3d_raw" / DRIVE / "velodyne_points" / "data"
    annotated = root / "data_2d_semantics" / "train" / DRIVE / "image_00" / "semantic"
    poses = root / "data_poses" / DRIVE
    for folder in (raw / "image_00" / "data_rect", raw / "image_02" / "data_rgb", scans, annotated, poses):
        folder.mkdir(parents=True)
    (raw / "image_00" / "timestamps.txt").write_text(
        "".join(f"2013-05-28 08:46:{k // 10:02d}.{k % 10}04901376\n" for k in range(252)))
    # the car stands level at (7, 8) and looks along the world's y; then it drives 1 m on
    T_base_camera = read_rig(root / "calibration", ("image_00",)).cameras[0].T_base_camera
    rows = []
    for number, y in ((249, 7.0), (250, 8.0), (251, 9.0)):
        T_world_camera = se3.from_euler(0.0, 0.0, math.pi / 2, (7.0, y, 100.0)) @ T_base_camera
        rows.append(" ".join([str(number), *(f"{value:.12f}" for value in T_world_camera.ravel())]))
    (poses / "cam0_to_world.txt").write_text("\n".join(rows) + "\n")
    for number in FRAMES:  # 249 has a pose and no scan
        points = np.array([[10.1, 0.1, -1.6, 0.3], [-5.1, 3.1, -1.6, 0.1], [0.0, 0.0, 0.0, 0.0]], "<f4")
        points.tofile(scans / f"{number:010d}.bin")
        name = f"{number:010d}.png"
        cv2.imwrite(str(raw / "image_00" / "data_rect" / name), np.full((376, 1408, 3), 60, np.uint8))
        cv2.imwrite(str(raw / "image_02" / "data_rgb" / name), np.full((1400, 1400, 3), 70, np.uint8))
    semantic = np.full((376, 1408), 23, np.uint8)
    semantic[200:] = 7
    semantic[250:, 700:] = 26
    cv2.imwrite(str(annotated / "0000000250.png"), semantic)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> Kitti360Dataset:
    return Kitti360Dataset(root, "valid", cameras=("image_00", "image_02"))


def test_the_rig_stands_upright_behind_its_cameras(root: Path) -> None:
    rig = read_rig(root / "calibration", ("image_00", "image_02"))
    left, fisheye = rig.cameras
    assert left.T_base_camera[:3, 2] @ [1.0, 0.0, 0.0] > 0.99  # looks ahead
    assert fisheye.T_base_camera[:3, 2] @ [0.0, 1.0, 0.0] > 0.99  # to the left
    for camera in rig.cameras:
        assert camera.T_base_camera[:3, 1] @ [0.0, 0.0, -1.0] > 0.98  # rows run downwards
    assert left.T_base_camera[2, 3] == pytest.approx(1.55, abs=0.02)  # the published height of the cameras
    assert fisheye.T_base_camera[1, 3] > 0.5


def test_points_meet_the_pixels_of_the_published_projections(root: Path) -> None:
    rig = read_rig(root / "calibration", ("image_00", "image_02"))
    in_lidar = np.array([12.0, 3.0, -0.4, 1.0])
    in_pose = matrix(CAM_TO_POSE["image_00"]) @ np.linalg.inv(matrix(CAM_TO_VELO)) @ in_lidar
    in_base = rig.lidars[0].T_base_lidar @ in_lidar

    R = np.array(PERSPECTIVE.splitlines()[2].split()[1:], float).reshape(3, 3)
    x, y, z = R @ (np.linalg.inv(matrix(CAM_TO_POSE["image_00"])) @ in_pose)[:3]
    left, fisheye = rig.cameras
    pixels, valid = left.camera.project(se3.apply(se3.invert(left.T_base_camera), in_base[None, :3]))
    assert valid.all()
    np.testing.assert_allclose(pixels[0], [552.554261 * x / z + 682.049453, 552.554261 * y / z + 238.769549], atol=0.01)

    ray = (np.linalg.inv(matrix(CAM_TO_POSE["image_02"])) @ in_pose)[:3]
    x, y, z = ray / np.linalg.norm(ray)
    x, y = x / (z + 2.2134047507854890), y / (z + 2.2134047507854890)
    r2, p1, p2 = x * x + y * y, 4.2223943394772046e-04, 4.2462134260997584e-04
    radial = 1 + 1.6798235660113681e-02 * r2 + 1.6548773243373522 * r2 * r2
    u = 1336.3220825849971 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 716.94323510126321
    v = 1335.7883350012958 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 705.76498308221585
    pixels, valid = fisheye.camera.project(se3.apply(se3.invert(fisheye.T_base_camera), in_base[None, :3]))
    assert valid.all()
    np.testing.assert_allclose(pixels[0], [u, v], atol=0.01)
    assert fisheye.camera.max_theta_rad > math.radians(85)


def test_frames_with_a_pose_and_a_scan_are_read(data: Kitti360Dataset) -> None:
    assert [number for _, number, _ in data.frames] == list(FRAMES)
    sample = data[0]
    assert (sample.scene, sample.index) == (DRIVE, 250)
    assert sample.stamp_ns == int(np.datetime64("2013-05-28T08:46:25.004901376", "ns").astype(np.int64))
    np.testing.assert_allclose(sample.T_world_grid, se3.from_euler(0.0, 0.0, math.pi / 2, (7.0, 8.0, 100.0)), atol=1e-6)
    np.testing.assert_allclose(sample.T_grid_base, np.eye(4), atol=1e-6)
    assert sample.points_m is not None
    np.testing.assert_allclose(sample.points_m, [[10.1, 0.1, 0.13], [-5.1, 3.1, 0.13]], atol=1e-5)
    assert {name: image.shape for name, image in sample.images.items()} == {
        "image_00": (376, 1408, 3), "image_02": (1400, 1400, 3)}


def test_a_scan_without_classes_gives_occupied_and_free_cells(data: Kitti360Dataset) -> None:
    sample = data[0]
    cells, _ = sample.spec.index(sample.points_m)
    assert (sample.labels[tuple(cells.T)] == 254).all()
    assert (sample.labels == 254).sum() == 2
    assert sample.labels[tuple(sample.spec.index([5.0, 0.05, 0.93])[0])] == 0  # half way to the first point
    assert sample.labels[tuple(sample.spec.index([5.0, -20.0, 0.9])[0])] == 255
    np.testing.assert_array_equal(sample.visible, sample.labels != 255)


def test_annotated_images_have_classes(data: Kitti360Dataset) -> None:
    classes = data[0].semantics["image_00"]
    names = data.taxonomy.classes
    assert classes[0, 0] == 0  # the sky is background
    assert names[classes[210, 10]] == "road"
    assert names[classes[300, 900]] == "car"
    assert data.to_sidewalk[classes[300, 900]] == 7
    assert data[1].semantics == {}


def test_what_is_missing_is_named_with_its_download(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"0009_sync/velodyne_points/data: is missing\. Download data_3d_raw"):
        Kitti360Dataset(root, "test", cameras=("image_00",))
    with pytest.raises(DatasetError, match="must hold 12 numbers after image_03:, got none"):
        Kitti360Dataset(root, "valid", cameras=("image_03",))
    write_calibration(tmp_path / "calibration")
    yaml = tmp_path / "calibration" / "image_02.yaml"
    yaml.write_text(FISHEYE.replace("   xi:", "   mirror:"))
    with pytest.raises(DatasetError, match=r"image_02\.yaml: lacks xi"):
        read_rig(tmp_path / "calibration", ("image_02",))
    yaml.write_text(FISHEYE.replace("1.3363220825849971e+03", "-3.0"))
    with pytest.raises(DatasetError, match="fx and fy must be positive"):
        read_rig(tmp_path / "calibration", ("image_02",))
    yaml.unlink()
    with pytest.raises(DatasetError, match=r"image_02\.yaml: is missing\. Download calibration\.zip"):
        read_rig(tmp_path / "calibration", ("image_02",))


def test_sscbench_keeps_its_labels(tmp_path: Path) -> None:
    write_calibration(tmp_path / "calibration")
    labels = tmp_path / "preprocess" / "labels" / DRIVE
    images = tmp_path / "data_2d_raw" / DRIVE / "image_00" / "data_rect"
    labels.mkdir(parents=True)
    images.mkdir(parents=True)
    voxels = np.zeros((256, 256, 32), np.float32)  # as MonoScene's preprocessing stores them
    voxels[:, :, 0] = 7
    voxels[30, 120:136, 1:20] = 11
    voxels[40, 128, 5] = 18
    voxels[240:] = 255
    np.save(labels / "000005_1_1.npy", voxels)
    np.save(labels / "000005_1_8.npy", voxels[:32, :32, :4])
    cv2.imwrite(str(images / "000005.png"), np.full((376, 1408, 3), 80, np.uint8))
    data = SscBenchKitti360Dataset(tmp_path, "valid")
    assert len(data) == 1
    sample = data[0]
    assert sample.scene == f"{DRIVE}_000005"
    names = data.taxonomy.classes
    assert len(data.taxonomy) == 19
    assert [names[label] for label in (7, 11, 17, 18)] == ["road", "building", "other-structure", "other-object"]
    np.testing.assert_array_equal(sample.labels, voxels)
    assert data.to_sidewalk[[7, 11, 18]].tolist() == [1, 5, 10]
    assert sample.visible[10, 128, 0]
    assert sample.visible[30, 128, 5]
    assert not sample.visible[31:50, 128, 5].any()  # behind the wall
    assert not sample.visible[240:].any()
    voxels[0, 0, 5] = 19
    np.save(labels / "000005_1_1.npy", voxels)
    with pytest.raises(DatasetError, match=r"000005_1_1\.npy: has the labels \[19\]"):
        data[0]
    np.save(labels / "000005_1_1.npy", voxels[:32])
    with pytest.raises(DatasetError, match="must be"):
        data[0]
    (images / "000005.png").unlink()
    with pytest.raises(DatasetError, match=r"000005\.png: is missing\. Download SSCBench-KITTI-360"):
        _ = data.content_hash
