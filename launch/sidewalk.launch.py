"""The sidewalk robot: perception_node, and on demand a bag player and RViz.

    ros2 launch occ_perception sidewalk.launch.py rig:=my_robot.yaml
    ros2 launch occ_perception sidewalk.launch.py bag:=drive.mcap rviz:=true
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription

SHARE = Path(get_package_share_directory("occ_perception"))
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
YES_NO = ["true", "false"]


def arguments() -> list:
    """The arguments of this launch file."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and sensor topics."),
        DeclareLaunchArgument("params_file", default_value=str(SHARE / "config" / "sidewalk.yaml"),
                              description="Parameter file of perception_node."),
        DeclareLaunchArgument("rig", default_value="",
                              description="Rig file: cameras, LiDARs and frames of the robot; empty takes the one of "
                                          "the parameter file, or else the shipped sidewalk_wheeled.yaml."),
        DeclareLaunchArgument("model", default_value="",
                              description="Model folder; empty takes the one of the parameter file."),
        DeclareLaunchArgument("backend", default_value="",
                              description="Inference engine (onnxruntime); empty takes the one of the parameter file."),
        DeclareLaunchArgument("use_sim_time", default_value="false", choices=YES_NO,
                              description="Take the time from /clock. With bag: the player publishes the bag's clock; "
                                          "otherwise it moves the stamps of the bag to now."),
        DeclareLaunchArgument("bag", default_value="", description="Bag to play; empty waits for living sensors."),
        DeclareLaunchArgument("rviz", default_value="false", choices=YES_NO, description="Open RViz on the results."),
        DeclareLaunchArgument("autostart", default_value="true", choices=YES_NO,
                              description="Configure and activate without a lifecycle manager."),
        DeclareLaunchArgument("respawn", default_value="false", choices=YES_NO,
                              description="Start perception_node again 2 s after it ended."),
        DeclareLaunchArgument("log_level", default_value="info", choices=["debug", "info", "warn", "error", "fatal"],
                              description="Least severity of the log lines of our nodes."),
    ]


def nodes(context: LaunchContext) -> list:
    """The processes, once the arguments are known."""
    from occ_perception.calibration import load_rig
    from occ_perception.ros.topics import input_remappings, rig_of_parameters

    given = {action.name: LaunchConfiguration(action.name).perform(context) for action in arguments()}
    given["rig"] = (given["rig"] or rig_of_parameters(Path(given["params_file"]))
                    or str(SHARE / "calibration" / "sidewalk_wheeled.yaml"))
    yes = {name: value == "true" for name, value in given.items()}
    clock = {"use_sim_time": yes["use_sim_time"]}
    chosen = {name: given[name] for name in ("rig", "model", "backend") if given[name]}
    log = ["--log-level", given["log_level"]]
    started = [LifecycleNode(
        package="occ_perception", executable="perception_node", name="perception_node", namespace=given["namespace"],
        parameters=[given["params_file"], {**chosen, **clock, "autostart": yes["autostart"]}],
        remappings=input_remappings(load_rig(given["rig"])), ros_arguments=log, output="screen",
        respawn=yes["respawn"], respawn_delay=2.0,
    )]
    if given["bag"]:
        started.append(Node(
            package="occ_perception", executable="bag_player", name="bag_player", namespace=given["namespace"],
            arguments=[given["bag"], "--wait-for", "--timeout", "inf",
                       *(["--clock", "50"] if yes["use_sim_time"] else ["--restamp"])],
            ros_arguments=log, output="screen",
        ))
    if yes["rviz"]:
        started.append(Node(
            package="rviz2", executable="rviz2", namespace=given["namespace"], parameters=[clock],
            arguments=["-d", str(SHARE / "rviz" / "sidewalk.rviz")], output="screen",
        ))
    return started


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    profile = str(SHARE / "config" / "fastdds.xml")
    # Fast DDS's own 512 KB of shared memory lose raw images; a profile of the user's own is kept.
    ours = not any(os.environ.get(name) for name in PROFILE_VARIABLES)
    return LaunchDescription([
        *(SetEnvironmentVariable(name, profile) for name in PROFILE_VARIABLES if ours),
        *arguments(),
        OpaqueFunction(function=nodes),
    ])
