"""SemanticKITTI's files become samples: labels by its learning map, masks by bits, poses of cameras as of the base."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.datasets.semantic_kitti import COMPLETION_GRID, LABELS, SemanticKittiDataset
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import se3

FOCAL, CU, CV, SHIFT = 718.856, 607.1928, 185.2157, 45.38225
T_CAMERA_LIDAR = se3.make(se3.OPTICAL_IN_BODY.T, (0.0, -0.08, -0.27))
POSES = 56  # at 10 Hz: frame 0 has 5 s ahead, frame 10 has not
SHAPE = (256, 256, 32)


def numbers(*values: float) -> str:
    return " ".join(f"{value:.12e}" for value in values)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("semantic_kitti")
    folder = root / "sequences" / "08"
    for name in ("voxels", "velodyne", "image_2"):
        (folder / name).mkdir(parents=True)
    grey, colour = numbers(FOCAL, 0, CU, 0, 0, FOCAL, CV, 0, 0, 0, 1, 0), numbers(
        FOCAL, 0, CU, SHIFT, 0, FOCAL, CV, 0, 0, 0, 1, 0)
    (folder / "calib.txt").write_text(f"P0: {grey}\nP1: {grey}\nP2: {colour}\nP3: {grey}\n"
                                      f"Tr: {numbers(*T_CAMERA_LIDAR[:3].ravel())}\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * k:e}\n" for k in range(POSES)))
    ahead = [se3.make(np.eye(3), (0.0, 0.0, 0.5 * k)) for k in range(POSES)]  # along the camera's axis, 5 m/s
    (folder / "poses.txt").write_text("".join(numbers(*T[:3].ravel()) + "\n" for T in ahead))
    for number in (0, 10):
        labels = np.zeros(SHAPE, "<u2")
        labels[10, 128, 8] = 252  # a moving car
        labels[11, 128, 8] = 40
        labels[12, 128, 8] = 99
        labels[:, :, 0] = 72
        masks = {"invalid": np.zeros(SHAPE, bool), "occluded": np.zeros(SHAPE, bool)}
        masks["invalid"][200:, :, 5:7] = True
        masks["occluded"][11, 128, 3:9] = True
        labels.tofile(folder / "voxels" / f"{number:06d}.label")
        for name, mask in masks.items():
            np.packbits(mask.ravel()).tofile(folder / "voxels" / f"{number:06d}.{name}")
        points = np.array([[10.0, 0.0, -1.73, 0.3], [20.0, 2.0, 0.5, 0.1], [0.0, 0.0, 0.0, 0.0]], "<f4")
        points.tofile(folder / "velodyne" / f"{number:06d}.bin")
        cv2.imwrite(str(folder / "image_2" / f"{number:06d}.png"), np.full((370, 1226, 3), (0, 10, 200), np.uint8))
    return root


def test_labels_follow_the_learning_map_and_the_masks(root: Path) -> None:
    data = SemanticKittiDataset(root, "valid")
    assert len(data) == 2
    sample = data[0]
    names = data.taxonomy.classes
    assert sample.taxonomy == data.taxonomy.name
    assert names[sample.labels[10, 128, 8]] == "car"
    assert names[sample.labels[11, 128, 8]] == "road"
    assert sample.labels[12, 128, 8] == 255  # other-object is left out
    assert (sample.labels[200:, :, 5:7] == 255).all()
    assert (sample.labels == 0).sum() == np.prod(SHAPE) - 256 * 256 - 3 - 56 * 256 * 2
    assert not sample.visible[11, 128, 3:9].any()
    assert not sample.visible[200:, :, 5:7].any()
    assert sample.visible.sum() == np.prod(SHAPE) - 6 - 56 * 256 * 2


def test_the_grid_stands_on_the_ground_below_the_lidar(root: Path) -> None:
    sample = SemanticKittiDataset(root, "valid")[0]
    assert sample.spec == COMPLETION_GRID
    assert sample.spec.shape == SHAPE
    assert sample.points_m is not None
    np.testing.assert_allclose(sample.points_m, [[10.0, 0.0, 0.0], [20.0, 2.0, 2.23]], atol=1e-5)
    cells, inside = sample.spec.index(sample.points_m + [0.01, 0.01, 0.01])
    assert inside.all()
    assert cells.tolist() == [[50, 128, 1], [100, 138, 12]]  # (z + 2) / 0.2 from the LiDAR's height


def test_points_meet_the_pixels_of_the_published_projection(root: Path) -> None:
    sample = SemanticKittiDataset(root, "valid")[0]
    camera = sample.rig.camera("image_2")
    assert (camera.width, camera.height) == (1226, 370)
    assert sample.images["image_2"][5, 5].tolist() == [200, 10, 0]
    P = np.array([[FOCAL, 0, CU, SHIFT], [0, FOCAL, CV, 0], [0, 0, 1, 0]])
    u, v, w = P @ T_CAMERA_LIDAR @ np.array([[10.0, 0.0, -1.73, 1.0], [20.0, 2.0, 0.5, 1.0]]).T
    assert sample.points_m is not None
    pixels, valid = camera.camera.project(se3.apply(se3.invert(camera.T_base_camera), sample.points_m))
    assert valid.all()
    np.testing.assert_allclose(pixels, np.stack([u / w, v / w], 1), atol=1e-3)
    measured = np.argwhere(sample.range_m["image_2"] > 0)[::-1]  # the point on the ground has the lower row
    np.testing.assert_array_equal(measured, np.rint(np.stack([v / w, u / w], 1)))


def test_poses_are_of_the_base_and_waypoints_lie_ahead(root: Path) -> None:
    data = SemanticKittiDataset(root, "valid")
    first, second = data[0], data[1]
    np.testing.assert_allclose(first.T_world_grid, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(second.T_world_grid, se3.make(np.eye(3), (5.0, 0.0, 0.0)), atol=1e-9)
    assert (first.stamp_ns, second.stamp_ns) == (0, 1_000_000_000)
    assert first.waypoints_m is not None
    np.testing.assert_allclose(first.waypoints_m, [[2.5 * (k + 1), 0.0] for k in range(10)], atol=1e-5)
    assert second.waypoints_m is None


def test_classes_lead_to_the_sidewalk_classes() -> None:
    to = dict(zip(LABELS.taxonomy.classes, LABELS.to_sidewalk.tolist()))
    assert len(LABELS.taxonomy) == 20
    assert (to["free"], to["parking"], to["terrain"], to["trunk"]) == (0, 1, 4, 6)
    assert (to["fence"], to["bicyclist"], to["person"], to["pole"]) == (5, 8, 11, 10)


def test_the_hash_changes_with_the_files(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    data = SemanticKittiDataset(root, "valid")
    assert data.version == "SemanticKITTI scene completion, valid"
    assert SemanticKittiDataset(copy, "valid").content_hash == data.content_hash
    with (copy / "sequences" / "08" / "velodyne" / "000010.bin").open("ab") as scan:
        scan.write(bytes(16))
    assert SemanticKittiDataset(copy, "valid").content_hash != data.content_hash


def test_what_is_missing_is_named_with_its_download(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"00/voxels: is missing\. Download data_odometry_voxels\.zip"):
        SemanticKittiDataset(root, "train")
    with pytest.raises(ConfigurationError, match="unknown split 'test'"):
        SemanticKittiDataset(root, "test")
    with pytest.raises(ConfigurationError, match="no sequences"):
        SemanticKittiDataset(root, "valid", ("00",))
    copy = shutil.copytree(root, tmp_path / "copy")
    data, folder = SemanticKittiDataset(copy, "valid"), copy / "sequences" / "08"
    np.zeros(SHAPE[:2], "<u2").tofile(folder / "voxels" / "000000.label")
    with pytest.raises(DatasetError, match=r"000000\.label: must hold 256 x 256 x 32 numbers uint16"):
        data[0]
    (folder / "voxels" / "000010.occluded").unlink()
    with pytest.raises(DatasetError, match=r"000010\.occluded: is missing"):
        data[1]
    (folder / "calib.txt").write_text("P2: 1 2 3\n")
    with pytest.raises(DatasetError, match=r"calib\.txt: is no calibration"):
        SemanticKittiDataset(copy, "valid")
