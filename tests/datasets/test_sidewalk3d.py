"""A sequence of the Sidewalk3D layout comes back as it was written; what does not fit is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.sidewalk3d import SemanticCloud, Sidewalk3dDataset, write_sequence, write_splits
from occ_perception.errors import ConfigurationError, DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.types import FlowField

SPEC = VoxelGridSpec((0.0, -1.0, -0.5), (2.0, 1.0, 0.5), (0.1, 0.2, 0.1))
RIG = Rig(name="toy", cameras=(RigCamera(
    name="front", frame="front", width=48, height=32, model="pinhole", parameters=(30.0, 30.0, 23.5, 15.5),
    T_base_camera=se3.make(se3.OPTICAL_IN_BODY, (0.1, 0.0, 0.8))),),
    lidars=(RigLidar(name="top", frame="top", T_base_lidar=se3.make(np.eye(3), (0.0, 0.0, 0.9))),))
FRAMES = 12


def frame(index: int) -> tuple[Sample, SemanticCloud]:
    rng = np.random.default_rng(index)
    points_m = rng.uniform(-5.0, 5.0, (40, 3)).astype(np.float32)
    image = cv2.GaussianBlur(rng.integers(0, 255, (32, 48, 3), np.uint8), (0, 0), 9)
    # it walks a curve and rolls
    T_world_grid = se3.from_euler(0.0, 0.0, 0.1 * index, (0.6 * index, 0.01 * index**2, 0.2))
    sample = Sample(
        scene="walk", index=index, stamp_ns=1_700_000_000_123_456_789 + index * 500_000_000, rig=RIG,
        images={"front": image}, semantics={"front": rng.integers(0, 15, (32, 48)).astype(np.uint8)},
        T_grid_base=se3.from_euler(0.02 * index, -0.03, 0.0), spec=SPEC, T_world_grid=T_world_grid,
        labels=rng.choice(np.array([0, 1, 12, 254, 255], np.uint8), SPEC.shape), visible=rng.random(SPEC.shape) < 0.5,
        range_m={}, points_m=points_m)
    return sample, SemanticCloud(points_m, rng.integers(0, 14, 40).astype(np.uint8))


WALK = [frame(index) for index in range(FRAMES)]
SAMPLES, CLOUDS = [sample for sample, _ in WALK], [cloud for _, cloud in WALK]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sidewalk3d")
    write_sequence(root / "walk_a", SAMPLES, CLOUDS, area="touristy", night=True)
    write_sequence(root / "walk_b", SAMPLES[:2], CLOUDS[:2], area="commercial", night=False)
    write_splits(root, "test 1", {"train": ["walk_a"], "val": ["walk_b"]})
    return root


def test_frames_come_back_as_they_were(written: Path) -> None:
    data = Sidewalk3dDataset(written, "train")
    assert (len(data), data.version, data.taxonomy.name) == (FRAMES, "test 1", "sidewalk14")
    assert (data.about["walk_a"]["area"], data.about["walk_a"]["night"]) == ("touristy", True)
    for k in (0, 5):
        got, want = data[k], SAMPLES[k]
        assert (got.scene, got.index, got.stamp_ns, got.spec) == ("walk_a", k, want.stamp_ns, SPEC)
        for name in ("labels", "visible", "points_m"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        np.testing.assert_array_equal(got.semantics["front"], want.semantics["front"])
        assert np.abs(got.images["front"].astype(int) - want.images["front"]).mean() < 3
        np.testing.assert_allclose(got.T_world_grid, want.T_world_grid, atol=1e-8)
        np.testing.assert_allclose(got.T_grid_base, want.T_grid_base, atol=1e-8)
        np.testing.assert_array_equal(data.cloud(k).labels, CLOUDS[k].labels)


def test_waypoints_are_the_poses_of_the_frames_ahead(written: Path) -> None:
    data = Sidewalk3dDataset(written, "train")
    way = data[1].waypoints_m
    assert way is not None
    ahead = [se3.invert(SAMPLES[1].T_world_grid) @ sample.T_world_grid for sample in SAMPLES[2:]]
    np.testing.assert_allclose(way, [T[:2, 3] for T in ahead], atol=1e-5)
    assert data[2].waypoints_m is None


def with_things(index: int) -> Sample:
    """A frame with two things, one of which moves, and a way that is known beyond the sequence."""
    sample, rng = SAMPLES[index], np.random.default_rng(index)
    rows = rng.choice(np.array([0, 0, 0, 1, 2], np.uint16), SPEC.shape)
    cells = np.argwhere(rows == 2)
    flow = FlowField(SPEC, sample.stamp_ns, cells, rng.normal(size=(len(cells), 3)).astype(np.float32),
                     rng.random(len(cells)).astype(np.float32))
    return replace(sample, instance_rows=rows, track_ids=np.array([7, 2**63 + index], np.uint64), flow=flow,
                   waypoints_m=rng.normal(size=(10, 2)).astype(np.float32))


def test_instances_flow_and_a_longer_way_come_back_exactly_where_a_frame_has_them(tmp_path: Path) -> None:
    samples = [with_things(0), SAMPLES[1], with_things(2)]
    content_hash = write_sequence(tmp_path / "walk", samples, CLOUDS[:3], area="touristy", night=False)
    write_splits(tmp_path, "1", {"train": ["walk"]})
    data = Sidewalk3dDataset(tmp_path, "train")
    for k in (0, 2):
        got, want = data[k], samples[k]
        np.testing.assert_array_equal(got.instance_rows, want.instance_rows)
        np.testing.assert_array_equal(got.track_ids, want.track_ids)
        np.testing.assert_array_equal(got.waypoints_m, want.waypoints_m)
        assert got.flow is not None
        assert want.flow is not None
        assert (got.flow.spec, got.flow.stamp_ns) == (SPEC, want.stamp_ns)
        for name in ("cells", "velocity_mps", "confidence"):
            np.testing.assert_array_equal(getattr(got.flow, name), getattr(want.flow, name))
    plain = data[1]
    assert (plain.instance_rows, plain.flow, plain.waypoints_m, len(plain.track_ids)) == (None, None, None, 0)
    other = [replace(samples[0], track_ids=samples[0].track_ids + np.uint64(1)), *samples[1:]]
    assert write_sequence(tmp_path / "other", other, CLOUDS[:3], area="touristy", night=False) != content_hash


def test_names_may_have_folders_and_frames_may_be_lost(tmp_path: Path) -> None:
    late = [replace(sample, stamp_ns=sample.stamp_ns + 500_000_000 * (sample.index > 0)) for sample in SAMPLES[:3]]
    for name in ("drive/0001", "drive/0002"):
        write_sequence(tmp_path / name, late, CLOUDS[:3], area="touristy", night=False)
    write_splits(tmp_path, "1", {"train": ["drive/0001"], "val": ["drive/0002"]})
    assert Sidewalk3dDataset(tmp_path, "val")[2].scene == "drive/0002"


def test_a_frame_without_the_image_of_a_camera_says_so(tmp_path: Path) -> None:
    second = RIG.cameras[0].model_copy(update={"name": "left", "frame": "left"})
    rig = RIG.model_copy(update={"cameras": (*RIG.cameras, second)})
    both = {"left": SAMPLES[0].images["front"], "front": SAMPLES[0].images["front"]}
    classes = {"left": SAMPLES[0].semantics["front"], "front": SAMPLES[0].semantics["front"]}
    samples = [replace(SAMPLES[0], rig=rig, images=both, semantics=classes), replace(SAMPLES[1], rig=rig)]
    write_sequence(tmp_path / "walk", samples, CLOUDS[:2], area="touristy", night=False)
    write_splits(tmp_path, "1", {"train": ["walk"]})
    data = Sidewalk3dDataset(tmp_path, "train")
    assert [sorted(data[k].images) for k in (0, 1)] == [["front", "left"], ["front"]]
    (tmp_path / "walk" / "images" / "000_left.jpg").unlink()
    with pytest.raises(DatasetError, match=r"000_left\.jpg"):
        data[0]


def test_splits_of_another_taxonomy_are_refused_and_old_ones_without_a_name_are_not(
        written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(written, tmp_path / "copy"))
    about = yaml.safe_load((root / "splits.yaml").read_text())
    (root / "splits.yaml").write_text(yaml.safe_dump({**about, "taxonomy": "kitti360"}))
    with pytest.raises(DatasetError, match=r"splits\.yaml: its labels are of the taxonomy 'kitti360'"):
        Sidewalk3dDataset(root, "train")
    (root / "splits.yaml").write_text(yaml.safe_dump({k: v for k, v in about.items() if k != "taxonomy"}))
    assert len(Sidewalk3dDataset(root, "train")) == FRAMES


def test_the_hash_is_of_the_content(written: Path, tmp_path: Path) -> None:
    again = write_sequence(tmp_path / "walk_c", SAMPLES, CLOUDS, area="touristy", night=True)
    data = Sidewalk3dDataset(written, "train")
    assert data.about["walk_a"]["content_hash"] == again
    other = [replace(CLOUDS[0], labels=CLOUDS[0].labels ^ 1), *CLOUDS[1:]]
    assert write_sequence(tmp_path / "walk_d", SAMPLES, other, area="touristy", night=True) != again
    assert data.content_hash != Sidewalk3dDataset(written, "val").content_hash


def test_frames_that_make_no_sequence_are_refused_at_once(tmp_path: Path) -> None:
    flow = FlowField(SPEC, 0, np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    late = replace(SAMPLES[1], stamp_ns=SAMPLES[0].stamp_ns + 750_000_000, taxonomy="other", semantics={}, flow=flow)
    with pytest.raises(ConfigurationError) as caught:
        write_sequence(tmp_path / "walk", [SAMPLES[0], late], CLOUDS[:1], area="park", night=False)
    assert len(caught.value.faults) == 6
    for part in ("2 and 1", "0.5 s apart or a multiple of it, got [0.75]", "'park'", "taxonomy sidewalk14",
                 "every image its classes", "at the stamp of its frame"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="of one rig"):
        write_sequence(tmp_path / "walk", [SAMPLES[0], replace(SAMPLES[1], rig=RIG.model_copy(update={"name": "b"}))],
                       CLOUDS[:2], area="touristy", night=False)
    with pytest.raises(ShapeError, match="semantic cloud: labels"):
        SemanticCloud(CLOUDS[0].points_m, CLOUDS[0].labels[:-1])


def test_a_finished_sequence_is_not_overwritten(written: Path) -> None:
    with pytest.raises(DatasetError, match=r"walk_a: exists already"):
        write_sequence(written / "walk_a", SAMPLES, CLOUDS, area="touristy", night=True)


def test_splits_name_sequences_that_are_there_once(written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(written, tmp_path / "copy"))
    with pytest.raises(DatasetError, match=r"\['walk_x'\] are not there"):
        write_splits(root, "2", {"train": ["walk_x"]})
    with pytest.raises(DatasetError, match=r"\['walk_a'\] are in more than one place"):
        write_splits(root, "2", {"train": ["walk_a"], "val": ["walk_a"]})
    assert Sidewalk3dDataset(root, "train").version == "test 1"


def test_files_that_are_broken_are_named(written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(written, tmp_path / "copy"))
    with pytest.raises(DatasetError, match=r"has no split 'test'; there are: train, val"):
        Sidewalk3dDataset(root, "test")
    data, folder = Sidewalk3dDataset(root, "val"), root / "walk_b"
    (folder / "occupancy" / "000.npz").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"occupancy/000\.npz: must hold the arrays labels, visible, grid"):
        data[0]
    np.savez(folder / "clouds" / "001.npz", points_m=CLOUDS[1].points_m, labels=CLOUDS[1].labels[1:])
    with pytest.raises(DatasetError, match=r"clouds/001\.npz: .*labels"):
        data[1]
    (folder / "poses.txt").write_text("12 1 0 0\n")
    with pytest.raises(DatasetError, match=r"poses\.txt: must hold a stamp and 12 numbers for each of 2 frames"):
        Sidewalk3dDataset(root, "val")
    (folder / "sequence.yaml").write_text("area: touristy\n")
    with pytest.raises(DatasetError, match=r"sequence\.yaml: is no description of a sequence"):
        Sidewalk3dDataset(root, "val")
