"""Waymo frames with the voxel truth of Occ3D-Waymo, or with TrackOcc's, which adds the things' ids.

    VOXELS/training/000/000_04.npz          scene and frame; VOXELS is TrackOcc's folder pano_voxel04, or Occ3D-Waymo
    KITTI/training/image_0/0000000.jpg      1 digit split, 3 scene, 3 frame; cameras 0..4; .png of older converters
    KITTI/training/calib/0000000.txt        P0..P4 and Tr_velo_to_cam_0..4, which take the vehicle frame
    KITTI/training/pose/0000000.txt         4 x 4, vehicle in the world
    KITTI/training/velodyne/0000000.bin     optional; float32 [P, 6], x y z first, in the vehicle frame

KITTI is the folder kitti_format that the Waymo converter of MMDetection3D 1.0 writes, for both splits under `training`.
TrackOcc's own archive has its images there, but calibration and poses only as pickle files, which are never read: run
that converter on Waymo's records for `calib` and `pose`. It leaves out the lenses' distortion, as TrackOcc does.
The vehicle frame is the base and the grid frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.calibration.rig import rig_from_dict
from occ_perception.datasets.occ3d import VisibleFrom, read_voxels, require_source, unobserved
from occ_perception.datasets.public import (
    Download,
    LabelSet,
    PublicClass,
    hash_files,
    read_keyed,
    read_numbers,
    read_rgb,
    read_rows,
    scan_ranges,
    waypoints_ahead,
)
from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError, DatasetError
from occ_perception.geometry import ROAD_GRID, se3
from occ_perception.taxonomy import FREE, Sidewalk, Taxonomy

CAMERAS = {"CAM_FRONT": (1280, 1920), "CAM_FRONT_LEFT": (1280, 1920), "CAM_FRONT_RIGHT": (1280, 1920),
           "CAM_SIDE_LEFT": (886, 1920), "CAM_SIDE_RIGHT": (886, 1920)}
"""Height and width of the images of cameras 0..4."""
FRAME_S = 0.1
"""Waymo's frames are 0.1 s apart. The text files carry no stamps: those of samples count from the scene's start."""
_PREFIXES = {"training": "0", "validation": "1"}
_KITTI = Download("the Waymo Open Dataset 1.x (then run MMDetection3D 1.0's waymo_converter.py on it)",
                  "https://waymo.com/open")

LABELS = LabelSet(name="occ3d_waymo16", classes=(
    PublicClass("general_object", (255, 228, 196), Sidewalk.OBSTACLE, (0,)),
    PublicClass("vehicle", (255, 158, 0), Sidewalk.VEHICLE, (1,), thing=True),
    PublicClass("pedestrian", (0, 0, 230), Sidewalk.PERSON, (2,), thing=True),
    PublicClass("sign", (47, 79, 79), Sidewalk.OBSTACLE, (3,)),
    PublicClass("cyclist", (220, 20, 60), Sidewalk.CYCLIST, (4,), thing=True),
    PublicClass("traffic_light", (255, 69, 0), Sidewalk.OBSTACLE, (5,)),
    PublicClass("pole", (255, 140, 0), Sidewalk.OBSTACLE, (6,)),
    PublicClass("construction_cone", (233, 150, 70), Sidewalk.OBSTACLE, (7,)),
    PublicClass("bicycle", (255, 61, 99), Sidewalk.CYCLIST, (8,)),
    PublicClass("motorcycle", (112, 128, 144), Sidewalk.CYCLIST, (9,)),
    PublicClass("building", (222, 184, 135), Sidewalk.WALL, (10,)),
    PublicClass("vegetation", (0, 175, 0), Sidewalk.TREES, (11,)),
    PublicClass("tree_trunk", (165, 42, 42), Sidewalk.TREES, (12,)),
    PublicClass("road", (0, 207, 191), Sidewalk.ROAD, (13,)),
    PublicClass("walkable", (75, 0, 75), Sidewalk.SIDEWALK, (14,)),
), others={15: FREE, 23: FREE})
"""Occ3D-Waymo's classes; free is 23 in its files and 15 in TrackOcc's. Things are those that TrackOcc tracks."""


@dataclass(frozen=True)
class WaymoTruth:
    """One form of the voxel truth: the names of its arrays; `instances` is None where things have no ids."""

    name: str
    semantics: str
    mask_camera: str
    mask_lidar: str
    instances: str | None
    download: Download


TRACKOCC = WaymoTruth("TrackOcc", "semantics", "mask_camera", "mask_lidar", "instances",
                      Download("pano_voxel04 of TrackOcc", "https://huggingface.co/datasets/zgchen33/TrackOcc_waymo"))
"""TrackOcc (Chen et al. 2025): ids of things that last over a scene."""
OCC3D_WAYMO = WaymoTruth("Occ3D-Waymo", "voxel_label", "final_voxel_state", "origin_voxel_state", None,
                         Download("the 0.4 m labels of Occ3D-Waymo", "https://tsinghua-mars-lab.github.io/Occ3D/"))
"""Occ3D-Waymo (Tian et al. 2023)."""


@dataclass(frozen=True)
class _Frame:
    """`index` counts the taken frames of a scene, `number` all of them."""

    scene: str
    index: int
    number: int
    path: Path


class Occ3DWaymoDataset:
    """Frames of Waymo scenes, scene after scene.

    Args:
        voxels: folder with the folders training and validation.
        kitti: folder kitti_format.
        split: training or validation.
        truth: `TRACKOCC` or `OCC3D_WAYMO`.
        every: takes each n-th frame; 5 is the 2 Hz of TrackOcc, whose archive has the images of those only.
        visible_from: whose mask says what is visible; that of the cameras is cut to their field of view.

    Raises:
        DatasetError: there is no such split.
        ConfigurationError: `split`, `every` or `visible_from` is none of its values.
    """

    def __init__(self, voxels: Path | str, kitti: Path | str, split: str = "training", *,
                 truth: WaymoTruth = TRACKOCC, every: int = 5, visible_from: VisibleFrom = "camera") -> None:
        require_source(visible_from, "Occ3DWaymoDataset")
        faults = [] if split in _PREFIXES else [f"split must be one of {', '.join(_PREFIXES)}, got {split!r}"]
        if every < 1:
            faults.append(f"every must be at least 1, got {every}")
        if faults:
            raise ConfigurationError(faults, where="Occ3DWaymoDataset")
        self.voxels, self.kitti = Path(voxels), Path(kitti) / "training"
        self.split, self.truth, self.every, self.visible_from = split, truth, every, visible_from
        folder = truth.download.require(self.voxels / split)
        self.frames: list[_Frame] = []
        self._scenes: dict[str, tuple[int, ...]] = {}
        for scene in sorted(path for path in folder.iterdir() if path.is_dir()):
            numbers = {int(path.stem[:3]): path for path in scene.glob("[0-9][0-9][0-9]_04.npz")}
            taken = sorted(number for number in numbers if number % every == 0)
            self.frames += [_Frame(scene.name, k, number, numbers[number]) for k, number in enumerate(taken)]
            self._scenes[scene.name] = tuple(taken)
        if not self.frames:
            raise DatasetError("has no files SCENE/FRAME_04.npz", where=str(folder),
                               fix=f"Download {truth.download.archive} from {truth.download.url}")

    @property
    def version(self) -> str:
        """Name of the truth, split and interval."""
        return f"{self.truth.name}, {self.split}, every {self.every}"

    @cached_property
    def content_hash(self) -> str:
        """Over names and sizes of the voxel files of the frames."""
        return hash_files(self.voxels, [frame.path for frame in self.frames])

    @property
    def taxonomy(self) -> Taxonomy:
        """Classes of Occ3D-Waymo, re-indexed so that 0 is free."""
        return LABELS.taxonomy

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Sidewalk class of each label, uint8 [256]."""
        return LABELS.to_sidewalk

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames[index]
        labels, visible, instances = self._voxels(frame.path)
        rows, track_ids = (None, np.zeros(0, np.uint64)) if instances is None else _tracks(labels, instances)
        numbers = self._scenes[frame.scene]
        names = tuple(self._name(frame.scene, number) for number in numbers)
        T_world_base = _read_poses(self.kitti / "pose", names)
        T_world_grid = T_world_base[frame.index]
        rig = _read_rig(_KITTI.require(self.kitti / "calib" / f"{names[frame.index]}.txt"))
        points_m = self._points(names[frame.index])
        return Sample(
            scene=frame.scene, index=frame.index, stamp_ns=round(frame.number * FRAME_S * 1e9), rig=rig,
            images={camera: self._image(k, camera, names[frame.index]) for k, camera in enumerate(CAMERAS)},
            semantics={}, T_grid_base=np.eye(4), spec=ROAD_GRID, T_world_grid=T_world_grid, labels=labels,
            visible=visible, range_m={} if points_m is None else scan_ranges(points_m, rig, CAMERAS),
            points_m=points_m, waypoints_m=waypoints_ahead(T_world_base, np.array(numbers) * FRAME_S, frame.index,
                                                           T_world_grid),
            instance_rows=rows, track_ids=track_ids, taxonomy=self.taxonomy.name)

    def _name(self, scene: str, number: int) -> str:
        return f"{_PREFIXES[self.split]}{scene}{number:03d}"

    def _voxels(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[Any] | None]:
        truth = self.truth
        names = [truth.semantics, truth.mask_camera, truth.mask_lidar, "infov"]
        voxels = read_voxels(path, names if truth.instances is None else [*names, truth.instances])
        camera, lidar, in_view = (voxels[name].astype(np.bool_) for name in names[1:])
        labels = unobserved(LABELS.relabel(voxels[truth.semantics], path), camera, lidar)
        visible = camera & in_view if self.visible_from == "camera" else lidar
        return labels, visible, None if truth.instances is None else voxels[truth.instances]

    def _image(self, k: int, camera: str, name: str) -> NDArray[np.uint8]:
        png = self.kitti / f"image_{k}" / f"{name}.png"
        path = png if png.is_file() else _KITTI.require(png.with_suffix(".jpg"))
        image = read_rgb(path)
        if image.shape[:2] != CAMERAS[camera]:
            raise DatasetError(f"must be an image of {CAMERAS[camera]}, got {image.shape[:2]}", where=str(path),
                               fix="Its calibration holds for Waymo's own size alone")
        return image

    def _points(self, name: str) -> NDArray[np.float32] | None:
        folder = self.kitti / "velodyne"
        if not folder.is_dir():
            return None
        points = read_numbers(_KITTI.require(folder / f"{name}.bin"), np.float32, (-1, 6))[:, :3]
        return np.asarray(points[np.isfinite(points).all(axis=1)], np.float32)


def open_occ3d(root: Path | str, split: str) -> Occ3DWaymoDataset:
    """Occ3D-Waymo's labels in ROOT/voxel04 with the images in ROOT/kitti_format."""
    return Occ3DWaymoDataset(Path(root) / "voxel04", Path(root) / "kitti_format", split, truth=OCC3D_WAYMO)


def open_trackocc(root: Path | str, split: str) -> Occ3DWaymoDataset:
    """TrackOcc's labels in ROOT/pano_voxel04 with the images in ROOT/kitti_format."""
    return Occ3DWaymoDataset(Path(root) / "pano_voxel04", Path(root) / "kitti_format", split)


def _tracks(labels: NDArray[np.uint8], instances: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint64]]:
    """Rows uint16 [200, 200, 16] and ids uint64 [M] of the things. As in TrackOcc, other classes lose their ids."""
    owned = np.isin(labels, list(LABELS.taxonomy.things)) & (instances > 0)
    ids = np.unique(instances[owned])
    rows = np.where(owned, np.searchsorted(ids, instances) + 1, 0)
    return rows.astype(np.uint16), ids.astype(np.uint64)


@lru_cache(maxsize=4)
def _read_poses(folder: Path, names: tuple[str, ...]) -> list[NDArray[np.float64]]:
    poses = []
    for path in (_KITTI.require(folder / f"{name}.txt") for name in names):
        poses.append(read_rows(path, 4))
        if not se3.is_rigid(poses[-1]):
            raise DatasetError("must hold a rigid motion, 4 x 4", where=str(path))
    return poses


def _read_rig(path: Path) -> Rig:
    """The five cameras of a calibration text. Raises DatasetError, or CalibrationError for impossible numbers."""
    keyed = read_keyed(path)
    cameras = []
    try:
        for k, (name, (height, width)) in enumerate(CAMERAS.items()):
            P = np.array(keyed[f"P{k}"], float).reshape(3, 4)
            T_camera_base = np.vstack([np.array(keyed[f"Tr_velo_to_cam_{k}"], float).reshape(3, 4), [0, 0, 0, 1]])
            cameras.append({"name": name, "frame": name, "width": width, "height": height, "model": "pinhole",
                            "parameters": (P[0, 0], P[1, 1], P[0, 2], P[1, 2]),
                            "T_base_camera": se3.invert(T_camera_base)})
    except (KeyError, ValueError) as error:
        raise DatasetError(f"must hold P0..P4 and Tr_velo_to_cam_0..4 of 12 numbers each: {error}",
                           where=str(path)) from error
    return rig_from_dict({"name": "waymo", "base_frame": "vehicle", "odom_frame": "world", "cameras": cameras},
                         where=str(path))
