"""The demo from end to end on a tiny recording: three processes, one report, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)
import yaml
from rich.console import Console

from occ_perception.calibration import Rig, load_rig
from occ_perception.errors import RecordingError
from occ_perception.geometry import VoxelGridSpec
from occ_perception.recordings import frames
from occ_perception.recordings.bag import BagReader, BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.messages import make
from occ_perception.ros import demo
from occ_perception.ros.bench_node import bench_node
from occ_perception.ros.processes import ProcessError
from occ_perception.types import CameraImage, Odometry, VoxelGrid

pytestmark = pytest.mark.ros

START_NS, PERIOD_NS, FRAMES = 1_700_000_000_000_000_000, 200_000_000, 10
OFFSET_S = 0.03


@pytest.fixture
def late_rig(rig_file: Path, tmp_path: Path) -> Path:
    """The file of a rig whose cameras expose later than they stamp: answers carry other stamps than the images."""
    content = yaml.safe_load(rig_file.read_text())
    for camera in content["cameras"]:
        camera["time_offset_s"] = OFFSET_S
    path = tmp_path / "late.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def drive(path: Path, rig: Rig, grid: VoxelGridSpec | None) -> Path:
    """Two seconds of bright images and odometry; with `grid`, every cell is known to be sidewalk (2)."""
    encoder = MessageEncoder(make)
    with BagWriter(path) as writer:
        for i in range(FRAMES):
            stamp_ns = START_NS + PERIOD_NS * i
            writer.write(frames.ODOMETRY_TOPIC, stamp_ns, encoder.odometry(Odometry(stamp_ns, np.eye(4))))
            for camera in rig.cameras:
                pixels = np.full((camera.height, camera.width, 3), 220, np.uint8)
                image = encoder.compressed_image(CameraImage(camera.name, stamp_ns, pixels))
                writer.write(frames.compressed_image_topic(camera.name), stamp_ns, image)
            if grid is not None:
                stamp_ns += round(rig.cameras[0].time_offset_s * 1e9)
                seen = np.full(grid.shape, 255, np.uint8)
                truth = VoxelGrid(grid, stamp_ns, np.full(grid.shape, 2, np.uint8), seen, model_id="truth")
                writer.write(frames.TRUTH_OCCUPANCY_TOPIC, stamp_ns, encoder.voxel_grid(truth))
    return path


@pytest.fixture
def grid() -> VoxelGridSpec:
    return VoxelGridSpec((0.0, -5.0, -2.0), (10.0, 5.0, 3.0), 0.5)


def test_the_demo_scores_what_the_node_published(
    late_rig: Path, model_folder: Path, grid: VoxelGridSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = drive(tmp_path / "drive.mcap", load_rig(late_rig), grid)
    console = Console(record=True, width=200)
    wait, waited_for = demo._wait_for_the_last, []

    def waiting(operator: Any, answered: Any, last_ns: int, reports: Any) -> None:
        waited_for.append((answered, last_ns))
        wait(operator, answered, last_ns, reports)

    monkeypatch.setattr(demo, "_wait_for_the_last", waiting)
    evaluation = demo.run_demo(bag, late_rig, model_folder, tmp_path / "out", console)
    assert (evaluation.answered, evaluation.images_in) == (FRAMES, FRAMES)
    (answered, last_ns), = waited_for
    assert answered[-1] == last_ns == START_NS + PERIOD_NS * (FRAMES - 1) + round(OFFSET_S * 1e9)
    # Bright images are answered with sidewalk wherever a camera sees; the rest is unknown, a miss.
    covered = evaluation.scores["visible"]["iou"]
    assert 0.2 < covered < 0.9
    assert evaluation.scores["visible"]["per_class"][2] == pytest.approx(covered)
    assert evaluation.latency_ms["receive_to_publish"]["p50"] > 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "results.json").read_text())["answered"] == FRAMES
    text = console.export_text()
    assert "answered 10 of 10 images" in text
    assert str(tmp_path / "out" / "report.html") in text
    with BagReader(tmp_path / "out" / "outputs.mcap") as reader:
        assert reader.counts["/perception_node/output/voxels"] == FRAMES


def test_a_recording_without_truth_is_refused_before_anything_starts(
    rig: Rig, rig_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    bag = drive(tmp_path / "blind.mcap", rig, None)
    with pytest.raises(RecordingError, match="/truth/occupancy"):
        demo.run_demo(bag, rig_file, model_folder, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out" / "logs").exists()


def test_a_node_that_cannot_be_configured_ends_the_demo_with_its_reason(
    rig: Rig, rig_file: Path, model_folder: Path, grid: VoxelGridSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = drive(tmp_path / "drive.mcap", rig, grid)
    started: list[Any] = []
    start = demo.Operator.start
    monkeypatch.setattr(demo.Operator, "start", lambda *a, **k: started.append(start(*a, **k)) or started[-1])
    monkeypatch.setattr(demo, "remapping_arguments", lambda rig: ["-p", "threads:=-5"])
    with pytest.raises(ProcessError, match=r"threads: must be within 0 \.\. 256, got -5"):
        demo.run_demo(bag, rig_file, model_folder, tmp_path / "out", Console(quiet=True))
    assert len(started) == 1
    assert not started[0].running


def test_the_bench_of_the_node_counts_every_image(
    late_rig: Path, model_folder: Path, grid: VoxelGridSpec, tmp_path: Path
) -> None:
    bag = drive(tmp_path / "drive.mcap", load_rig(late_rig), grid)
    figures = bench_node(bag, late_rig, model_folder, seconds=2.0, say=lambda text: None)
    assert figures.images >= 15
    assert figures.images - figures.answered <= sum(figures.drops.values())
    assert 0 < figures.p("receive_to_publish", 50) <= figures.p("receive_to_publish", 95)
    assert figures.end_to_end_ms["p50"] > 0
    assert figures.rss_mb
    assert all(50 < rss < 2000 for rss in figures.rss_mb)
