"""What breaks inside a node is said: a failed activation in log and diagnostics, a failed recording at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from occ_perception.errors import OccPerceptionError
from occ_perception.ros.perception_node import PerceptionNode
from occ_perception.ros.recorder import Recorder
from occ_perception.ros.topics import rig_of_parameters

pytestmark = pytest.mark.ros


def test_an_activation_that_fails_is_said_and_leaves_the_node_inactive(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context()
    rclpy.init(context=context)
    node = PerceptionNode("fails", context=context)
    try:
        def breaks(state: Any) -> Any:
            raise ValueError("no such topic name")

        monkeypatch.setattr(node, "_begin", breaks)
        assert node.on_activate(LifecycleState("inactive", 2)) == TransitionCallbackReturn.FAILURE
        status = node._own_status()
        assert status.level == DiagnosticStatus.ERROR
        assert status.message == "cannot be activated: ValueError: no such topic name"
        node.on_cleanup(LifecycleState("inactive", 2))
        assert node._own_status().level == DiagnosticStatus.OK
    finally:
        node.destroy_node()
        context.try_shutdown()


class BrokenWriter:
    """A writer whose disk is gone."""

    def write_raw(self, *item: Any) -> None:
        raise RuntimeError("the library gave up")


def test_a_writer_that_breaks_in_any_way_never_blocks_the_end() -> None:
    rclpy.init()
    try:
        recorder = Recorder(BrokenWriter(), ["/a"])
        for _ in range(3):
            recorder._queue.put(("/a", "std_msgs/msg/String", 0, b""))
        recorder.finish()
        assert isinstance(recorder.failure, OccPerceptionError)
        assert "the library gave up" in str(recorder.failure)
        assert recorder.dropped["/a"] == 2
        recorder.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.mark.parametrize(("content", "rig"), [
    ("/**:\n  ros__parameters: {rig: /my/rig.yaml}\n", "/my/rig.yaml"),
    ("/**:\n  ros__parameters: {rig: all.yaml}\n/robot/perception_node:\n  ros__parameters: {rig: own.yaml}\n",
     "own.yaml"),
    ("other_node:\n  ros__parameters: {rig: not_ours.yaml}\n", ""),
    ("/**:\n  ros__parameters: {rig: ''}\n", ""), ("", ""),
])
def test_the_rig_of_a_parameter_file_is_found(content: str, rig: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert rig_of_parameters(path) == rig
