"""KITTI-360 (Liao et al. 2022) with its two fisheyes, and SSCBench's voxel truth of it (Li et al. 2023).

    ROOT/calibration/perspective.txt calib_cam_to_pose.txt calib_cam_to_velo.txt image_02.yaml image_03.yaml
    ROOT/data_poses/DRIVE/cam0_to_world.txt                                 frame, then 4 x 4 of rectified camera 0
    ROOT/data_2d_raw/DRIVE/image_00/data_rect/0000000250.png, timestamps.txt    left and right (01), rectified
    ROOT/data_2d_raw/DRIVE/image_02/data_rgb/0000000250.png                     fisheyes to the left and right (03)
    ROOT/data_2d_semantics/train/DRIVE/image_00/semantic/0000000250.png         numbers of kitti360Scripts
    ROOT/data_3d_raw/DRIVE/velodyne_points/data/0000000250.bin                  float32 [P, 4], not deskewed

DRIVE is such as `2013_05_28_drive_0003_sync`. SSCBench renumbers the frames and has its own ROOT:

    ROOT/calibration/                                  the same files
    ROOT/data_2d_raw/DRIVE/image_00/data_rect/000250.png
    ROOT/preprocess/labels/DRIVE/000250_1_1.npy        uint8 [256, 256, 32], 0 free, 255 unknown

The base stands on the ground below the LiDAR, with the LiDAR's axes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.datasets import semantic_kitti
from occ_perception.datasets.public import (
    Download,
    Drive,
    LabelSet,
    PublicClass,
    PublicDataset,
    matrices,
    read_ids,
    read_keyed,
    read_rgb,
    read_rows,
)
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.semantic_kitti import COMPLETION_GRID, T_BASE_LIDAR, read_points
from occ_perception.errors import DatasetError
from occ_perception.geometry import ROAD_GRID, VoxelGridSpec, se3
from occ_perception.geometry.raycast import visible_cells
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk

LABELS = LabelSet("kitti360", (
    PublicClass("road", (128, 64, 128), Sidewalk.ROAD, (7,)),
    PublicClass("sidewalk", (244, 35, 232), Sidewalk.SIDEWALK, (8,)),
    PublicClass("parking", (250, 170, 160), Sidewalk.ROAD, (9,)),
    PublicClass("rail track", (230, 150, 140), Sidewalk.ROAD, (10,)),
    PublicClass("building", (70, 70, 70), Sidewalk.WALL, (11,)),
    PublicClass("wall", (102, 102, 156), Sidewalk.WALL, (12,)),
    PublicClass("fence", (190, 153, 153), Sidewalk.WALL, (13,)),
    PublicClass("guard rail", (180, 165, 180), Sidewalk.WALL, (14,)),
    PublicClass("bridge", (150, 100, 100), Sidewalk.WALL, (15,)),
    PublicClass("tunnel", (150, 120, 90), Sidewalk.WALL, (16,)),
    PublicClass("pole", (153, 153, 153), Sidewalk.OBSTACLE, (17, 18, 37)),
    PublicClass("traffic light", (250, 170, 30), Sidewalk.OBSTACLE, (19,)),
    PublicClass("traffic sign", (220, 220, 0), Sidewalk.OBSTACLE, (20,)),
    PublicClass("vegetation", (107, 142, 35), Sidewalk.TREES, (21,)),
    PublicClass("terrain", (152, 251, 152), Sidewalk.GRASS, (22,)),
    PublicClass("person", (220, 20, 60), Sidewalk.PERSON, (24,), thing=True),
    PublicClass("rider", (255, 0, 0), Sidewalk.PERSON, (25,), thing=True),
    PublicClass("car", (0, 0, 142), Sidewalk.VEHICLE, (26,), thing=True),
    PublicClass("truck", (0, 0, 70), Sidewalk.VEHICLE, (27,), thing=True),
    PublicClass("bus", (0, 60, 100), Sidewalk.VEHICLE, (28,), thing=True),
    PublicClass("caravan", (0, 0, 90), Sidewalk.VEHICLE, (29,), thing=True),
    PublicClass("trailer", (0, 0, 110), Sidewalk.VEHICLE, (30,), thing=True),
    PublicClass("train", (0, 80, 100), Sidewalk.VEHICLE, (31,), thing=True),
    PublicClass("motorcycle", (0, 0, 230), Sidewalk.CYCLIST, (32,), thing=True),
    PublicClass("bicycle", (119, 11, 32), Sidewalk.CYCLIST, (33,), thing=True),
    PublicClass("garage", (64, 128, 128), Sidewalk.WALL, (34,)),
    PublicClass("gate", (190, 153, 153), Sidewalk.WALL, (35,)),
    PublicClass("stop", (150, 120, 90), Sidewalk.OBSTACLE, (36,)),
    PublicClass("lamp", (0, 64, 64), Sidewalk.OBSTACLE, (38,)),
    PublicClass("trash bin", (0, 128, 192), Sidewalk.OBSTACLE, (39,)),
    PublicClass("vending machine", (128, 64, 0), Sidewalk.OBSTACLE, (40,)),
    PublicClass("box", (64, 64, 128), Sidewalk.OBSTACLE, (41,)),
    PublicClass("unknown construction", (102, 0, 0), Sidewalk.WALL, (42,)),
    PublicClass("unknown vehicle", (51, 0, 51), Sidewalk.VEHICLE, (43,), thing=True),
    PublicClass("unknown object", (32, 32, 32), Sidewalk.OBSTACLE, (44,)),
), {**dict.fromkeys(range(7), UNKNOWN), 23: UNKNOWN})
"""The ids of kitti360Scripts' labels; 0 to 6 are void and 23 is sky, which are background in images."""

_IN_SEMANTIC_KITTI = {known.name: known for known in semantic_kitti.LABELS.classes}
_NAMES = ("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "road", "parking", "sidewalk",
          "other-ground", "building", "fence", "vegetation", "terrain", "pole", "traffic-sign")
SSCBENCH_LABELS = LabelSet("sscbench_kitti360", (
    *(replace(_IN_SEMANTIC_KITTI[name], ids=(k,)) for k, name in enumerate(_NAMES, start=1)),
    PublicClass("other-structure", (255, 150, 0), Sidewalk.WALL, (17,)),
    PublicClass("other-object", (50, 255, 255), Sidewalk.OBSTACLE, (18,)),
), {0: FREE, UNKNOWN: UNKNOWN})
"""The learning_map of SSCBench's kitti360.yaml, which the preprocessed labels have gone through."""

_PAGE = "https://www.cvlibs.net/datasets/kitti-360/download.php"
_CALIBRATION = Download("calibration.zip (3 KB)", _PAGE)
_POSES = Download("data_poses.zip (9 MB)", _PAGE)
_PERSPECTIVE = Download("data_2d_raw, perspective images (128 GB)", _PAGE)
_FISHEYE = Download("data_2d_raw, fisheye images (355 GB)", _PAGE)
_VELODYNE = Download("data_3d_raw, raw Velodyne scans (119 GB)", _PAGE)
_SSCBENCH = Download("SSCBench-KITTI-360 (unsquashed)", "https://github.com/ai4ce/SSCBench")
_FISHEYES = ("image_02", "image_03")
CAMERAS = ("image_00", "image_01", *_FISHEYES)


def _drives(*numbers: int) -> tuple[str, ...]:
    return tuple(f"2013_05_28_drive_{number:04d}_sync" for number in numbers)


class _Kitti360(PublicDataset):
    splits = {"train": _drives(0, 2, 3, 4, 5, 7, 10), "valid": _drives(6), "test": _drives(9)}  # noqa: RUF012


class Kitti360Dataset(_Kitti360):
    """Every frame that has a pose and a scan; the drives are split as SSCBench does.

    The voxels come from the single scan: 254 where it hits (its points have no classes), 0 where its rays pass, else
    255. `semantics` holds the classes of the perspective images that were annotated. The grid stands upright.

    Args:
        root: folder that holds `calibration` and `data_3d_raw`.
        split: `train`, `valid` or `test`.
        sequences: only these drives of the split; None for all.
        cameras: which of `CAMERAS` to read.
        spec: the grid.

    Raises:
        ConfigurationError: unknown split or drive.
        DatasetError: a file is missing or does not fit; the message names it and where to get it.
    """

    title = "KITTI-360"
    label_set = LABELS

    def __init__(self, root: Path | str, split: str, sequences: Sequence[str] | None = None, *,
                 cameras: Sequence[str] = CAMERAS, spec: VoxelGridSpec = ROAD_GRID) -> None:
        super().__init__(root, split, sequences)
        self.spec, self.rig = spec, read_rig(self.root / "calibration", cameras)
        self.frames: list[tuple[str, int, int]] = []  # drive, number of the frame, row of its pose
        self._drives: dict[str, Drive] = {}
        T_camera_base = se3.invert(read_rig(self.root / "calibration", ("image_00",)).cameras[0].T_base_camera)
        for name in self.sequences:
            scans = {int(path.stem) for path in _VELODYNE.listing(self._scans(name), "*.bin")}
            rows = read_rows(_POSES.require(self.root / "data_poses" / name / "cam0_to_world.txt"), 17)
            numbers = rows[:, 0].astype(np.int64)
            stamps_ns = _read_stamps(_PERSPECTIVE.require(self._images(name, "image_00").parent / "timestamps.txt"))
            if numbers.max() >= len(stamps_ns):
                raise DatasetError(f"has frame {numbers.max()}, but there are {len(stamps_ns)} timestamps",
                                   where=str(self.root / "data_poses" / name / "cam0_to_world.txt"))
            # the poses are of the rectified camera 0
            self._drives[name] = Drive(self.rig, matrices(rows[:, 1:13]) @ T_camera_base, stamps_ns[numbers])
            self.frames += [(name, number, row) for row, number in enumerate(numbers.tolist()) if number in scans]

    def files(self) -> Iterable[Path]:
        """The scans and images of all frames, and the poses."""
        for name in self.sequences:
            yield self.root / "data_poses" / name / "cam0_to_world.txt"
        for name, number, _ in self.frames:
            yield self._scans(name) / f"{number:010d}.bin"
            yield from (self._image(name, camera.name, number) for camera in self.rig.cameras)

    def __getitem__(self, index: int) -> Sample:
        name, number, row = self.frames[index]
        points_m = read_points(self._scans(name) / f"{number:010d}.bin", T_BASE_LIDAR)
        images = {camera.name: read_rgb(self._image(name, camera.name, number)) for camera in self.rig.cameras}
        return self._drives[name].sample_of_scan(
            row, points_m, np.full(len(points_m), OCCUPIED, np.uint8), self.spec, images,
            self._semantics(name, number), scene=name, index=number, taxonomy=self.taxonomy.name)

    def _semantics(self, drive: str, number: int) -> Mapping[str, NDArray[np.uint8]]:
        paths = {camera.name: self.root / "data_2d_semantics" / "train" / drive / camera.name / "semantic"
                 / f"{number:010d}.png" for camera in self.rig.cameras}
        return {camera: LABELS.pixels(read_ids(path), path) for camera, path in paths.items() if path.is_file()}

    def _scans(self, drive: str) -> Path:
        return self.root / "data_3d_raw" / drive / "velodyne_points" / "data"

    def _images(self, drive: str, camera: str) -> Path:
        return self.root / "data_2d_raw" / drive / camera / ("data_rgb" if camera in _FISHEYES else "data_rect")

    def _image(self, drive: str, camera: str, number: int) -> Path:
        source = _FISHEYE if camera in _FISHEYES else _PERSPECTIVE
        return source.require(self._images(drive, camera) / f"{number:010d}.png")


class SscBenchKitti360Dataset(_Kitti360):
    """SSCBench-KITTI-360: every fifth frame with voxels of SemanticKITTI's grid.

    SSCBench's numbers lead to no pose of KITTI-360, so that every frame is a scene of its own, at the origin of its
    world. There are no scans; `visible` is what the LiDAR's place has a line of sight to.

    Args:
        root: folder that holds `preprocess`.
        split: `train`, `valid` or `test`.
        sequences: only these drives of the split; None for all.

    Raises:
        ConfigurationError: unknown split or drive.
        DatasetError: a file is missing or does not fit; the message names it and where to get it.
    """

    title = "SSCBench-KITTI-360"
    label_set = SSCBENCH_LABELS

    def __init__(self, root: Path | str, split: str, sequences: Sequence[str] | None = None) -> None:
        super().__init__(root, split, sequences)
        self.rig = read_rig(self.root / "calibration", ("image_00",))
        folders = [self.root / "preprocess" / "labels" / name for name in self.sequences]
        self.frames: list[Path] = [path for folder in folders for path in _SSCBENCH.listing(folder, "*_1_1.npy")]

    def files(self) -> Iterable[Path]:
        """The voxels and images of all frames."""
        for path in self.frames:
            yield path
            yield self._image(path)

    def __getitem__(self, index: int) -> Sample:
        path = self.frames[index]
        labels = _read_labels(path)
        image = self._image(path)
        visible = visible_cells(labels != FREE, COMPLETION_GRID, T_BASE_LIDAR[:3, 3]) & (labels != UNKNOWN)
        return Sample(
            scene=f"{path.parent.name}_{image.stem}", index=0, stamp_ns=0, rig=self.rig,
            images={"image_00": read_rgb(image)}, semantics={}, T_grid_base=np.eye(4), spec=COMPLETION_GRID,
            T_world_grid=np.eye(4), labels=labels, visible=visible, range_m={}, taxonomy=self.taxonomy.name)

    def _image(self, labels: Path) -> Path:
        return _SSCBENCH.require(self.root / "data_2d_raw" / labels.parent.name / "image_00" / "data_rect"
                                 / f"{labels.name.removesuffix('_1_1.npy')}.png")


def read_rig(folder: Path, cameras: Sequence[str] = CAMERAS) -> Rig:
    """The Velodyne and those cameras of KITTI-360's `calibration` folder.

    Raises:
        DatasetError: a file is missing or does not hold what it should.
    """
    T_pose_cameras = {name: _numbers(folder / "calib_cam_to_pose.txt", name, 12) for name in ("image_00", *cameras)}
    path = _CALIBRATION.require(folder / "calib_cam_to_velo.txt")
    T_lidar_camera = matrices(read_rows(path, 12))[0]
    T_base_pose = T_BASE_LIDAR @ T_lidar_camera @ se3.invert(matrices(T_pose_cameras["image_00"])[0])
    lidar = RigLidar(name="velodyne", frame="velodyne", T_base_lidar=T_BASE_LIDAR)
    try:
        made = tuple(_read_camera(folder, name, T_base_pose @ matrices(T_pose_cameras[name])[0]) for name in cameras)
        return Rig(name="kitti360", cameras=made, lidars=(lidar,))
    except ValueError as error:  # pydantic's, with every fault
        raise DatasetError(f"makes no rig: {error}", where=str(folder),
                           fix=f"Download {_CALIBRATION.archive} from {_CALIBRATION.url} again") from error


def _read_camera(folder: Path, name: str, T_base_camera: NDArray[np.float64]) -> RigCamera:
    """A camera by its own file; `T_base_camera` is as calibrated, before rectification."""
    if name in _FISHEYES:
        path = _CALIBRATION.require(folder / f"{name}.yaml")
        # OpenCV's YAML 1.0, which YAML readers refuse; its numbers have names of their own
        entries = re.findall(r"(\w+) *: *([-+.eE\d]+) *$", path.read_text(), re.MULTILINE)
        numbers = {key: float(number) for key, number in entries}
        lens = ("gamma1", "gamma2", "u0", "v0", "xi", "k1", "k2", "p1", "p2")
        missing = [key for key in ("image_width", "image_height", *lens) if key not in numbers]
        if missing:
            raise DatasetError(f"lacks {', '.join(missing)}", where=str(path))
        return RigCamera(name=name, frame=name, width=int(numbers["image_width"]), height=int(numbers["image_height"]),
                         model="mei", parameters=tuple(numbers[key] for key in lens), T_base_camera=T_base_camera)
    path = folder / "perspective.txt"
    P, R, size = (_numbers(path, f"{key}_rect_{name[-2:]}", n) for key, n in (("P", 12), ("R", 9), ("S", 2)))
    T_camera_rectified = se3.make(R.reshape(3, 3).T, np.zeros(3))
    return RigCamera(name=name, frame=name, width=int(size[0]), height=int(size[1]), model="pinhole",
                     parameters=(P[0], P[5], P[2], P[6]), T_base_camera=T_base_camera @ T_camera_rectified)


def _numbers(path: Path, key: str, count: int) -> NDArray[np.float64]:
    """The numbers of one line of a calibration file, float64 [count]."""
    words = read_keyed(_CALIBRATION.require(path)).get(key, [])
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != count:
        raise DatasetError(f"must hold {count} numbers after {key}:, got {' '.join(words) or 'none'}", where=str(path))
    return numbers


def _read_stamps(path: Path) -> NDArray[np.int64]:
    """Lines such as `2013-05-28 08:46:02.904901376` as nanoseconds since 1970, int64 [N]."""
    try:
        return np.array(path.read_text().split("\n")[:-1], "datetime64[ns]").astype(np.int64)
    except (OSError, ValueError) as error:
        raise DatasetError(f"must hold a date and time in each line: {error}", where=str(path)) from error


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """SSCBench's labels of a frame, uint8 [256, 256, 32]; the files hold them as whole numbers of any type."""
    try:
        raw = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path)) from error
    if raw.shape != COMPLETION_GRID.shape:
        raise DatasetError(f"must be {COMPLETION_GRID.shape}, got {raw.shape}", where=str(path))
    return SSCBENCH_LABELS.relabel(raw.astype(np.uint16), path)
