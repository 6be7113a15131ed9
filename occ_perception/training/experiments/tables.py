"""What each table shows: its rows, columns and comparisons, with the figures of the paper. All as data.

The paper's figures are in percent and on its own recordings: only relations can be compared. Its Table 5 has the
columns IoU and mIoU swapped, and its text calls Table 6 by the number of Table 7; both are put right here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from occ_perception.errors import ConfigurationError
from occ_perception.metrics import Resampled, relative_miou
from occ_perception.taxonomy import SIDEWALK
from occ_perception.training.experiments.rows import PATHS, THREE_SEEDS, WITH_LIDAR
from occ_perception.training.experiments.statistics import RowScores

Measure = Literal["relative", "points"]


@dataclass(frozen=True)
class Column:
    """One score.

    Attributes:
        name: key in files, title for people; percent unless `unit` says otherwise.
        score: of a row, resampled.
        lower_is_better: such as a rate of collisions.
        drawn: whether the picture shows it.
    """

    name: str
    title: str
    score: Callable[[RowScores], Resampled]
    unit: str = "%"
    lower_is_better: bool = False
    drawn: bool = True

    @property
    def factor(self) -> float:
        """From the score to the unit shown."""
        return 100.0 if self.unit == "%" else 1.0


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        row: name of a row of `rows.ROWS`.
        paper: the paper's figures by column.
        suffix: of the splits it is scored on, such as `+lidar`.
        title: for people, where not the row's own.
        true_paths: rates are those of the robot's true paths, for orientation.
    """

    row: str
    paper: Mapping[str, float] = field(default_factory=dict)
    suffix: str = ""
    title: str | None = None
    true_paths: bool = False

    @property
    def key(self) -> str:
        """Name of the line; unique in its table."""
        return "true_paths" if self.true_paths else self.row + self.suffix


@dataclass(frozen=True)
class Comparison:
    """Whether the line `one` beats the line `other`, by column; `paper` where it compared others: (one, other)."""

    one: str
    other: str
    columns: tuple[str, ...]
    paper: Mapping[str, tuple[float, float]] = field(default_factory=dict)


BASE = "base"
"""In a comparison: WalkOCC w/o 2D at the scale's own grid, wherever it stands in the table."""


@dataclass(frozen=True)
class TableSpec:
    """A table as a query over runs.

    Attributes:
        name: such as `table1`.
        title: for people.
        entries, columns, comparisons: lines, scores, and what is claimed.
        measure: what the picture shows of comparisons, relative gains or differences in percentage points.
        seeds: of the trainings that are shown.
        notes: what a reader must know.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    columns: tuple[Column, ...]
    comparisons: tuple[Comparison, ...]
    measure: Measure = "relative"
    seeds: tuple[int, ...] = THREE_SEEDS
    notes: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Title, with the table's number if it has one."""
        number = self.name.removeprefix("table")
        return f"Table {number}: {self.title}" if number.isdigit() else self.title


def _occupancy(split: str, prefix: str = "", title: str = "") -> tuple[Column, Column]:
    """mIoU and IoU on a split."""
    return (Column(f"{prefix}miou", f"{title}mIoU", lambda row: row.miou(split)),
            Column(f"{prefix}iou", f"{title}IoU", lambda row: row.iou(split)))


def _of_class(name: str, drawn: bool) -> Column:
    label = SIDEWALK.classes.index(name)
    return Column(name, name, lambda row: row.class_iou("test", label), drawn=drawn)


def _relative(split: str, title: str) -> Column:
    return Column(f"{split}_relative", f"{title}Rel-mIoU",
                  lambda row: relative_miou(row.miou(split), row.miou("test")))


def _rate(name: str, kind: str, title: str, lower_is_better: bool) -> Column:
    return Column(name, title, lambda row: row.rate(PATHS, kind), lower_is_better=lower_is_better)


def _figures(names: Sequence[str], *values: float) -> dict[str, float]:
    return dict(zip(names, values, strict=True))


_SAFETY = ("person", "vehicle", "curb", "gutter")
_CLASSES = SIDEWALK.classes[1:]
_TABLE1 = ("iou", "miou", *_CLASSES)
_SAME = "Simulated worlds, so only relations can be compared with the paper, whose recordings are not public."
_VISIBLE = "Voxels that some sensor saw count; IoU is of occupied against free, mIoU the mean over classes."
_ONE_SEED = "One training each: intervals are over scenes, not over seeds."
_FREE_SPACE = "WalkOCC's images of other bodies also clear the space before what they show: a loss beyond the paper."

TABLE1 = TableSpec(
    "table1", "Occupancy by method, in the domain of training",
    entries=(
        Entry("monoscene", _figures(_TABLE1, 23.08, 8.42, 10.30, 39.80, 19.64, 9.04, 6.32, 4.06, 1.96, 0.16, 0.0, 1.40,
                                    0.74, 3.46, 4.12)),
        Entry("flashocc", _figures(_TABLE1, 27.17, 14.23, 21.12, 35.46, 24.37, 21.58, 16.38, 10.24, 14.12, 3.27, 0.14,
                                   6.76, 8.82, 10.64, 12.04)),
        Entry("walkocc_paired", {"iou": 29.87, "miou": 16.32}),
        Entry("walkocc", _figures(_TABLE1, 30.02, 16.46, 23.55, 38.11, 27.61, 25.40, 17.41, 9.84, 18.74, 4.15, 0.21,
                                  7.53, 14.59, 12.87, 13.96)),
    ),
    columns=(*_occupancy("test"), *(_of_class(name, name in _SAFETY) for name in _CLASSES)),
    comparisons=(Comparison("walkocc", "flashocc", ("miou", "iou", *_SAFETY)),
                 Comparison("walkocc", "monoscene", ("miou", "iou")),
                 Comparison("walkocc_paired", "flashocc", ("miou", "iou", *_SAFETY))),
    notes=(
        _SAME, _VISIBLE, _FREE_SPACE,
        "The paper's figures for WalkOCC w/o 2D are those of its Table 5, on the same test data.",
        "Its gain of WalkOCC over FlashOcc in mIoU, 16.46 over 14.23, is also quoted as +15.6 %.",
    ),
)

TABLE2 = TableSpec(
    "table2", "Other embodiments: occupancy projected into the images",
    entries=(Entry("walkocc_paired", {"pixel_accuracy": 71.90, "pixel_miou": 24.73}),
             Entry("walkocc", {"pixel_accuracy": 73.8, "pixel_miou": 25.5})),
    columns=(Column("pixel_accuracy", "pixel accuracy", lambda row: row.pixel_accuracy("embodiments")),
             Column("pixel_miou", "2D mIoU", lambda row: row.pixel_miou("embodiments")),
             *_occupancy("embodiments", "voxel_", "3D ")),
    comparisons=(Comparison("walkocc", "walkocc_paired", ("pixel_accuracy", "pixel_miou", "voxel_miou", "voxel_iou")),),
    measure="points",
    notes=(
        _SAME,
        "Scored on the quadruped, the wheelchair and the humanoid; paired data are of the wheeled robot alone.",
        "WalkOCC also learns from images of the others, which carry 2D labels alone, and from images by night.",
        _FREE_SPACE,
        "That without it voxels fill up before the humanoid was seen on this very split.",
        "Only pixels whose true range ends inside the grid count. The scores in 3D are beyond the paper.",
    ),
)

TABLE3 = TableSpec(
    "table3", "Other domains",
    entries=(
        Entry("flashocc", {"miou": 17.13, "iou": 29.18, "night_miou": 5.55, "night_relative": 32.39, "night_iou": 13.77,
                           "districts_miou": 9.03, "districts_relative": 52.71, "districts_iou": 18.8}),
        Entry("walkocc_paired", {
            "miou": 18.78, "iou": 31.08, "night_miou": 5.70, "night_relative": 30.35, "night_iou": 11.97,
            "districts_miou": 9.25, "districts_relative": 49.25, "districts_iou": 17.77}),
        Entry("walkocc", {"miou": 18.88, "iou": 30.79, "night_miou": 8.61, "night_relative": 45.6, "night_iou": 18.03,
                          "districts_miou": 10.29, "districts_relative": 54.50, "districts_iou": 20.11}),
    ),
    columns=(*_occupancy("test"), *_occupancy("night", "night_", "night "), _relative("night", "night "),
             *_occupancy("districts", "districts_", "districts "), _relative("districts", "districts ")),
    comparisons=(
        Comparison("walkocc", "walkocc_paired", ("night_miou", "night_iou", "night_relative", "districts_miou",
                                                 "districts_iou", "districts_relative", "miou")),
        Comparison("walkocc", "flashocc", ("night_miou", "night_iou", "districts_miou", "districts_iou")),
    ),
    notes=(
        _SAME, _VISIBLE, _FREE_SPACE, "Paired data are by day, of touristy and residential districts.",
        "Night stands for the paper's set 1, commercial districts by day for its set 2 (all but touristy by day).",
        "Rel-mIoU is the part of the mIoU in the domain of training that is kept.",
        "That images by night must not clear space was seen on this very split of the night.",
    ),
)

TABLE4 = TableSpec(
    "table4", "Paths with and without occupancy supervision",
    entries=(Entry("trajectory_only", {"collision": 2.79, "grass": 0.47, "lane": 95.03}),
             Entry("walkocc_paired", {"collision": 2.37, "grass": 0.31, "lane": 95.43},
                   title="WalkOCC with occupancy supervision"),
             Entry("walkocc_paired", title="the true paths", true_paths=True)),
    columns=(_rate("collision", "collision", "collision rate", True), _rate("grass", "grass", "grass rate", True),
             _rate("lane", "lane", "lane-keeping rate", False),
             Column("standing", "collision rate, what stands", lambda row: row.rate(PATHS, "collision", "standing"),
                    lower_is_better=True),
             Column("error_m", "waypoint error", lambda row: row.waypoint_error_m(PATHS), "m", True, drawn=False)),
    comparisons=(Comparison("walkocc_paired", "trajectory_only", ("collision", "grass", "lane", "standing",
                                                                      "error_m")),),
    measure="points",
    notes=(
        _SAME,
        "Both learn from the same samples; in the first row only the trajectory loss reaches the encoder.",
        "Rates are on the true grid of 0.1 m, footprint 0.4 m, ceiling 1 m (A.2).",
        "What the simulated robot really drove on the same maps is scored for orientation.",
        "A.2 takes people to stay where they are for 5 s; the robot drives where they will have gone away.",
        "So collisions with what stands (walls, trees, obstacles) are given beside the rate of A.2, beyond the paper.",
    ),
)

TABLE5 = TableSpec(
    "table5", "What each loss and mixed supervision add",
    entries=(Entry("occupancy_only", {"miou": 14.09, "iou": 24.54}),
             Entry("flashocc", {"miou": 14.23, "iou": 27.17}, title="+ depth (FlashOcc)"),
             Entry("semantics", {"miou": 15.71, "iou": 29.09}, title="+ 2D semantics"),
             Entry("walkocc_paired", {"miou": 16.32, "iou": 29.87}, title="+ 2D-3D consistency"),
             Entry("walkocc", {"miou": 16.46, "iou": 30.02}, title="+ mixed supervision")),
    columns=_occupancy("test"),
    comparisons=(Comparison("flashocc", "occupancy_only", ("miou", "iou")),
                 Comparison("semantics", "flashocc", ("miou", "iou")),
                 Comparison("walkocc_paired", "semantics", ("miou", "iou")),
                 Comparison("walkocc", "walkocc_paired", ("miou", "iou"))),
    measure="points",
    seeds=(0,),
    notes=(_SAME, _VISIBLE, _ONE_SEED, _FREE_SPACE,
           "The paper's table has its two columns swapped; here they are in place."),
)

TABLE6 = TableSpec(
    "table6", "Size of cells and range, at equal steps",
    entries=(Entry("cells_010", {"miou": 16.25, "iou": 29.09}),
             Entry("cells_020", {"miou": 20.52, "iou": 41.18}),
             Entry("cells_040"),
             Entry("range_half")),
    columns=_occupancy("test"),
    comparisons=(Comparison("cells_020", "cells_010", ("miou", "iou")),
                 Comparison("cells_040", "cells_020", ("miou", "iou"), {"miou": (16.25, 10.44), "iou": (29.09, 20.24)}),
                 Comparison(BASE, "range_half", ("miou", "iou"), {"miou": (11.35, 16.25), "iou": (21.84, 29.09)})),
    seeds=(0,),
    notes=(
        _SAME, _VISIBLE, _ONE_SEED, "Each row is scored on its own grid, as in the paper.",
        "The simulated truth has cells of 0.1 m and reaches 10 m, so two of the paper's rows have no counterpart:",
        "beside 0.4 m over 0.2 m stands its 0.1 m over 0.05 m, beside 10 m over 5.2 m its 20 m over 10 m (at 0.1 m).",
        "5.2 m is what is nearest to half the range in whole cells of any size.",
    ),
)

TABLE7 = TableSpec(
    "table7", "Share of night among a fixed number of 2D-only images, tested by night",
    entries=(Entry("walkocc_paired", {"miou": 6.13, "iou": 15.82}), Entry("night_30", {"miou": 8.74, "iou": 19.72}),
             Entry("night_60", {"miou": 9.93, "iou": 20.48}), Entry("night_90", {"miou": 8.66, "iou": 18.33})),
    columns=_occupancy("night"),
    comparisons=(*(Comparison(f"night_{share}", "walkocc_paired", ("miou", "iou")) for share in (30, 60, 90)),
                 Comparison("night_60", "night_30", ("miou", "iou")),
                 Comparison("night_90", "night_60", ("miou", "iou"))),
    measure="points",
    seeds=(0,),
    notes=(_SAME, _VISIBLE, _ONE_SEED, "The other images are by day, of the districts of training."),
)

LIDAR = TableSpec(
    "lidar", "LiDAR ranges as an optional input (beyond the paper)",
    entries=(Entry("walkocc_paired", title="cameras alone"),
             Entry("lidar", title="takes LiDAR, none given"),
             Entry("lidar", suffix=WITH_LIDAR, title="takes LiDAR, given")),
    columns=(*_occupancy("test"), *_occupancy("night", "night_", "night "),
             *_occupancy("embodiments", "embodiments_", "embodiments ")),
    comparisons=(Comparison(f"lidar{WITH_LIDAR}", "walkocc_paired", ("miou", "iou", "night_miou", "night_iou",
                                                                     "embodiments_miou", "embodiments_iou")),
                 Comparison("lidar", "walkocc_paired", ("miou", "iou", "night_miou", "night_iou"))),
    measure="points",
    seeds=(0,),
    notes=(_SAME, _VISIBLE, _ONE_SEED, "One network; in training its scans were missing at random."),
)

PSEUDO = TableSpec(
    "pseudo", "Learning from pseudo-labels instead of the truth (beyond the paper)",
    entries=(Entry("walkocc_paired", title="learns from the truth"),
             Entry("pseudo_labels", title="learns from pseudo-labels")),
    columns=(*_occupancy("test"), *_occupancy("val", "val_", "val "),
             *(_of_class(name, name in _SAFETY) for name in _CLASSES)),
    comparisons=(Comparison("pseudo_labels", "walkocc_paired", ("miou", "iou", "val_miou", "val_iou", *_SAFETY)),),
    seeds=(0,),
    notes=(
        _SAME, _VISIBLE, _ONE_SEED,
        "Same images, equal steps; the second row sees no truth, nor in calibration. Both are scored on the truth.",
        "Pseudo-labels are of scans, exact poses, and a simulated segmenter that is wrong in a tenth of its pixels.",
        "Its classes are the 2D labels too, and depth is that of the scans. A gain of -10 % is 90 % of the score.",
    ),
)

SIMULATED_TABLES = (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7, LIDAR)
TABLES = {spec.name: spec for spec in (*SIMULATED_TABLES, PSEUDO)}
FAMILY, ALL = "walkocc", "all"
"""All are those whose data simulation alone makes."""


def get_tables(name: str) -> list[TableSpec]:
    """The tables of a name such as `walkocc/table1` or `walkocc/all`.

    Raises:
        ConfigurationError: there are none; the known names are listed.
    """
    family, _, table = name.partition("/")
    if family == FAMILY and table == ALL:
        return list(SIMULATED_TABLES)
    if family != FAMILY or table not in TABLES:
        known = ", ".join(f"{FAMILY}/{key}" for key in (*TABLES, ALL))
        raise ConfigurationError([f"unknown experiment {name!r}"], fix=f"Known experiments: {known}")
    return [TABLES[table]]
