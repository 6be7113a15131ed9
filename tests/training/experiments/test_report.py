from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from occ_perception.training.experiments.build import build_table
from occ_perception.training.experiments.picture import WIDTH
from occ_perception.training.experiments.report import write_report
from occ_perception.training.experiments.runs import Result, Run
from occ_perception.training.experiments.scale import SCALES
from occ_perception.training.experiments.tables import TABLES

CPU = replace(SCALES["cpu"], resamples=100)
OURS, PAPER = (47, 111, 183), (222, 214, 198)
Invent = Callable[..., Result]


def find(invent: Invent) -> Callable[[Run], Result | None]:
    return lambda run: None if run.name == "monoscene-s0" else invent(run, lambda run, split: 0.2 + 0.01 * run.seed)


def pixels_of(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).sum(-1) < 6).sum())


def test_the_page_tells_command_data_runs_and_what_is_missing(tmp_path: Path, invent: Invent) -> None:
    table = build_table(TABLES["table1"], CPU, find(invent))
    page, content, _ = write_report(table, tmp_path / "cpu", "occ-perception experiment walkocc/table1 --scale cpu")
    text = page.read_text()
    for part in ("simulated", "`occ-perception experiment walkocc/table1 --scale cpu`", "hash of test", "| 60 |",
                 "`walkocc-s2-01234567`", "`c0ffeec0`", "**Not done yet:** monoscene-s0.", "+15.7 %", "table1.png",
                 "| **WalkOCC** | 0, 1, 2 | 21.00 [20.00, 22.00] |", "| *paper* |  | 16.46 | 30.02 |"):
        assert part in text
    values = json.loads(content.read_text())
    assert values["missing"] == ["monoscene-s0"]
    assert values["simulated"] is True
    assert values["rows"][3]["ours"]["miou"] == [21.0, 20.0, 22.0]
    assert values["rows"][2]["paper"] == {"iou": 29.87, "miou": 16.32}
    assert values["data"]["hash of train"]["frames"] == 1800
    assert values["comparisons"][0]["verdict"] == "undecided"


def test_a_short_commit_still_says_that_the_code_was_changed(tmp_path: Path, invent: Invent) -> None:
    def dirty(run: Run) -> Result:
        return {**invent(run, lambda run, split: 0.2), "commit": "c0ffee" * 6 + "-dirty"}

    page = write_report(build_table(TABLES["table5"], CPU, dirty), tmp_path, "x")[0].read_text()
    assert "`c0ffeec0-dirty`" in page
    assert "**Attention:** Some runs" in page


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_drawn_with_ours_beside_the_papers(tmp_path: Path, invent: Invent, name: str) -> None:
    table = build_table(TABLES[name], CPU, find(invent))
    picture = cv2.imread(str(write_report(table, tmp_path, "x")[2]))[:, :, ::-1]
    assert picture.shape[1] == WIDTH
    assert pixels_of(picture, OURS) > 1000
    assert (pixels_of(picture, PAPER) > 500) == (name not in ("lidar", "pseudo"))  # beyond the paper


def test_a_table_without_runs_has_dashes_and_only_the_papers_bars(tmp_path: Path) -> None:
    page, content, drawn = write_report(build_table(TABLES["table5"], CPU, lambda run: None), tmp_path, "x")
    assert "| **+ depth (FlashOcc)** | – | – | – |" in page.read_text()
    assert json.loads(content.read_text())["rows"][0]["ours"]["miou"] == [None, None, None]
    picture = cv2.imread(str(drawn))[:, :, ::-1]
    assert pixels_of(picture, PAPER) > 1000
    assert pixels_of(picture, OURS) < 400  # the key alone
