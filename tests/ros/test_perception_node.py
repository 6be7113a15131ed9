"""The node as a real process over real DDS: life cycle, answers, and what bad input does to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)
from lifecycle_msgs.msg import Transition

from occ_perception.geometry import se3
from occ_perception.pipelines import PathChecker, PathCheckSettings
from occ_perception.recordings.decode import decode_trajectory, decode_voxel_grid
from occ_perception.taxonomy import SIDEWALK
from occ_perception.types import CameraImage, Odometry, WaypointFlag

pytestmark = pytest.mark.ros

NODE = "/watcher"


@pytest.fixture(scope="module")
def robot(operator: Any, start_node: Any, make_robot: Any, model_folder: Any) -> Iterator[Any]:
    """One active node that all tests of this module feed; each must leave it able to answer."""
    child = start_node(NODE[1:], model_folder)
    robot = make_robot(NODE)
    robot.child = child
    operator.bring_up(NODE, child)
    robot.meet()
    yield robot
    child.require_running()


def dropped(robot: Any, part: str, reason: str) -> int:
    return int(robot.diagnostics().get(part, {}).get(f"dropped_{reason}", 0))


def test_every_frame_is_answered_with_what_the_images_show(robot: Any) -> None:
    for brightness, label in ((20, 1), (220, 2), (20, 1)):
        grid = decode_voxel_grid(robot.answer(robot.frame(brightness)))
        assert set(np.unique(grid.labels)) == {label, 255}
        assert set(np.unique(grid.confidence)) == {200}
        assert grid.model_id == "tiny@1"
        assert grid.sensor_stamps_ns == {"front": grid.stamp_ns, "left": grid.stamp_ns}


def test_trajectory_comes_with_the_grid(robot: Any) -> None:
    stamp_ns = robot.frame()
    robot.answer(stamp_ns)
    robot.operator.until(lambda: bool(robot.heard["trajectory"]), "a trajectory", 5.0)
    robot.operator.until(lambda: stamp_ns == decode_trajectory(robot.heard["trajectory"][-1]).stamp_ns, "its", 5.0)
    trajectory = decode_trajectory(robot.heard["trajectory"][-1])
    np.testing.assert_array_equal(trajectory.positions_m[:, 0], np.arange(1, 11))
    np.testing.assert_allclose(trajectory.times_s, 0.5 * np.arange(1, 11))


def test_the_trajectory_is_laid_into_the_grid_and_the_diagnostics_count_its_status(robot: Any) -> None:
    for brightness, off_limits in ((220, 0), (20, WaypointFlag.OFF_LIMITS)):  # all that is seen is sidewalk, or road
        stamp_ns = robot.frame(brightness)
        grid = decode_voxel_grid(robot.answer(stamp_ns))
        robot.operator.until(
            lambda s=stamp_ns: s == decode_trajectory(robot.heard["trajectory"][-1]).stamp_ns, "its path", 5.0)
        message = robot.heard["trajectory"][-1]
        check = decode_trajectory(message).check
        expected = PathChecker(grid.spec, SIDEWALK, PathCheckSettings()).check(
            grid.labels, np.stack([np.arange(1, 11), np.zeros(10)], axis=1))
        np.testing.assert_array_equal(check.flags, expected.flags)
        np.testing.assert_array_equal(check.ruling_label, expected.ruling_label)
        assert check.flags[4] == off_limits
        assert check.flags[9] == WaypointFlag.OUTSIDE | WaypointFlag.UNKNOWN | off_limits  # the grid ends at 10 m
        assert np.isinf(check.clearance_m[4])
        np.testing.assert_array_equal(np.isnan(check.clearance_m), (check.flags & WaypointFlag.UNKNOWN) > 0)
        assert (message.status, message.taxonomy) == (message.STATUS_CAUTION, "sidewalk14")
    robot.until_diagnosed("path", "caution", lambda n: int(n or 0) >= 2)
    parts = robot.diagnostics()
    assert (parts["path"]["message"], parts["path"]["blocked"], parts["path"]["level"]) == ("caution", "0", "0")


def restart(robot: Any) -> None:
    assert robot.operator.change_state(NODE, Transition.TRANSITION_DEACTIVATE)
    assert robot.operator.change_state(NODE, Transition.TRANSITION_ACTIVATE)
    robot.until_diagnosed("front", "received", lambda n: n == "0")


def test_of_raw_and_compressed_images_the_first_is_kept_and_a_cut_jpeg_is_counted(robot: Any) -> None:
    def say(camera: str, stamp_ns: int) -> None:
        image = CameraImage(camera, stamp_ns, np.full((48, 64, 3), 220, np.uint8))
        robot.say(f"{camera}/image/compressed", robot.encoder.compressed_image(image))

    def readers(camera: str, topic: str) -> int:
        return int(robot.operator.node.count_subscribers(f"{NODE}/input/{camera}/{topic}"))

    restart(robot)
    for camera in ("left", "front"):
        robot.until_diagnosed(camera, "received", lambda n: int(n) > 0, again=lambda c=camera: say(c, robot.now()))
        robot.operator.until(lambda c=camera: readers(c, "image") == 0, "the raw reader to go", 5.0)
        assert readers(camera, "image/compressed") == 1
    stamp_ns = robot.now()
    for camera in ("left", "front"):
        say(camera, stamp_ns)
    assert 2 in decode_voxel_grid(robot.answer(stamp_ns)).labels
    stamp_ns = robot.now()
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cut = robot.encoder.compressed_image(CameraImage("front", stamp_ns, pixels))
    cut.data = cut.data[: len(cut.data) // 2]
    say("left", stamp_ns)
    robot.say("front/image/compressed", cut)
    robot.until_diagnosed("frames", "dropped_undecodable_image", lambda n: n == "1")
    restart(robot)
    robot.meet()


def test_odometry_gives_the_pose_of_the_grid(robot: Any) -> None:
    pose = se3.from_euler(0.0, 0.0, 0.5, (0.3, 0.2, 0.0))
    before = int(robot.diagnostics()["odometry"]["received"])
    robot.say("odometry", robot.encoder.odometry(Odometry(robot.now(), pose)))
    robot.until_diagnosed("odometry", "received", lambda n: int(n or 0) > before)
    grid = decode_voxel_grid(robot.answer(robot.frame()))
    np.testing.assert_allclose(grid.T_odom_grid, pose, atol=1e-9)
    assert not grid.flags


def test_standard_messages_come_for_whoever_subscribes(robot: Any) -> None:
    from nav_msgs.msg import OccupancyGrid, Path
    from sensor_msgs.msg import PointCloud2
    from std_msgs.msg import String
    from visualization_msgs.msg import MarkerArray

    from occ_perception.ros.qos import LATCHED

    kinds = {"points": PointCloud2, "traversability": OccupancyGrid, "path": Path, "markers": MarkerArray}
    for name, kind in kinds.items():
        robot.listen(kind, f"{NODE}/output/{name}")
    robot.listen(String, f"{NODE}/output/label_names", LATCHED)
    for name in kinds:
        robot.operator.until(lambda n=name: robot.operator.node.count_publishers(f"{NODE}/output/{n}") > 0, name, 5.0)
        def came(n: str = name) -> bool:
            if not robot.heard[n]:
                robot.answer(robot.frame())
            return bool(robot.heard[n])
        robot.operator.until(came, name, 10.0)
    robot.operator.until(lambda: bool(robot.heard["label_names"]), "label names", 5.0)
    points = robot.heard["points"][-1]
    occupied = int(((decode_voxel_grid(robot.answer(robot.frame())).labels % 255) > 0).sum())
    assert points.width == occupied > 0
    assert points.header.frame_id == robot.heard["path"][-1].header.frame_id == "occ_grid"
    assert [pose.pose.position.x for pose in robot.heard["path"][-1].poses] == list(range(1, 11))
    assert robot.heard["traversability"][-1].info.width == 20
    assert '"curb"' in robot.heard["label_names"][-1].data


def bad_encoding(robot: Any, stamp_ns: int) -> tuple[str, Any]:
    image = robot.image("front", stamp_ns)
    image.encoding = "bayer_of_mars8"
    return "front/image", image


def wrong_size(robot: Any, stamp_ns: int) -> tuple[str, Any]:
    return "front/image", robot.image("front", stamp_ns, size=(24, 32))


def old_stamp(robot: Any, stamp_ns: int) -> tuple[str, Any]:
    return "front/image", robot.image("front", stamp_ns - 700_000_000)


def no_stamp(robot: Any, stamp_ns: int) -> tuple[str, Any]:
    return "front/image", robot.image("front", 0)


@pytest.mark.parametrize(("bad", "reason"), [
    (bad_encoding, "unknown_encoding"), (wrong_size, "wrong_size"),
    (old_stamp, "stamp_went_back"), (no_stamp, "no_stamp"),
])
def test_a_bad_image_is_counted_by_its_reason_and_the_next_frame_is_answered(robot: Any, bad: Any, reason: str) -> None:
    robot.answer(robot.frame())
    before = dropped(robot, "frames", reason)
    stamp_ns = robot.now()
    if reason in ("unknown_encoding", "wrong_size"):
        robot.say("left/image", robot.image("left", stamp_ns))
    robot.say(*bad(robot, stamp_ns))
    robot.until_diagnosed("frames", f"dropped_{reason}", lambda n: int(n or 0) > before)
    robot.answer(robot.frame())


def test_odometry_that_is_no_number_is_counted(robot: Any) -> None:
    message = robot.encoder.odometry(Odometry(robot.now(), np.eye(4)))
    message.pose.pose.position.x = float("nan")
    before = int(robot.diagnostics()["odometry"]["received"])
    robot.say("odometry", message)
    robot.until_diagnosed("odometry", "received", lambda n: int(n or 0) > before)
    robot.answer(robot.frame())
    robot.until_diagnosed("odometry", "dropped_bad_pose", lambda n: int(n or 0) >= 1)


def test_a_frame_that_is_too_old_is_dropped_before_it_is_decoded(operator: Any, robot: Any) -> None:
    def say_old() -> None:
        stamp_ns = robot.now() - 5_000_000_000  # the first one is also a jump back of the clock
        for camera in ("left", "front"):
            robot.say(f"{camera}/image", robot.image(camera, stamp_ns))

    text = robot.until_diagnosed("frames", "message", lambda text: "too old" in text, again=say_old)
    assert "use_sim_time" in text
    robot.answer(robot.frame())
    assert int(robot.until_diagnosed("frames", "reset_clock_jump", lambda n: int(n or 0) >= 1)) >= 1


def test_camera_info_that_contradicts_the_rig_is_named_and_forgiven_once_right(robot: Any) -> None:
    info = robot.encoder.camera_info(robot.rig.camera("front"), robot.now())
    info.k[0] = 99.0
    text = robot.until_diagnosed("front", "message", lambda text: "camera_info" in text,
                                 again=lambda: robot.say("front/camera_info", info))
    assert "intrinsics" in text
    assert "99.0" in text
    robot.say("front/camera_info", robot.encoder.camera_info(robot.rig.camera("front"), robot.now()))
    robot.until_diagnosed("front", "message", lambda text: text != "" and "camera_info" not in text)


def test_a_camera_that_dies_is_reported_and_its_return_is_answered(robot: Any) -> None:
    robot.answer(robot.frame())
    robot.until_diagnosed("front", "message", lambda text: "no image for" in text)
    robot.until_diagnosed("front", "level", lambda level: level == "2")
    robot.answer(robot.frame())
    robot.until_diagnosed("front", "level", lambda level: level == "0")


def test_frames_go_on_without_a_camera_that_is_not_the_anchor(robot: Any) -> None:
    robot.answer(robot.frame())
    robot.until_diagnosed("left", "message", lambda text: "no image for" in text)
    stamp_ns = robot.now()
    robot.say("front/image", robot.image("front", stamp_ns))
    assert "camera_missing:left" in robot.answer(stamp_ns).flags
    robot.answer(robot.frame())  # left is not waited for until it has returned
    assert "camera_missing:left" not in robot.answer(robot.frame()).flags


def test_a_reader_that_cannot_hear_the_node_is_reported(operator: Any, robot: Any) -> None:
    from occ_perception_msgs.msg import VoxelGrid

    from occ_perception.ros.qos import LATCHED

    deaf = operator.node.create_subscription(VoxelGrid, f"{NODE}/output/voxels", lambda message: None, LATCHED)
    text = robot.until_diagnosed("engine", "message", lambda text: "DURABILITY" in text)
    assert "~/output/voxels" in text
    operator.node.destroy_subscription(deaf)


def test_diagnostics_name_the_engine_and_every_stage(robot: Any) -> None:
    robot.answer(robot.frame())
    robot.until_diagnosed("frames", "receive_to_publish_p95_ms", lambda value: value != "")
    parts = robot.diagnostics()
    assert parts["engine"]["provider"] == "CPUExecutionProvider"
    assert parts["engine"]["model_id"] == "tiny@1"
    assert parts.keys() >= {"engine", "frames", "front", "left", "odometry"}
    stages = {"wait", "assemble", "tables", "engine", "post", "path", "publish", "outside_engine"}
    assert all(float(parts["frames"][f"{stage}_p50_ms"]) >= 0 for stage in stages)


def test_parameters_are_locked_while_configured(operator: Any, robot: Any) -> None:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    request = SetParameters.Request(parameters=[Parameter("max_age_ms", value=5.0).to_parameter_msg()])
    result = operator.call(SetParameters, f"{NODE}/set_parameters", request).results[0]
    assert not result.successful
    assert "max_age_ms" in result.reason


def test_deactivate_silences_activate_resumes_and_cleanup_frees(operator: Any, robot: Any) -> None:
    assert operator.change_state(NODE, Transition.TRANSITION_DEACTIVATE)
    assert operator.state(NODE) == "inactive"
    assert operator.node.count_subscribers(f"{NODE}/input/front/image") == 0
    assert operator.change_state(NODE, Transition.TRANSITION_ACTIVATE)
    robot.answer(robot.frame())
    assert operator.change_state(NODE, Transition.TRANSITION_DEACTIVATE)
    assert operator.change_state(NODE, Transition.TRANSITION_CLEANUP)
    assert operator.state(NODE) == "unconfigured"
    operator.until(lambda: operator.node.count_publishers(f"{NODE}/output/voxels") == 0, "publishers to go", 5.0)
    operator.bring_up(NODE, robot.child)
    robot.answer(robot.frame())


def test_a_transition_that_the_state_forbids_does_no_harm(robot: Any, operator: Any) -> None:
    from lifecycle_msgs.srv import ChangeState

    client = operator.node.create_client(ChangeState, f"{NODE}/change_state")
    operator.until(client.service_is_ready, "the service", 5.0)
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    operator.until(lambda: "transition" in robot.child.output().lower(), "a log line", 5.0)
    robot.answer(robot.frame())
