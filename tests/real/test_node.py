"""The same node that drives the simulated robots answers a real one: bag, player, perception_node, real DDS."""

import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)
from occ_perception_msgs.msg import VoxelGrid

from occ_perception.calibration import save_rig
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.ros.processes import Operator

pytestmark = [pytest.mark.real, pytest.mark.ros]


def test_the_node_answers_a_real_robot_with_voxels_where_the_lidar_met_the_person(
    dds_domain, tracked_robot, marked_bag, gathering_model, assert_person_is_where_the_lidar_met_him, tmp_path
):
    save_rig(tracked_robot.rig, tmp_path / "robot.yaml")
    parameters = {"rig": tmp_path / "robot.yaml", "model": gathering_model, "tasks": "[occupancy]", "device": "cpu",
                  "max_age_ms": 0.0}  # four large images take a while on a busy machine
    arguments = ["--ros-args", "-r", "__node:=real_robot"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    for camera in tracked_robot.rig.cameras:
        arguments += ["-r", f"~/input/{camera.name}/image/compressed:=/camera/{camera.name}/image/compressed"]
    with Operator("real_operator", tmp_path / "logs") as operator:
        heard = []
        operator.node.create_subscription(VoxelGrid, "/real_robot/output/voxels", heard.append, 10)
        node = operator.start("real_robot", "occ_perception.ros.perception_node", arguments)
        operator.bring_up("/real_robot", node)
        topics = [f"/camera/{camera.name}/image/compressed" for camera in tracked_robot.rig.cameras]
        operator.start("player", "occ_perception.ros.player",
                       [str(marked_bag), "--restamp", "--loop", "--topics", *topics, "--wait-for", *topics])
        complete = []

        def answered():
            complete.extend(message for message in heard if len(message.sensor_names) == 4)
            return bool(complete)

        operator.until(answered, "a grid from all four cameras", 60.0)
    grid = decode_voxel_grid(complete[0])
    assert grid.model_id == "gathering@1"
    assert_person_is_where_the_lidar_met_him(grid)
