"""What goes out beside the topics, and what is left out when it is not wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.pipelines import OccupancyResult
from occ_perception.ros import outputs
from occ_perception.types import Trajectory, VoxelGrid

pytestmark = pytest.mark.ros


class Broadcaster:
    """Stands in for tf2_ros, which is no wheel."""

    sent: list[Any]

    def __init__(self, node: Any) -> None:
        type(self).sent = []

    def sendTransform(self, transform: Any) -> None:
        self.sent.append(transform)


def result(pose: Any, trajectory: Trajectory | None = None) -> OccupancyResult:
    spec = VoxelGridSpec((0.0, -1.0, 0.0), (2.0, 1.0, 1.0), 0.5)
    labels, confidence = np.ones(spec.shape, np.uint8), np.full(spec.shape, 9, np.uint8)
    return OccupancyResult(VoxelGrid(spec, 5, labels, confidence, T_odom_grid=pose), trajectory, {})


def active(make_node: Any, **parameters: Any) -> Any:
    node = make_node(**parameters)
    node.trigger_configure()
    node.trigger_activate()
    return node._made.outputs


def test_the_frame_of_the_grid_is_broadcast_where_tf2_is_installed_and_the_pose_known(
    make_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "TransformBroadcaster", Broadcaster)
    ours = active(make_node)
    ours.publish(result(None))
    assert Broadcaster.sent == []
    ours.publish(result(se3.from_euler(0.0, 0.0, 0.3, (1.0, 2.0, 3.0))))
    (transform,) = Broadcaster.sent
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "occ_grid")
    assert transform.transform.translation.y == 2.0
    assert transform.header.stamp.nanosec == 5


@pytest.mark.parametrize(("wanted", "size"), [(True, 32), (False, 0)])
def test_confidence_can_be_left_out(
    make_node: Any, monkeypatch: pytest.MonkeyPatch, wanted: bool, size: int
) -> None:
    ours = active(make_node, publish_confidence=wanted)
    sent: list[Any] = []
    monkeypatch.setattr(ours._publishers["voxels"], "publish", sent.append)
    ours.publish(result(None))
    assert len(sent[0].confidence) == size
    assert len(sent[0].labels) == 32


def test_standard_messages_are_not_built_while_nobody_listens(
    make_node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = active(make_node)

    def never(grid: Any) -> Any:
        raise AssertionError("built for nobody")

    monkeypatch.setattr(type(ours._encoder), "labelled_points", lambda self, grid: never(grid))
    monkeypatch.setattr(type(ours._encoder), "occupancy_grid", lambda self, grid: never(grid))
    monkeypatch.setattr(type(ours._encoder), "markers", lambda self, grid: never(grid))
    ours.publish(result(None))


@pytest.mark.parametrize(("y", "paths"), [(0.5, 1), (np.nan, 0)])
def test_a_path_with_a_waypoint_that_is_no_number_is_told_only_in_the_trajectory(
    make_node: Any, monkeypatch: pytest.MonkeyPatch, y: float, paths: int
) -> None:
    ours = active(make_node)
    sent: dict[str, list[Any]] = {"trajectory": [], "path": []}
    monkeypatch.setattr(ours, "_wanted", lambda name: name == "path")
    for name, heard in sent.items():
        monkeypatch.setattr(ours._publishers[name], "publish", heard.append)
    ours.publish(result(None, Trajectory(5, np.float32([[1.0, y]]), np.float32([0.5]))))
    assert {name: len(heard) for name, heard in sent.items()} == {"trajectory": 1, "path": paths}


def test_standard_topics_can_be_left_out(make_node: Any) -> None:
    node = make_node(publish_standard=False)
    node.trigger_configure()
    offered = {publisher.topic_name for publisher in node.publishers}
    assert {"/node/output/voxels", "/node/output/trajectory"} <= offered
    assert not offered & {"/node/output/points", "/node/output/traversability", "/node/output/path"}
