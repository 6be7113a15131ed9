"""Sidewalk3D after WalkOCC F.1: sequences of synchronised LiDAR and camera frames at 2 Hz, with poses and voxels.

The data set itself is not published; this layout is ours, for what is labelled here and for a conversion of it.

    ROOT/splits.yaml                             version: text; taxonomy; splits: {train: [NAME, ...], ...}
    ROOT/NAME/sequence.yaml                      area, night, frames, content_hash; without_image: [000_left, ...]
    ROOT/NAME/rig.yaml                           the sensors, as in `calibration/`
    ROOT/NAME/poses.txt                          a line per frame: stamp in nanoseconds, 3 x 4 of T_world_base by rows
    ROOT/NAME/images/000_front.jpg               image of the camera `front`
    ROOT/NAME/images/000_front_classes.png       its classes, uint8; 0 background, 14 occlusion
    ROOT/NAME/clouds/000.npz                     points_m float32 [P, 3] in the base frame; labels uint8 [P], 0 none
    ROOT/NAME/occupancy/000.npz                  labels uint8 [nx, ny, nz]; visible, its bits packed; grid [3, 3]:
                                                 lower corner, upper corner, cell edges

NAME may have folders in it, such as `first_walk/0003`, so that one root holds the labels of several sources. Where the
samples have them, a file of `occupancy/` also holds

    instance_rows uint16 [nx, ny, nz], track_ids uint64 [M]                     row 0 none, else 1 + place of the id
    flow_cells int64 [N, 3], flow_mps float32 [N, 3], flow_confidence float32 [N]    velocity of moving cells
    waypoints_m float32 [10, 2]                 in the grid frame, 0.5 s apart; else they follow from the poses

and the content hash of a sequence is over all its files. Ranges follow from the scans, whose points stand for what lies
around them. `without_image` and `taxonomy` may be absent: all images are there, the classes are the sidewalk's.
"""

from __future__ import annotations

import hashlib
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
from occ_perception.datasets.files import new_file, new_folder
from occ_perception.datasets.public import Drive, matrices, scan_ranges
from occ_perception.datasets.sample import Sample, SidewalkLabels
from occ_perception.datasets.scene_folder import read_images, read_yaml, require_sidewalk, write_images
from occ_perception.errors import CalibrationError, ConfigurationError, DatasetError, ShapeError
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.taxonomy import SIDEWALK
from occ_perception.types import FlowField

AREAS = ("touristy", "residential", "commercial")
MAX_FRAMES, PERIOD_S = 60, 0.5
"""WalkOCC F.1: 60 frames at 2 Hz a sequence."""
_PERIOD_TOLERANCE_S = 0.2
"""A keyframe is the first image of its half second, so a camera of 5 Hz may be so late."""
BEAM_RAD = 0.017
"""Between neighbouring returns of a coarse LiDAR (64 beams over 60 degrees): what one of them stands for in ranges."""
_CONTENT = ("rig.yaml", "poses.txt", "images/*", "clouds/*", "occupancy/*")
_VOXELS, _INSTANCES = ("labels", "visible", "grid"), ("instance_rows", "track_ids")
_FLOW, _WAYPOINTS = ("flow_cells", "flow_mps", "flow_confidence"), ("waypoints_m",)


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
        folder: ROOT/NAME.
        samples: in the sidewalk classes, of one rig, 0.5 s apart, or a multiple of it where frames were lost. Images
            need classes; images of some cameras may be missing.
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
    with new_folder(folder) as beside:
        for name in ("images", "clouds", "occupancy"):
            (beside / name).mkdir()
        save_rig(samples[0].rig, beside / "rig.yaml")
        (beside / "poses.txt").write_text("".join(map(_pose_line, samples)))
        for sample, cloud in zip(samples, clouds, strict=True):
            write_images(beside / "images", sample)
            stem = f"{sample.index:03d}.npz"
            np.savez_compressed(beside / "clouds" / stem, points_m=cloud.points_m, labels=cloud.labels)
            np.savez_compressed(beside / "occupancy" / stem, **_arrays_of(sample))
        about: dict[str, Any] = {"area": area, "night": night, "frames": len(samples), "content_hash": _hash(beside)}
        if without := [f"{sample.index:03d}_{camera.name}" for sample in samples for camera in sample.rig.cameras
                       if camera.name not in sample.images]:
            about["without_image"] = without
        (beside / "sequence.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    return str(about["content_hash"])


def write_splits(root: Path | str, version: str, splits: Mapping[str, Sequence[str]]) -> None:
    """`splits.yaml` of a folder of sequences, written beside its place and renamed.

    Raises:
        DatasetError: a split names a sequence that is not there, or two splits share one.
    """
    path = Path(root) / "splits.yaml"
    named = [name for names in splits.values() for name in names]
    absent = [name for name in named if not (path.parent / name / "sequence.yaml").is_file()]
    twice = sorted({name for name in named if named.count(name) > 1})
    if absent or twice:
        raise DatasetError(f"the sequences {absent} are not there" if absent else f"{twice} are in more than one place",
                           where=str(path))
    about = {"version": version, "taxonomy": SIDEWALK.name, "splits": {k: list(v) for k, v in splits.items()}}
    with new_file(path) as beside:
        beside.write_text(yaml.safe_dump(about, sort_keys=False))


def read_splits(root: Path | str) -> tuple[str, dict[str, list[str]]]:
    """Version and sequences by split of a folder's `splits.yaml`.

    Raises:
        DatasetError: it is missing, broken, or of another taxonomy.
    """
    path = Path(root) / "splits.yaml"
    about = read_yaml(path)
    try:
        splits = {str(split): [str(name) for name in names] for split, names in about["splits"].items()}
        version, taxonomy = str(about["version"]), str(about.get("taxonomy", SIDEWALK.name))
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(f"must hold version and splits: {error!r}", where=str(path)) from error
    require_sidewalk(taxonomy, path)
    return version, splits


class Sidewalk3dDataset(SidewalkLabels):
    """The frames of a split, sequence after sequence.

    Args:
        root: folder that holds `splits.yaml`.
        split: one of its splits.

    Raises:
        DatasetError: a file is missing or does not fit; the message names it.
    """

    def __init__(self, root: Path | str, split: str) -> None:
        self.root, self.split = Path(root), split
        self.version, splits = read_splits(root)
        if split not in splits:
            raise DatasetError(f"has no split {split!r}; there are: {', '.join(splits) or 'none'}",
                               where=str(self.root / "splits.yaml"))
        self.about = {name: _read_about(self.root / name) for name in splits[split]}
        self._drives = {name: _read_drive(self.root / name, about["frames"]) for name, about in self.about.items()}
        self.frames = [(name, k) for name, about in self.about.items() for k in range(about["frames"])]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the content hashes of the sequences."""
        return hashlib.sha256("".join(about["content_hash"] for about in self.about.values()).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        name, k = self.frames[index]
        folder, drive = self.root / name, self._drives[name]
        T_world_base = drive.T_world_base[k]
        T_world_grid = se3.gravity_aligned(T_world_base)
        present = [camera for camera in drive.rig.cameras
                   if f"{k:03d}_{camera.name}" not in self.about[name]["without_image"]]
        images, semantics = read_images(folder / "images", k, present)
        path = folder / "occupancy" / f"{k:03d}.npz"
        arrays = _read_arrays(path, _VOXELS, (_INSTANCES, _FLOW, _WAYPOINTS))
        points_m = self.cloud(index).points_m
        try:
            low, high, cell = arrays["grid"].tolist()
            spec = VoxelGridSpec(tuple(low), tuple(high), tuple(cell))
            visible = np.unpackbits(arrays["visible"], count=spec.size).astype(np.bool_).reshape(spec.shape)
            stamp_ns = int(drive.stamps_ns[k])
            return Sample(
                scene=name, index=k, stamp_ns=stamp_ns, rig=drive.rig, images=images, semantics=semantics,
                T_grid_base=se3.invert(T_world_grid) @ T_world_base, spec=spec, T_world_grid=T_world_grid,
                labels=arrays["labels"], visible=visible, range_m=scan_ranges(points_m, drive.rig, images, BEAM_RAD),
                points_m=points_m, waypoints_m=arrays.get("waypoints_m", drive.waypoints(k, T_world_grid)),
                instance_rows=arrays.get("instance_rows"), track_ids=arrays.get("track_ids", np.zeros(0, np.uint64)),
                flow=FlowField(spec, stamp_ns, *(arrays[key] for key in _FLOW)) if _FLOW[0] in arrays else None)
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
    whole_s = PERIOD_S * np.maximum(np.rint(periods_s / PERIOD_S), 1)
    if (np.abs(periods_s - whole_s) > _PERIOD_TOLERANCE_S).any():
        faults.append(f"frames must be {PERIOD_S} s apart or a multiple of it, got {periods_s.round(3).tolist()}")
    if area not in AREAS:
        faults.append(f"area must be one of {', '.join(AREAS)}, got {area!r}")
    if any(sample.taxonomy != SIDEWALK.name for sample in samples):
        faults.append(f"labels must be of the taxonomy {SIDEWALK.name}")
    if len({sample.rig.model_dump_json() for sample in samples}) > 1:
        faults.append("frames must be of one rig")
    if any(not sample.images or sample.images.keys() != sample.semantics.keys()
           or not sample.images.keys() <= {camera.name for camera in sample.rig.cameras} for sample in samples):
        faults.append("every frame needs an image of some camera of its rig, and every image its classes")
    if any(sample.flow is not None and (sample.flow.spec, sample.flow.stamp_ns) != (sample.spec, sample.stamp_ns)
           for sample in samples):
        faults.append("flow must be over the grid and at the stamp of its frame")
    if faults:
        raise ConfigurationError(faults, where=where)


def _arrays_of(sample: Sample) -> dict[str, Any]:
    """What a file of `occupancy/` holds."""
    spec, rows, flow = sample.spec, sample.instance_rows, sample.flow
    arrays: dict[str, Any] = {"labels": sample.labels, "visible": np.packbits(sample.visible),
                              "grid": np.array([spec.minimum_m, spec.maximum_m, spec.cell])}
    if rows is not None:
        arrays |= dict(zip(_INSTANCES, (rows, sample.track_ids), strict=True))
    if flow is not None:
        arrays |= dict(zip(_FLOW, (flow.cells, flow.velocity_mps, flow.confidence), strict=True))
    if sample.waypoints_m is not None:
        arrays["waypoints_m"] = sample.waypoints_m
    return arrays


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
                "content_hash": str(about["content_hash"]), "without_image": set(about.get("without_image", ()))}
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


def _read_arrays(path: Path, names: Sequence[str], optional: Sequence[Sequence[str]] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of those names, and of each optional group all if the first is there."""
    wanted = list(names)
    try:
        with np.load(path, allow_pickle=False) as stored:
            wanted += [name for group in optional if group[0] in stored for name in group]
            return {name: stored[name] for name in wanted}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"must hold the arrays {', '.join(wanted)}: {error}", where=str(path)) from error
