"""nuScenes with Occ3D and OpenOcc, from a made ride in their file formats."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from occ_perception.datasets.nuscenes import (
    CAMERAS,
    LIDAR,
    OCC3D,
    OPENOCC,
    NuScenesDataset,
    open_occ3d,
    open_openocc,
    scenes_of_split,
    track_id_of,
)
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk

START_US, SAMPLES, SPEED = 1_533_151_603_000_000, 12, 4.0
CAMERA_LATE_US = 20_000
WIDTH, HEIGHT = 64, 36
K = [[50.0, 0.0, 31.5], [0.0, 50.0, 17.5], [0.0, 0.0, 1.0]]
T_EGO_LIDAR = se3.from_euler(0.0, 0.0, -np.pi / 2, (0.9, 0.0, 1.8))
CAR_CELL, ROAD_CELL = (125, 100, 4), (110, 90, 1)


def pose_at(stamp_us: int) -> NDArray[np.float64]:
    """A ride along world y, 4 m/s."""
    seconds = (stamp_us - START_US) * 1e-6
    return se3.from_euler(0.0, 0.0, np.pi / 2, (600.0, 1000.0 + SPEED * seconds, 0.0))


def row_of(T: NDArray[np.float64]) -> dict[str, Any]:
    x, y, z, w = se3.to_quaternion(T).tolist()
    return {"translation": T[:3, 3].tolist(), "rotation": [w, x, y, z]}


def camera_pose(k: int) -> NDArray[np.float64]:
    return se3.make(se3.from_euler(0.0, 0.0, k * np.pi / 3)[:3, :3] @ se3.OPTICAL_IN_BODY, (1.5, 0.1 * k, 1.5))


def write_tables(root: Path) -> None:
    """One scene of 12 keyframes 0.5 s apart with a car that keeps its distance, and a scene of one keyframe."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in (
        "scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "sample_annotation", "instance",
        "category")}
    for k, channel in enumerate((*CAMERAS, LIDAR, "RADAR_FRONT")):
        tables["sensor"].append({"token": f"s{k}", "channel": channel, "modality": "camera"})
        T = camera_pose(k) if channel in CAMERAS else T_EGO_LIDAR
        tables["calibrated_sensor"].append({"token": f"c{k}", "sensor_token": f"s{k}", **row_of(T),
                                            "camera_intrinsic": K if channel in CAMERAS else []})
    tables["category"] = [{"token": "k0", "name": "vehicle.car"}, {"token": "k1", "name": "animal"}]
    tables["instance"] = [{"token": "the-car", "category_token": "k0"}, {"token": "a-dog", "category_token": "k1"}]
    for scene, count in (("scene-0002", 1), ("scene-0001", SAMPLES)):
        tokens = [f"{scene}-{i}" for i in range(count)]
        tables["scene"].append({"token": scene, "name": scene, "first_sample_token": tokens[0]})
        for i, token in enumerate(tokens):
            stamp = START_US + 500_000 * i
            tables["sample"].append({"token": token, "timestamp": stamp, "next": (tokens + [""])[i + 1]})
            for k, channel in enumerate((*CAMERAS, LIDAR, "RADAR_FRONT")):
                at = stamp + (CAMERA_LATE_US if channel in CAMERAS else 0)
                for key in (True, False):
                    name = f"{token}-{channel}-{key}"
                    tables["ego_pose"].append({"token": name, "timestamp": at, **row_of(pose_at(at))})
                    tables["sample_data"].append({
                        "token": name, "sample_token": token, "ego_pose_token": name, "is_key_frame": key,
                        "calibrated_sensor_token": f"c{k}", "timestamp": at, "width": WIDTH * (channel in CAMERAS),
                        "height": HEIGHT * (channel in CAMERAS),
                        "filename": f"samples/{channel}/{token}.{'jpg' if channel in CAMERAS else 'pcd.bin'}"})
            T_world_car = pose_at(stamp) @ se3.from_euler(0.0, 0.0, 0.0, (10.2, 0.2, 0.8))
            for instance in ("the-car", "a-dog"):
                tables["sample_annotation"].append({"sample_token": token, "instance_token": instance,
                                                    "size": [1.6, 4.0, 1.5], **row_of(T_world_car)})
    folder = root / "v1.0-mini"
    folder.mkdir()
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))


def write_sensors(root: Path) -> None:
    for k, channel in enumerate(CAMERAS):
        (root / "samples" / channel).mkdir(parents=True)
        for token in ("scene-0001-0", "scene-0001-3"):
            image = np.full((HEIGHT, WIDTH, 3), (0, 0, 40 * k), np.uint8)  # BGR
            cv2.imwrite(str(root / "samples" / channel / f"{token}.jpg"), image)
    (root / "samples" / LIDAR).mkdir()
    ahead = se3.apply(se3.invert(T_EGO_LIDAR), [[11.5, 0.0, 1.5], [-20.0, 3.0, 0.5]])
    points = np.zeros((3, 5), np.float32)
    points[:2, :3], points[2, 0] = ahead, np.nan
    for token in ("scene-0001-0", "scene-0001-3"):
        points.tofile(root / "samples" / LIDAR / f"{token}.pcd.bin")


def write_truth(root: Path) -> None:
    """A car of 10 x 4 x 4 cells, road, and a bus nobody annotated; Occ3D's masks and OpenOcc's flow."""
    for scene, token in [("scene-0002", "scene-0002-0"), *(("scene-0001", f"scene-0001-{i}") for i in range(SAMPLES))]:
        occ3d, openocc = np.full(ROAD_GRID.shape, 17, np.uint8), np.full(ROAD_GRID.shape, 16, np.uint8)
        car = np.s_[120:131, 98:103, 3:6]
        for labels, ids in ((occ3d, (4, 11, 3)), (openocc, (0, 10, 3))):
            labels[car], labels[:, :, 1], labels[10:14, 10:14, 3] = ids
        camera, lidar = np.zeros(ROAD_GRID.shape, np.uint8), np.zeros(ROAD_GRID.shape, np.uint8)
        camera[100:150], lidar[90:140] = 1, 1
        flow = np.zeros((*ROAD_GRID.shape, 2), np.float32)
        flow[car] = (SPEED, -0.5)
        flow[120, 98, 3] = np.nan
        for folder, arrays in (("gts", {"semantics": occ3d, "mask_camera": camera, "mask_lidar": lidar}),
                               ("openocc_v2", {"semantics": openocc, "flow": flow})):
            (root / folder / scene / token).mkdir(parents=True)
            np.savez_compressed(root / folder / scene / token / "labels.npz", **arrays)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nuscenes")
    write_tables(root)
    write_sensors(root)
    write_truth(root)
    (root / "annotations.json").write_text(json.dumps({"train_split": ["scene-0001"], "val_split": ["scene-0002"]}))
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> NuScenesDataset:
    return NuScenesDataset(root, "v1.0-mini")


def test_frames_are_the_keyframes_scene_after_scene(root: Path, data: NuScenesDataset) -> None:
    assert len(data) == SAMPLES + 1
    assert [(frame.scene, frame.index) for frame in data.frames[-2:]] == [("scene-0001", 11), ("scene-0002", 0)]
    assert [frame.token for frame in data.frames[:3]] == ["scene-0001-0", "scene-0001-1", "scene-0001-2"]
    assert len(NuScenesDataset(root, "v1.0-mini", scenes=scenes_of_split(root, "val"))) == 1


def test_a_split_is_a_version_of_the_tables_or_one_of_occ3ds(root: Path, tmp_path: Path) -> None:
    assert open_occ3d(root, "v1.0-mini").version == "Occ3D-nuScenes, v1.0-mini"
    assert open_openocc(root, "v1.0-mini").version == "OpenOcc 2.1, v1.0-mini"
    for path in root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "v1.0-trainval").symlink_to(root / "v1.0-mini")
    assert [len(open_occ3d(tmp_path, split)) for split in ("train", "val")] == [SAMPLES, 1]
    with pytest.raises(DatasetError, match=r"has no split 'test'; there are: train, val"):
        open_occ3d(tmp_path, "test")


def test_sensors_of_a_keyframe(data: NuScenesDataset) -> None:
    sample = data[3]
    assert (sample.scene, sample.index, sample.stamp_ns) == ("scene-0001", 3, (START_US + 1_500_000) * 1000)
    assert list(sample.images) == list(CAMERAS) == [camera.name for camera in sample.rig.cameras]
    assert np.abs(sample.images["CAM_BACK"].astype(int) - (120, 0, 0)).max() <= 3
    np.testing.assert_allclose(sample.T_world_grid, pose_at(START_US + 1_500_000), atol=1e-9)
    assert sample.points_m is not None
    np.testing.assert_allclose(sample.points_m, [[11.5, 0.0, 1.5], [-20.0, 3.0, 0.5]], atol=1e-5)
    np.testing.assert_allclose(sample.rig.lidar(LIDAR).T_base_lidar, T_EGO_LIDAR, atol=1e-9)


def test_rig_takes_in_what_the_car_moved_until_the_exposure(data: NuScenesDataset) -> None:
    sample = data[0]
    world = np.array([601.0, 1012.0, 1.0])
    chain = se3.invert(pose_at(START_US + CAMERA_LATE_US) @ camera_pose(0))
    expected = np.array(K) @ se3.apply(chain, world)
    pixel, valid = sample.rig.cameras[0].camera.project(
        se3.apply(se3.invert(sample.rig.cameras[0].T_base_camera), se3.apply(se3.invert(sample.T_world_grid), [world])))
    assert valid.all()
    np.testing.assert_allclose(pixel[0], expected[:2] / expected[2], atol=1e-6)
    moved = sample.rig.cameras[0].T_base_camera[:3, 3] - camera_pose(0)[:3, 3]
    np.testing.assert_allclose(moved, [SPEED * CAMERA_LATE_US * 1e-6, 0.0, 0.0], atol=1e-6)


def test_ranges_lie_where_the_points_project(data: NuScenesDataset) -> None:
    sample = data[0]
    front = sample.range_m["CAM_FRONT"]
    assert front.shape == (HEIGHT, WIDTH)
    (v, u), = np.argwhere(front > 0)
    assert abs(u - 31.5) <= 0.5
    assert abs(v - 17.5) <= 0.5
    assert front[v, u] == pytest.approx(11.5 - 1.5 - SPEED * 0.02, abs=1e-4)


def test_labels_start_at_free_and_unobserved_free_space_is_unknown(data: NuScenesDataset) -> None:
    sample = data[0]
    names = data.taxonomy.classes
    assert (names[0], len(names), data.taxonomy.name) == ("free", 18, sample.taxonomy)
    assert names[sample.labels[CAR_CELL]] == "car"
    assert names[sample.labels[ROAD_CELL]] == "driveable_surface"
    assert sample.labels[95, 100, 8] == FREE  # the LiDAR observed it, no camera did
    assert sample.labels[20, 100, 8] == UNKNOWN
    assert names[sample.labels[12, 12, 3]] == "bus"  # observed in another scan only


def test_visible_is_what_the_chosen_sensors_saw(root: Path, data: NuScenesDataset) -> None:
    assert not data[0].visible[95].any()
    assert data[0].visible[145].all()
    lidar = NuScenesDataset(root, "v1.0-mini", visible_from="lidar")[0]
    assert lidar.visible[95].all()
    assert not lidar.visible[145].any()
    np.testing.assert_array_equal(lidar.labels, data[0].labels)
    with pytest.raises(ConfigurationError, match="camera or lidar"):
        NuScenesDataset(root, "v1.0-mini", visible_from="radar")  # type: ignore[arg-type]


def test_boxes_number_the_cells_of_their_class(data: NuScenesDataset) -> None:
    first, later = data[0], data[3]
    assert first.instance_rows is not None
    np.testing.assert_array_equal(first.track_ids, np.array([track_id_of("the-car")], np.uint64))
    np.testing.assert_array_equal(first.track_ids, later.track_ids)
    np.testing.assert_array_equal(first.instance_rows == 1, first.labels == data.taxonomy.classes.index("car"))


def test_waypoints_are_the_ride_ahead(data: NuScenesDataset) -> None:
    ahead = data[0].waypoints_m
    assert ahead is not None
    np.testing.assert_allclose(ahead, [[SPEED * 0.5 * k, 0.0] for k in range(1, 11)], atol=1e-3)
    assert data[3].waypoints_m is None


def test_openocc_has_its_classes_flow_and_no_masks(root: Path) -> None:
    data = NuScenesDataset(root, "v1.0-mini", truth=OPENOCC)
    sample = data[0]
    names = data.taxonomy.classes
    assert (names[1], names[11], len(names)) == ("car", "driveable_surface", 17)
    assert names[sample.labels[CAR_CELL]] == "car"
    assert sample.visible.all()
    assert (sample.labels[20, 100, 8] == FREE)
    assert sample.flow is not None
    assert data.version == "OpenOcc 2.1, v1.0-mini"
    assert len(sample.flow.cells) == 11 * 5 * 3 - 1  # one was not finite
    np.testing.assert_array_equal(sample.flow.velocity_mps, [[SPEED, -0.5, 0.0]] * len(sample.flow.cells))
    assert (sample.flow.dense()[CAR_CELL] == (SPEED, -0.5, 0.0)).all()


@pytest.mark.parametrize(("truth", "name", "sidewalk"), [
    (OCC3D, "pedestrian", Sidewalk.PERSON), (OPENOCC, "pedestrian", Sidewalk.PERSON),
    (OCC3D, "terrain", Sidewalk.GRASS), (OPENOCC, "manmade", Sidewalk.WALL), (OCC3D, "motorcycle", Sidewalk.CYCLIST),
    (OCC3D, "other_flat", OCCUPIED)])
def test_classes_map_to_the_sidewalk(truth: Any, name: str, sidewalk: int) -> None:
    labels = truth.labels
    assert labels.to_sidewalk[labels.taxonomy.classes.index(name)] == sidewalk
    assert labels.to_sidewalk[FREE] == FREE
    assert labels.to_sidewalk[UNKNOWN] == UNKNOWN


def test_things_are_those_of_the_panoptic_challenge() -> None:
    for truth in (OCC3D, OPENOCC):
        taxonomy = truth.labels.taxonomy
        assert {taxonomy.classes[i] for i in taxonomy.things} == {
            "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "traffic_cone",
            "trailer", "truck"}


def test_hash_follows_the_truth_and_the_scenes(root: Path, data: NuScenesDataset) -> None:
    assert data.content_hash == NuScenesDataset(root, "v1.0-mini").content_hash
    assert data.content_hash != NuScenesDataset(root, "v1.0-mini", truth=OPENOCC).content_hash
    assert data.content_hash != NuScenesDataset(root, "v1.0-mini", scenes=["scene-0002"]).content_hash


def test_workers_get_the_same_samples(data: NuScenesDataset) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0].labels, data[0].labels)


def test_what_is_missing_is_named_with_where_to_get_it(root: Path, data: NuScenesDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"v1\.0-trainval/scene\.json: is missing\. Download .*nuscenes\.org"):
        NuScenesDataset(root)
    with pytest.raises(DatasetError, match=r"scene-0001-1\.pcd\.bin: is missing\. Download .*nuscenes\.org"):
        data[1]
    write_tables(tmp_path)
    with pytest.raises(DatasetError, match=r"openocc_v2/scene-0001: is missing\. Download openocc_v2\.1\.zip"):
        NuScenesDataset(tmp_path, "v1.0-mini", truth=OPENOCC)
    with pytest.raises(DatasetError, match=re.escape("no split 'test'; there are: train, val")):
        scenes_of_split(root, "test")
    with pytest.raises(DatasetError, match="has no scenes scene-0700"):
        NuScenesDataset(root, "v1.0-mini", scenes=["scene-0700"])


def test_tables_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    write_tables(tmp_path)
    path = tmp_path / "v1.0-mini" / "sample_data.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([row for row in rows if row["token"] != f"scene-0001-2-{LIDAR}-True"]))
    with pytest.raises(DatasetError, match="the keyframe scene-0001-2 of scene-0001 has no LIDAR_TOP"):
        NuScenesDataset(tmp_path, "v1.0-mini")
    path.write_text(json.dumps([{key: row[key] for key in row if key != "ego_pose_token"} for row in rows]))
    with pytest.raises(DatasetError, match="'ego_pose_token'"):
        NuScenesDataset(tmp_path, "v1.0-mini")
    path.write_text("[{")
    with pytest.raises(DatasetError, match=r"sample_data\.json: cannot be read"):
        NuScenesDataset(tmp_path, "v1.0-mini")


def test_labels_of_another_grid_or_without_masks_are_refused(root: Path, tmp_path: Path) -> None:
    write_tables(tmp_path)
    write_sensors(tmp_path)
    for scene in ("scene-0001", "scene-0002"):
        (tmp_path / "gts" / scene / "scene-0001-0").mkdir(parents=True)
    path = tmp_path / "gts" / "scene-0001" / "scene-0001-0" / "labels.npz"
    data = NuScenesDataset(tmp_path, "v1.0-mini")
    with pytest.raises(DatasetError, match=r"labels\.npz: is missing\. Download gts of Occ3D-nuScenes"):
        data[0]
    np.savez(path, semantics=np.zeros((4, 4, 4), np.uint8), mask_camera=np.zeros(1), mask_lidar=np.zeros(1))
    with pytest.raises(DatasetError, match=r"semantics must be \(200, 200, 16\)"):
        data[0]
    np.savez(path, semantics=np.full(ROAD_GRID.shape, 17, np.uint8))
    with pytest.raises(DatasetError, match="lacks the arrays mask_camera, mask_lidar"):
        data[0]
