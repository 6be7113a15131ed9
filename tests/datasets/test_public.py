"""What readers of public data sets share: classes, files, and grids from single scans."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.calibration import Rig, RigCamera
from occ_perception.datasets.public import (
    Download,
    LabelSet,
    PublicClass,
    hash_files,
    read_ids,
    read_keyed,
    read_numbers,
    read_rgb,
    read_rows,
    scan_labels,
    scan_ranges,
    waypoints_ahead,
)
from occ_perception.errors import ConfigurationError, DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk

LABELS = LabelSet("toy3", (
    PublicClass("street", (1, 2, 3), Sidewalk.ROAD, (7, 300)),
    PublicClass("walker", (4, 5, 6), Sidewalk.PERSON, (9,), thing=True),
    PublicClass("stone", (7, 8, 9), OCCUPIED, (11,)),
), {0: FREE, 5: OCCUPIED, 6: UNKNOWN})
SPEC = VoxelGridSpec((0.0, 0.0, 0.0), (8.0, 2.0, 2.0), 1.0)


def test_classes_are_numbered_after_free() -> None:
    taxonomy = LABELS.taxonomy
    assert taxonomy.classes == ("free", "street", "walker", "stone")
    assert (taxonomy.things, taxonomy.obstacles, taxonomy.ground) == ({2}, {2}, {1})
    assert LABELS.to_sidewalk[[0, 1, 2, 3, 4, 254, 255]].tolist() == [0, 1, 11, 254, 255, 254, 255]


def test_numbers_of_files_become_labels() -> None:
    raw = np.array([[0, 7, 300], [9, 5, 6]], np.uint16)
    np.testing.assert_array_equal(LABELS.relabel(raw, Path("x")), [[0, 1, 1], [2, 254, 255]])
    np.testing.assert_array_equal(LABELS.pixels(raw, Path("x")), [[0, 1, 1], [2, 0, 0]])


def test_numbers_without_a_class_are_named() -> None:
    with pytest.raises(DatasetError, match=r"a/b\.label: has the labels \[8, 4000\], which toy3 does not know"):
        LABELS.relabel(np.array([7, 4000, 8], np.uint16), Path("a/b.label"))


def test_a_number_stands_for_one_class() -> None:
    street = PublicClass("street", (1, 2, 3), Sidewalk.ROAD, (7,))
    with pytest.raises(ConfigurationError, match=r"the numbers \[7\] stand for two classes"):
        LabelSet("toy1", (street,), {7: UNKNOWN})


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    download = Download("toy.zip (1 MB)", "https://toy.example")
    assert download.require(tmp_path) == tmp_path
    with pytest.raises(DatasetError, match=r"poses\.txt: is missing\. Download toy\.zip \(1 MB\) from https://toy\.e"):
        download.require(tmp_path / "poses.txt")


def test_the_hash_knows_names_and_sizes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("one"), second.write_text("two")
    before = hash_files(tmp_path, [first, second])
    assert before == hash_files(tmp_path, [second, first])
    second.write_text("three")
    assert before != hash_files(tmp_path, [first, second])
    assert before != hash_files(tmp_path, [first])


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(np.arange(6, dtype="<f4").tobytes())
    np.testing.assert_array_equal(read_numbers(path, np.float32, (-1, 3)), np.arange(6).reshape(2, 3))
    with pytest.raises(DatasetError, match="file: must hold N x 4 numbers float32"):
        read_numbers(path, np.float32, (-1, 4))
    with pytest.raises(DatasetError, match="no_file: must hold 3 numbers uint8"):
        read_numbers(tmp_path / "no_file", np.uint8, (3,))
    path.write_text("1 2 3\n4 5 6\n")
    assert read_rows(path, 3).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(DatasetError, match="must hold 12 numbers a row, got 3"):
        read_rows(path, 12)
    for reader in (read_rgb, read_ids):
        with pytest.raises(DatasetError, match=r"file: .*no readable image"):
            reader(path)
    path.write_text("calib: 1\nP0: 1 2.5\n\nR: a b\n")
    assert read_keyed(path) == {"calib": ["1"], "P0": ["1", "2.5"], "R": ["a", "b"]}


def test_images_are_red_green_blue_and_classes_have_one_channel(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    cv2.imwrite(path, np.full((2, 3, 3), (0, 0, 255), np.uint8))
    assert read_rgb(Path(path))[1, 2].tolist() == [255, 0, 0]
    with pytest.raises(DatasetError, match="one channel"):
        read_ids(Path(path))


def test_a_scan_tells_what_it_hit_and_what_its_rays_crossed() -> None:
    points = np.array([[4.5, 0.5, 0.5], [4.6, 0.5, 0.5], [4.4, 0.4, 0.5], [6.5, 0.5, 0.5], [30.0, 1.5, 0.5],
                       [2.5, 1.5, 1.5]], np.float32)
    grid = scan_labels(points, np.array([1, 2, 2, 1, OCCUPIED, UNKNOWN], np.uint8), SPEC, (0.5, 0.5, 0.5))
    row = [FREE, FREE, FREE, FREE, 2, UNKNOWN, 1, UNKNOWN]
    assert grid[:, 0, 0].tolist() == row  # behind the hit nothing is known, though a ray went on
    assert (grid[:, :, 1] == UNKNOWN).all()  # points that are left out clear no way
    assert grid[0, 0, 0] == FREE


def test_classless_hits_give_way_to_any_class() -> None:
    points = np.full((4, 3), 1.5, np.float32)
    assert scan_labels(points, np.array([254, 254, 254, 3], np.uint8), SPEC, (0.0, 0.0, 0.0))[1, 1, 1] == 3
    assert scan_labels(points, np.array([254] * 4, np.uint8), SPEC, (0.0, 0.0, 0.0))[1, 1, 1] == OCCUPIED
    assert scan_labels(points, np.array([3, 3, 1, 1], np.uint8), SPEC, (0.0, 0.0, 0.0))[1, 1, 1] == 1
    with pytest.raises(ShapeError, match="3 labels for 4 points"):
        scan_labels(points, np.zeros(3, np.uint8), SPEC, (0.0, 0.0, 0.0))


def test_ranges_are_of_the_nearest_point_of_a_pixel() -> None:
    camera = RigCamera(name="front", frame="front", width=5, height=3, model="pinhole", parameters=(2.0, 2.0, 2.0, 1.0),
                       T_base_camera=se3.make(se3.OPTICAL_IN_BODY, (0.0, 0.0, 1.0)))
    points = np.array([[9.0, 0.0, 1.0], [6.0, 0.0, 1.0], [-3.0, 0.0, 1.0], [4.0, 2.0, 1.0]], np.float32)
    ranges = scan_ranges(points, Rig(name="toy", cameras=(camera,)), ["front"])["front"]
    expected = np.zeros((3, 5), np.float32)
    expected[1, 2], expected[1, 1] = 6.0, np.sqrt(20.0)
    np.testing.assert_allclose(ranges, expected, rtol=1e-6)


def test_returns_of_a_lidar_stand_for_what_lies_around_them_and_hide_what_is_behind() -> None:
    T_base_camera = se3.make(se3.OPTICAL_IN_BODY, (0.0, 0.0, 1.0))
    camera = RigCamera(name="front", frame="front", width=41, height=31, model="pinhole",
                       parameters=(50.0, 50.0, 20.0, 15.0), T_base_camera=T_base_camera)
    rig = Rig(name="toy", cameras=(camera,))
    # a post with two returns 3 pixels apart, and in between and far beside the wall, which another eye saw behind it
    points = np.array([[5.0, 0.0, 1.0], [5.0, 0.0, 0.7], [20.0, 0.0, 0.5], [20.0, 6.0, 1.0]], np.float32)
    ranges = scan_ranges(points, rig, ["front"], beam_rad=0.07)["front"]  # 4 pixels wide
    assert camera.camera.pixel_rad == pytest.approx(1 / 50, rel=1e-2)
    np.testing.assert_allclose(ranges[15:19, 20], [5.0] * 2 + [np.hypot(5.0, 0.3)] * 2, rtol=1e-6)
    assert (ranges[15, 3:8] > 20.0).all()
    assert (ranges > 0).sum() == pytest.approx(2 * 13 + 6, abs=6)
    assert not scan_ranges(points[:0], rig, ["front"], beam_rad=0.07)["front"].any()


def test_waypoints_are_the_places_ahead_in_the_grid_frame() -> None:
    times_s = np.arange(0.0, 7.01, 0.25)
    poses = [se3.from_euler(0.0, 0.0, np.pi / 2, (5.0, t, 0.0)) for t in times_s]
    way = waypoints_ahead(poses, times_s, 4, poses[4])
    assert way is not None
    np.testing.assert_allclose(way, [[0.5 * (k + 1), 0.0] for k in range(10)], atol=1e-6)
    assert waypoints_ahead(poses, times_s, 9, poses[9]) is None
