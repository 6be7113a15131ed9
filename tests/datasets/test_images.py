"""Images with 2D labels alone: read with their tilt; foreign labels are refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from occ_perception.calibration import load_rig, save_rig
from occ_perception.datasets import ImageDataset, ImageSample
from occ_perception.datasets.scene_folder import write_images
from occ_perception.errors import DatasetError
from occ_perception.geometry import se3

RIG = load_rig(Path(__file__).resolve().parents[2] / "calibration" / "quadruped.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    scene = tmp_path / "walks" / "park"
    scene.mkdir(parents=True)
    save_rig(RIG, scene / "rig.yaml")
    size = RIG.cameras[0].height, RIG.cameras[0].width
    for index in range(2):
        write_images(scene, ImageSample(
            scene="park", index=index, stamp_ns=index, rig=RIG, images={"front": np.full((*size, 3), 90, np.uint8)},
            semantics={"front": np.full(size, index + 1, np.uint8)}, T_grid_base=np.eye(4)))
    write_split(tmp_path)
    return tmp_path


def write_split(root: Path, taxonomy: str = "sidewalk14") -> None:
    (root / "walks" / "split.yaml").write_text(yaml.safe_dump({
        "version": "robot 7", "content_hash": "abc", "taxonomy": taxonomy, "scenes": [{"name": "park", "frames": 2}]}))


def test_images_without_tilts_were_taken_upright(root: Path) -> None:
    data = ImageDataset(root, "walks")
    assert len(data) == 2
    assert data.version == "robot 7"
    sample = data[1]
    assert (sample.semantics["front"] == 2).all()
    assert np.abs(sample.images["front"].astype(int) - 90).max() <= 2
    np.testing.assert_array_equal(sample.T_grid_base, np.eye(4))


def test_tilts_are_roll_and_pitch(root: Path) -> None:
    (root / "walks" / "park" / "scene.yaml").write_text(yaml.safe_dump({"tilts": [[0.0, 0.0], [0.05, -0.1]]}))
    np.testing.assert_allclose(ImageDataset(root, "walks")[1].T_grid_base, se3.from_euler(0.05, -0.1, 0.0))


@pytest.mark.parametrize(("tilts", "message"), [([[0.0, 0.0]], "lists 1 tilts for 2 frames"),
                                                ([[0.0], [1.0]], "pairs of roll and pitch")])
def test_tilts_that_do_not_fit_are_named(root: Path, tilts: list[list[float]], message: str) -> None:
    (root / "walks" / "park" / "scene.yaml").write_text(yaml.safe_dump({"tilts": tilts}))
    with pytest.raises(DatasetError, match=re.escape(message)):
        ImageDataset(root, "walks")[0]


def test_a_class_the_taxonomy_does_not_have_is_named(root: Path) -> None:
    path = root / "walks" / "park" / "001_front_classes.png"
    classes = np.ones((RIG.cameras[0].height, RIG.cameras[0].width), np.uint8)
    classes[3, 4], classes[5, 6] = 15, 200
    cv2.imwrite(str(path), classes)
    data = ImageDataset(root, "walks")
    assert (data[0].semantics["front"] == 1).all()
    with pytest.raises(DatasetError, match=re.escape("has the classes [15, 200]; sidewalk14 has 0..14")) as caught:
        data[1]
    assert "001_front_classes.png" in str(caught.value)


def test_labels_of_another_taxonomy_are_refused(root: Path) -> None:
    write_split(root, "cityscapes19")
    with pytest.raises(DatasetError, match="taxonomy 'cityscapes19', not 'sidewalk14'"):
        ImageDataset(root, "walks")
