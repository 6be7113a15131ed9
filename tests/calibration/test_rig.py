"""Rigs: the shipped ones load, a faulty one is refused with all its faults, and every round trip is exact."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from occ_perception.calibration import load_rig, save_rig
from occ_perception.errors import CalibrationError
from occ_perception.geometry import se3

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "calibration").glob("*.yaml"))


@pytest.fixture
def description() -> dict:
    return yaml.safe_load((Path(__file__).resolve().parents[2] / "calibration" / "sidewalk_wheeled.yaml").read_text())


def written(folder: Path, description: object) -> Path:
    path = folder / "rig.yaml"
    path.write_text(yaml.safe_dump(description))
    return path


def test_rigs_are_shipped_for_four_embodiments():
    assert {path.stem for path in SHIPPED} >= {"sidewalk_wheeled", "quadruped", "wheelchair", "humanoid"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_rig_looks_ahead_and_survives_writing(path, tmp_path):
    rig = load_rig(path)
    forward = rig.cameras[0].T_base_camera[:3, 2]
    assert forward[0] > 0.9
    save_rig(rig, tmp_path / "again.yaml")
    again = load_rig(tmp_path / "again.yaml")
    assert np.allclose(again.cameras[0].T_base_camera, rig.cameras[0].T_base_camera, atol=1e-9)
    assert again.cameras[0].camera.project([[0.3, 0.1, 1]])[0] == pytest.approx(
        rig.cameras[0].camera.project([[0.3, 0.1, 1]])[0])
    assert [p.name for p in tmp_path.iterdir()] == ["again.yaml"]


def test_every_fault_is_listed_at_once(description, tmp_path):
    camera = description["cameras"][0]
    camera["model"], camera["width"], camera["colour"] = "fisheye624", -1, "red"
    description["lidars"][0]["T_base_lidar"] = np.zeros((4, 4)).tolist()
    with pytest.raises(CalibrationError) as error:
        load_rig(written(tmp_path, description))
    text = str(error.value)
    assert "rig.yaml" in text
    for words in ("width", "colour", "singular"):
        assert words in text
    assert len(error.value.faults) == 3


def test_an_unknown_model_is_refused_by_name(description, tmp_path):
    description["cameras"][0]["model"] = "fisheye624"
    with pytest.raises(CalibrationError, match="unknown camera model 'fisheye624'"):
        load_rig(written(tmp_path, description))


def test_sensor_names_must_differ(description, tmp_path):
    description["lidars"][0]["name"] = "front"
    with pytest.raises(CalibrationError, match="front occurs twice"):
        load_rig(written(tmp_path, description))


def test_two_cameras_of_one_name_are_refused_without_lidars_too(description, tmp_path):
    description["cameras"].append(description["cameras"][0])
    del description["lidars"]
    with pytest.raises(CalibrationError, match="front occurs twice"):
        load_rig(written(tmp_path, description))


@pytest.mark.parametrize(("field", "value", "words"), [
    ("name", "a__b", "pattern"), ("name", "odometry", "can be named odometry"),
    ("time_offset_s", float("nan"), "finite"),
    ("T_base_camera", {"translation": {"x": 1}}, "numbers only"), ("T_base_camera", "here", "numbers only"),
    ("T_base_camera", {"translation": [0, 0, 1], "quaternion_xyzw": {"w": 1}}, "numbers only"),
])
def test_a_camera_that_cannot_be_is_refused(field, value, words, description, tmp_path):
    description["cameras"][0][field] = value
    with pytest.raises(CalibrationError, match=words):
        load_rig(written(tmp_path, description))


@pytest.mark.parametrize("text", ["", "- 1", "name: [", "name: x", "name: x\ncameras:", "name: x\ncameras: 5"])
def test_a_file_that_is_no_rig_is_refused(text, tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError):
        load_rig(path)


def test_a_missing_file_names_the_rigs_beside_it():
    with pytest.raises(CalibrationError, match=r"sidewalk_wheeled\.yaml"):
        load_rig(SHIPPED[0].parent / "absent.yaml")


def test_a_matrix_serves_as_a_transform_too(description, tmp_path):
    T = se3.from_euler(0.1, 0.2, 0.3, (1, 2, 3))
    description["cameras"][0]["T_base_camera"] = T.tolist()
    assert np.allclose(load_rig(written(tmp_path, description)).cameras[0].T_base_camera, T)


def test_a_mask_is_read_beside_the_rig_and_must_have_the_cameras_size(description, tmp_path):
    description["cameras"][0]["mask"] = "mask.png"
    path = written(tmp_path, description)
    mask = np.zeros((544, 960), np.uint8)
    mask[:300] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    usable = load_rig(path).mounted()[0].usable
    assert usable is not None
    assert usable.mean() == pytest.approx(300 / 544)
    cv2.imwrite(str(tmp_path / "mask.png"), mask[:10])
    with pytest.raises(CalibrationError, match="960 x 544"):
        load_rig(path).mounted()


def test_asking_for_an_absent_sensor_names_those_there_are(description, tmp_path):
    rig = load_rig(written(tmp_path, description))
    assert rig.camera("front").name == "front"
    with pytest.raises(CalibrationError, match="There are: front"):
        rig.camera("rear")
