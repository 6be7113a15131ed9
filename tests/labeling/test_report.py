"""The page of a fleet: every scene, the ones to look at first, and what was not labelled with its reason."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from occ_perception.labeling import report as pages
from occ_perception.labeling.quality import Quality
from occ_perception.labeling.report import write_report
from occ_perception.labeling.scene_job import Outcome, Status
from occ_perception.taxonomy import SIDEWALK, Sidewalk

VOID = {"meta", "img", "br", "line"}


def quality_of(right: int) -> dict[str, Any]:
    """100 voxels of sidewalk of which so many are labelled so, and 1 of 50 crossed ones with a trail."""
    confusion = np.zeros((len(SIDEWALK) + 2, len(SIDEWALK) + 2), np.int64)
    confusion[Sidewalk.SIDEWALK, Sidewalk.SIDEWALK] = right
    confusion[Sidewalk.SIDEWALK, Sidewalk.ROAD] = 100 - right
    return Quality(confusion, 50, 1).to_dict()


def scene(out: Path, name: str, **fields: Any) -> None:
    (out / name).mkdir(parents=True)
    (out / name / "report.json").write_text(json.dumps({"scene": name, "frames": 60} | fields))
    cv2.imwrite(str(out / name / "picture.jpg"), np.full((120, 1800, 3), 90, np.uint8))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A good scene, a bad one, one that warns, and one of an older version that says nearly nothing."""
    whole = {"points": 1000, "labelled_points": 800, "tracks": 3, "health": {"front": 1.0, "rear": None},
             "warnings": [], "drops": {"no_pose": 2}, "wall_s": {"lift": 3.0, "fuse": 9.0}, "cpu_s": {"lift": 2.0},
             "frames_per_core_s": 6.0, "peak_memory_mb": 700, "segmenter": "simulated",
             "settings": {"grid": "sidewalk"}}
    scene(tmp_path / "labels", "a-good", **whole, quality=quality_of(90))
    scene(tmp_path / "labels", "b-bad", **whole, quality=quality_of(40))
    scene(tmp_path / "labels", "c-warns", **whole | {"warnings": ["camera front: depth edges <miss> image edges"]})
    scene(tmp_path / "labels", "d-old")
    return tmp_path / "labels"


class Nesting(HTMLParser):
    """Raises where a tag is closed that is not open, and knows what is still open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(out: Path, *outcomes: Outcome) -> str:
    return write_report(out, outcomes).read_text()


def test_scenes_that_warn_come_first_then_the_worst(out: Path) -> None:
    assert re.findall(r"<h3>(.*?)</h3>", page_of(out)) == ["c-warns", "b-bad", "a-good", "d-old"]


def test_the_page_is_sound_and_needs_no_other_file_but_large_pictures(out: Path) -> None:
    page = page_of(out)
    nesting = Nesting()
    nesting.feed(page)
    assert nesting.open == []
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert set(re.findall(r'(?:src|href)="(?!data:|#)(.*?)"', page)) == {
        f"{name}/picture.jpg" for name in ("a-good", "b-bad", "c-warns", "d-old")}
    assert "&lt;miss&gt;" in page
    assert "<miss>" not in page
    assert not list(out.glob("*.tmp*"))


def test_figures_are_those_of_all_scenes_together(out: Path) -> None:
    page = page_of(out)
    tiles = dict(reversed(pair) for pair in re.findall(r"<b>(.*?)</b><span>(.*?)</span>", page))
    assert tiles["scenes labelled"] == "4"
    assert tiles["frames"] == "240"
    assert tiles["scenes with warnings"] == "1"
    assert tiles["frames per second of a core"] == "6.00"  # the old one does not tell
    assert tiles["IoU, visible voxels"] == "100.0 %"
    assert tiles["of crossed voxels hold a trail"] == "2.0 %"
    assert "65.0 %" in page  # sidewalk over both scenes with truth
    assert "80.0 % of the returns labelled" in page
    assert re.search(r"<td>no pose</td><td>6</td>", page)
    assert re.search(r"<td>fuse</td><td>27.0 s</td><td>–</td><td>75.0 %</td>", page)


def test_what_was_not_labelled_is_listed_with_its_reason(out: Path) -> None:
    (out / "e-broken").mkdir()
    (out / "e-broken" / "report.json").write_text('{"scene":')
    page = page_of(out, Outcome("drive-7", Status.skipped, "its bag <ends> early"), Outcome("a-good", Status.done))
    assert "its bag &lt;ends&gt; early" in page
    assert "report.json cannot be read" in page
    assert '<b>2</b><span>not labelled</span>' in page


def test_a_large_fleet_shows_the_pictures_that_matter_and_lists_the_rest(
        out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_PICTURES", 2)
    page = page_of(out)
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["c-warns", "b-bad"]
    assert "Pictures of 2 scenes are shown" in page
    assert all(name in page for name in ("a-good", "d-old"))


def test_an_empty_folder_has_a_page_with_reasons(tmp_path: Path) -> None:
    page = page_of(tmp_path, Outcome("drive-7", Status.failed, "its worker died"))
    assert "No scene is labelled" in page
    assert "its worker died" in page
