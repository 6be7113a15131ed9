"""RELLIS-3D: an off-road robot with a labelled 64-ring LiDAR and a camera (Jiang et al. 2021).

    ROOT/pt_train.lst pt_val.lst pt_test.lst     one scan and its labels a line, relative to ROOT
    ROOT/00000/os1_cloud_node_kitti_bin/000104.bin                      float32 [P, 4] x y z intensity
    ROOT/00000/os1_cloud_node_semantickitti_label_id/000104.label       uint32 [P], class in the lower 16 bits
    ROOT/00000/pylon_camera_node/frame000104-1581624663_149.jpg         seconds and milliseconds in the name
    ROOT/00000/pylon_camera_node_label_id/frame000104-1581624663_149.png    uint8; only of every fifth image
    ROOT/00000/camera_info.txt                   fx fy cx cy
    ROOT/00000/transforms.yaml                   `os1_cloud_node-pylon_camera_node`: camera in the LiDAR's frame
    ROOT/00000/poses.txt                         12 numbers a scan: LiDAR in the world

There is no voxel truth: the voxels come from the single labelled scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.datasets.public import (
    Download,
    Drive,
    LabelSet,
    PublicClass,
    PublicDataset,
    matrices,
    read_ids,
    read_numbers,
    read_rgb,
    read_rows,
)
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import read_yaml
from occ_perception.errors import DatasetError, OccPerceptionError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import OCCUPIED, UNKNOWN, Sidewalk

LABELS = LabelSet("rellis3d", (
    PublicClass("dirt", (108, 64, 20), Sidewalk.GRASS, (1,)),
    PublicClass("grass", (0, 102, 0), Sidewalk.GRASS, (3, 29, 30)),
    PublicClass("tree", (0, 255, 0), Sidewalk.TREES, (4,)),
    PublicClass("pole", (0, 153, 153), Sidewalk.OBSTACLE, (5,)),
    PublicClass("water", (0, 128, 255), Sidewalk.OBSTACLE, (6, 32)),
    PublicClass("vehicle", (255, 255, 0), Sidewalk.VEHICLE, (8,), thing=True),
    PublicClass("object", (255, 0, 127), Sidewalk.OBSTACLE, (9,)),
    PublicClass("asphalt", (64, 64, 64), Sidewalk.ROAD, (10,)),
    PublicClass("building", (255, 0, 0), Sidewalk.WALL, (12,)),
    PublicClass("log", (102, 0, 0), Sidewalk.OBSTACLE, (15,)),
    PublicClass("person", (204, 153, 255), Sidewalk.PERSON, (17,), thing=True),
    PublicClass("fence", (102, 0, 204), Sidewalk.WALL, (18,)),
    PublicClass("bush", (255, 153, 204), Sidewalk.TREES, (19,)),
    PublicClass("concrete", (170, 170, 170), Sidewalk.ROAD, (23,)),
    PublicClass("barrier", (41, 121, 255), Sidewalk.OBSTACLE, (27,)),
    PublicClass("puddle", (134, 255, 239), Sidewalk.GRASS, (31,)),
    PublicClass("mud", (99, 66, 34), Sidewalk.GRASS, (33,)),
    PublicClass("rubble", (110, 22, 138), Sidewalk.OBSTACLE, (34,)),
), {0: OCCUPIED, 7: UNKNOWN})
"""The published ontology: returns without a class (void) count as matter, sky does not. Bare soil, mud and puddles are
`grass`, WalkOCC's class of unpaved ground (appendix E); deep water is an obstacle."""

OFFROAD_GRID = VoxelGridSpec((0.0, -12.8, -2.0), (25.6, 12.8, 4.4), 0.2)
"""128 x 128 x 32 cells of 0.2 m ahead of the robot."""
T_BASE_LIDAR = se3.from_euler(0.0, 0.0, np.pi, (0.0, 0.0, 1.14))
"""The Ouster looks backwards, 1.14 m above the ground (the platform's URDF and its wheels' radius of 0.3 m)."""
DISTORTION = (-0.134313, -0.025905, 0.002181, 0.00084, 0.0)
"""k1 k2 p1 p2 k3 of the camera, which camera_info.txt leaves out (utils/lidar2img.ipynb of the data set)."""

_PAGE = "https://github.com/unmannedlab/RELLIS-3D"
_LISTS = Download("the LiDAR split file", _PAGE)
_SCANS = Download("the LiDAR scans in SemanticKITTI format (14 GB)", _PAGE)
_LABELS = Download("the LiDAR annotations in SemanticKITTI format (174 MB)", _PAGE)
_IMAGES = Download("the full images (11 GB)", _PAGE)
_POSES = Download("the LiDAR scan poses", _PAGE)
_CALIBRATION = Download("the camera intrinsics and camera to LiDAR calibration", _PAGE)
_CAMERA, _TRANSFORM = "pylon_camera_node", "os1_cloud_node-pylon_camera_node"
_SEQUENCES = ("00000", "00001", "00002", "00003", "00004")


class Rellis3dDataset(PublicDataset):
    """The scans of one of the published lists. `semantics` holds the image's classes where it was annotated.

    Args:
        root: folder that holds the lists and the sequences.
        split: `train`, `val` or `test`.
        sequences: only scans of these; None for all.
        spec: the grid, which stands upright.

    Raises:
        ConfigurationError: unknown split or sequence.
        DatasetError: a file is missing or does not fit; the message names it and where to get it.
    """

    title = "RELLIS-3D v1.1"
    label_set = LABELS
    splits = dict.fromkeys(("train", "val", "test"), _SEQUENCES)

    def __init__(self, root: Path | str, split: str, sequences: Sequence[str] | None = None, *,
                 spec: VoxelGridSpec = OFFROAD_GRID) -> None:
        super().__init__(root, split, sequences)
        self.spec = spec
        listed = _read_list(_LISTS.require(self.root / f"pt_{split}.lst"))
        self.frames: list[tuple[str, int]] = [frame for frame in listed if frame[0] in self.sequences]
        self._images = {name: _list_images(self.root / name) for name in sorted({name for name, _ in self.frames})}
        self._drives = {name: _read_drive(self.root / name, images) for name, images in self._images.items()}

    def files(self) -> Iterable[Path]:
        """The scans, labels and images of all frames, and the poses."""
        for name in self._drives:
            yield self.root / name / "poses.txt"
        for name, number in self.frames:
            yield from self._scan(name, number)
            yield self._image(name, number)[0]

    def __getitem__(self, index: int) -> Sample:
        name, number = self.frames[index]
        image_path, row = self._image(name, number)
        points_m, classes = _read_scan(*self._scan(name, number))
        annotated = self.root / name / f"{_CAMERA}_label_id" / f"{image_path.stem}.png"
        semantics = {_CAMERA: LABELS.pixels(read_ids(annotated), annotated)} if annotated.is_file() else {}
        return self._drives[name].sample_of_scan(
            row, points_m, classes, self.spec, {_CAMERA: read_rgb(image_path)}, semantics, scene=name, index=number,
            taxonomy=self.taxonomy.name)

    def _scan(self, name: str, number: int) -> tuple[Path, Path]:
        folder = self.root / name
        return (_SCANS.require(folder / "os1_cloud_node_kitti_bin" / f"{number:06d}.bin"),
                _LABELS.require(folder / "os1_cloud_node_semantickitti_label_id" / f"{number:06d}.label"))

    def _image(self, name: str, number: int) -> tuple[Path, int]:
        """The image of a scan and the row of both in the drive."""
        if number not in self._images[name]:
            raise DatasetError(f"has no image of frame {number}", where=str(self.root / name / _CAMERA),
                               fix=f"Download {_IMAGES.archive} from {_PAGE}")
        return self._images[name][number]


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Sequence and number of the scans in a list."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    matches = [re.match(r"(\d{5})/.*/(\d{6})\.bin\b", line) for line in lines]
    if not lines or None in matches:
        raise DatasetError("must name a scan such as 00000/os1_cloud_node_kitti_bin/000104.bin in each line",
                           where=str(path), fix=f"Download {_LISTS.archive} from {_PAGE}")
    return [(found[1], int(found[2])) for found in matches if found]


def _list_images(folder: Path) -> dict[int, tuple[Path, int]]:
    """By frame its image and the place of that among all."""
    paths = _IMAGES.listing(folder / _CAMERA, "frame[0-9][0-9][0-9][0-9][0-9][0-9]-*_*.jpg")
    return {int(path.name[5:11]): (path, row) for row, path in enumerate(paths)}


def _read_drive(folder: Path, images: dict[int, tuple[Path, int]]) -> Drive:
    T_world_lidar = matrices(read_rows(_POSES.require(folder / "poses.txt"), 12))
    if max(images) >= len(T_world_lidar):
        raise DatasetError(f"has {len(T_world_lidar)} rows, none for frame {max(images)}",
                           where=str(folder / "poses.txt"), fix=f"Download {_POSES.archive} from {_PAGE}")
    paths = [path for path, _ in images.values()]
    first = read_rgb(paths[0])
    return Drive(_read_rig(folder, first.shape[1], first.shape[0]),
                 T_world_lidar[list(images)] @ se3.invert(T_BASE_LIDAR),
                 np.array([_stamp_ns(path) for path in paths], np.int64))


def _stamp_ns(image: Path) -> int:
    try:
        seconds, fraction = image.stem[12:].split("_")
        return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])
    except ValueError as error:
        raise DatasetError("must be named frame000104-SECONDS_MILLISECONDS.jpg", where=str(image)) from error


def _read_rig(folder: Path, width: int, height: int) -> Rig:
    path = _CALIBRATION.require(folder / "transforms.yaml")
    intrinsics = read_rows(_CALIBRATION.require(folder / "camera_info.txt"), 4)[0]
    try:
        q, t = (read_yaml(path)[_TRANSFORM][key] for key in "qt")
        T_lidar_camera = se3.from_quaternion([float(q[key]) for key in "xyzw"], [float(t[key]) for key in "xyz"])
        camera = RigCamera(name=_CAMERA, frame=_CAMERA, width=width, height=height, model="pinhole",
                           parameters=(*intrinsics.tolist(), *DISTORTION), T_base_camera=T_BASE_LIDAR @ T_lidar_camera)
    except (KeyError, TypeError, ValueError, OccPerceptionError) as error:
        raise DatasetError(f"holds no camera's place: {error!r}", where=str(path),
                           fix=f"Download {_CALIBRATION.archive} from {_PAGE}") from error
    lidar = RigLidar(name="os1", frame="os1_cloud_node", T_base_lidar=T_BASE_LIDAR)
    return Rig(name="rellis3d", cameras=(camera,), lidars=(lidar,))


def _read_scan(scan: Path, labels: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [P, 3] in the base frame and their labels [P]; beams without a return, stored as zeros, are left out."""
    points = read_numbers(scan, np.float32, (-1, 4))[:, :3]
    raw = read_numbers(labels, np.uint32, (len(points),)) & 0xFFFF
    returned = (points != 0).any(1)
    points_m = se3.apply(T_BASE_LIDAR, points[returned]).astype(np.float32)
    return points_m, LABELS.relabel(raw[returned], labels)
