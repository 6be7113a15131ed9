"""A node whose model reads LiDAR ranges, over real DDS: the LiDAR may come late, stop, and return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.geometry import se3
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.types import Odometry, PointCloud, VoxelGrid

pytestmark = pytest.mark.ros

NODE, MAX_AGE_NS = "/ranger", 300_000_000


@pytest.fixture(scope="module")
def robot(operator: Any, start_node: Any, make_robot: Any, ranging_model_folder: Any) -> Iterator[Any]:
    """An active node whose parameters leave the choice of LiDARs to it."""
    # The pose outlives the scan: what ends the use of a scan here is its age.
    child = start_node(NODE[1:], ranging_model_folder, lidar_max_age_ms=MAX_AGE_NS / 1e6, odometry_timeout_ms=5000.0)
    robot = make_robot(NODE)
    operator.bring_up(NODE, child)
    robot.meet()
    yield robot
    child.require_running()


def scan(robot: Any, stamp_ns: int) -> None:
    """One return 3 m ahead of the cameras, and a pose of the level base at its stamp."""
    ahead = np.float32([[3.2, 0.0, -0.2]])  # the LiDAR stands at 1 m, the cameras at 0.2 m ahead and 0.8 m high
    robot.say("odometry", robot.encoder.odometry(Odometry(stamp_ns, se3.from_euler(0.0, 0.0, 0.0))))
    robot.say("top/points", robot.encoder.point_cloud(PointCloud("top", stamp_ns, ahead)))


def timely(robot: Any) -> tuple[int, VoxelGrid]:
    """Stamp of a scan and the grid of a frame while it serves, as soon as the machine is quick enough for one."""
    found: list[tuple[int, VoxelGrid]] = []

    def came() -> bool:
        before = {sensor: int(robot.diagnostics()[sensor]["received"]) for sensor in ("top", "odometry")}
        scanned_ns = robot.now()
        scan(robot, scanned_ns)
        for sensor, received in before.items():
            robot.until_diagnosed(sensor, "received", lambda n, received=received: int(n) > received)
        grid = decode_voxel_grid(robot.answer(robot.frame()))
        found.append((scanned_ns, grid))
        return grid.stamp_ns <= scanned_ns + MAX_AGE_NS

    robot.operator.until(came, "a frame that came in time for its scan", 20.0)
    return found[-1]


def test_scans_are_used_and_frames_go_on_without_them_once_the_lidar_stops(robot: Any) -> None:
    scanned_ns, grid = timely(robot)
    assert grid.sensor_stamps_ns["top"] == scanned_ns
    assert "no_lidar" not in grid.flags
    assert set(np.unique(grid.labels)) == {2, 255}

    def flagged() -> bool:
        latest = decode_voxel_grid(robot.answer(robot.frame()))
        late = latest.stamp_ns > scanned_ns + MAX_AGE_NS
        assert ("no_lidar" in latest.flags) == late
        assert set(np.unique(latest.labels)) == {1 if late else 2, 255}
        assert ("top" in latest.sensor_stamps_ns) != late
        return late

    robot.operator.until(flagged, "a grid without LiDAR", 10.0)
    robot.until_diagnosed("top", "message", lambda text: "no cloud for" in text)
    robot.until_diagnosed("top", "level", lambda level: level == "1")  # less to go by, but no error


def test_a_lidar_that_returns_is_used_again(robot: Any) -> None:
    def used() -> bool:
        scan(robot, robot.now())
        return "no_lidar" not in decode_voxel_grid(robot.answer(robot.frame())).flags

    robot.operator.until(used, "a grid with LiDAR", 10.0)


def test_a_cloud_of_nothing_but_nan_leaves_the_frame_without_it(robot: Any) -> None:
    def counted() -> bool:
        nothing = PointCloud("top", robot.now(), np.full((100, 3), np.nan, np.float32))
        robot.say("top/points", robot.encoder.point_cloud(nothing))
        robot.answer(robot.frame())
        return int(robot.diagnostics()["frames"].get("unused_empty_cloud", 0)) > 0

    robot.operator.until(counted, "a frame without the empty cloud", 10.0)


def test_ranges_are_a_stage_of_the_diagnostics(robot: Any) -> None:
    robot.answer(robot.frame())
    robot.until_diagnosed("frames", "ranges_p50_ms", lambda value: value != "")
