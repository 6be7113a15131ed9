"""nuScenes keyframes with the voxel truth of Occ3D-nuScenes or OpenOcc. Reads the tables itself, without the devkit.

    ROOT/v1.0-trainval/*.json                       tables, as in the devkit's docs/schema_nuscenes.md
    ROOT/samples/CAM_FRONT/*.jpg                    images of the six cameras
    ROOT/samples/LIDAR_TOP/*.pcd.bin                float32 [P, 5]: x, y, z, intensity, ring; in the LiDAR's frame
    ROOT/gts/scene-0001/TOKEN/labels.npz            Occ3D: semantics, mask_camera, mask_lidar
    ROOT/openocc_v2/scene-0001/TOKEN/labels.npz     OpenOcc: semantics, flow
    ROOT/annotations.json                           Occ3D: names of the scenes of each split

TOKEN is the keyframe's in the table `sample`. Both truths are uint8 [200, 200, 16] over Occ3D's grid, in the ego frame
at the LiDAR's time, which is the base and the grid frame here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.calibration.formats import from_nuscenes
from occ_perception.datasets.occ3d import Box, VisibleFrom, own_cells, read_voxels, require_source, unobserved
from occ_perception.datasets.public import (
    Download,
    LabelSet,
    PublicClass,
    hash_files,
    read_numbers,
    read_rgb,
    scan_ranges,
    waypoints_ahead,
)
from occ_perception.datasets.sample import Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, OCCUPIED, Sidewalk, Taxonomy
from occ_perception.types import FlowField

Row = Mapping[str, Any]

CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
LIDAR = "LIDAR_TOP"
_TABLES = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "sample_annotation", "instance",
           "category")
_NUSCENES = Download("the metadata and keyframe blobs of nuScenes v1.0", "https://www.nuscenes.org/nuscenes")

_CLASSES = {known.name: known for known in (
    PublicClass("others", (255, 228, 196), Sidewalk.OBSTACLE, ()),
    PublicClass("barrier", (112, 128, 144), Sidewalk.OBSTACLE, (), thing=True),
    PublicClass("bicycle", (220, 20, 60), Sidewalk.CYCLIST, (), thing=True),
    PublicClass("bus", (255, 69, 0), Sidewalk.VEHICLE, (), thing=True),
    PublicClass("car", (255, 158, 0), Sidewalk.VEHICLE, (), thing=True),
    PublicClass("construction_vehicle", (233, 150, 70), Sidewalk.VEHICLE, (), thing=True),
    PublicClass("motorcycle", (255, 61, 99), Sidewalk.CYCLIST, (), thing=True),
    PublicClass("pedestrian", (0, 0, 230), Sidewalk.PERSON, (), thing=True),
    PublicClass("traffic_cone", (47, 79, 79), Sidewalk.OBSTACLE, (), thing=True),
    PublicClass("trailer", (255, 140, 0), Sidewalk.VEHICLE, (), thing=True),
    PublicClass("truck", (255, 99, 71), Sidewalk.VEHICLE, (), thing=True),
    PublicClass("driveable_surface", (0, 207, 191), Sidewalk.ROAD, ()),
    # islands, rails, water: ground of many kinds, for which the sidewalk classes have no name
    PublicClass("other_flat", (175, 0, 75), OCCUPIED, ()),
    PublicClass("sidewalk", (75, 0, 75), Sidewalk.SIDEWALK, ()),
    PublicClass("terrain", (112, 180, 60), Sidewalk.GRASS, ()),
    PublicClass("manmade", (222, 184, 135), Sidewalk.WALL, ()),
    PublicClass("vegetation", (0, 175, 0), Sidewalk.TREES, ()),
)}
"""Classes of nuScenes-lidarseg's challenge with its colours; things as in nuScenes-panoptic."""

_CATEGORIES = {
    "human.pedestrian.adult": "pedestrian", "human.pedestrian.child": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian", "human.pedestrian.construction_worker": "pedestrian",
    "vehicle.car": "car", "vehicle.motorcycle": "motorcycle", "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus", "vehicle.bus.rigid": "bus", "vehicle.truck": "truck", "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle", "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
}
"""Class of the annotated categories, as in nuScenes-lidarseg; the other categories have none."""


def _numbered(name: str, order: Iterable[str]) -> LabelSet:
    """Classes whose numbers in the files count up from 0 in this order, followed by free."""
    classes = tuple(PublicClass(known.name, known.colour, known.sidewalk, (number,), known.thing)
                    for number, known in enumerate(_CLASSES[each] for each in order))
    return LabelSet(name=name, classes=classes, others={len(classes): FREE})


@dataclass(frozen=True)
class VoxelTruth:
    """One of the voxel truths made for nuScenes: its folder under the root, its labels, and what its files hold."""

    name: str
    folder: str
    labels: LabelSet
    download: Download
    masks: bool = False
    flow: bool = False


OCC3D = VoxelTruth("Occ3D-nuScenes", "gts", _numbered("occ3d_nuscenes18", _CLASSES),
                   Download("gts of Occ3D-nuScenes", "https://tsinghua-mars-lab.github.io/Occ3D/"), masks=True)
"""Occ3D-nuScenes (Tian et al. 2023): 17 classes, 17 is free; masks of what LiDAR and cameras observed."""
OPENOCC = VoxelTruth("OpenOcc 2.1", "openocc_v2", _numbered("openocc_nuscenes17", (
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian", "traffic_cone",
    "barrier", "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation")),
    Download("openocc_v2.1.zip", "https://github.com/OpenDriveLab/OccNet"), flow=True)
"""OpenOcc 2.1 (Sima et al. 2023, challenge of 2024): 16 classes, 16 is free; velocity of every cell along x and y of
the grid in m/s (that of its box; 0 for the background), and no masks: its scores count all cells."""


@dataclass(frozen=True)
class _Keyframe:
    """`shots`: rows of `sample_data` by channel. `annotations`: rows with the class added as `class`."""

    scene: str
    index: int
    token: str
    shots: Mapping[str, Row]
    annotations: Sequence[Row]


def scenes_of_split(root: Path | str, split: str) -> list[str]:
    """Names of the scenes of `train` or `val` in Occ3D's annotations.json. Raises DatasetError naming the splits."""
    path = OCC3D.download.require(Path(root) / "annotations.json")
    content = _read_json(path)
    known = [key.removesuffix("_split") for key in content if key.endswith("_split")]
    if split not in known:
        raise DatasetError(f"has no split {split!r}; there are: {', '.join(known) or 'none'}", where=str(path))
    return [str(name) for name in content[f"{split}_split"]]


class NuScenesDataset:
    """The keyframes (2 Hz) of scenes of nuScenes, scene after scene.

    Cameras fire while the LiDAR turns. The rig of a sample takes that in: its T_base_camera maps points of the camera
    at its own exposure into the ego frame at the LiDAR's time. nuScenes' scans are motion compensated as they come.
    Things are numbered by the annotated boxes; a track id is a hash of the instance's token.

    Args:
        root: folder of nuScenes.
        version: of the tables: v1.0-mini, v1.0-trainval.
        truth: `OCC3D` or `OPENOCC`.
        scenes: names of the scenes to take, such as `scenes_of_split(root, "val")`; None for all of the version.
        visible_from: which of Occ3D's masks says what is visible; with OpenOcc every cell is.

    Raises:
        DatasetError: a table or the truth of a scene is missing, or the tables do not fit each other.
        ConfigurationError: `visible_from` is none of its values.
    """

    def __init__(self, root: Path | str, version: str = "v1.0-trainval", *, truth: VoxelTruth = OCC3D,
                 scenes: Sequence[str] | None = None, visible_from: VisibleFrom = "camera") -> None:
        require_source(visible_from, "NuScenesDataset")
        self.root, self.truth, self.visible_from = Path(root), truth, visible_from
        self._version, self._tables = version, self.root / version
        rows = {name: _read_json(_NUSCENES.require(self._tables / f"{name}.json")) for name in _TABLES}
        try:
            self._calibrations, self._poses, self.frames = _link(rows, scenes, str(self._tables))
        except KeyError as error:
            raise DatasetError(f"a row lacks the entry, or refers to a row that is not there: {error}",
                               where=str(self._tables), fix=f"Unpack {_NUSCENES.archive} again") from error
        self._rides = _rides(self.frames, self._poses)
        for scene in self._rides:
            truth.download.require(self.root / truth.folder / scene)

    @property
    def version(self) -> str:
        """The truth and the version of the tables."""
        return f"{self.truth.name}, {self._version}"

    @cached_property
    def content_hash(self) -> str:
        """Over names and sizes of the tables and of the truth of every keyframe."""
        tables = [self._tables / f"{name}.json" for name in _TABLES]
        return hash_files(self.root, [*tables, *map(self._truth_file, self.frames)])

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of the truth, re-indexed so that 0 is free."""
        return self.truth.labels.taxonomy

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Sidewalk class of each label, uint8 [256]."""
        return self.truth.labels.to_sidewalk

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index]
        times_s, T_world_base = self._rides[frame.scene]
        T_world_grid = T_world_base[frame.index]
        stamp_ns = int(frame.shots[LIDAR]["timestamp"]) * 1000
        rig = self._rig(frame, T_world_grid)
        points_m = self._points(frame, rig)
        voxels, visible, labels = self._voxels(frame)
        rows, track_ids = own_cells(labels, self._boxes(frame, T_world_grid))
        return Sample(
            scene=frame.scene, index=frame.index, stamp_ns=stamp_ns, rig=rig,
            images={camera.name: self._image(frame, camera.name) for camera in rig.cameras}, semantics={},
            T_grid_base=np.eye(4), spec=ROAD_GRID, T_world_grid=T_world_grid, labels=labels, visible=visible,
            range_m=scan_ranges(points_m, rig, CAMERAS), points_m=points_m,
            waypoints_m=waypoints_ahead(T_world_base, times_s, frame.index, T_world_grid), instance_rows=rows,
            track_ids=track_ids, flow=_flow(voxels["flow"], stamp_ns) if self.truth.flow else None,
            taxonomy=self.taxonomy.name)

    def _truth_file(self, frame: _Keyframe) -> Path:
        return self.truth.download.require(
            self.root / self.truth.folder / frame.scene / frame.token / "labels.npz")

    def _voxels(self, frame: _Keyframe) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], NDArray[np.uint8]]:
        path = self._truth_file(frame)
        names = ["semantics", *(["mask_camera", "mask_lidar"] if self.truth.masks else []),
                 *(["flow"] if self.truth.flow else [])]
        voxels = read_voxels(path, names)
        labels = self.truth.labels.relabel(voxels["semantics"], path)
        if not self.truth.masks:
            return voxels, np.ones(labels.shape, np.bool_), labels
        masks = {source: voxels[f"mask_{source}"].astype(np.bool_) for source in ("camera", "lidar")}
        return voxels, masks[self.visible_from], unobserved(labels, *masks.values())

    def _rig(self, frame: _Keyframe, T_world_base: NDArray[np.float64]) -> Rig:
        records = [{**self._calibrations[shot["calibrated_sensor_token"]], "channel": channel,
                    "width": shot["width"], "height": shot["height"]} for channel, shot in frame.shots.items()]
        cameras, lidars = from_nuscenes(records)
        T_base_world = se3.invert(T_world_base)
        at_exposure = tuple(
            camera.model_copy(update={"T_base_camera": (
                T_base_world @ _transform(self._poses[frame.shots[camera.name]["ego_pose_token"]])
                @ camera.T_base_camera)})
            for camera in cameras)
        return Rig(name="nuscenes", base_frame="ego", odom_frame="map", cameras=at_exposure, lidars=lidars)

    def _image(self, frame: _Keyframe, channel: str) -> NDArray[np.uint8]:
        shot = frame.shots[channel]
        path = _NUSCENES.require(self.root / shot["filename"])
        image = read_rgb(path)
        if image.shape[:2] != (shot["height"], shot["width"]):
            raise DatasetError(f"must be an image of {shot['height']} x {shot['width']} as in sample_data, "
                               f"got {image.shape[0]} x {image.shape[1]}", where=str(path))
        return image

    def _points(self, frame: _Keyframe, rig: Rig) -> NDArray[np.float32]:
        path = _NUSCENES.require(self.root / frame.shots[LIDAR]["filename"])
        points = read_numbers(path, np.float32, (-1, 5))[:, :3]
        points = points[np.isfinite(points).all(axis=1)]
        return se3.apply(rig.lidar(LIDAR).T_base_lidar, points).astype(np.float32)

    def _boxes(self, frame: _Keyframe, T_world_grid: NDArray[np.float64]) -> list[Box]:
        labels = {name: label for label, name in enumerate(self.taxonomy.classes)}
        T_grid_world = se3.invert(T_world_grid)
        boxes = []
        for row in frame.annotations:
            width, length, height = row["size"]
            boxes.append(Box(track_id_of(row["instance_token"]), labels[row["class"]], T_grid_world @ _transform(row),
                             np.array([length, width, height])))
        return boxes


def open_occ3d(root: Path | str, split: str) -> NuScenesDataset:
    """Keyframes with Occ3D's truth: `split` is `train` or `val`, or a version of the tables for all its scenes."""
    return _open(root, split, OCC3D)


def open_openocc(root: Path | str, split: str) -> NuScenesDataset:
    """The same with OpenOcc's truth; `train` and `val` are read from Occ3D's annotations.json here too."""
    return _open(root, split, OPENOCC)


def _open(root: Path | str, split: str, truth: VoxelTruth) -> NuScenesDataset:
    if (Path(root) / split / "scene.json").is_file():
        return NuScenesDataset(root, split, truth=truth)
    return NuScenesDataset(root, truth=truth, scenes=scenes_of_split(root, split))


def track_id_of(token: str) -> int:
    """A number below 2**64 for an instance's token, the same in every process and on every machine."""
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path)) from error


def _transform(row: Row) -> NDArray[np.float64]:
    w, x, y, z = row["rotation"]
    return se3.from_quaternion((x, y, z, w), row["translation"])


def _flow(flow: NDArray[Any], stamp_ns: int) -> FlowField:
    cells = np.argwhere((flow != 0).any(axis=-1) & np.isfinite(flow).all(axis=-1))
    velocity = np.zeros((len(cells), 3), np.float32)
    velocity[:, :2] = flow[tuple(cells.T)]
    return FlowField(ROAD_GRID, stamp_ns, cells.astype(np.int64), velocity, np.ones(len(cells), np.float32))


def _link(rows: Mapping[str, list[Row]], wanted: Sequence[str] | None, where: str
          ) -> tuple[dict[str, Row], dict[str, Row], list[_Keyframe]]:
    """Calibrations and poses by token, and the keyframes of the wanted scenes in the order of their names and times."""
    scenes = {row["name"]: row for row in rows["scene"]}
    unknown = sorted(set(wanted or ()) - set(scenes))
    if unknown:
        raise DatasetError(f"has no scenes {', '.join(unknown[:8])}", where=f"{where}/scene.json",
                           fix="Are they of another version?")
    samples = {row["token"]: row for row in rows["sample"]}
    channels = {row["token"]: row["channel"] for row in rows["sensor"]}
    calibrations = {row["token"]: row for row in rows["calibrated_sensor"]}
    shots: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows["sample_data"]:
        channel = channels[calibrations[row["calibrated_sensor_token"]]["sensor_token"]]
        if row["is_key_frame"] and channel in (*CAMERAS, LIDAR):
            shots[row["sample_token"]][channel] = row
    names = {row["token"]: row["name"] for row in rows["category"]}
    classes = {row["token"]: _CATEGORIES.get(names[row["category_token"]]) for row in rows["instance"]}
    annotations: dict[str, list[Row]] = defaultdict(list)
    for row in rows["sample_annotation"]:
        if known := classes[row["instance_token"]]:
            annotations[row["sample_token"]].append({**row, "class": known})
    frames = []
    for name in sorted(scenes if wanted is None else set(wanted)):
        token, index = scenes[name]["first_sample_token"], 0
        while token:
            lacking = [channel for channel in (*CAMERAS, LIDAR) if channel not in shots[token]]
            if lacking:
                raise DatasetError(f"the keyframe {token} of {name} has no {', '.join(lacking)}",
                                   where=f"{where}/sample_data.json")
            ordered = {channel: shots[token][channel] for channel in (*CAMERAS, LIDAR)}
            frames.append(_Keyframe(name, index, token, ordered, annotations[token]))
            token, index = samples[token]["next"], index + 1
    poses = {row["token"]: row for row in rows["ego_pose"]}
    used = {shot["ego_pose_token"] for frame in frames for shot in frame.shots.values()}
    return calibrations, {token: poses[token] for token in used}, frames


def _rides(frames: Iterable[_Keyframe], poses: Mapping[str, Row]
           ) -> dict[str, tuple[NDArray[np.float64], list[NDArray[np.float64]]]]:
    """Times (s) and poses of the base at the LiDAR's times, by scene."""
    rides: dict[str, tuple[list[float], list[NDArray[np.float64]]]] = defaultdict(lambda: ([], []))
    for frame in frames:
        shot = frame.shots[LIDAR]
        times_s, T_world_base = rides[frame.scene]
        times_s.append(shot["timestamp"] * 1e-6)
        T_world_base.append(_transform(poses[shot["ego_pose_token"]]))
    return {scene: (np.array(times_s), T_world_base) for scene, (times_s, T_world_base) in rides.items()}
