"""Sidewalk3D after WalkOCC F.1: sequences of synchronised LiDAR and camera frames at 2 Hz, with poses and voxels.

The data set itself is not published; this layout is ours, for what is labelled here and for a conversion of it.

    ROOT/splits.yaml                             version: text; splits: {train: [NAME, ...], ...}
    ROOT/NAME/sequence.yaml                      area, night, frames, content_hash
    ROOT/NAME/rig.yaml                           the sensors, as in `calibration/`
    ROOT/NAME/poses.txt                          a line per frame: stamp in nanoseconds, 3 x 4 of T_world_base by rows
    ROOT/NAME/images/000_front.jpg               image of the camera `front`
    ROOT/NAME/images/000_front_classes.png       its classes, uint8; 0 background, 14 occlusion
    ROOT/NAME/clouds/000.npz                     points_m float32 [P, 3] in the base frame; labels uint8 [P], 0 none
    ROOT/NAME/occupancy/000.npz                  labels uint8 [nx, ny, nz]; visible, its bits packed; grid [3, 3]:
                                                 lower corner, upper corner, cell edges
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from occ_perception.calibration import Rig, load_rig, save_rig
from occ_perception.datasets.public import Drive, matrices, scan_ranges
from occ_perception.datasets.sample import Sample
from occ_perception.datasets.scene_folder import read_image_sample, read_yaml, write_images
from occ_perception.errors import CalibrationError, ConfigurationError, DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import SIDEWALK, Taxonomy

AREAS = ("touristy", "residential", "commercial")
MAX_FRAMES, PERIOD_S = 60, 0.5
"""WalkOCC F.1: 60 frames at 2 Hz a sequence."""
_PERIOD_TOLERANCE_S = 0.1
_CONTENT = ("rig.yaml", "poses.txt", "images/*", "clouds/*", "occupancy/*")


@dataclass(frozen=True)
class SemanticCloud:
    """A labelled scan: `points_m` float32 [P, 3] in the base frame, `labels` uint8 [P] of the sidewalk classes, 0 none.

    Raises:
        ShapeError: the arrays do not fit each other.
    """

    points_m: NDArray[np.float32]
    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.points_m)
        for name, array, shape, dtype in (("points_m", self.points_m, (n, 3), np.float32),
                                          ("labels", self.labels, (n,), np.uint8)):
            if array.shape != shape or array.dtype != dtype:
                raise ShapeError(f"must be {np.dtype(dtype).name} {shape}, got {array.dtype} {array.shape}",
                                 where=f"semantic cloud: {name}")


def write_sequence(folder: Path | str, samples: Sequence[Sample], clouds: Sequence[SemanticCloud], *, area: str,
                   night: bool) -> str:
    """One sequence into the new folder `folder` (written beside and renamed); returns its content hash.

    Args:
        folder: its name is the sequence's.
        samples: in the sidewalk classes, of one rig, 0.5 s apart; their images need classes.
        clouds: of the same frames.
        area: one of `AREAS`.
        night: whether it was recorded at night.

    Raises:
        ConfigurationError: the frames make no sequence; all faults listed.
        DatasetError: the folder exists, or a file cannot be written.
    """
    folder = Path(folder)
    _check(samples, clouds, area, where=str(folder))
    if folder.exists():
        raise DatasetError("exists already", where=str(folder), fix="Remove it to write the sequence again")
    beside = folder.with_name(f"{folder.name}.tmp{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name in ("images", "clouds", "occupancy"):
            (beside / name).mkdir(parents=True)
        save_rig(samples[0].rig, beside / "rig.yaml")
        (beside / "poses.txt").write_text("".join(map(_pose_line, samples)))
        for sample, cloud in zip(samples, clouds, strict=True):
            write_images(beside / "images", sample)
            stem, spec = f"{sample.index:03d}.npz", sample.spec
            np.savez_compressed(beside / "clouds" / stem, points_m=cloud.points_m, labels=cloud.labels)
            np.savez_compressed(beside / "occupancy" / stem, labels=sample.labels, visible=np.packbits(sample.visible),
                                grid=np.array([spec.minimum_m, spec.maximum_m, spec.cell]))
        about = {"area": area, "night": night, "frames": len(samples), "content_hash": _hash(beside)}
        (beside / "sequence.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
        os.replace(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return str(about["content_hash"])


def write_splits(root: Path | str, version: str, splits: Mapping[str, Sequence[str]]) -> None:
    """`splits.yaml` of a folder of sequences, written beside its place and renamed.

    Raises:
        DatasetError: a split names a sequence that is not there, or two splits share one.
    """
    root = Path(root)
    named = [name for names in splits.values() for name in names]
    absent = [name for name in named if not (root / name / "sequence.yaml").is_file()]
    twice = sorted({name for name in named if named.count(name) > 1})
    if absent or twice:
        raise DatasetError(f"the sequences {absent} are not there" if absent else f"{twice} are in more than one place",
                           where=str(root / "splits.yaml"))
    beside = root / "splits.yaml.tmp"
    beside.write_text(yaml.safe_dump({"version": version, "splits": {k: list(v) for k, v in splits.items()}},
                                     sort_keys=False))
    os.replace(beside, root / "splits.yaml")


class Sidewalk3dDataset:
    """The frames of a split, sequence after sequence.

    Args:
        root: folder that holds `splits.yaml`.
        split: one of its splits.

    Raises:
        DatasetError: a file is missing or does not fit; the message names it.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        path = self.root / "splits.yaml"
        about = read_yaml(path)
        try:
            self._version, splits = str(about["version"]), dict(about["splits"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"must hold version and splits: {error!r}", where=str(path)) from error
        if split not in splits:
            raise DatasetError(f"has no split {split!r}; there are: {', '.join(splits) or 'none'}", where=str(path))
        self.about = {str(name): _read_about(self.root / str(name)) for name in splits[split]}
        self._drives = {name: _read_drive(self.root / name, about["frames"]) for name, about in self.about.items()}
        self.frames = [(name, k) for name, about in self.about.items() for k in range(about["frames"])]

    @property
    def version(self) -> str:
        """As `splits.yaml` says."""
        return self._version

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the content hashes of the sequences."""
        return hashlib.sha256("".join(about["content_hash"] for about in self.about.values()).encode()).hexdigest()

    @property
    def taxonomy(self) -> Taxonomy:
        """The sidewalk classes."""
        return SIDEWALK

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Every label is its own sidewalk class, uint8 [256]."""
        return np.arange(256, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        name, k = self.frames[index]
        folder, drive = self.root / name, self._drives[name]
        T_world_base = drive.T_world_base[k]
        T_world_grid = se3.gravity_aligned(T_world_base)
        taken = read_image_sample(folder / "images", k, drive.rig, (0.0, 0.0))
        path = folder / "occupancy" / f"{k:03d}.npz"
        arrays = _read_arrays(path, ("labels", "visible", "grid"))
        points_m = self.cloud(index).points_m
        try:
            low, high, cell = arrays["grid"].tolist()
            spec = VoxelGridSpec(tuple(low), tuple(high), tuple(cell))
            visible = np.unpackbits(arrays["visible"], count=spec.size).astype(np.bool_).reshape(spec.shape)
            return Sample(
                scene=name, index=k, stamp_ns=int(drive.stamps_ns[k]), rig=drive.rig, images=taken.images,
                semantics=taken.semantics, T_grid_base=se3.invert(T_world_grid) @ T_world_base, spec=spec,
                T_world_grid=T_world_grid, labels=arrays["labels"], visible=visible,
                range_m=scan_ranges(points_m, drive.rig, taken.images), points_m=points_m,
                waypoints_m=drive.waypoints(k, T_world_grid))
        except (ValueError, ConfigurationError, ShapeError) as error:
            raise DatasetError(f"its arrays do not fit each other: {error}", where=str(path)) from error

    def cloud(self, index: int) -> SemanticCloud:
        """The labelled scan of a frame."""
        name, k = self.frames[index]
        path = self.root / name / "clouds" / f"{k:03d}.npz"
        try:
            return SemanticCloud(**_read_arrays(path, ("points_m", "labels")))
        except ShapeError as error:
            raise DatasetError(str(error), where=str(path)) from error


def _check(samples: Sequence[Sample], clouds: Sequence[SemanticCloud], area: str, where: str) -> None:
    faults = []
    if not 1 <= len(samples) <= MAX_FRAMES or len(clouds) != len(samples):
        faults.append(f"takes 1 to {MAX_FRAMES} frames and a cloud for each, got {len(samples)} and {len(clouds)}")
    if [sample.index for sample in samples] != list(range(len(samples))):
        faults.append("frames must be numbered from 0")
    periods_s = np.diff([sample.stamp_ns for sample in samples]) * 1e-9
    if (np.abs(periods_s - PERIOD_S) > _PERIOD_TOLERANCE_S).any():
        faults.append(f"frames must be {PERIOD_S} s apart, got {periods_s.round(3).tolist()}")
    if area not in AREAS:
        faults.append(f"area must be one of {', '.join(AREAS)}, got {area!r}")
    if any(sample.taxonomy != SIDEWALK.name for sample in samples):
        faults.append(f"labels must be of the taxonomy {SIDEWALK.name}")
    if len({sample.rig.model_dump_json() for sample in samples}) > 1:
        faults.append("frames must be of one rig")
    if any(set(taken) != {camera.name for camera in sample.rig.cameras}
           for sample in samples for taken in (sample.images, sample.semantics)):
        faults.append("every camera of the rig needs its image and classes")
    if faults:
        raise ConfigurationError(faults, where=where)


def _pose_line(sample: Sample) -> str:
    T_world_base = sample.T_world_grid @ sample.T_grid_base
    return " ".join([str(sample.stamp_ns), *(f"{number:.9f}" for number in T_world_base[:3].ravel())]) + "\n"


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _CONTENT for path in folder.glob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / "sequence.yaml"
    about = read_yaml(path)
    try:
        return {"area": str(about["area"]), "night": bool(about["night"]), "frames": int(about["frames"]),
                "content_hash": str(about["content_hash"])}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"is no description of a sequence: {error!r}", where=str(path)) from error


def _read_drive(folder: Path, frames: int) -> Drive:
    path = folder / "poses.txt"
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        stamps_ns = np.array([int(row[0]) for row in rows], np.int64)
        numbers = np.array([[float(word) for word in row[1:]] for row in rows]).reshape(frames, 12)
        rig: Rig = load_rig(folder / "rig.yaml")
    except (OSError, ValueError, IndexError) as error:
        raise DatasetError(f"must hold a stamp and 12 numbers for each of {frames} frames: {error}",
                           where=str(path)) from error
    except CalibrationError as error:
        raise DatasetError(str(error), where=str(folder)) from error
    return Drive(rig, matrices(numbers), stamps_ns)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"must hold the arrays {', '.join(names)}: {error}", where=str(path)) from error
