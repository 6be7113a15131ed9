"""The files of a report: whole, self-contained, without NaN."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from occ_perception.calibration import Rig
from occ_perception.replay import Evaluation, replay_bag, write_report
from occ_perception.replay.report import as_json, paths_csv, per_class_csv
from occ_perception.replay.terminal import show
from occ_perception.taxonomy import SIDEWALK

from .conftest import WAYPOINTS_M, BrightnessEngine, Record, stamp_of

VOID = {"meta", "img", "br", "line", "polyline"}


class Balance(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed by itself."""


@pytest.fixture
def evaluation(engine: BrightnessEngine, rig: Rig, record: Record) -> Evaluation:
    bag = record([2, 3, 2], dict.fromkeys(range(3), (2, 2)), "a<b>.mcap")
    return replay_bag(bag, rig, engine, engine.manifest, worst=1)  # type: ignore[arg-type]


def test_the_page_needs_nothing_beside_it(evaluation: Evaluation, rig: Rig, tmp_path: Path) -> None:
    page = write_report(evaluation, rig, tmp_path / "report")
    text = page.read_text()
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "http" not in text
    assert "$" not in re.sub(r"base64,[^\"]*", "", text)
    assert text.count("data:image/") == 2 * 7  # one worst frame and the best one: four wide pictures, three maps
    assert "a&lt;b&gt;.mcap" in text
    for name in SIDEWALK.classes[1:]:
        assert name in text
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "paths.csv", "per_class.csv", "picture.jpg", "report.html", "results.json"]
    assert "path clear" in text
    assert "waypoint blocked" in text


def test_json_has_null_where_nothing_was_measured(evaluation: Evaluation) -> None:
    content = json.loads(json.dumps(as_json(evaluation), allow_nan=False))
    assert content["scores"]["visible"]["per_class"][5] is None
    assert content["scores"]["visible"]["iou"] == pytest.approx(evaluation.scores["visible"]["iou"])
    assert len(content["frames"]) == 3
    assert content["about"]["model"]["seed"] == 7


def test_csv_has_a_line_per_class(evaluation: Evaluation) -> None:
    rows = list(csv.DictReader(io.StringIO(per_class_csv(evaluation))))
    assert [row["class"] for row in rows] == list(SIDEWALK.classes)
    assert float(rows[2]["iou_visible"]) == pytest.approx(evaluation.scores["visible"]["per_class"][2])
    assert rows[5]["iou_visible"] == ""


def test_every_waypoint_has_a_line_with_what_was_found(evaluation: Evaluation) -> None:
    rows = list(csv.DictReader(io.StringIO(paths_csv(evaluation))))
    assert len(rows) == 3 * len(WAYPOINTS_M)
    assert rows[0] == {"stamp_ns": str(stamp_of(0)), "status": "clear", "time_s": "0.5", "x_m": "1.000",
                       "y_m": "0.000", "clearance_m": "inf", "ruling_class": "sidewalk", "flags": ""}
    assert [row["ruling_class"] for row in rows[2:4]] == ["crosswalk"] * 2


def test_the_terminal_shows_classes_latencies_and_drops(evaluation: Evaluation) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    show(evaluation, console)
    text = console.export_text()
    assert "sidewalk" in text
    assert "3 of 3" in text
    assert "total, ms" in text
    assert "clear 3" in text
    assert "nothing" in text


def test_a_run_without_truth_is_reported_too(
        engine: BrightnessEngine, rig: Rig, record: Record, tmp_path: Path) -> None:
    evaluation = replay_bag(record([2, 2], {}), rig, engine, engine.manifest)  # type: ignore[arg-type]
    write_report(replace(evaluation, snapshots=[]), rig, tmp_path / "report")
    assert (tmp_path / "report" / "paths.csv").exists()
    evaluation = replace(evaluation, trajectories=[])
    text = write_report(evaluation, rig, tmp_path / "report").read_text()
    assert not (tmp_path / "report" / "paths.csv").exists()
    assert "Nothing was scored" in text
    assert all(math.isnan(frame.iou) for frame in evaluation.frames)
