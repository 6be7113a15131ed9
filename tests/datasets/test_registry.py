"""Data sets are opened by name and splits by what lies in a folder; choices are listed where one does not exist."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig, RigCamera, save_rig
from occ_perception.datasets import DATASETS, Sample, SimulatedDataset, open_dataset, open_split
from occ_perception.datasets.scene_folder import write_sample
from occ_perception.datasets.sidewalk3d import SemanticCloud, Sidewalk3dDataset, write_sequence, write_splits
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import VoxelGridSpec, se3

SPEC = VoxelGridSpec((0.0, -1.0, -0.5), (2.0, 1.0, 0.5), 0.5)
RIG = Rig(name="toy", cameras=(RigCamera(
    name="front", frame="front", width=48, height=32, model="pinhole", parameters=(30.0, 30.0, 23.5, 15.5),
    T_base_camera=se3.make(se3.OPTICAL_IN_BODY, (0.1, 0.0, 0.8))),))
SAMPLE = Sample(
    scene="walk", index=0, stamp_ns=5, rig=RIG, images={"front": np.zeros((32, 48, 3), np.uint8)},
    semantics={"front": np.ones((32, 48), np.uint8)}, T_grid_base=np.eye(4), spec=SPEC, T_world_grid=np.eye(4),
    labels=np.ones(SPEC.shape, np.uint8), visible=np.ones(SPEC.shape, np.bool_),
    range_m={"front": np.ones((32, 48), np.float32)}, points_m=np.ones((3, 3), np.float32))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated split, one of images alone, and a labelled one, whose folder bears its name."""
    root = tmp_path_factory.mktemp("splits")
    for split, images_only in (("train", False), ("images_night", True)):
        scene = root / split / "walk"
        scene.mkdir(parents=True)
        save_rig(RIG, scene / "rig.yaml")
        write_sample(scene, SAMPLE)
        (root / split / "split.yaml").write_text(yaml.safe_dump({
            "version": "1", "content_hash": "abc", "taxonomy": "sidewalk14", "images_only": images_only,
            "scenes": [{"name": "walk", "frames": 1}]}))
    labelled = replace(SAMPLE, labels=np.full(SPEC.shape, 2, np.uint8))
    cloud = SemanticCloud(np.ones((3, 3), np.float32), np.ones(3, np.uint8))
    write_sequence(root / "train_pseudo" / "walk", [labelled], [cloud], area="touristy", night=False)
    write_splits(root, "labels 3", {"train_pseudo": ["train_pseudo/walk"]})
    return root


def test_a_split_is_opened_by_what_lies_there(root: Path) -> None:
    simulated, labelled = open_split(root, "train"), open_split(root, "train_pseudo")
    assert (type(simulated), type(labelled)) == (SimulatedDataset, Sidewalk3dDataset)
    assert (simulated.version, labelled.version) == ("1", "labels 3")
    assert ((simulated[0].labels == 1).all(), (labelled[0].labels == 2).all()) == (True, True)


def test_a_split_that_is_not_there_lists_those_of_both_kinds(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'test'; there are: images_night, train, train_pseudo") as caught:
        open_split(root, "test")
    assert "occ-perception label" in str(caught.value)
    with pytest.raises(DatasetError, match="there are: none"):
        open_split(tmp_path, "train")


def test_images_alone_are_no_split_to_learn_voxels_from(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"images_night: holds images with 2D labels alone.*--images images_night"):
        open_split(root, "images_night")


def test_an_unknown_data_set_lists_the_known_ones(root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown data set 'kitti'.*simulated, sidewalk3d, semantic_kitti"):
        open_dataset("kitti", root, "train")


def test_data_sets_are_opened_by_name(root: Path) -> None:
    assert isinstance(open_dataset("sidewalk3d", root, "train_pseudo"), Sidewalk3dDataset)
    assert len(open_dataset("simulated", str(root), "train")) == 1


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_names_what_an_empty_folder_lacks(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        open_dataset(name, tmp_path, "training" if name.endswith("waymo") else "train")


def test_readers_are_imported_when_they_are_asked_for() -> None:
    code = "import occ_perception.datasets, sys; print([n for n in sys.modules if n.endswith(('nuscenes', '_3d'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
