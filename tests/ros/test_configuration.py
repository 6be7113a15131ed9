"""What is wrong with a configuration is said at once and in full, and the process lives to be corrected."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)
import yaml
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

pytestmark = pytest.mark.ros


def configure(operator: Any, node: str) -> bool:
    return bool(operator.change_state(node, Transition.TRANSITION_CONFIGURE))


def test_a_missing_model_fails_configure_with_one_message_and_can_be_corrected(
    operator: Any, start_node: Any, make_robot: Any, model_folder: Path, tmp_path: Path
) -> None:
    child = start_node("corrected", tmp_path / "nowhere")
    robot = make_robot("/corrected")
    assert not configure(operator, "/corrected")
    assert operator.state("/corrected") == "unconfigured"
    errors = [line for line in child.output().splitlines() if "[ERROR]" in line]
    assert len(errors) == 1
    assert f"model: {tmp_path / 'nowhere'} does not exist" in errors[0]
    assert "Traceback" not in child.output()
    text = robot.until_diagnosed("engine", "message", lambda text: "cannot be configured" in text)
    assert "nowhere" in text
    request = SetParameters.Request(parameters=[Parameter("model", value=str(model_folder)).to_parameter_msg()])
    assert operator.call(SetParameters, "/corrected/set_parameters", request).results[0].successful
    operator.bring_up("/corrected", child)
    robot.meet()
    robot.answer(robot.frame())


def failure(node: Any) -> str:
    """Why the node cannot be configured, as its diagnostics say it."""
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    return str(node._own_status().message)


def test_every_bad_parameter_is_listed_at_once(make_node: Any) -> None:
    message = failure(make_node(max_age_ms=-1.0, threads=1000, backend="abacus", stale_after_s="often",
                                rig="/no/rig.yaml", tasks=["occupancy", "telepathy"]))
    for fault in ("max_age_ms: must be within 0 .. 60000, got -1", "threads: must be within 0 .. 256, got 1000",
                  "backend: 'abacus' is none of onnxruntime", "stale_after_s: must be of the type", "'telepathy'",
                  "rig: /no/rig.yaml does not exist", "6 faults"):
        assert fault in message


def test_unknown_anchor_and_lidar_are_listed_at_once(make_node: Any) -> None:
    message = failure(make_node(anchor_camera="rear", lidars=["bottom"]))
    assert "anchor_camera: 'rear' is not in the rig" in message
    assert "lidars: 'bottom' is not in the rig" in message


def test_what_does_not_fit_the_grid_or_the_taxonomy_of_the_model_is_listed_at_once(make_node: Any) -> None:
    message = failure(make_node(footprint_radius_m=0.3, path_ceiling_m=-3.0, off_limits=["road", "lava"],
                                anchor_camera="rear"))
    for fault in ("anchor_camera: 'rear'", "off_limits: 'lava' is no ground of sidewalk14",
                  "footprint_radius_m: a footprint of 0.3 m", "path_ceiling_m: no cell", "4 faults"):
        assert fault in message
    node = make_node("no_paths", path_ceiling_m=-3.0, tasks=["occupancy"])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_lidars_follow_the_rig_where_the_model_reads_them_unless_they_are_named(
    make_node: Any, ranging_model_folder: Path
) -> None:
    reads = str(ranging_model_folder)
    for parameters, heard in (({}, ()), ({"lidars": [""]}, ()), ({"model": reads}, ("top",)),
                              ({"model": reads, "lidars": ["top"]}, ("top",)), ({"model": reads, "lidars": [""]}, ())):
        node = make_node(**parameters)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node._made.lidars == heard


def test_a_lidar_for_a_model_that_reads_none_is_a_fault(make_node: Any) -> None:
    assert "lidars: tiny@1 reads no LiDAR ranges" in failure(make_node(lidars=["top"]))


def test_a_model_whose_file_changed_is_refused(make_node: Any, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    with (tmp_path / "model" / "tiny.onnx").open("ab") as file:
        file.write(b"x")
    assert "has SHA-256" in failure(make_node(model=str(tmp_path / "model")))


def test_a_model_whose_shapes_do_not_fit_is_refused(make_node: Any, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.yaml"
    content = yaml.safe_load(manifest.read_text())
    content["output_grid"]["cell_m"] = 0.25
    manifest.write_text(yaml.safe_dump(content))
    assert "labels: the tensor is [10, 20, 20]" in failure(make_node(model=str(tmp_path / "model")))


def test_a_rig_with_a_singular_matrix_is_refused(make_node: Any, rig_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(rig_file.read_text())
    content["lidars"][0]["T_base_lidar"] = [[0.0] * 4] * 4
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(content))
    assert "singular" in failure(make_node(rig=str(tmp_path / "rig.yaml")))


def test_a_gpu_that_is_not_there_is_refused_unless_the_cpu_is_allowed(make_node: Any) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert "cuda was asked for" in failure(make_node("strict", device="cuda", allow_cpu=False))
    lenient = make_node("lenient", device="cuda", allow_cpu=True)
    assert lenient.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert "although cuda was asked for" in lenient._own_status().message


def test_tasks_choose_what_is_published(make_node: Any) -> None:
    node = make_node(tasks=["occupancy"])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    offered = {publisher.topic_name for publisher in node.publishers}
    assert "/node/output/voxels" in offered
    assert not offered & {"/node/output/trajectory", "/node/output/path"}


def test_every_parameter_is_described(make_node: Any) -> None:
    from occ_perception.ros.parameters import PARAMETERS

    described = make_node().describe_parameters(list(PARAMETERS))
    by_name = {descriptor.name: descriptor for descriptor in described}
    assert by_name.keys() == PARAMETERS.keys()
    assert all(len(descriptor.description) > 10 for descriptor in described)
    assert by_name["max_age_ms"].floating_point_range[0].to_value == 60_000.0
    assert by_name["autostart"].read_only
    assert not by_name["model"].read_only


def test_the_shipped_parameter_file_states_the_defaults(make_node: Any) -> None:
    from occ_perception.ros.parameters import PARAMETERS

    shipped = Path(__file__).resolve().parents[2] / "config" / "sidewalk.yaml"
    values = yaml.safe_load(shipped.read_text())["/**"]["ros__parameters"]
    assert values == {name: PARAMETERS[name].default for name in values}
    assert values.keys() == PARAMETERS.keys() - {"autostart"}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_autostart_needs_no_lifecycle_manager_and_a_signal_ends_it_cleanly(
    operator: Any, start_node: Any, make_robot: Any, model_folder: Path, ending: signal.Signals
) -> None:
    name = f"eager_{ending.name.lower()}"
    child = start_node(name, model_folder, autostart=True)
    robot = make_robot(f"/{name}")
    robot.meet()
    robot.answer(robot.frame())
    operator.forget(child)
    child.send(ending)
    assert child.wait(10.0) == 0
    assert "Traceback" not in child.output()
