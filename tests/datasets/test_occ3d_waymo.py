"""Waymo with TrackOcc's and Occ3D's voxels, from a made ride in their file formats."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.datasets.occ3d_waymo import CAMERAS, LABELS, Occ3DWaymoDataset, open_occ3d, open_trackocc
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, UNKNOWN, Sidewalk

FRAMES = range(0, 61, 5)
CAR, SIGN, PERSON = np.s_[120:130, 98:103, 3:6], np.s_[140, 90, 4:8], np.s_[125, 120:122, 3:7]
T_BASE_CAMERAS = [se3.make(se3.from_euler(0.0, 0.02, yaw)[:3, :3] @ se3.OPTICAL_IN_BODY, (1.5, 0.1 * k, 2.1))
                  for k, yaw in enumerate((0.0, 0.8, -0.8, 1.6, -1.6))]


def ride(number: int) -> np.ndarray:
    return se3.from_euler(0.0, 0.0, 0.5) @ se3.from_euler(0.0, 0.0, 0.0, (0.8 * number, 0.0, 0.0))


def write_voxels(root: Path) -> None:
    """TrackOcc's arrays under `pano`, Occ3D's under `occ3d`: a car 17, a person 4_000, a numbered sign, road."""
    free = np.full(ROAD_GRID.shape, 15, np.uint8)
    free[:, :, 1], free[CAR], free[SIGN], free[PERSON] = 13, 1, 3, 2
    ids = np.zeros(ROAD_GRID.shape, np.int32)
    ids[CAR], ids[SIGN], ids[PERSON] = 17, 5, 4_000
    camera, lidar, view = (np.zeros(ROAD_GRID.shape, np.uint8) for _ in range(3))
    camera[60:160], lidar[40:140], view[100:] = 1, 1, 1
    semantics = np.where(free == 15, 23, free).astype(np.uint8)
    for number in FRAMES:
        for folder, arrays in (
            ("pano_voxel04", {"semantics": free, "instances": ids, "mask_camera": camera, "mask_lidar": lidar}),
            ("voxel04", {"voxel_label": semantics, "final_voxel_state": camera, "origin_voxel_state": lidar}),
        ):
            path = root / folder / "training" / "012" / f"{number:03d}_04.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == "pano_voxel04" or number == 0:
                np.savez_compressed(path, infov=view, **arrays)
    (root / "pano_voxel04" / "training" / "012" / "003_04.npz").write_bytes(b"not taken")
    (root / "voxel04" / "training" / "012" / "000.npz").write_bytes(b"cells of 0.1 m")


def write_kitti(folder: Path) -> None:
    for k, (height, width) in enumerate(CAMERAS.values()):
        (folder / f"image_{k}").mkdir(parents=True)
        image = np.full((height, width, 3), (0, 0, 40 * k), np.uint8)  # BGR
        for number, suffix in ((0, "jpg"), (15, "png")):
            cv2.imwrite(str(folder / f"image_{k}" / f"0012{number:03d}.{suffix}"), image)
    lines = [f"P{k}: " + " ".join(f"{v:e}" for v in (2000.0, 0, 960, 0, 0, 2000, 640, 0, 0, 0, 1, 0)) for k in range(5)]
    lines.append("R0_rect: " + " ".join(f"{v:e}" for v in np.eye(3).ravel()))
    for k, T in enumerate(T_BASE_CAMERAS):
        lines.append(f"Tr_velo_to_cam_{k}: " + " ".join(f"{v:e}" for v in se3.invert(T)[:3].ravel()))
    for name in ("calib", "pose", "velodyne"):
        (folder / name).mkdir()
    for number in FRAMES:
        (folder / "calib" / f"0012{number:03d}.txt").write_text("\n".join(lines) + "\n")
        np.savetxt(folder / "pose" / f"0012{number:03d}.txt", ride(number))
    points = np.zeros((2, 6), np.float32)
    points[0, :3], points[1, 1] = (12.0, 0.4, 1.0), np.nan
    points.tofile(folder / "velodyne" / "0012000.bin")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("waymo")
    write_voxels(root)
    write_kitti(root / "kitti_format" / "training")
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> Occ3DWaymoDataset:
    return open_trackocc(root, "training")


def test_every_fifth_frame_is_a_sample(data: Occ3DWaymoDataset) -> None:
    assert [frame.number for frame in data.frames] == list(FRAMES)
    assert data.version == "TrackOcc, training, every 5"
    sample = data[0]
    assert (sample.scene, sample.index, sample.stamp_ns) == ("012", 0, 0)


def test_sensors_of_a_frame(data: Occ3DWaymoDataset) -> None:
    sample = data[0]
    assert list(sample.images) == list(CAMERAS)
    assert sample.images["CAM_SIDE_LEFT"].shape == (886, 1920, 3)
    assert np.abs(sample.images["CAM_SIDE_LEFT"].astype(int) - (120, 0, 0)).max() <= 3
    for camera, T_base_camera in zip(sample.rig.cameras, T_BASE_CAMERAS, strict=True):
        np.testing.assert_allclose(camera.T_base_camera, T_base_camera, atol=1e-5)
        assert camera.parameters == (2000.0, 2000.0, 960.0, 640.0)
    np.testing.assert_allclose(sample.T_world_grid, ride(0), atol=1e-12)
    assert sample.points_m is not None
    np.testing.assert_allclose(sample.points_m, [[12.0, 0.4, 1.0]])
    (distance,) = sample.range_m["CAM_FRONT"][sample.range_m["CAM_FRONT"] > 0]
    assert distance == pytest.approx(np.linalg.norm([12.0 - 1.5, 0.4, 1.0 - 2.1]), abs=1e-4)
    assert not sample.range_m["CAM_SIDE_RIGHT"].any()


def test_labels_start_at_free_and_unobserved_free_space_is_unknown(data: Occ3DWaymoDataset) -> None:
    sample, names = data[0], data.taxonomy.classes
    assert (names[0], len(names), data.taxonomy.name) == ("free", 16, sample.taxonomy)
    assert names[sample.labels[125, 100, 4]] == "vehicle"
    assert names[sample.labels[10, 10, 1]] == "road"
    assert sample.labels[45, 10, 9] == FREE
    assert sample.labels[10, 10, 9] == UNKNOWN
    assert data.to_sidewalk[names.index("walkable")] == Sidewalk.SIDEWALK


def test_things_keep_their_ids_and_signs_have_none(data: Occ3DWaymoDataset) -> None:
    sample = data[0]
    np.testing.assert_array_equal(sample.track_ids, np.array([17, 4_000], np.uint64))
    assert sample.instance_rows is not None
    assert (sample.instance_rows[CAR] == 1).all()
    assert (sample.instance_rows[PERSON] == 2).all()
    assert not sample.instance_rows[SIGN].any()
    assert np.count_nonzero(sample.instance_rows) == 10 * 5 * 3 + 2 * 4
    assert {data.taxonomy.classes[i] for i in data.taxonomy.things} == {"vehicle", "pedestrian", "cyclist"}


def test_cameras_see_in_their_field_of_view_only(root: Path, data: Occ3DWaymoDataset) -> None:
    visible = data[0].visible
    assert visible[100:160].all()
    assert np.count_nonzero(visible) == 60 * 200 * 16
    lidar = Occ3DWaymoDataset(root / "pano_voxel04", root / "kitti_format", visible_from="lidar")[0].visible
    assert lidar[40:140].all()
    assert np.count_nonzero(lidar) == 100 * 200 * 16


def test_waypoints_are_the_ride_ahead(data: Occ3DWaymoDataset) -> None:
    ahead = data[0].waypoints_m
    assert ahead is not None
    np.testing.assert_allclose(ahead, [[4.0 * k, 0.0] for k in range(1, 11)], atol=1e-5)


def test_png_images_and_a_missing_scan_folder_will_do(root: Path, tmp_path: Path) -> None:
    for name in ("calib", "pose", *(f"image_{k}" for k in range(5))):
        (tmp_path / "training").mkdir(exist_ok=True)
        (tmp_path / "training" / name).symlink_to(root / "kitti_format" / "training" / name)
    sample = Occ3DWaymoDataset(root / "pano_voxel04", tmp_path)[3]
    assert sample.stamp_ns == 1_500_000_000
    assert (sample.images["CAM_FRONT_LEFT"] == (40, 0, 0)).all()
    assert sample.points_m is None
    assert sample.range_m == {}
    assert sample.waypoints_m is None


def test_occ3d_files_name_their_arrays_otherwise_and_have_no_ids(root: Path, data: Occ3DWaymoDataset) -> None:
    plain = open_occ3d(root, "training")
    assert len(plain) == 1
    np.testing.assert_array_equal(plain[0].labels, data[0].labels)
    np.testing.assert_array_equal(plain[0].visible, data[0].visible)
    assert plain[0].instance_rows is None
    assert plain.content_hash != data.content_hash
    with pytest.raises(DatasetError, match="lacks the arrays semantics, mask_camera, mask_lidar, instances"):
        Occ3DWaymoDataset(root / "voxel04", root / "kitti_format")[0]


def test_labels_are_numbered_after_free() -> None:
    raw = np.array([0, 1, 14, 15, 23])
    np.testing.assert_array_equal(LABELS.relabel(raw, Path("x.npz")), [1, 2, 15, FREE, FREE])
    with pytest.raises(DatasetError, match="labels \\[16\\]"):
        LABELS.relabel(np.array([16]), Path("x.npz"))


def test_workers_get_the_same_samples(data: Occ3DWaymoDataset) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0].labels, data[0].labels)


def test_settings_are_checked_together(root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)split must be one of training, validation.*every must be"):
        Occ3DWaymoDataset(root / "pano_voxel04", root / "kitti_format", "test", every=0)
    with pytest.raises(DatasetError, match=r"validation: is missing\. Download pano_voxel04 of TrackOcc"):
        Occ3DWaymoDataset(root / "pano_voxel04", root / "kitti_format", "validation")


def test_what_is_missing_or_wrong_is_named(root: Path, tmp_path: Path, data: Occ3DWaymoDataset) -> None:
    with pytest.raises(DatasetError, match=r"pose/0012000\.txt: is missing\. Download the Waymo Open Dataset"):
        Occ3DWaymoDataset(root / "pano_voxel04", tmp_path)[0]
    with pytest.raises(DatasetError, match=r"velodyne/0012005\.bin: is missing"):
        data[1]
    (tmp_path / "training" / "pose").mkdir(parents=True)
    (tmp_path / "training" / "calib").mkdir()
    for number in FRAMES:
        np.savetxt(tmp_path / "training" / "pose" / f"0012{number:03d}.txt", ride(number))
    calib = tmp_path / "training" / "calib" / "0012000.txt"
    calib.write_text("P0: 1 2 3\n")
    with pytest.raises(DatasetError, match=r"0012000\.txt: must hold P0\.\.P4 and Tr_velo_to_cam_0\.\.4"):
        Occ3DWaymoDataset(root / "pano_voxel04", tmp_path)[0]
    calib.write_text((root / "kitti_format" / "training" / "calib" / "0012000.txt").read_text())
    (tmp_path / "training" / "image_0").mkdir()
    cv2.imwrite(str(tmp_path / "training" / "image_0" / "0012000.jpg"), np.zeros((640, 960, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"must be an image of \(1280, 1920\), got \(640, 960\)"):
        Occ3DWaymoDataset(root / "pano_voxel04", tmp_path)[0]
