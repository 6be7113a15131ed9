"""Tables as queries over results whose scores are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from occ_perception.errors import ConfigurationError
from occ_perception.training.experiments.build import build_table, runs_of
from occ_perception.training.experiments.rows import ROWS
from occ_perception.training.experiments.runs import Result, Run
from occ_perception.training.experiments.scale import SCALES
from occ_perception.training.experiments.tables import TABLES, get_tables

CPU = replace(SCALES["cpu"], resamples=300)
IOU = {"monoscene": 0.1, "flashocc": 0.2, "walkocc_paired": 0.25, "walkocc": 0.3}
Invent = Callable[..., Result]


def by_method(run: Run, split: str) -> float:
    """A plain IoU per method, half of it by night; seeds differ by a hundredth, alike for all methods."""
    return IOU.get(run.row.name, 0.2) * (0.5 if split.startswith("night") else 1.0) + 0.01 * (run.seed - 1)


# Table 1 of the paper, by its own order of columns.
PAPER_CLASSES = ("road", "sidewalk", "crosswalk", "grass", "wall", "trees", "vehicle", "cyclist", "animal", "obstacle",
                 "person", "curb", "gutter")
PAPER_TABLE1 = {
    "monoscene": (23.08, 8.42, 10.30, 39.80, 19.64, 9.04, 6.32, 4.06, 1.96, 0.16, 0.0, 1.40, 0.74, 3.46, 4.12),
    "flashocc": (27.17, 14.23, 21.12, 35.46, 24.37, 21.58, 16.38, 10.24, 14.12, 3.27, 0.14, 6.76, 8.82, 10.64, 12.04),
    "walkocc": (30.02, 16.46, 23.55, 38.11, 27.61, 25.40, 17.41, 9.84, 18.74, 4.15, 0.21, 7.53, 14.59, 12.87, 13.96),
}
# Table 5: mIoU and IoU, put in place.
PAPER_TABLE5 = {"occupancy_only": (14.09, 24.54), "flashocc": (14.23, 27.17), "semantics": (15.71, 29.09),
                "walkocc_paired": (16.32, 29.87), "walkocc": (16.46, 30.02)}


def test_every_figure_of_table_1_stands_in_the_column_of_its_class(invent: Invent) -> None:
    table = build_table(TABLES["table1"], CPU, lambda run: invent(run, by_method))
    for line in table.lines:
        miou = 100 * IOU[line.key]
        expected = {"iou": 1.2 * miou, "miou": miou,
                    **{name: (0.7 + 0.05 * place) * miou for place, name in enumerate(PAPER_CLASSES)}}
        assert {name: cell.value for name, cell in line.cells.items()} == pytest.approx(expected)
        if line.key in PAPER_TABLE1:
            assert line.paper == dict(zip(("iou", "miou", *PAPER_CLASSES), PAPER_TABLE1[line.key], strict=True))


def test_every_figure_of_table_5_stands_in_its_column(invent: Invent) -> None:
    table = build_table(TABLES["table5"], CPU, lambda run: invent(run, by_method))
    assert {line.key: (line.paper["miou"], line.paper["iou"]) for line in table.lines} == PAPER_TABLE5
    ours = {line.key: (line.cells["miou"].value, line.cells["iou"].value) for line in table.lines}
    expected = {key: 100 * IOU.get(key, 0.2) - 1 for key in PAPER_TABLE5}  # seed 0
    assert ours == {key: pytest.approx((miou, 1.2 * miou)) for key, miou in expected.items()}
    steps = [(c.column.name, round(c.paper_points, 2)) for c in table.comparisons]
    assert steps == [("miou", 0.14), ("iou", 2.63), ("miou", 1.48), ("iou", 1.92), ("miou", 0.61), ("iou", 0.78),
                     ("miou", 0.14), ("iou", 0.15)]


def test_pixels_are_not_voxels(invent: Invent) -> None:
    line = build_table(TABLES["table2"], CPU, lambda run: invent(run, by_method)).lines[1]
    assert {name: cell.value for name, cell in line.cells.items()} == pytest.approx(
        {"pixel_accuracy": 27, "pixel_miou": 24, "voxel_miou": 30, "voxel_iou": 36})


def test_scores_gains_and_the_papers_figures_stand_side_by_side(invent: Invent) -> None:
    table = build_table(TABLES["table1"], CPU, lambda run: invent(run, by_method))
    lines = {line.key: line for line in table.lines}
    assert [line.cells["miou"].value for line in table.lines] == pytest.approx([10, 20, 25, 30])
    assert lines["walkocc"].seeds == (0, 1, 2)
    assert lines["walkocc"].paper["person"] == 14.59
    first = table.comparisons[0]
    assert (first.one, first.other, first.column.name) == ("WalkOCC", "FlashOcc", "miou")
    assert first.points.value == pytest.approx(10)
    assert first.relative.value == pytest.approx(50)
    assert first.paper_points == pytest.approx(16.46 - 14.23)
    assert first.paper_relative == pytest.approx(15.67, abs=0.01)
    assert first.verdict == "better"
    assert table.missing == ()
    assert len(table.used) == 12


def test_seeds_spread_the_scores_but_cancel_in_paired_differences(invent: Invent) -> None:
    table = build_table(TABLES["table1"], CPU, lambda run: invent(run, by_method))
    score = table.lines[3].cells["miou"]
    assert (score.low, score.high) == pytest.approx((29, 31))
    gain = table.comparisons[0].points
    assert (gain.low, gain.high) == pytest.approx((10, 10))


def test_a_gain_that_some_seeds_do_not_show_is_not_decided(invent: Invent) -> None:
    def quality(run: Run, split: str) -> float:
        return 0.3 + (0.02 * (run.seed - 1) if run.row.name == "walkocc" else 0.0)

    table = build_table(TABLES["table1"], CPU, lambda run: invent(run, quality))
    assert {c.verdict for c in table.comparisons if c.one == "WalkOCC"} == {"undecided"}


def test_relative_miou_is_the_part_kept_by_night(invent: Invent) -> None:
    table = build_table(TABLES["table3"], CPU, lambda run: invent(run, by_method))
    for line in table.lines:
        assert line.cells["night_relative"].value == pytest.approx(50)
        assert line.cells["districts_relative"].value == pytest.approx(100)


def test_lower_rates_are_better(invent: Invent) -> None:
    table = build_table(TABLES["table4"], CPU, lambda run: invent(run, by_method))
    without, occupancy, truth = table.lines
    assert truth.cells["collision"].value == pytest.approx(1)
    assert truth.cells["grass"].value == pytest.approx(0.2)
    assert truth.cells["lane"].value == pytest.approx(98)
    assert truth.cells["standing"].value == pytest.approx(0.4)
    assert occupancy.cells["grass"].value == pytest.approx(0.3)
    assert occupancy.cells["standing"].value == pytest.approx(0.5)
    assert math.isnan(truth.cells["error_m"].value)
    assert without.cells["collision"].value == pytest.approx(4)
    assert occupancy.cells["collision"].value == pytest.approx(2)
    assert occupancy.cells["lane"].value == pytest.approx(98)
    assert occupancy.cells["error_m"].value == pytest.approx(0.5)
    verdicts = {c.column.name: c.verdict for c in table.comparisons}
    assert verdicts == {"collision": "better", "grass": "undecided", "lane": "better", "standing": "undecided",
                        "error_m": "undecided"}
    assert table.comparisons[0].points.value == pytest.approx(-2)
    assert table.comparisons[0].paper_points == pytest.approx(-0.42)


def test_missing_runs_leave_dashes_and_comparisons_use_the_seeds_both_have(invent: Invent) -> None:
    absent = {"walkocc-s1", "flashocc-s2", "monoscene-s0", "monoscene-s1", "monoscene-s2"}
    table = build_table(TABLES["table1"], CPU, lambda run: None if run.name in absent else invent(run, by_method))
    assert set(table.missing) == absent
    lines = {line.key: line for line in table.lines}
    assert lines["walkocc"].seeds == (0, 2)
    assert lines["monoscene"].seeds == ()
    assert math.isnan(lines["monoscene"].cells["miou"].value)
    over_flashocc = next(c for c in table.comparisons if c.other == "FlashOcc")
    assert over_flashocc.seeds == (0,)
    assert over_flashocc.points.value == pytest.approx(10)
    assert math.isnan(next(c for c in table.comparisons if c.other == "MonoScene").points.value)


def test_a_table_without_any_run_is_still_a_table() -> None:
    table = build_table(TABLES["table2"], CPU, lambda run: None)
    assert len(table.missing) == 6
    assert all(math.isnan(cell.value) for line in table.lines for cell in line.cells.values())


def test_the_range_is_compared_with_the_row_at_the_scales_own_cells(invent: Invent) -> None:
    table = build_table(TABLES["table6"], CPU, lambda run: invent(run, by_method))
    last = table.comparisons[-1]
    assert (last.one, last.other) == ("10 m range", "5.2 m range")
    assert last.paper_relative == pytest.approx(100 * (21.84 / 29.09 - 1))
    assert {run["row"] for run in table.used} == {"cells_010", "walkocc_paired", "cells_040", "range_half"}


def test_one_network_with_and_without_its_lidar_is_two_lines(invent: Invent) -> None:
    def quality(run: Run, split: str) -> float:
        return 0.4 if split.endswith("+lidar") else 0.25

    table = build_table(TABLES["lidar"], CPU, lambda run: invent(run, quality))
    assert [line.cells["miou"].value for line in table.lines] == pytest.approx([25, 25, 40])
    assert len(table.used) == 2


@pytest.mark.parametrize(("change", "warning"), [
    ({"steps": 601}, "different numbers of steps"), ({"commit": "dead"}, "different commits"),
    ({"torch": "2.1"}, "different versions of torch"), ({"data": {"trunk": {"sha256": "two"}}}, "same trunk file"),
])
def test_runs_that_were_not_made_alike_are_pointed_out(
    invent: Invent, change: dict[str, Any], warning: str
) -> None:
    def find(run: Run) -> Result:
        return {**invent(run, by_method), **(change if run.seed == 1 else {})}

    (said,) = build_table(TABLES["table1"], CPU, find).warnings
    assert warning in said
    assert build_table(TABLES["table5"], CPU, find).warnings == ()


def test_code_that_was_changed_since_its_commit_is_pointed_out(invent: Invent) -> None:
    table = build_table(TABLES["table5"], CPU, lambda run: {**invent(run, by_method), "commit": "c0ffee-dirty"})
    assert table.warnings == ("Some runs were made by code that was changed since its commit.",)


def test_every_table_can_be_built_and_names_only_columns_it_has(invent: Invent) -> None:
    for spec in TABLES.values():
        columns = {column.name for column in spec.columns}
        assert {name for c in spec.comparisons for name in c.columns} <= columns
        assert {name for entry in spec.entries for name in entry.paper} <= columns
        table = build_table(spec, CPU, lambda run: invent(run, by_method))
        assert not any(np.isnan(cell.value) for line in table.lines for cell in line.cells.values()
                       if line.key != "true_paths")


def test_seeds_are_those_of_the_table_unless_others_are_asked_for() -> None:
    names = [run.name for run in runs_of(TABLES["table5"], CPU)]
    assert names == [f"{name}-s0" for name in ("occupancy_only", "flashocc", "semantics", "walkocc_paired", "walkocc")]
    assert [run.seed for run in runs_of(TABLES["table2"], CPU, seeds=(4, 3))] == [3, 4, 3, 4]
    assert {run.seed for run in runs_of(TABLES["table1"], SCALES["smoke"])} == {0}
    assert Run(ROWS["walkocc"], 2).name == "walkocc-s2"


def test_unknown_experiments_list_the_known_ones() -> None:
    assert len(get_tables("walkocc/all")) == 8
    assert [spec.name for spec in get_tables("walkocc/pseudo")] == ["pseudo"]
    for wrong in ("walkocc/table8", "trackocc/table1", "table1", ""):
        with pytest.raises(ConfigurationError, match=r"walkocc/table1, .*walkocc/lidar, walkocc/pseudo, walkocc/all"):
            get_tables(wrong)
