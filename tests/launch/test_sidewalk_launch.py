"""The launch file: its arguments, and the processes that they make. Without the launch packages only its syntax."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / "launch" / "sidewalk.launch.py"
ARGUMENTS = {
    "namespace": "", "params_file": "config/sidewalk.yaml", "rig": "", "model": "",
    "backend": "", "use_sim_time": "false", "bag": "", "rviz": "false", "autostart": "true", "respawn": "false",
    "log_level": "info",
}


def declared() -> dict[str, dict[str, str]]:
    """Keyword texts of every DeclareLaunchArgument in the source, by argument name."""
    found = {}
    for node in ast.walk(ast.parse(LAUNCH_FILE.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            name = ast.literal_eval(node.args[0])
            found[name] = {keyword.arg or "": ast.unparse(keyword.value) for keyword in node.keywords}
    return found


def test_every_argument_is_declared_once_with_default_and_description() -> None:
    arguments = declared()
    assert arguments.keys() == ARGUMENTS.keys()
    for name, keywords in arguments.items():
        assert keywords.keys() >= {"default_value", "description"}, name
        assert len(ast.literal_eval(keywords["description"])) > 20, name


def test_files_that_the_launch_file_names_are_shipped() -> None:
    for relative in ("config/sidewalk.yaml", "config/fastdds.xml", "rviz/sidewalk.rviz",
                     "calibration/sidewalk_wheeled.yaml"):
        assert (ROOT / relative).is_file(), relative


def test_rviz_shows_only_standard_topics_that_the_node_offers_in_the_frame_of_the_results() -> None:
    config = yaml.safe_load((ROOT / "rviz" / "sidewalk.rviz").read_text())["Visualization Manager"]
    offered = {"points", "traversability", "traversability_updates", "path", "markers"}
    topics = [display[key]["Value"] for display in config["Displays"] for key in ("Topic", "Update Topic")
              if key in display]
    outputs = {topic.rpartition("/")[2] for topic in topics if "/output/" in topic}
    assert outputs == offered
    parameters = yaml.safe_load((ROOT / "config" / "sidewalk.yaml").read_text())["/**"]["ros__parameters"]
    assert config["Global Options"]["Fixed Frame"] == parameters["grid_frame"]


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The launch file as a module, with the checkout as the package's share folder."""
    pytest.importorskip("launch_ros", reason="the real launch packages are not installed (they are no wheels)")
    import ament_index_python.packages as index

    monkeypatch.setattr(index, "get_package_share_directory", lambda name: str(ROOT))
    spec = importlib.util.spec_from_file_location("sidewalk_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sidewalk_launch", module)
    spec.loader.exec_module(module)
    return module


def started(launch_file: Any, **given: str) -> list[Any]:
    """The actions that the launch file makes for these arguments."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(given)
    description = launch_file.generate_launch_description()
    for action in description.entities:
        if isinstance(action, DeclareLaunchArgument):
            action.execute(context)
    (function,) = [action for action in description.entities if isinstance(action, OpaqueFunction)]
    return list(function.execute(context))


def text(parts: Any) -> str:
    """Substitutions without a context, as text."""
    from launch import LaunchContext

    return "".join(part.perform(LaunchContext()) for part in parts)


def test_the_real_launch_reads_the_arguments(launch_file: Any) -> None:
    description = launch_file.generate_launch_description()
    defaults = {argument.name: text(argument.default_value) for argument in description.get_launch_arguments()}
    assert defaults == {name: str(ROOT / value) if "/" in value else value for name, value in ARGUMENTS.items()}


def test_by_default_only_the_lifecycle_node_is_started(launch_file: Any) -> None:
    from launch_ros.actions import LifecycleNode

    (node,) = started(launch_file)
    assert isinstance(node, LifecycleNode)
    assert node.node_executable == "perception_node"


@pytest.mark.parametrize(("sim_time", "expected"), [("true", "--clock"), ("false", "--restamp")])
def test_a_bag_brings_a_player_with_the_right_clock(launch_file: Any, sim_time: str, expected: str) -> None:
    from launch.substitutions import TextSubstitution

    _, player = started(launch_file, bag="drive.mcap", use_sim_time=sim_time)
    command = [text(parts) for parts in player.cmd[1:] if all(isinstance(part, TextSubstitution) for part in parts)]
    assert command[0] == "drive.mcap"
    assert expected in command
    assert "--wait-for" in command


def test_rviz_comes_when_asked_for(launch_file: Any) -> None:
    _, rviz = started(launch_file, rviz="true")
    assert rviz.node_package == "rviz2"


def test_a_value_that_is_no_choice_is_refused(launch_file: Any) -> None:
    with pytest.raises(RuntimeError, match="respawn"):
        started(launch_file, respawn="maybe")


def test_inputs_are_remapped_to_the_topics_of_the_rig() -> None:
    from occ_perception.calibration import load_rig
    from occ_perception.ros.topics import input_remappings

    pairs = dict(input_remappings(load_rig(ROOT / "calibration" / "sidewalk_wheeled.yaml")))
    assert pairs["~/input/front/image/compressed"] == "camera/front/image/compressed"
    assert pairs["~/input/top/points"] == "lidar/top/points"
    assert pairs["~/input/odometry"] == "odometry"
