"""SemanticKITTI's scene completion: voxel truth of 51.2 x 51.2 x 6.4 m ahead of KITTI's car (Behley et al. 2019).

    ROOT/sequences/08/voxels/000005.label        uint16 [256, 256, 32], numbers of semantic-kitti.yaml
    ROOT/sequences/08/voxels/000005.invalid      one bit per voxel, the most significant first: never observed
    ROOT/sequences/08/voxels/000005.occluded     likewise: hidden from the LiDAR at this instant
    ROOT/sequences/08/velodyne/000005.bin        float32 [P, 4] x y z remission, deskewed
    ROOT/sequences/08/image_2/000005.png         left colour camera; image_3, the right one, may be absent
    ROOT/sequences/08/calib.txt poses.txt times.txt

The base stands on the ground below the LiDAR with the LiDAR's axes, and the grid is the base's: the voxels were cut
along those axes, not against gravity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.calibration.formats import from_kitti
from occ_perception.datasets.public import (
    Download,
    Drive,
    LabelSet,
    PublicClass,
    PublicDataset,
    matrices,
    read_keyed,
    read_numbers,
    read_rgb,
    read_rows,
    scan_ranges,
)
from occ_perception.datasets.sample import Sample
from occ_perception.errors import DatasetError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import FREE, OCCUPIED, UNKNOWN, Sidewalk

LIDAR_HEIGHT_M = 1.73
"""Of KITTI's Velodyne above the ground (Geiger et al. 2013, figure 3); KITTI-360's car carries it as high."""
T_BASE_LIDAR = se3.make(np.eye(3), (0.0, 0.0, LIDAR_HEIGHT_M))
COMPLETION_GRID = VoxelGridSpec((0.0, -25.6, LIDAR_HEIGHT_M - 2.0), (51.2, 25.6, LIDAR_HEIGHT_M + 4.4), 0.2)
"""256 x 256 x 32 cells of 0.2 m, -2 m to 4.4 m from the LiDAR's height."""

LABELS = LabelSet("semantickitti19", (
    PublicClass("car", (100, 150, 245), Sidewalk.VEHICLE, (10, 252), thing=True),
    PublicClass("bicycle", (100, 230, 245), Sidewalk.CYCLIST, (11,), thing=True),
    PublicClass("motorcycle", (30, 60, 150), Sidewalk.CYCLIST, (15,), thing=True),
    PublicClass("truck", (80, 30, 180), Sidewalk.VEHICLE, (18, 258), thing=True),
    PublicClass("other-vehicle", (0, 0, 255), Sidewalk.VEHICLE, (13, 16, 20, 256, 257, 259), thing=True),
    PublicClass("person", (255, 30, 30), Sidewalk.PERSON, (30, 254), thing=True),
    PublicClass("bicyclist", (255, 40, 200), Sidewalk.CYCLIST, (31, 253), thing=True),
    PublicClass("motorcyclist", (150, 30, 90), Sidewalk.CYCLIST, (32, 255), thing=True),
    PublicClass("road", (255, 0, 255), Sidewalk.ROAD, (40, 60)),
    PublicClass("parking", (255, 150, 255), Sidewalk.ROAD, (44,)),
    PublicClass("sidewalk", (75, 0, 75), Sidewalk.SIDEWALK, (48,)),
    PublicClass("other-ground", (175, 0, 75), OCCUPIED, (49,)),
    PublicClass("building", (255, 200, 0), Sidewalk.WALL, (50,)),
    PublicClass("fence", (255, 120, 50), Sidewalk.WALL, (51,)),
    PublicClass("vegetation", (0, 175, 0), Sidewalk.TREES, (70,)),
    PublicClass("trunk", (135, 60, 0), Sidewalk.TREES, (71,)),
    PublicClass("terrain", (150, 240, 80), Sidewalk.GRASS, (72,)),
    PublicClass("pole", (255, 240, 150), Sidewalk.OBSTACLE, (80,)),
    PublicClass("traffic-sign", (255, 0, 0), Sidewalk.OBSTACLE, (81,)),
), {0: FREE, 1: UNKNOWN, 52: UNKNOWN, 99: UNKNOWN})
"""The learning_map of semantic-kitti.yaml. Outliers, other structures and objects are left out, as in its benchmark."""

_VOXELS = Download("data_odometry_voxels.zip (700 MB)", "http://semantic-kitti.org/dataset.html#download")
_ODOMETRY = "https://www.cvlibs.net/datasets/kitti/eval_odometry.php"
_CALIB = Download("data_odometry_calib.zip (1 MB)", _ODOMETRY)
_COLOR = Download("data_odometry_color.zip (65 GB)", _ODOMETRY)
_VELODYNE = Download("data_odometry_velodyne.zip (80 GB)", _ODOMETRY)
_POSES = Download("data_odometry_labels.zip (179 MB), whose poses the voxels were made with,",
                  "http://semantic-kitti.org/dataset.html#download")
_CAMERAS = ("image_2", "image_3")


class SemanticKittiDataset(PublicDataset):
    """Every fifth frame of the sequences `00` to `10`; the truth of the test sequences is not published.

    Args:
        root: folder that holds `sequences`.
        split: `train` or `valid`.
        sequences: only these of the split's, such as `("04",)`; None for all.

    Raises:
        ConfigurationError: unknown split or sequence.
        DatasetError: a file is missing or does not fit; the message names it and where to get it.
    """

    title = "SemanticKITTI scene completion"
    label_set = LABELS
    splits = {"train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"), "valid": ("08",)}  # noqa: RUF012

    def __init__(self, root: Path | str, split: str, sequences: Sequence[str] | None = None) -> None:
        super().__init__(root, split, sequences)
        self.frames: list[tuple[str, int]] = []
        self._drives: dict[str, Drive] = {}
        for name in self.sequences:
            numbers = [int(path.stem) for path in _VOXELS.listing(self._folder(name) / "voxels", "*.label")]
            self.frames += [(name, number) for number in numbers]
            self._drives[name] = _read_drive(self._folder(name), numbers[0])

    def files(self) -> Iterable[Path]:
        """The voxels, scans and left images of all frames, and the poses."""
        for name in self.sequences:
            yield self._folder(name) / "poses.txt"
        for name, number in self.frames:
            folder = self._folder(name)
            yield from sorted((folder / "voxels").glob(f"{number:06d}.*"))
            yield _VELODYNE.require(folder / "velodyne" / f"{number:06d}.bin")
            yield _COLOR.require(folder / "image_2" / f"{number:06d}.png")

    def __getitem__(self, index: int) -> Sample:
        name, number = self.frames[index]
        folder, drive = self._folder(name), self._drives[name]
        if number >= len(drive.T_world_base):
            raise DatasetError(f"has {len(drive.T_world_base)} rows, none for frame {number}",
                               where=str(folder / "poses.txt"))
        labels, visible = _read_voxels(folder / "voxels" / f"{number:06d}.label")
        points_m = read_points(_VELODYNE.require(folder / "velodyne" / f"{number:06d}.bin"), T_BASE_LIDAR)
        images = {camera.name: read_rgb(_COLOR.require(folder / camera.name / f"{number:06d}.png"))
                  for camera in drive.rig.cameras}
        T_world_grid = drive.T_world_base[number]
        return Sample(
            scene=name, index=number, stamp_ns=int(drive.stamps_ns[number]), rig=drive.rig, images=images, semantics={},
            T_grid_base=np.eye(4), spec=COMPLETION_GRID, T_world_grid=T_world_grid, labels=labels, visible=visible,
            range_m=scan_ranges(points_m, drive.rig, images), points_m=points_m,
            waypoints_m=drive.waypoints(number, T_world_grid), taxonomy=self.taxonomy.name)

    def _folder(self, sequence: str) -> Path:
        return self.root / "sequences" / sequence


def read_points(path: Path, T_base_lidar: NDArray[np.float64]) -> NDArray[np.float32]:
    """A scan of KITTI's .bin format in the base frame, float32 [P, 3]; points at the LiDAR itself are left out."""
    points = read_numbers(path, np.float32, (-1, 4))[:, :3]
    return se3.apply(T_base_lidar, points[(points != 0).any(1)]).astype(np.float32)


def read_bits(path: Path, spec: VoxelGridSpec) -> NDArray[np.bool_]:
    """A mask bool [nx, ny, nz] of one bit per voxel, z fastest, the most significant bit of a byte first."""
    packed = read_numbers(path, np.uint8, (spec.size // 8,))
    return np.unpackbits(packed).astype(np.bool_).reshape(spec.shape)


def _read_voxels(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Labels and visible cells [256, 256, 32] of the .label file and the masks beside it."""
    labels = LABELS.relabel(read_numbers(path, np.uint16, COMPLETION_GRID.shape), path)
    invalid, occluded = (read_bits(_VOXELS.require(path.with_suffix(suffix)), COMPLETION_GRID)
                         for suffix in (".invalid", ".occluded"))
    labels[invalid] = UNKNOWN
    return labels, ~(invalid | occluded)


def _read_drive(folder: Path, first: int) -> Drive:
    """Rig, poses and stamps of a sequence; the image `first` tells the size of its images."""
    path = _CALIB.require(folder / "calib.txt")
    try:
        keyed = {key: [float(word) for word in words] for key, words in read_keyed(path).items()}
        present = [camera for camera in _CAMERAS if camera == _CAMERAS[0] or (folder / camera).is_dir()]
        calibration = {key: keyed[key] for key in ("Tr", *(f"P{camera[-1]}" for camera in present))}
        T_camera_lidar = matrices(np.array([keyed["Tr"]]))[0]
        image = read_rgb(_COLOR.require(folder / _CAMERAS[0] / f"{first:06d}.png"))
        cameras, lidar = from_kitti(calibration, (image.shape[0], image.shape[1]), T_BASE_LIDAR)
    except (KeyError, ValueError) as error:
        raise DatasetError(f"is no calibration of KITTI odometry: {error!r}", where=str(path)) from error
    rows = read_rows(_POSES.require(folder / "poses.txt"), 12)
    stamps_s = read_rows(_CALIB.require(folder / "times.txt"), 1)[:, 0]
    if len(stamps_s) < len(rows):
        raise DatasetError(f"has {len(stamps_s)} rows for {len(rows)} poses", where=str(folder / "times.txt"))
    # poses are of the left grey camera; ours are of the base, in the frame of the first base
    T_base_camera = T_BASE_LIDAR @ np.linalg.inv(T_camera_lidar)
    return Drive(Rig(name="kitti", cameras=cameras, lidars=(lidar,)),
                 T_base_camera @ matrices(rows) @ np.linalg.inv(T_base_camera),
                 np.rint(stamps_s[: len(rows)] * 1e9).astype(np.int64))
