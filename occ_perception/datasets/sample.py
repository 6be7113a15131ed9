"""`Sample`: one labelled instant of any data set, and what a data set is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from occ_perception.calibration import Rig
from occ_perception.errors import ShapeError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.taxonomy import SIDEWALK, Taxonomy
from occ_perception.types import FlowField


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """Images of one instant with their classes, and nothing in 3D: what a robot without a LiDAR can contribute.

    Attributes:
        scene, index: which frame of which scene; frames of a scene are consecutive in time.
        stamp_ns: of the anchor camera.
        rig: the sensors that took it.
        images: uint8 RGB [H, W, 3] by camera.
        semantics: uint8 [H, W] by camera; 0 background, 14 outside the field of view; empty where there are none.
        T_grid_base: [4, 4], tilt of the base in the gravity-aligned grid frame.
    """

    scene: str
    index: int
    stamp_ns: int
    rig: Rig
    images: Mapping[str, NDArray[np.uint8]]
    semantics: Mapping[str, NDArray[np.uint8]]
    T_grid_base: NDArray[np.float64]

    def __post_init__(self) -> None:
        self._require_image_sizes("semantics", self.semantics)

    def _require_image_sizes(self, name: str, truth: Mapping[str, NDArray[np.generic]]) -> None:
        for camera, image in self.images.items():
            if camera in truth and truth[camera].shape != image.shape[:2]:
                raise ShapeError(f"must be {image.shape[:2]}, got {truth[camera].shape}",
                                 where=f"sample: {name} of {camera}")


@dataclass(frozen=True, kw_only=True)
class Sample(ImageSample):
    """Sensor data and truth of one instant.

    Attributes:
        spec: geometry of the grid.
        T_world_grid: [4, 4], to relate the frames of a scene.
        labels: uint8 [nx, ny, nz], 255 unknown.
        visible: bool [nx, ny, nz], some sensor has a line of sight to the cell.
        range_m: float32 [H, W] by camera, along the ray; 0 where nothing returns.
        points_m: float32 [P, 3], one deskewed LiDAR scan in the base frame; None where there was no LiDAR.
        waypoints_m: float32 [10, 2] in the grid frame, 0.5 s apart, or None where the future is not long enough.
        instance_rows: uint16 [nx, ny, nz], 0 none, else 1 + row of `track_ids` uint64 [M].
        flow: velocity of the moving cells, or None where the data set has none.
        taxonomy: name of the classes of `labels` and `semantics`.
    """

    spec: VoxelGridSpec
    T_world_grid: NDArray[np.float64]
    labels: NDArray[np.uint8]
    visible: NDArray[np.bool_]
    range_m: Mapping[str, NDArray[np.float32]]
    points_m: NDArray[np.float32] | None = None
    waypoints_m: NDArray[np.float32] | None = None
    instance_rows: NDArray[np.uint16] | None = None
    track_ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    flow: FlowField | None = None
    taxonomy: str = SIDEWALK.name

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_image_sizes("range_m", self.range_m)
        for name in ("labels", "visible", "instance_rows"):
            array = getattr(self, name)
            if array is not None and array.shape != self.spec.shape:
                raise ShapeError(f"must be {self.spec.shape}, got {array.shape}", where=f"sample: {name}")


class Dataset(Protocol):
    """Samples by index. `version` and `content_hash` say which data a score was made on."""

    @property
    def version(self) -> str: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def taxonomy(self) -> Taxonomy:
        """Its own classes, re-indexed so that 0 is free."""

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Sidewalk class of each of its labels, uint8 [256]; 254 and 255 stay what they are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class SidewalkLabels:
    """What a data set says of its labels if they are the sidewalk classes."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The sidewalk classes."""
        return SIDEWALK

    @property
    def to_sidewalk(self) -> NDArray[np.uint8]:
        """Every label is its own sidewalk class, uint8 [256]."""
        return np.arange(256, dtype=np.uint8)
