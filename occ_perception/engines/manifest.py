"""The manifest of a model folder: what its graphs take and give, how they were made, and the hash of every file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from occ_perception.errors import ConfigurationError, ManifestError
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.geometry.tables import RangeBins
from occ_perception.taxonomy import TAXONOMIES

MANIFEST_NAME = "manifest.yaml"

Task = Literal["occupancy", "flow", "tracking", "trajectory"]
Device = Literal["cpu", "cuda", "tensorrt"]
DType = Literal["uint8", "uint16", "int32", "int64", "float16", "float32"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridSpec(_Part):
    """The numbers of a `VoxelGridSpec`."""

    minimum_m: tuple[float, float, float]
    maximum_m: tuple[float, float, float]
    cell_m: float | tuple[float, float, float]

    @classmethod
    def of(cls, spec: VoxelGridSpec) -> GridSpec:
        """The numbers of `spec`."""
        return cls(minimum_m=spec.minimum_m, maximum_m=spec.maximum_m, cell_m=spec.cell_m)

    def spec(self) -> VoxelGridSpec:
        """The grid itself; raises ConfigurationError where the numbers make none."""
        return VoxelGridSpec(self.minimum_m, self.maximum_m, self.cell_m)


class RangeBinsSpec(_Part):
    """Range bins of the depth distribution, metres along the ray."""

    minimum_m: float
    maximum_m: float
    step_m: float

    def bins(self) -> RangeBins:
        """The bins themselves; raises ConfigurationError where the numbers make none."""
        return RangeBins(self.minimum_m, self.maximum_m, self.step_m)


class TensorSpec(_Part):
    """One tensor of a graph. `shape` holds numbers, and names where a length is free (`cameras`, `hits`)."""

    name: str
    shape: tuple[int | str, ...]
    dtype: DType
    meaning: str

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


class Variant(_Part):
    """One graph file of the model: its precision, the devices it is meant for, and its hash."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Literal["fp32", "fp16", "int8"]
    devices: tuple[Device, ...] = Field(min_length=1)
    note: str = ""


class TrainingRecord(_Part):
    """Where the weights come from. `data_version` and `data_hash` name the exact worlds they were trained on."""

    data: str
    data_version: str
    data_hash: str
    commit: str
    seed: int
    steps: int
    checkpoint_sha256: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)


class ScoreRecord(_Part):
    """Scores of one variant (or of the `prior`) on one split; values are percent unless the name says otherwise.

    `lidar` says whether the graph was given the ranges of the LiDAR too, or saw with cameras alone.
    """

    variant: str
    split: str
    data_version: str
    data_hash: str
    frames: int
    lidar: bool = False
    values: dict[str, float]
    per_class: dict[str, float | None] = Field(default_factory=dict)


class Manifest(_Part):
    """What a model folder holds. Variants are in order of preference: the first that suits the device is taken.

    `image_size` is the (height, width) that the graph takes; `feature_size` the (height, width) of the feature
    map that the projection table points into; `waypoint_times_s` the times of the trajectory head's waypoints.
    """

    name: str
    version: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    taxonomy: str
    output_grid: GridSpec
    lift_grid: GridSpec
    range_bins: RangeBinsSpec
    image_size: tuple[int, int]
    feature_size: tuple[int, int]
    maximum_hits: int = Field(default=1, ge=1, le=2)
    waypoint_times_s: tuple[float, ...] = ()
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    constants: tuple[TensorSpec, ...] = ()
    state: tuple[TensorSpec, ...] = ()
    features: tuple[TensorSpec, ...] = ()
    variants: dict[str, Variant] = Field(min_length=1)
    training: TrainingRecord
    scores: tuple[ScoreRecord, ...] = ()
    licence: str

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder it was loaded from."""
        return self._folder

    @property
    def model_id(self) -> str:
        """`name@version`, written into every result."""
        return f"{self.name}@{self.version}"

    @property
    def takes_ranges(self) -> bool:
        """Whether the graphs take a LiDAR's ranges beside the images."""
        return any(tensor.name == "ranges" for tensor in self.inputs)

    def path(self, variant: str) -> Path:
        """The graph file of a variant."""
        return self._folder / self.variants[variant].file

    def choose(self, device: str) -> str | None:
        """Name of the first variant meant for `device`, or None."""
        return next((name for name, variant in self.variants.items() if device in variant.devices), None)


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest and the hash of every file that it names.

    Args:
        path: the model's folder, or its manifest.yaml.

    Raises:
        ManifestError: everything that is wrong, listed at once.
    """
    file = Path(path)
    if file.is_dir():
        file = file / MANIFEST_NAME
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError([f"cannot be read: {error.strerror}"], where=str(file),
                            fix="Name a model folder that holds a manifest.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError([f"is no YAML: {error}"], where=str(file)) from error
    if not isinstance(content, dict):
        raise ManifestError([f"must be a mapping, got {type(content).__name__}"], where=str(file))
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ManifestError(faults, where=str(file)) from error
    manifest._folder = file.parent
    faults = _inconsistencies(manifest) + _file_faults(manifest)
    if faults:
        raise ManifestError(faults, where=str(file), fix="Export the model again, or fetch its folder anew")
    return manifest


def save_manifest(manifest: Manifest, folder: str | os.PathLike[str]) -> Path:
    """Write `manifest.yaml` into `folder` (beside its place, then renamed) and return its path."""
    target = Path(folder) / MANIFEST_NAME
    beside = target.with_name(f"{MANIFEST_NAME}.tmp{os.getpid()}")
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _inconsistencies(manifest: Manifest) -> list[str]:
    """What contradicts itself inside the manifest."""
    faults = []
    if manifest.taxonomy not in TAXONOMIES:
        faults.append(f"taxonomy: {manifest.taxonomy!r} is unknown, known are {', '.join(sorted(TAXONOMIES))}")
    shapes: dict[str, tuple[int | str, ...]] = {}
    for field in ("output_grid", "lift_grid"):
        try:
            spec: VoxelGridSpec = getattr(manifest, field).spec()
        except ConfigurationError as error:
            faults += [f"{field}: {fault}" for fault in error.faults]
            continue
        if field == "output_grid":
            shapes["labels"] = shapes["confidence"] = spec.shape[::-1]
        else:
            shapes["rows"] = shapes["bins"] = shapes["weights"] = ("hits", spec.size)
    try:
        manifest.range_bins.bins()
    except ConfigurationError as error:
        faults += [f"range_bins: {fault}" for fault in error.faults]
    shapes["images"] = ("cameras", *manifest.image_size, 3)
    shapes["ranges"] = ("cameras", *manifest.feature_size)
    if "trajectory" in manifest.tasks:
        shapes["waypoints"] = (len(manifest.waypoint_times_s), 2)
    tensors = [*manifest.inputs, *manifest.outputs]
    for tensor in tensors:
        if tensor.name in shapes and tensor.shape != shapes[tensor.name]:
            faults.append(f"{tensor.name}: the tensor is {list(tensor.shape)} "
                          f"but grids, sizes and times make it {list(shapes[tensor.name])}")
    names = {tensor.name for tensor in tensors}
    needed = {"occupancy": {"labels"}, "trajectory": {"waypoints"}}
    for task in manifest.tasks:
        faults += [f"tasks: {task} needs an output named {name!r}" for name in sorted(needed.get(task, set()) - names)]
    return faults


def _file_faults(manifest: Manifest) -> list[str]:
    """Files that are absent, outside the folder, or not the ones that were exported."""
    faults = []
    for name, variant in manifest.variants.items():
        file = manifest.path(name)
        if Path(variant.file).name != variant.file:
            faults.append(f"variants.{name}: file {variant.file!r} must be a plain name inside the model's folder")
        elif not file.is_file():
            faults.append(f"variants.{name}: {variant.file} is missing")
        elif (found := sha256_of(file)) != variant.sha256:
            faults.append(f"variants.{name}: {variant.file} has SHA-256 {found[:12]}…, "
                          f"the manifest says {variant.sha256[:12]}…")
    return faults
