"""The demo: player, perception_node and recorder as real processes over real DDS, then the scores of what came out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from occ_perception_msgs.msg import PlannedTrajectory, VoxelGrid
from rich.console import Console

from occ_perception.calibration import Rig, RigCamera, load_rig
from occ_perception.engines import load_manifest
from occ_perception.errors import OccPerceptionError, RecordingError
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import stamp_ns
from occ_perception.recordings.frames import TRUTH_OCCUPANCY_TOPIC, sensor_topics
from occ_perception.replay import Evaluation, score_outputs, write_report
from occ_perception.replay.terminal import show
from occ_perception.ros.diagnostics import as_dict
from occ_perception.ros.environment import shipped, use_transport_profile
from occ_perception.ros.processes import Child, Operator
from occ_perception.ros.topics import DIAGNOSTICS, NODE, TRAJECTORY, VOXELS, remapping_arguments

CLOCK_HZ = 50.0
CONFIGURE_TIMEOUT_S = 180.0
_LAST_FRAME_TIMEOUT_S = 5.0

Say = Callable[[str], None]


def sample_recording() -> Path:
    """The recording that comes with the repository."""
    folder = shipped("sample")
    bags = sorted(folder.glob("*.mcap"))
    if len(bags) != 1:
        raise RecordingError(f"holds {len(bags)} recordings instead of one", where=str(folder))
    return bags[0]


def private_domain() -> None:
    """Unless somebody chose a ROS domain, take one in which no other program of this machine is likely to speak."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(64 + os.getpid() % 37))


def offset_ns(anchor: RigCamera) -> int:
    """What the node adds to the stamps of the anchor camera's images: results carry the corrected stamp."""
    return round(anchor.time_offset_s * 1e9)


def start_node(operator: Operator, rig: Rig, rig_file: Path, model: Path, **parameters: Any) -> Child:
    """Start perception_node on the default topics of a rig, configured and active when this returns."""
    values = {"rig": rig_file, "model": model, **parameters}
    arguments = ["--ros-args", *remapping_arguments(rig)]
    for name, value in values.items():
        arguments += ["-p", f"{name}:={value}"]
    child = operator.start(NODE, "occ_perception.ros.perception_node", arguments)
    operator.bring_up(f"/{NODE}", child, timeout_s=CONFIGURE_TIMEOUT_S)
    return child


def start_recorder(operator: Operator, output: Path, topics: Sequence[str]) -> Child:
    """Start the recorder; it hears every one of `topics` when this returns."""
    child = operator.start("bag_recorder", "occ_perception.ros.recorder", ["-o", str(output), "--overwrite", *topics])
    already = {topic: operator.node.count_subscribers(topic) for topic in topics}
    operator.until(lambda: all(operator.node.count_subscribers(topic) > already[topic] for topic in topics),
                   "the recorder to subscribe", 60.0)
    return child


def play_through_node(bag: Path, rig: Rig, rig_file: Path, model: Path, outputs: Path, logs: Path, say: Say) -> None:
    """Feed a bag in its own time to a real node and record what it publishes.

    Raises:
        OccPerceptionError: a file is unusable, or a process failed; the message shows the end of its log.
    """
    with BagReader(bag) as reader:
        reader.require([TRUTH_OCCUPANCY_TOPIC])
        found = sensor_topics(reader, rig)
        anchor = next(topic for topic, (sensor, _) in found.items() if sensor == rig.cameras[0].name)
        stamps = [stamp_ns(message.header) for _, _, message in reader.messages([anchor])]
        last_ns = max(stamps, default=0) + offset_ns(rig.cameras[0])
        images, seconds = len(stamps), reader.duration_ns / 1e9
    paths_too = "trajectory" in load_manifest(model).tasks
    answered: list[int] = []
    reports: list[DiagnosticArray] = []
    with Operator("demo", logs) as operator:
        result, kind = (TRAJECTORY, PlannedTrajectory) if paths_too else (VOXELS, VoxelGrid)
        operator.node.create_subscription(kind, result, lambda message: answered.append(stamp_ns(message.header)), 50)
        operator.node.create_subscription(DiagnosticArray, DIAGNOSTICS, reports.append, 10)
        began_s = time.monotonic()
        node = start_node(operator, rig, rig_file, model, use_sim_time=True)
        operator.until(lambda: any(as_dict(report.status).get("engine", {}).get("state") == "active"
                                   for report in reports), "the diagnostics of the active node", 30.0)
        engine = as_dict(reports[-1].status)["engine"]["message"]
        say(f"{NODE} (process {node.pid}) is active after {time.monotonic() - began_s:.1f} s: {engine}")
        recorder = start_recorder(operator, outputs, [VOXELS, *([TRAJECTORY] if paths_too else []), DIAGNOSTICS])
        say(f"bag_recorder (process {recorder.pid}) writes {outputs}")
        player = operator.start("bag_player", "occ_perception.ros.player", [
            str(bag), "--clock", str(CLOCK_HZ), "--wait-for", anchor, "--topics", *found])
        say(f"bag_player (process {player.pid}) plays {bag.name}: {images} images, {seconds:.0f} s")
        _follow(operator, player, seconds, answered, images, say)
        _wait_for_the_last(operator, answered, last_ns, reports)
        say(f"answered {len(answered)} of {images} images")
        status = operator.stop(recorder)
        if status != 0:
            raise recorder.error(f"the recording failed with status {status}")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            operator.change_state(f"/{NODE}", transition)
        operator.stop(node)


def _follow(operator: Operator, player: Child, seconds: float, answered: Sequence[int], images: int, say: Say) -> None:
    """Wait for the end of the player, and say now and then how far things are."""
    operator.forget(player)
    told = 0

    def ended() -> bool:
        nonlocal told
        if len(answered) >= told + max(1, images // 4):
            told = len(answered)
            say(f"  {told} images answered")
        return not player.running

    try:
        operator.until(ended, "the end of the recording", seconds + 90.0)
    except OccPerceptionError:
        player.stop()
        raise
    if player.wait(1.0) != 0:
        raise player.error("the player failed")


def _wait_for_the_last(operator: Operator, answered: Sequence[int], last_ns: int, reports: Sequence[Any]) -> None:
    """Wait for the answer of the last image, if it comes, and for diagnostics that count it."""
    deadline = time.monotonic() + _LAST_FRAME_TIMEOUT_S
    operator.until(lambda: last_ns in answered or time.monotonic() > deadline, "the last frame",
                   2 * _LAST_FRAME_TIMEOUT_S)
    told = len(reports)
    operator.until(lambda: len(reports) > told + 1, "diagnostics", 30.0)


def run_demo(bag: Path | None = None, rig_file: Path | None = None, model: Path | None = None,
             out: Path = Path("out/demo"), console: Console | None = None) -> Evaluation:
    """The whole demo; prints progress, the table of scores and where the report is.

    Args:
        bag: recording with ground truth; default the sample recording.
        rig_file: its rig; default the shipped sidewalk_wheeled.
        model: model folder; default the shipped walkocc_lite.
        out: folder for recording, logs and report.
    """
    console = console or Console()
    began_s = time.monotonic()
    use_transport_profile()
    private_domain()
    bag = bag or sample_recording()
    rig_file = rig_file or shipped("calibration/sidewalk_wheeled.yaml")
    model = model or shipped("models/walkocc_lite")
    rig, outputs = load_rig(rig_file), out / "outputs.mcap"
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_s:6.1f} s[/]  {text}", highlight=False, soft_wrap=True)

    play_through_node(bag, rig, rig_file, model, outputs, out / "logs", say)
    say("scoring against the ground truth of the recording")
    evaluation = score_outputs(outputs, bag, rig, manifest=load_manifest(model))
    page = write_report(evaluation, rig, out, title=f"perception_node on {bag.name}")
    show(evaluation, console)
    say(f"report: {page}")
    return evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: `python -m occ_perception.ros.demo`; 0 when everything went through, 1 with one message."""
    parser = argparse.ArgumentParser(prog="demo", description="Play a recording through the node and score it.")
    parser.add_argument("--bag", type=Path, help="recording with ground truth (default: the sample recording)")
    parser.add_argument("--rig", type=Path, help="its rig file (default: the shipped sidewalk_wheeled)")
    parser.add_argument("--model", type=Path, help="model folder (default: the shipped walkocc_lite)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for everything it makes")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        run_demo(options.bag, options.rig, options.model, options.out, console)
    except OccPerceptionError as error:
        console.print(f"[red]demo failed:[/] {error}", highlight=False, soft_wrap=True, markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
