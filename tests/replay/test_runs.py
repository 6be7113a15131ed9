"""Bags through the pipeline: what is answered, how it is scored, and what is said about bad bags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from occ_perception import cli
from occ_perception.calibration import Rig
from occ_perception.engines import Manifest
from occ_perception.errors import ConfigurationError, RecordingError
from occ_perception.geometry import coverage
from occ_perception.pipelines import PathChecker, PathCheckSettings
from occ_perception.recordings import BagReader, BagWriter, MessageEncoder, make
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.recordings.frames import TRUTH_OCCUPANCY_TOPIC
from occ_perception.replay import Evaluation, replay_bag, score_outputs
from occ_perception.replay.evaluation import Scorer
from occ_perception.replay.runs import DIAGNOSTICS_TOPIC, TRAJECTORY_TOPIC, VOXELS_TOPIC
from occ_perception.replay.streams import Truth
from occ_perception.taxonomy import SIDEWALK
from occ_perception.types import Trajectory, VoxelGrid

from .conftest import GRID, WAYPOINTS_M, BrightnessEngine, Record, manifest, stamp_of, true_grid


@pytest.fixture
def run(engine: BrightnessEngine, rig: Rig) -> Any:
    def replayed(bag: Path, **options: Any) -> Evaluation:
        return replay_bag(bag, rig, engine, engine.manifest, **options)  # type: ignore[arg-type]

    return replayed


def test_frames_are_matched_by_stamp_and_scored_on_visible_and_on_known_voxels(
        run: Any, record: Record, rig: Rig) -> None:
    evaluation = run(record([2, 4, 2], {0: (2, 2), 2: (3, 2)}))
    covered = coverage(rig.mounted(), GRID)
    near = covered[:10].mean()
    assert (evaluation.answered, evaluation.scored, evaluation.images_in) == (3, 2, 3)
    # every predicted cell is occupied where a camera covers it, every true one everywhere
    assert evaluation.scores["visible"]["iou"] == pytest.approx(near, abs=0.01)
    assert evaluation.scores["known"]["iou"] == pytest.approx(covered.mean(), abs=0.01)
    # class 2: right in frame 0, a false alarm in the seen half of frame 2, where class 3 is missed
    cells = covered[:10].sum()
    assert evaluation.scores["visible"]["per_class"][2] == pytest.approx(cells / (2000 + cells), abs=0.01)
    assert evaluation.scores["visible"]["per_class"][3] == 0.0
    assert [round(frame.iou, 2) for frame in evaluation.frames if frame.iou == frame.iou] == [round(near, 2)] * 2
    assert np.isnan(evaluation.frames[1].iou)


def test_paths_are_rated_on_the_true_map_beside_the_path_really_taken(run: Any, record: Record) -> None:
    scores = run(record([2], {0: (2, 5)})).scores
    assert scores["navigation"]["collision_rate"] == 0.5  # the second waypoint reaches the wall of the far half
    assert scores["navigation"]["displacement_m"] == pytest.approx(np.sqrt(0.5))
    assert scores["navigation_truth"]["paths"] == 1


def test_the_check_of_paths_is_counted_and_compared_with_the_true_map(run: Any, record: Record) -> None:
    # said to be a wall: all is blocked; in truth only the far half is, into which the second waypoint reaches
    evaluation = run(record([5, 2], {0: (2, 5), 1: (2, 2)}))
    assert evaluation.paths == {"blocked": 1, "clear": 1}
    assert [frame.path for frame in evaluation.frames] == ["blocked", "clear"]
    assert evaluation.scores["path_check"] == {"foreseen": 1.0, "right": 0.5, "waypoints": 4}
    assert run(record([2], {0: (2, 5)}, "missed.mcap")).scores["path_check"]["foreseen"] == 0.0


def test_paths_are_judged_by_the_settings_of_the_robot_on_both_maps(run: Any, record: Record, rig: Rig) -> None:
    strict = PathCheckSettings(off_limits=("sidewalk",))
    assert run(record([2], {0: (2, 2)}), path_check=strict).paths == {"caution": 1}
    # the true wall begins at 2.1 m, the first waypoint lies at 1 m: only a broad robot really collides there
    bag = record([5], {0: (2, 5)}, "wall.mcap")
    assert run(bag).scores["path_check"] == {"foreseen": 1.0, "right": 0.5, "waypoints": 2}
    broad = run(bag, path_check=PathCheckSettings(1.2))
    assert broad.scores["path_check"] == {"foreseen": 1.0, "right": 1.0, "waypoints": 2}
    scorer = Scorer(GRID, "sidewalk14", rig, path_check=PathCheckSettings(ceiling_m=-9.0))
    grid = VoxelGrid(GRID, stamp_of(0), np.full(GRID.shape, 2, np.uint8))
    truth = Truth(true_grid(0, 2, 5), None)
    unchecked = Trajectory(stamp_of(0), WAYPOINTS_M, np.array([0.5, 1.0], np.float32))
    scorer.add(grid, truth, unchecked)  # nothing to compare with: the settings are not asked for
    checker = PathChecker(GRID, SIDEWALK, PathCheckSettings())
    with pytest.raises(ConfigurationError, match="ceiling_m"):
        scorer.add(grid, truth, replace(unchecked, check=checker.check(grid.labels, WAYPOINTS_M)))


def test_latencies_are_told_by_stage_and_the_worst_frames_are_kept(run: Any, record: Record) -> None:
    evaluation = run(record([2, 3, 2, 3], dict.fromkeys(range(4), (2, 2))), worst=2)
    assert {"assemble", "tables", "engine", "post", "total"} <= evaluation.latency_ms.keys()
    assert evaluation.latency_ms["total"]["frames"] == 4
    assert evaluation.latency_ms["engine"]["p50"] <= evaluation.latency_ms["engine"]["p99"]
    kept = [snapshot.score.stamp_ns for snapshot in evaluation.snapshots]
    assert kept == [stamp_of(1), stamp_of(3), stamp_of(0)]  # worst first, then the best one


def test_an_image_that_is_none_is_dropped_by_reason_and_the_rest_is_answered(run: Any, record: Record) -> None:
    evaluation = run(record([2, None, 2], {}))
    assert (evaluation.answered, evaluation.images_in) == (2, 3)
    assert sum(evaluation.drops.values()) == 1
    assert "undecodable_image" in next(iter(evaluation.drops))


def test_without_truth_nothing_is_scored_but_latencies_and_pictures_are_there(run: Any, record: Record) -> None:
    evaluation = run(record([2, 2], {}))
    assert evaluation.scores == {}
    assert "no /truth/occupancy" in evaluation.notes[0]
    assert evaluation.snapshots


def test_limit_ends_the_run_early_and_progress_is_told(run: Any, record: Record) -> None:
    told: list[tuple[int, int]] = []
    evaluation = run(record([2] * 5, {}), limit=3, tell=lambda done, total: told.append((done, total)))
    assert evaluation.answered == 3
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_truth_may_lie_in_another_bag(run: Any, record: Record) -> None:
    truth = record([2], {0: (2, 2)}, "truth.mcap")
    assert run(record([2], {}), truth_bag=truth).scored == 1
    with pytest.raises(RecordingError, match="no topic /truth/occupancy"):
        run(record([2], {}, "a.mcap"), truth_bag=record([2], {}, "b.mcap"))


def test_a_bag_without_the_cameras_topic_lists_what_it_has(run: Any, record: Record) -> None:
    with pytest.raises(RecordingError, match=r"(?s)no topic /camera/front/image/compressed.*/else"):
        run(record([2], {}, topic="/else"))
    assert run(record([2], {}, "named.mcap", topic="/else"), topics={"front": "/else"}).answered == 1


def test_truth_on_another_grid_is_refused(run: Any, record: Record, tmp_path: Path) -> None:
    from occ_perception.geometry import VoxelGridSpec

    other = VoxelGridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), 0.5)
    with BagWriter(tmp_path / "other.mcap") as bag:
        grid = VoxelGrid(other, stamp_of(0), np.zeros(other.shape, np.uint8))
        bag.write(TRUTH_OCCUPANCY_TOPIC, stamp_of(0), MessageEncoder(make).voxel_grid(grid))
    with pytest.raises(RecordingError, match="on the grid of the model"):
        run(record([2], {}), truth_bag=tmp_path / "other.mcap")


def test_scans_reach_a_model_that_reads_ranges_and_no_other(run: Any, record: Record, rig: Rig) -> None:
    robot = Rig.model_validate(rig.model_dump(mode="json") | {"lidars": [
        {"name": "top", "frame": "top", "T_base_lidar": {"translation": [0.1, 0.0, 0.3]}}]})
    given: list[float] = []

    class Reader(BrightnessEngine):
        def run(self, inputs: Any, state: Any) -> Any:
            given.append(float(inputs["ranges"].max()))
            return super().run(inputs, state)

    ranges = {"name": "ranges", "shape": ("cameras", 12, 16), "dtype": "float32", "meaning": ""}
    reads = Manifest.model_validate(manifest().model_dump() | {"inputs": [ranges]})
    bag = record([2] * 6, {}, scans=[1, 5])
    evaluation = replay_bag(bag, robot, Reader(), reads)
    flagged = ["no_lidar" in frame.flags for frame in evaluation.frames]
    # a scan serves for 0.3 s, brought to each frame's stamp: the robot moves by 0.1 m a frame, turned by 0.3 rad
    assert flagged == [True, False, False, False, False, False]
    assert given[1:3] == [0.0, pytest.approx(2.0)]
    assert given[3] < given[2]
    assert "ranges" in evaluation.latency_ms
    assert evaluation.drops == {}
    assert "ranges" not in run(bag).latency_ms


def outputs_of(tmp_path: Path, labels: dict[int, int], diagnostics: dict[str, str] | None = None) -> Path:
    """A bag as the recorder leaves it: grids and paths of some frames, and the node's last words."""
    tmp_path.mkdir(exist_ok=True)
    encoder, path = MessageEncoder(make), tmp_path / "outputs.mcap"
    with BagWriter(path) as bag:
        for frame, label in labels.items():
            grid = VoxelGrid(GRID, stamp_of(frame), np.full(GRID.shape, label, np.uint8), model_id="node@1")
            bag.write(VOXELS_TOPIC, stamp_of(frame), encoder.voxel_grid(grid))
            path_taken = Trajectory(stamp_of(frame), WAYPOINTS_M, np.array([0.5, 1.0], np.float32))
            bag.write(TRAJECTORY_TOPIC, stamp_of(frame), encoder.planned_trajectory(path_taken))
        if diagnostics:
            values = [make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in diagnostics.items()]
            status = make("diagnostic_msgs/msg/DiagnosticStatus", name="perception_node: frames", values=values)
            bag.write(DIAGNOSTICS_TOPIC, stamp_of(9), make("diagnostic_msgs/msg/DiagnosticArray", status=[status]))
    return path


def test_recorded_outputs_are_scored_against_the_recording_the_node_was_fed_with(
        record: Record, rig: Rig, tmp_path: Path) -> None:
    outputs = outputs_of(tmp_path, {0: 2, 2: 2}, {"receive_to_publish_p95_ms": "61.5", "dropped_too_old": "1"})
    evaluation = score_outputs(outputs, record([2, 2, 2], dict.fromkeys(range(3), (2, 2))), rig)
    assert (evaluation.answered, evaluation.scored, evaluation.images_in) == (2, 2, 3)
    assert evaluation.scores["visible"]["miou"] == 1.0
    assert evaluation.scores["navigation"]["paths"] == 2
    assert evaluation.latency_ms == {"receive_to_publish": {"p95": 61.5}}
    assert evaluation.drops == {"too_old": 1}
    assert evaluation.about["model"] == {"model": "node@1"}
    assert all("front" in snapshot.images for snapshot in evaluation.snapshots)


def test_outputs_without_diagnostics_say_so_and_without_grids_are_refused(
        record: Record, rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = record([2], {0: (2, 2)})
    assert "no diagnostics" in score_outputs(outputs_of(tmp_path, {0: 2}), drive, rig).notes[0]
    with pytest.raises(RecordingError, match=f"no topic {VOXELS_TOPIC}"):
        score_outputs(drive, drive, rig)
    with pytest.raises(RecordingError, match="was made by node@1, not by brightness@1"):
        score_outputs(outputs_of(tmp_path / "other", {0: 2}), drive, rig, manifest=manifest())
    with pytest.raises(SystemExit, match="2"):
        cli.main(["score", str(drive), "--truth", str(drive)])
    assert f"no topic {VOXELS_TOPIC}" in capsys.readouterr().err


def test_replay_names_data_model_machine_and_seed(run: Any, record: Record) -> None:
    bag = record([2], {0: (2, 2)})
    bag.with_suffix(".yaml").write_text("split: sample\nversion: '1'\ncontent_hash: abc\nother: 3\n")
    about = run(bag).about
    assert about["data"]["recording"] == "drive.mcap"
    assert len(about["data"]["sha256"]) == 64
    assert {key: about["data"][key] for key in ("split", "version", "content_hash")} == {
        "split": "sample", "version": "1", "content_hash": "abc"}
    assert about["model"]["model"] == "brightness@1"
    assert about["model"]["seed"] == 7
    assert about["machine"]["cores"] > 0
    with BagReader(bag) as reader:
        message = next(reader.messages([TRUTH_OCCUPANCY_TOPIC]))[2]
    np.testing.assert_array_equal(decode_voxel_grid(message).labels, true_grid(0, 2, 2).labels)
