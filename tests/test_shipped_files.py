"""What a new reader opens first is whole: no dead links, a model that loads, RViz topics that recordings have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from occ_perception.calibration import load_rig
from occ_perception.engines import load_manifest
from occ_perception.pipelines import synchroniser_for
from occ_perception.recordings import BagReader
from occ_perception.recordings.frames import sensor_events

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files_and_no_placeholder_is_left(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert re.findall(r"@[A-Z]+@", text) == []


def test_the_shipped_model_is_whole_and_says_how_it_was_made_and_what_it_scores():
    manifest = load_manifest(ROOT / "models" / "walkocc_lite")
    assert {"fp32", "int8"} <= set(manifest.variants)
    assert manifest.training.steps > 0
    assert manifest.takes_ranges
    assert {score.split for score in manifest.scores} >= {"test", "night", "districts", "embodiments"}
    assert sum(file.stat().st_size for file in manifest.folder.iterdir()) <= 15_000_000


def test_the_sample_recording_is_small_and_has_the_camera_topics_that_rviz_shows():
    sample = ROOT / "sample" / "sidewalk_sample.mcap"
    assert sample.stat().st_size <= 8_000_000
    config = yaml.safe_load((ROOT / "rviz" / "sidewalk.rviz").read_text())["Visualization Manager"]
    shown = {f"/{display['Topic']['Value']}" for display in config["Displays"]
             if display.get("Topic", {}).get("Value", "").startswith("camera/")}
    with BagReader(sample) as reader:
        assert shown
        assert shown <= set(reader.topics)


def test_the_sample_recording_gives_every_frame_a_scan_once_there_was_one():
    rig = load_rig(ROOT / "calibration" / "sidewalk_wheeled.yaml")
    lidars = [lidar.name for lidar in rig.lidars]
    synchroniser = synchroniser_for(rig, lidars=lidars)
    with BagReader(ROOT / "sample" / "sidewalk_sample.mcap") as reader:
        sets = [synced for event in sensor_events(reader, rig) if event.kind != "odometry"
                for synced in synchroniser.push(event.sensor, event.stamp_ns, event.message)]
    with_scan = [set(lidars) <= synced.payloads.keys() for synced in sets]
    assert len(sets) > 50
    assert with_scan.index(True) <= 3
    assert all(with_scan[with_scan.index(True):])
