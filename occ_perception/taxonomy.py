"""Classes, colours and class sets. The sidewalk taxonomy is WalkOCC's Table 8, with 0 as free space."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import ConfigurationError

FREE = 0
"""Voxel label of free space; in images the same number is background (which is not free)."""
OCCUPIED = 254
"""Voxel label of matter without a class: counts in IoU, ignored in mIoU."""
UNKNOWN = 255
"""Voxel label of space that was not observed; ignored by every score."""
OCCLUSION = 14
"""Image label of pixels without scene content (the black border of a fisheye); never in 3D."""


class Sidewalk(IntEnum):
    """Class ids of the sidewalk taxonomy (WalkOCC, Table 8)."""

    FREE = 0
    ROAD = 1
    SIDEWALK = 2
    CROSSWALK = 3
    GRASS = 4
    WALL = 5
    TREES = 6
    VEHICLE = 7
    CYCLIST = 8
    ANIMAL = 9
    OBSTACLE = 10
    PERSON = 11
    CURB = 12
    GUTTER = 13


@dataclass(frozen=True)
class Taxonomy:
    """A named, closed list of voxel classes; index 0 is free space.

    Attributes:
        name: stable name, written into messages and manifests.
        classes: class names by id, `classes[0]` is free.
        colours: RGB 0..255 by id.
        things: ids of countable, tracked classes.
        obstacles: ids a robot must not touch (WalkOCC A.2, the set C).
        ground: ids of surfaces that are driven or walked on.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    things: frozenset[int]
    obstacles: frozenset[int]
    ground: frozenset[int]

    def __post_init__(self) -> None:
        faults = []
        if len(self.classes) != len(self.colours):
            faults.append(f"{len(self.classes)} classes but {len(self.colours)} colours")
        for field in ("things", "obstacles", "ground"):
            foreign = [i for i in getattr(self, field) if not 0 < i < len(self.classes)]
            if foreign:
                faults.append(f"{field} names ids {foreign} outside 1..{len(self.classes) - 1}")
        if faults:
            raise ConfigurationError(faults, where=f"taxonomy {self.name!r}")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def stuff(self) -> frozenset[int]:
        """Ids that are neither free nor things."""
        return frozenset(range(1, len(self))) - self.things

    def palette(self) -> NDArray[np.uint8]:
        """RGB of every uint8 label, [256, 3]; occupied without class is white, unknown dark grey."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colours
        palette[OCCUPIED] = 255
        palette[UNKNOWN] = 48
        return palette


SIDEWALK = Taxonomy(
    name="sidewalk14",
    classes=(
        "free", "road", "sidewalk", "crosswalk", "grass", "wall", "trees", "vehicle", "cyclist",
        "animal", "obstacle", "person", "curb", "gutter",
    ),
    colours=(
        (0, 0, 0), (110, 110, 125), (226, 130, 226), (240, 240, 120), (120, 200, 80), (176, 152, 128),
        (24, 120, 48), (40, 110, 230), (245, 140, 40), (150, 90, 40), (250, 210, 0), (225, 35, 55),
        (120, 230, 230), (0, 128, 140),
    ),
    things=frozenset({Sidewalk.VEHICLE, Sidewalk.CYCLIST, Sidewalk.ANIMAL, Sidewalk.PERSON}),
    obstacles=frozenset({
        Sidewalk.WALL, Sidewalk.TREES, Sidewalk.VEHICLE, Sidewalk.CYCLIST, Sidewalk.ANIMAL,
        Sidewalk.OBSTACLE, Sidewalk.PERSON,
    }),
    ground=frozenset({
        Sidewalk.ROAD, Sidewalk.SIDEWALK, Sidewalk.CROSSWALK, Sidewalk.GRASS, Sidewalk.CURB, Sidewalk.GUTTER,
    }),
)

TAXONOMIES = {SIDEWALK.name: SIDEWALK}


def get_taxonomy(name: str) -> Taxonomy:
    """The taxonomy of that name; raises ConfigurationError naming the known ones."""
    try:
        return TAXONOMIES[name]
    except KeyError:
        raise ConfigurationError(
            [f"unknown taxonomy {name!r}"], fix=f"Known taxonomies: {', '.join(sorted(TAXONOMIES))}"
        ) from None
