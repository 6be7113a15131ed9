"""What readers of public data sets share: their classes as ours, raw files, labels and ranges from single scans.

A reader never downloads: a file that is absent is named with the archive it comes in and the place to get it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from occ_perception.calibration import Rig
from occ_perception.datasets.sample import Sample
from occ_perception.errors import ConfigurationError, DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.geometry.lens import jit
from occ_perception.geometry.raycast import walk_ray
from occ_perception.taxonomy import FREE, OCCUPIED, SIDEWALK, UNKNOWN, Taxonomy

_FOREIGN = -1  # number of no class
WAYPOINTS, WAYPOINT_S = 10, 0.5
_SAME_SURFACE_M, _LOWEST_CAMERA_M, _FARTHEST_M = 0.2, 0.3, 1e4


@dataclass(frozen=True)
class PublicClass:
    """One class of a public data set.

    Attributes:
        name: as the data set calls it.
        colour: RGB.
        sidewalk: its class among the sidewalk classes, or OCCUPIED for matter that has none there.
        ids: numbers that stand for it in the files.
        thing: whether it is countable.
    """

    name: str
    colour: tuple[int, int, int]
    sidewalk: int
    ids: tuple[int, ...]
    thing: bool = False


@dataclass(frozen=True)
class LabelSet:
    """How the labels in a data set's files become ours: class k of `classes` is label k + 1, and 0 is free.

    Attributes:
        name: of the taxonomy.
        classes: in the order of their labels.
        others: what the remaining numbers mean: FREE, OCCUPIED or UNKNOWN.

    Raises:
        ConfigurationError: a number stands for two classes.
    """

    name: str
    classes: tuple[PublicClass, ...]
    others: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [i for known in self.classes for i in known.ids] + list(self.others)
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ConfigurationError([f"the numbers {twice} stand for two classes"], where=f"labels of {self.name}")

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The classes with free space; what is obstacle or ground follows from the sidewalk classes.

        A class that has no sidewalk class is neither.
        """
        numbered = list(enumerate(self.classes, start=1))
        return Taxonomy(
            name=self.name, classes=("free", *(known.name for known in self.classes)),
            colours=((0, 0, 0), *(known.colour for known in self.classes)),
            things=frozenset(label for label, known in numbered if known.thing),
            obstacles=frozenset(label for label, known in numbered if known.sidewalk in SIDEWALK.obstacles),
            ground=frozenset(label for label, known in numbered if known.sidewalk in SIDEWALK.ground))

    @cached_property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Sidewalk class of every label, uint8 [256]; 254 stays 254, and what is no label is unknown."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[[FREE, OCCUPIED]] = FREE, OCCUPIED
        table[1: len(self.classes) + 1] = [known.sidewalk for known in self.classes]
        table.setflags(write=False)
        return table

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        table = np.full(2**16, _FOREIGN, np.int16)
        for label, known in enumerate(self.classes, start=1):
            table[list(known.ids)] = label
        table[list(self.others)] = list(self.others.values())
        return table

    def relabel(self, raw: NDArray[Any], where: Path) -> NDArray[np.uint8]:
        """Labels uint8 of the numbers 0..65535 found in the file `where`; DatasetError for those it does not know."""
        labels = self._table[raw]
        if (labels == _FOREIGN).any():
            foreign = np.unique(raw[labels == _FOREIGN]).tolist()
            raise DatasetError(f"has the labels {foreign[:8]}, which {self.name} does not know", where=str(where),
                               fix="Is this file of the data set's published version?")
        return np.asarray(labels, np.uint8)

    def pixels(self, raw: NDArray[Any], where: Path) -> NDArray[np.uint8]:
        """`relabel` for images, in which whatever has no class is background (0)."""
        labels = self.relabel(raw, where)
        labels[labels >= OCCUPIED] = FREE
        return labels


@dataclass(frozen=True)
class Download:
    """Where files of a data set come from: the archive's name and the page that offers it."""

    archive: str
    url: str

    def require(self, path: Path) -> Path:
        """`path`; DatasetError with what to download if there is no such file or folder."""
        if not path.exists():
            raise DatasetError("is missing", where=str(path), fix=f"Download {self.archive} from {self.url}")
        return path

    def listing(self, folder: Path, pattern: str) -> list[Path]:
        """The files of that pattern in their order; DatasetError with what to download if there are none."""
        paths = sorted(self.require(folder).glob(pattern))
        if not paths:
            raise DatasetError(f"holds no {pattern}", where=str(folder),
                               fix=f"Download {self.archive} from {self.url}")
        return paths


class PublicDataset:
    """What every reader says of its split. A reader sets `frames` and names the files that its samples come from.

    Args:
        root: folder of the data set.
        split: a key of `splits`, the data set's own division of its sequences.
        sequences: only these of the split's; None for all.

    Raises:
        ConfigurationError: unknown split, or a sequence that is not of it.
    """

    title: ClassVar[str]
    label_set: ClassVar[LabelSet]
    splits: ClassVar[Mapping[str, tuple[str, ...]]]
    frames: Sequence[object]

    def __init__(self, root: Path | str, split: str, sequences: Sequence[str] | None = None) -> None:
        if split not in self.splits:
            raise ConfigurationError([f"unknown split {split!r}"], where=self.title,
                                     fix=f"There are: {', '.join(self.splits)}")
        self.root, self.split = Path(root), split
        self.sequences = self.splits[split] if sequences is None else tuple(sequences)
        foreign = [name for name in self.sequences if name not in self.splits[split]]
        if foreign:
            raise ConfigurationError([f"the split {split!r} has no sequences {foreign}"], where=self.title,
                                     fix=f"There are: {', '.join(self.splits[split])}")

    def files(self) -> Iterable[Path]:
        """The files that `content_hash` goes over."""
        raise NotImplementedError

    @property
    def version(self) -> str:
        """The data set and the split."""
        return f"{self.title}, {self.split}"

    @cached_property
    def content_hash(self) -> str:
        """Over names and sizes of the files."""
        return hash_files(self.root, self.files())

    @property
    def taxonomy(self) -> Taxonomy:
        """Its own classes."""
        return self.label_set.taxonomy

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Sidewalk class of every label, uint8 [256]."""
        return self.label_set.to_sidewalk

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Drive:
    """The robot along a sequence.

    Attributes:
        rig: its sensors.
        T_world_base: float64 [N, 4, 4].
        stamps_ns: int64 [N], ascending.
    """

    rig: Rig
    T_world_base: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]

    def waypoints(self, row: int, T_world_grid: NDArray[np.float64]) -> NDArray[np.float32] | None:
        """`waypoints_ahead` of the pose in that row."""
        times_s = (self.stamps_ns - self.stamps_ns[0]) * 1e-9
        return waypoints_ahead(self.T_world_base, times_s, row, T_world_grid)

    def sample_of_scan(self, row: int, points_m: NDArray[np.float32], labels: NDArray[np.uint8], spec: VoxelGridSpec,
                       images: Mapping[str, NDArray[np.uint8]], semantics: Mapping[str, NDArray[np.uint8]], *,
                       scene: str, index: int, taxonomy: str) -> Sample:
        """The sample of a data set without voxel truth: an upright grid, and voxels by `scan_labels` of its one scan.

        Args:
            row: of the pose.
            points_m: [P, 3] in the base frame, of the rig's first LiDAR.
            labels: [P], as `scan_labels` takes them.
        """
        T_world_base = self.T_world_base[row]
        T_world_grid = se3.gravity_aligned(T_world_base)
        T_grid_base = se3.invert(T_world_grid) @ T_world_base
        voxels = scan_labels(se3.apply(T_grid_base, points_m).astype(np.float32), labels, spec,
                             se3.apply(T_grid_base, self.rig.lidars[0].T_base_lidar[:3, 3]))
        return Sample(
            scene=scene, index=index, stamp_ns=int(self.stamps_ns[row]), rig=self.rig, images=images,
            semantics=semantics, T_grid_base=T_grid_base, spec=spec, T_world_grid=T_world_grid, labels=voxels,
            visible=voxels != UNKNOWN, range_m=scan_ranges(points_m, self.rig, images), points_m=points_m,
            waypoints_m=self.waypoints(row, T_world_grid), taxonomy=taxonomy)


def matrices(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of 12 numbers (3 x 4, row by row) as float64 [N, 4, 4]."""
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, :3] = rows.reshape(-1, 3, 4)
    return T


def hash_files(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over the names (relative to `root`) and sizes of files: tells which data it is without reading it all."""
    digest = hashlib.sha256()
    for name, size in sorted((path.relative_to(root).as_posix(), path.stat().st_size) for path in paths):
        digest.update(f"{name}\t{size}\n".encode())
    return digest.hexdigest()


def read_numbers(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """A file of raw little-endian numbers; one entry of `shape` may be -1. DatasetError where it does not fit."""
    try:
        return np.fromfile(path, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    except (OSError, ValueError) as error:
        wanted = " x ".join("N" if n < 0 else str(n) for n in shape)
        raise DatasetError(f"must hold {wanted} numbers {np.dtype(dtype).name}: {error}", where=str(path)) from error


def read_rows(path: Path, columns: int) -> NDArray[np.float64]:
    """A text file of rows of numbers, float64 [N, columns]. DatasetError where it does not fit."""
    try:
        rows = np.loadtxt(path, np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise DatasetError(f"must hold rows of numbers: {error}", where=str(path)) from error
    if rows.shape[1] != columns:
        raise DatasetError(f"must hold {columns} numbers a row, got {rows.shape[1]}", where=str(path))
    return rows


def read_keyed(path: Path) -> dict[str, list[str]]:
    """The words after each `key:` of a KITTI calibration file. DatasetError where it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read: {error}", where=str(path)) from error
    split = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): words.split() for key, _, words in split}


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image, uint8 RGB [H, W, 3]. DatasetError that names the file."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError("is no readable image", where=str(path))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_ids(path: Path) -> NDArray[Any]:
    """An image of class numbers, uint8 or uint16 [H, W]: of one channel, or the same in all. DatasetError otherwise."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is not None and image.ndim == 3 and (image == image[:, :, :1]).all():
        image = image[:, :, 0]
    if image is None or image.ndim != 2:
        got = "no readable image" if image is None else f"{image.shape}"
        raise DatasetError(f"must be an image of one channel, got {got}", where=str(path))
    return np.asarray(image)


@jit
def _cross(opaque: Any, ox: float, oy: float, oz: float, ends: Any, seen: Any) -> None:
    """Marks the cells that rays from an origin to points (both in cell units) cross, up to the first opaque one."""
    for i in range(len(ends)):
        dx, dy, dz = ends[i, 0] - ox, ends[i, 1] - oy, ends[i, 2] - oz
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        if length > 1e-9:
            walk_ray(opaque, ox, oy, oz, dx / length, dy / length, dz / length, length, seen, True)


def scan_labels(points_m: NDArray[np.float32], labels: NDArray[np.uint8], spec: VoxelGridSpec,
                origin_m: ArrayLike) -> NDArray[np.uint8]:
    """A grid from one labelled scan: what it hit, what its rays crossed, and unknown elsewhere.

    Args:
        points_m: [P, 3] in the grid's frame.
        labels: [P]; 254 for hits without a class, 255 for points to leave out.
        spec: the grid.
        origin_m: [3], place of the sensor.

    Returns:
        uint8 [nx, ny, nz]: the most frequent class of the points in each cell (the smaller of equals; 254 only where
        no point has a class), 0 where a ray passes before it meets the first such cell, else 255.
    """
    if labels.shape != points_m.shape[:1]:
        raise ShapeError(f"there are {len(labels)} labels for {len(points_m)} points", where="scan_labels")
    points_m, labels = points_m[labels != UNKNOWN], labels[labels != UNKNOWN]
    grid = np.full(spec.shape, UNKNOWN, np.uint8)
    cells, inside = spec.index(points_m)
    flat = np.ravel_multi_index(tuple(cells[inside].T), spec.shape)
    keys, counts = np.unique(flat * 256 + labels[inside], return_counts=True)
    of_cell, label = keys // 256, (keys % 256).astype(np.uint8)
    order = np.lexsort((-label.astype(int), counts, label != OCCUPIED, of_cell))  # the best of each cell comes last
    grid.reshape(-1)[of_cell[order]] = label[order]
    crossed, origin = np.zeros(spec.shape, np.bool_), (np.asarray(origin_m, float) - spec.minimum_m) / spec.cell
    _cross(grid != UNKNOWN, *origin.tolist(), (points_m - np.asarray(spec.minimum_m)) / spec.cell, crossed)
    grid[crossed & (grid == UNKNOWN)] = FREE
    return grid


def scan_ranges(points_m: NDArray[np.float32], rig: Rig, cameras: Iterable[str], beam_rad: float = 0.0
                ) -> dict[str, NDArray[np.float32]]:
    """Range of the nearest point in every pixel that has one, float32 [H, W] by camera, metres; 0 elsewhere.

    Args:
        points_m: [P, 3] in the base frame.
        beam_rad: a point stands for what lies half as far around it, as returns of a LiDAR with beams so far apart do:
            it hides what that LiDAR saw behind it from its own place, and pixels in between take the range of the next
            point. With 0 it stands for its pixel: a thin image, in which no surface hides what is behind.
    """
    ranges: dict[str, NDArray[np.float32]] = {}
    for camera in map(rig.camera, cameras):
        seen_from = se3.apply(se3.invert(camera.T_base_camera), points_m)
        pixels, valid = camera.camera.project(seen_from)
        u, v = np.rint(pixels[valid]).astype(np.int64).T
        image = np.full((camera.height, camera.width), np.inf, np.float32)
        np.minimum.at(image, (v, u), np.linalg.norm(seen_from[valid], axis=1).astype(np.float32))
        if beam_rad > 0:
            pixel_rad = camera.camera.pixel_rad
            reach_px = math.ceil(0.5 * beam_rad / pixel_rad)
            # by how much the range of ground changes within that reach, per square of the range
            slope = reach_px * pixel_rad / max(camera.T_base_camera[2, 3], _LOWEST_CAMERA_M)
            image = _closed(image, reach_px, slope)
        ranges[camera.name] = np.where(np.isfinite(image), image, np.float32(0.0))
    return ranges


def _closed(image: NDArray[np.float32], reach_px: int, slope: float) -> NDArray[np.float32]:
    """Ranges [H, W] (inf none) without those behind a nearer one; gaps take the next one within `reach_px`."""
    near = np.minimum(cv2.erode(image, np.ones((2 * reach_px + 1, 2 * reach_px + 1), np.uint8)), _FARTHEST_M)
    empty = image > near + _SAME_SURFACE_M + slope * near**2
    if empty.all():
        return np.full_like(image, np.inf)
    away_px, number = cv2.distanceTransformWithLabels(empty.astype(np.uint8), cv2.DIST_L2, 5,
                                                      labelType=cv2.DIST_LABEL_PIXEL)
    ranges = np.zeros(number.max() + 1, np.float32)
    ranges[number[~empty]] = image[~empty]
    return np.where(away_px <= reach_px, ranges[number], np.float32(np.inf))


def waypoints_ahead(T_world_base: ArrayLike, times_s: NDArray[np.float64], index: int,
                    T_world_grid: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The 10 places of the base 0.5 s apart after frame `index`, float32 [10, 2] in the grid frame.

    `times_s` [N] ascending, of the poses `T_world_base`; None where they end earlier.
    """
    wanted = times_s[index] + WAYPOINT_S * np.arange(1, WAYPOINTS + 1)
    if wanted[-1] > times_s[-1] + 1e-6:
        return None
    places = np.asarray(T_world_base)[:, :3, 3]
    ahead = np.stack([np.interp(wanted, times_s, places[:, axis]) for axis in range(3)], axis=1)
    return se3.apply(se3.invert(T_world_grid), ahead)[:, :2].astype(np.float32)
