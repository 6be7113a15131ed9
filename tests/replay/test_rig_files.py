"""Files to sensors, poses in words, and rigs from other tools' files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig, load_rig, save_rig
from occ_perception.errors import CalibrationError, RecordingError
from occ_perception.replay.rig_files import check_pictures, convert, files_by_sensor, mounting, parse_pose


def test_files_are_named_found_in_a_folder_or_given_alone(tmp_path: Path) -> None:
    for name in ("Front.jpg", "left.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    front = tmp_path / "Front.jpg"
    assert files_by_sensor([f"front={front}"], ["front", "left"], [".jpg"]) == {"front": front}
    assert files_by_sensor([str(tmp_path)], ["front", "left", "rear"], [".jpg", ".png"]) == {
        "front": front, "left": tmp_path / "left.png"}
    assert files_by_sensor([str(front)], ["only"], [".jpg"]) == {"only": front}
    assert files_by_sensor(None, ["front"], [".jpg"]) == {}


@pytest.mark.parametrize(("given", "message"), [
    ("front={}/nothing.jpg", "does not exist"), ("rear={}/Front.jpg", "the rig has no rear"),
    ("{}/Front.jpg", "belongs to which sensor"),
])
def test_what_fits_no_sensor_is_refused(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "Front.jpg").write_bytes(b"")
    with pytest.raises(RecordingError, match=message):
        files_by_sensor([given.format(tmp_path)], ["front", "left"], [".jpg"])


def test_a_pose_in_words_is_that_of_the_body_frame() -> None:
    T = parse_pose("1,2,0.5,0,30,90", optical=True)
    np.testing.assert_allclose(T[:3, 3], [1, 2, 0.5])
    forward = [0.0, math.cos(math.radians(30)), -math.sin(math.radians(30))]  # yaw 90: left; pitch 30: down
    np.testing.assert_allclose(T[:3, 2], forward, atol=1e-12)
    np.testing.assert_allclose(parse_pose("0,0,1,0,0,0", optical=False)[:3, :3], np.eye(3))
    for bad in ("1,2,3", "a,b,c,d,e,f", "1,2,3,0,0,nan"):
        with pytest.raises(CalibrationError, match="a pose is x,y,z,roll,pitch,yaw"):
            parse_pose(bad, optical=True)


def test_pictures_are_drawn_and_wrong_sizes_refused(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    picture, points = check_pictures(rig, {"front": path}, {})["front"]
    assert picture.any()
    assert points == 0
    cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(RecordingError, match="30x20 pixels, the rig says 64x48"):
        check_pictures(rig, {"front": path}, {})
    path.write_bytes(b"no image")
    with pytest.raises(RecordingError, match="cannot be read as an image"):
        check_pictures(rig, {"front": path}, {})
    assert mounting(rig.cameras[0]) == pytest.approx(
        {"height_m": 0.3, "yaw_deg": 0.0, "pitch_deg": 0.0, "field_deg": math.degrees(2.8)}, abs=1e-6)


CAMERA_INFO = {
    "image_width": 640, "image_height": 480, "camera_name": "cam", "distortion_model": "plumb_bob",
    "camera_matrix": {"data": [400.0, 0, 319.5, 0, 400.0, 239.5, 0, 0, 1]},
    "distortion_coefficients": {"data": [0.0, 0.0, 0.0, 0.0, 0.0]},
}


def test_camera_infos_become_a_rig_that_can_be_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "info.yaml"
    path.write_text(yaml.safe_dump(CAMERA_INFO))
    rig = convert("camera_info", {"front": path}, {"front": "0.2,0,1,0,0,0"}, "mine")
    save_rig(rig, tmp_path / "rig.yaml")
    loaded = load_rig(tmp_path / "rig.yaml")
    assert loaded.cameras[0].width == 640
    np.testing.assert_allclose(loaded.cameras[0].T_base_camera[:3, 3], [0.2, 0, 1])
    with pytest.raises(CalibrationError, match=r"the pose of front .* is not given"):
        convert("camera_info", {"front": path}, {}, "mine")


def test_kalibr_kitti_and_nuscenes_files_are_read(tmp_path: Path) -> None:
    kalibr = tmp_path / "camchain.yaml"
    kalibr.write_text(yaml.safe_dump({"cam0": {
        "camera_model": "pinhole", "distortion_model": "equidistant", "distortion_coeffs": [0.0, 0.0, 0.0, 0.0],
        "intrinsics": [300.0, 300.0, 319.5, 239.5], "resolution": [640, 480],
    }}))
    assert convert("kalibr", {"all": kalibr}, {"cam0": "0,0,1,0,0,0"}, "k").cameras[0].model == "equidistant"

    kitti = tmp_path / "calib.txt"
    kitti.write_text("P0: 700 0 600 0 0 700 180 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    rig = convert("kitti", {"all": kitti}, {"velodyne": "0,0,1.73,0,0,0"}, "k", (375, 1242))
    assert (rig.cameras[0].width, rig.lidars[0].name) == (1242, "velodyne")
    with pytest.raises(CalibrationError, match="--size"):
        convert("kitti", {"all": kitti}, {"velodyne": "0,0,1.73,0,0,0"}, "k")

    nuscenes = tmp_path / "sensors.json"
    nuscenes.write_text(json.dumps([{
        "channel": "CAM_FRONT", "translation": [1.7, 0.0, 1.5], "rotation": [0.5, -0.5, 0.5, -0.5], "width": 1600,
        "height": 900, "camera_intrinsic": [[1266.0, 0, 816.0], [0, 1266.0, 491.0], [0, 0, 1]],
    }]))
    assert convert("nuscenes", {"all": nuscenes}, {}, "n").cameras[0].name == "CAM_FRONT"


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("{[")
    for kind, message in (("kalibr", "YAML"), ("nuscenes", "JSON"), ("opencv", "unknown kind")):
        with pytest.raises(CalibrationError, match=message):
            convert(kind, {"all": path}, {"cam0": "0,0,0,0,0,0"}, "x")
