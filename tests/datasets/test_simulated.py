"""A sample comes back from disk as it was; a broken file is named."""

from __future__ import annotations

import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig, load_rig, save_rig
from occ_perception.datasets import Sample, SimulatedDataset
from occ_perception.datasets.scene_folder import read_sample, write_sample
from occ_perception.errors import DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.types import FlowField

RIGS = Path(__file__).resolve().parents[2] / "calibration"
SPEC = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), 0.1)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return load_rig(RIGS / "sidewalk_wheeled.yaml")


def sample_of(rig: Rig, index: int = 0) -> Sample:
    rng = np.random.default_rng(index)
    image = cv2.GaussianBlur(rng.integers(0, 255, (544, 960, 3), np.uint8), (0, 0), 9)
    cells = np.argwhere(rng.random(SPEC.shape) < 0.01)
    rows = np.zeros(SPEC.shape, np.uint16)
    rows[tuple(cells.T)] = rng.integers(1, 4, len(cells))
    velocity = rng.normal(size=(len(cells), 3)).astype(np.float32)
    stamp_ns = 123_456_789_012 + index
    return Sample(
        scene="scene_a", index=index, stamp_ns=stamp_ns, rig=rig, images={"front": image},
        semantics={"front": rng.integers(0, 15, (544, 960)).astype(np.uint8)},
        T_grid_base=se3.from_euler(0.01, 0.02, 0.0), spec=SPEC,
        T_world_grid=se3.from_euler(0.0, 0.0, 1.0, (5.0, 6.0, 0.1)),
        labels=rng.integers(0, 256, SPEC.shape).astype(np.uint8), visible=rng.random(SPEC.shape) < 0.4,
        range_m={"front": rng.uniform(0, 70, (544, 960)).astype(np.float32)},
        points_m=rng.uniform(-30, 30, (500, 3)).astype(np.float32),
        waypoints_m=rng.normal(size=(10, 2)).astype(np.float32), instance_rows=rows,
        track_ids=np.array([3, 2**40, 9], np.uint64),
        flow=FlowField(SPEC, stamp_ns, cells, velocity, np.ones(len(cells), np.float32)))


@pytest.fixture
def root(tmp_path: Path, rig: Rig) -> Path:
    folder = tmp_path / "mini" / "scene_a"
    folder.mkdir(parents=True)
    save_rig(rig, folder / "rig.yaml")
    for index in range(2):
        write_sample(folder, sample_of(rig, index))
    (tmp_path / "mini" / "split.yaml").write_text(yaml.safe_dump(
        {"version": "1", "content_hash": "abc", "taxonomy": "sidewalk14",
         "scenes": [{"name": "scene_a", "frames": 2}]}))
    return tmp_path


def test_a_sample_comes_back_as_it_was(root: Path, rig: Rig) -> None:
    for index, back in enumerate(SimulatedDataset(root, "mini")):
        given = sample_of(rig, index)
        for name in ("scene", "index", "stamp_ns", "spec"):
            assert getattr(back, name) == getattr(given, name)
        for name in ("labels", "visible", "instance_rows", "track_ids", "waypoints_m", "T_grid_base", "T_world_grid"):
            got, wanted = getattr(back, name), getattr(given, name)
            assert got.dtype == wanted.dtype
            assert (got == wanted).all()
        assert back.flow is not None
        assert given.flow is not None
        assert (back.flow.cells == given.flow.cells).all()
        assert (back.flow.velocity_mps == given.flow.velocity_mps).all()
        assert (back.semantics["front"] == given.semantics["front"]).all()
        assert back.points_m is not None
        assert given.points_m is not None
        assert np.abs(back.points_m - given.points_m).max() <= 0.00051
        far = given.range_m["front"] > 65.5
        assert np.abs(back.range_m["front"] - given.range_m["front"])[~far].max() <= 0.00051
        assert (back.range_m["front"][far] >= 65.49).all()
        assert np.abs(back.images["front"].astype(int) - given.images["front"]).mean() < 2
        assert back.rig.name == rig.name
        assert np.allclose(back.rig.camera("front").T_base_camera, rig.camera("front").T_base_camera)


def test_what_is_not_known_comes_back_as_none(tmp_path: Path, rig: Rig) -> None:
    bare = replace(sample_of(rig), waypoints_m=None, instance_rows=None, track_ids=np.zeros(0, np.uint64), flow=None)
    write_sample(tmp_path, bare)
    back = read_sample(tmp_path, 0, rig)
    assert back.waypoints_m is None
    assert back.flow is not None
    assert len(back.flow.cells) == 0
    assert back.instance_rows is not None
    assert not back.instance_rows.any()


def test_a_data_set_travels_to_worker_processes(root: Path) -> None:
    copy = pickle.loads(pickle.dumps(SimulatedDataset(root, "mini")))  # what data loaders do
    assert len(copy) == 2
    assert copy[1].index == 1


@pytest.mark.parametrize("name", ["000.npz", "000_front.jpg", "000_front_classes.png", "000_front_range.png"])
@pytest.mark.parametrize("damage", ["gone", "cut", "foreign", "empty"])
def test_a_broken_file_is_named(root: Path, name: str, damage: str) -> None:
    path = root / "mini" / "scene_a" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 3], "foreign": b"hello" * 100, "empty": b""}[damage])
    data = SimulatedDataset(root, "mini")
    with pytest.raises(DatasetError, match=re.escape(name)):
        data[0]
    assert data[1].index == 1


def test_an_image_of_another_size_is_refused(root: Path) -> None:
    path = root / "mini" / "scene_a" / "000_front.jpg"
    cv2.imwrite(str(path), np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"\(544, 960, 3\), got uint8 \(100, 200, 3\)"):
        SimulatedDataset(root, "mini")[0]


def test_arrays_that_do_not_fit_are_refused(root: Path) -> None:
    path = root / "mini" / "scene_a" / "000.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez_compressed(path, **{**arrays, "instance_cells": np.array([10**7], np.int32)})
    with pytest.raises(DatasetError, match=r"000\.npz"):
        SimulatedDataset(root, "mini")[0]
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if k not in ("labels", "visible")})
    with pytest.raises(DatasetError, match="lacks the arrays labels, visible"):
        SimulatedDataset(root, "mini")[0]


def test_a_missing_or_unfinished_split_says_what_there_is(root: Path) -> None:
    (root / "half").mkdir()
    with pytest.raises(DatasetError, match=r"no finished split 'half'; there are: mini"):
        SimulatedDataset(root, "half")
    (root / "mini" / "split.yaml").write_text("version: '1'\n")
    with pytest.raises(DatasetError, match=r"split\.yaml"):
        SimulatedDataset(root, "mini")
    (root / "mini" / "split.yaml").write_text("{ no yaml")
    with pytest.raises(DatasetError, match=r"split\.yaml"):
        SimulatedDataset(root, "mini")


def test_a_missing_rig_is_named(root: Path) -> None:
    (root / "mini" / "scene_a" / "rig.yaml").unlink()
    with pytest.raises(DatasetError, match=r"rig\.yaml"):
        SimulatedDataset(root, "mini")[0]


def test_a_scene_without_room_is_no_half_sample(root: Path, rig: Rig) -> None:
    shutil.rmtree(root / "mini" / "scene_a")
    with pytest.raises(DatasetError, match=r"000_front\.jpg"):
        write_sample(root / "mini" / "scene_a", sample_of(rig))


def test_a_sample_checks_its_shapes(rig: Rig) -> None:
    given = sample_of(rig)
    with pytest.raises(ShapeError, match="labels"):
        replace(given, labels=given.labels[1:])
    with pytest.raises(ShapeError, match="range_m of front"):
        replace(given, range_m={"front": np.zeros((5, 5), np.float32)})
