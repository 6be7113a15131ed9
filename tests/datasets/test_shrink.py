"""A smaller copy shows the same world: the same rays, the same classes where they matter, the same grid extent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from occ_perception.calibration import load_rig, save_rig
from occ_perception.datasets import ImageDataset, ImageSample, Sample, SimulatedDataset
from occ_perception.datasets import shrink as shrink_module
from occ_perception.datasets.scene_folder import write_images, write_sample
from occ_perception.datasets.shrink import coarser, representatives, shrink
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.taxonomy import Sidewalk
from occ_perception.types import FlowField

RIG = load_rig(Path(__file__).resolve().parents[2] / "calibration" / "sidewalk_wheeled.yaml")
SPEC = VoxelGridSpec((0.0, -1.0, -0.4), (2.0, 1.0, 0.4), 0.1)


def make_sample(index: int) -> Sample:
    """Left half of the image is road and 2 m away, the right half wall and 4 m away; one person walks."""
    shape = RIG.cameras[0].height, RIG.cameras[0].width
    image, classes = np.zeros((*shape, 3), np.uint8), np.full(shape, int(Sidewalk.ROAD), np.uint8)
    image[:, : shape[1] // 2] = (200, 100, 0)
    classes[:, shape[1] // 2 :] = Sidewalk.WALL
    labels = np.full(SPEC.shape, 255, np.uint8)
    labels[:, :, 4:] = 0
    labels[:, :, 4] = Sidewalk.SIDEWALK
    labels[5, 10, 4:8] = Sidewalk.PERSON
    rows = np.zeros(SPEC.shape, np.uint16)
    cells = np.argwhere(labels == Sidewalk.PERSON)
    rows[tuple(cells.T)] = 1
    return Sample(
        scene="scene", index=index, stamp_ns=index, rig=RIG, images={"front": image}, semantics={"front": classes},
        T_grid_base=np.eye(4), spec=SPEC, T_world_grid=np.eye(4), labels=labels, visible=labels < 255,
        range_m={"front": np.where(classes == Sidewalk.ROAD, 2.0, 4.0).astype(np.float32)},
        points_m=np.array([[3.0, 0.0, 0.5], [-3.0, 0.0, 0.5]], np.float32),
        waypoints_m=np.ones((10, 2), np.float32), instance_rows=rows, track_ids=np.array([7], np.uint64),
        flow=FlowField(SPEC, index, cells, np.full((len(cells), 3), 1.5, np.float32), np.ones(len(cells), np.float32)),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full")
    for split, images_only in (("paired", False), ("images", True)):
        scene = root / split / "scene"
        scene.mkdir(parents=True)
        save_rig(RIG, scene / "rig.yaml")
        (scene / "scene.yaml").write_text(yaml.safe_dump({"tilts": [[0.01, 0.02]] * 2} if images_only else {"seed": 1}))
        for index in range(2):
            (write_images if images_only else write_sample)(scene, make_sample(index))
        (root / split / "split.yaml").write_text(yaml.safe_dump({
            "version": "1", "content_hash": "full", "taxonomy": "sidewalk14", "images_only": images_only,
            "scenes": [{"name": "scene", "frames": 2}]}))
    return root


def test_a_smaller_pixel_sees_along_the_same_ray() -> None:
    camera = RIG.cameras[0]
    small = camera.resized(136, 240)
    rng = np.random.default_rng(0)
    pixels = rng.uniform((60, 40), (180, 100), (50, 2))
    full = (pixels + 0.5) * [camera.width / 240, camera.height / 136] - 0.5
    np.testing.assert_allclose(small.camera.unproject(pixels), camera.camera.unproject(full), atol=1e-9)


def test_a_block_is_what_most_of_its_classified_voxels_are() -> None:
    labels = np.array([[[0, 2], [2, 12]], [[12, 0], [255, 0]]], np.uint8)
    assert labels.ravel()[representatives(labels, (2, 2, 2))] == 12, "a tie goes to the higher id"
    labels[1, 0, 0] = 2
    assert labels.ravel()[representatives(labels, (2, 2, 2))] == 2
    for block, kept in (([255] * 7 + [0], 0), ([255] * 8, 255), ([0] * 7 + [254], 254), ([254] * 7 + [3], 3)):
        labels = np.array(block, np.uint8).reshape(2, 2, 2)
        assert labels.ravel()[representatives(labels, (2, 2, 2))] == kept


@given(st.integers(0, 2**32 - 1))
def test_pooling_invents_and_loses_no_matter(seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, 12, 254, 255], np.uint8), (4, 6, 2),
                                                p=[0.7, 0.05, 0.05, 0.05, 0.05, 0.1])
    pooled = labels.ravel()[representatives(labels, (2, 2, 2))]
    blocks = labels.reshape(2, 2, 3, 2, 1, 2)
    occupied = ((blocks != 0) & (blocks != 255)).any(axis=(1, 3, 5))
    assert (((pooled != 0) & (pooled != 255)) == occupied).all()


def test_a_coarser_sample_keeps_things_and_their_velocity() -> None:
    sample = coarser(make_sample(0), 0.2)
    assert sample.labels.shape == sample.visible.shape == sample.spec.shape == (10, 10, 4)
    person = np.argwhere(sample.labels == Sidewalk.PERSON)
    assert person.tolist() == [[2, 5, 3]], "0.1 m of pavement outvotes the feet"
    assert sample.instance_rows is not None
    assert np.argwhere(sample.instance_rows).tolist() == person.tolist()
    assert sample.flow is not None
    assert sample.flow.cells.tolist() == person.tolist()
    assert (sample.flow.velocity_mps == 1.5).all()
    assert (sample.visible[:, :, 2:]).all()
    assert not sample.visible[:, :, :2].any()


def test_cells_must_be_made_of_whole_cells() -> None:
    for cell_m in (0.15, 0.05):
        with pytest.raises(ConfigurationError, match=f"cells of {cell_m} m"):
            coarser(make_sample(0), cell_m)


def test_the_grid_ends_with_the_last_whole_cube() -> None:
    sample = coarser(make_sample(0), 0.3)
    assert sample.spec == VoxelGridSpec((0.0, -1.0, -0.4), (1.8, 0.8, 0.2), 0.3)
    assert sample.labels.shape == sample.visible.shape == (6, 6, 2)


def test_a_smaller_split_is_read_like_any_other(root: Path, tmp_path: Path) -> None:
    shrink(root, "paired", tmp_path, (136, 240), 0.2)
    small = SimulatedDataset(tmp_path, "paired")
    assert len(small) == 2
    assert small.content_hash != "full"
    sample = small[1]
    assert sample.images["front"].shape == (136, 240, 3)
    assert sample.spec.cell.tolist() == [0.2] * 3
    assert np.abs(sample.images["front"][68, 60].astype(int) - (200, 100, 0)).max() < 12
    assert (sample.semantics["front"][:, :119] == Sidewalk.ROAD).all()
    assert (sample.range_m["front"][:, 121:] == 4.0).all()
    assert sample.points_m is not None
    assert sample.points_m.tolist() == [[3.0, 0.0, 0.5]], "the point behind the robot is in no image"
    assert (sample.waypoints_m == 1.0).all()


def test_2d_only_images_shrink_too(root: Path, tmp_path: Path) -> None:
    shrink(root, "images", tmp_path, (136, 240), 0.2, limit=1)
    sample = ImageDataset(tmp_path, "images")[0]
    assert type(sample) is ImageSample
    assert sample.semantics["front"].shape == (136, 240)
    assert not np.allclose(sample.T_grid_base, np.eye(4)), "the tilt is kept"


def test_finished_scenes_are_kept_and_foreign_ones_refused(root: Path, tmp_path: Path) -> None:
    shrink(root, "paired", tmp_path, (136, 240), 0.2)
    path = tmp_path / "paired" / "scene" / "000_front.jpg"
    before = path.stat().st_mtime_ns
    shrink(root, "paired", tmp_path, (136, 240), 0.2)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(DatasetError, match="another size"):
        shrink(root, "paired", tmp_path, (136, 240), 0.4)
    with pytest.raises(DatasetError, match="no finished split 'nowhere'"):
        shrink(root, "nowhere", tmp_path, (136, 240))


def test_a_smaller_split_is_known_by_what_it_was_made_from_and_how(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(root, "images", tmp_path / "first", (136, 240), 0.2, limit=1)
    recipe, scenes = {"of": "full", "image_size": [136, 240], "cell_m": 0.2}, [{"name": "scene", "frames": 2}]
    first = ImageDataset(tmp_path / "first", "images").content_hash
    assert first == hashlib.sha256(f"{recipe} {scenes}".encode()).hexdigest(), "results name splits by it"
    monkeypatch.setattr(shrink_module, "SHRINK_VERSION", 2)
    shrink(root, "images", tmp_path / "second", (136, 240), 0.2, limit=1)
    assert ImageDataset(tmp_path / "second", "images").content_hash != first
    with pytest.raises(DatasetError, match="another size"):
        shrink(root, "images", tmp_path / "first", (136, 240), 0.2, limit=1)


def test_masks_shrink_with_their_image(root: Path, tmp_path: Path) -> None:
    import cv2

    mask = np.full((544, 960), 255, np.uint8)
    mask[400:] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    scene = root / "paired" / "scene"
    masked = tmp_path / "full" / "paired"
    (masked / "scene").mkdir(parents=True)
    for file in scene.iterdir():
        (masked / "scene" / file.name).write_bytes(file.read_bytes())
    (masked / "split.yaml").write_bytes((root / "paired" / "split.yaml").read_bytes())
    camera = RIG.cameras[0].model_copy(update={"mask": "../../../mask.png"})
    save_rig(RIG.model_copy(update={"cameras": (camera,)}), masked / "scene" / "rig.yaml")
    shrink(tmp_path / "full", "paired", tmp_path / "small", (136, 240))
    usable = SimulatedDataset(tmp_path / "small", "paired")[0].rig.cameras[0].mounted().usable
    assert usable is not None
    assert usable.shape == (136, 240)
    assert usable[:99].all()
    assert not usable[101:].any()

