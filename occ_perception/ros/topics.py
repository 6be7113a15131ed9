"""Which topic of a robot or a bag feeds which input of the node. No rclpy, so launch files use it too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from occ_perception.calibration import Rig
from occ_perception.recordings import frames

NODE = "perception_node"
VOXELS, TRAJECTORY = f"/{NODE}/output/voxels", f"/{NODE}/output/trajectory"
DIAGNOSTICS = "/diagnostics"


def rig_of_parameters(params_file: Path, node: str = NODE) -> str:
    """The parameter `rig` that a ROS parameter file sets for the node (or for all by `/**`); empty if it sets none."""
    content = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    rig = ""
    for name, section in content.items() if isinstance(content, Mapping) else ():
        if name == "/**" or str(name).rpartition("/")[2] == node:
            parameters: Any = section.get("ros__parameters") if isinstance(section, Mapping) else None
            rig = str((parameters or {}).get("rig") or rig)
    return rig


def input_remappings(rig: Rig) -> list[tuple[str, str]]:
    """From the node's inputs to the default topics, which are relative here so that a namespace moves them all."""
    pairs = [("~/input/odometry", frames.ODOMETRY_TOPIC)]
    for camera in rig.cameras:
        pairs += [(f"~/input/{camera.name}/image", frames.image_topic(camera.name)),
                  (f"~/input/{camera.name}/image/compressed", frames.compressed_image_topic(camera.name)),
                  (f"~/input/{camera.name}/camera_info", frames.camera_info_topic(camera.name))]
    pairs += [(f"~/input/{lidar.name}/points", frames.points_topic(lidar.name)) for lidar in rig.lidars]
    return [(name, topic.lstrip("/")) for name, topic in pairs]


def remapping_arguments(rig: Rig) -> list[str]:
    """The same for a command line, behind `--ros-args`."""
    return [text for name, topic in input_remappings(rig) for text in ("-r", f"{name}:={topic}")]
