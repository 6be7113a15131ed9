"""The node's parameters: described, with ranges, checked together at configure so that every fault shows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.pipelines.frames import LIDAR_MAX_AGE_S
from occ_perception.ros.environment import shipped

TASKS = ("occupancy", "trajectory")
BACKENDS = ("onnxruntime",)
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
AUTO = "auto"


@dataclass(frozen=True)
class Declared:
    """One parameter: default, what it means, its range or choices. `fixed`: read once, at start."""

    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """As ROS tools show it; ROS refuses values outside the range by itself."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.fixed)
        if self.choices:
            descriptor.additional_constraints = f"one of: {', '.join(self.choices)}"
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
                ]
        return descriptor

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value that ROS let through, or None."""
        values = value if isinstance(value, (list, tuple)) else [value]
        if self.choices and (foreign := [v for v in values if v not in self.choices]):
            return f"{', '.join(map(repr, foreign))} is none of {', '.join(self.choices)}"
        if self.minimum is not None and self.maximum is not None and not self.minimum <= value <= self.maximum:
            return f"must be within {self.minimum:g} .. {self.maximum:g}, got {value:g}"
        return None


PARAMETERS: dict[str, Declared] = {
    "rig": Declared("", "Rig file: cameras, LiDARs, frames. Empty: the shipped calibration/sidewalk_wheeled.yaml."),
    "model": Declared("", "Model folder with its manifest.yaml. Empty: the shipped models/walkocc_lite."),
    "tasks": Declared(list(TASKS), "What to publish of what the model answers.", choices=TASKS, fixed=True),
    "backend": Declared("onnxruntime", "Inference engine.", choices=BACKENDS),
    "device": Declared("auto", "Where to infer; if it cannot be had, allow_cpu decides.", choices=DEVICES),
    "variant": Declared("", "Variant of the model, such as fp32 or int8. Empty: the best one for the device."),
    "allow_cpu": Declared(True, "Run on the CPU where the device asked for cannot be had, instead of refusing."),
    "threads": Declared(0, "Threads of one operator on the CPU; 0 takes one per core.", 0, 256),
    "anchor_camera": Declared("", "Camera whose stamps the results carry. Empty: the first one of the rig."),
    "lidars": Declared([AUTO], "LiDARs of the rig to subscribe to and deskew with each frame, for a model that reads "
                               "LiDAR ranges. ['auto'] takes all of them where it does, else none; [''] takes none."),
    "lidar_max_age_ms": Declared(
        1e3 * LIDAR_MAX_AGE_S, "Oldest scan that a frame is answered with: two sweeps and the transport, or more. "
                               "LiDARs are never waited for.", 0.0, 5_000.0),
    "max_age_ms": Declared(500.0, "Frames older than this when their turn comes are dropped before they are decoded; "
                                  "0 never drops. Compares stamps with the node's clock.", 0.0, 60_000.0),
    "sync_tolerance_ms": Declared(50.0, "Largest difference of stamps within a frame.", 0.0, 5_000.0),
    "sync_wait_ms": Declared(50.0, "Longest wait of the anchor image for the other sensors.", 0.0, 5_000.0),
    "odometry_timeout_ms": Declared(
        200.0, "Longest extrapolation of the newest odometry; beyond it a frame has no pose.", 0.0, 5_000.0),
    "stale_after_s": Declared(
        1.0, "Silence of a sensor after which the diagnostics warn; three times as long is an error.", 0.05, 600.0),
    "footprint_radius_m": Declared(
        0.0, "Radius of the disc that the robot covers, for the check of paths; 0 takes the rig's.", 0.0, 5.0),
    "safety_distance_m": Declared(
        0.2, "An obstacle closer to the footprint than this makes a waypoint of the path tight.", 0.0, 5.0),
    "path_ceiling_m": Declared(
        1.0, "Voxels higher than this above the base's origin are no obstacles to a path.", -5.0, 10.0),
    "off_limits": Declared(["road"], "Classes of ground that a path should not lie on; [''] allows all."),
    "grid_frame": Declared("occ_grid", "Frame of the results: origin and yaw of the base, z against gravity."),
    "publish_confidence": Declared(
        True, "Fill the confidence of the voxel grid; without it the message is half the size."),
    "publish_standard": Declared(True, "Offer PointCloud2, OccupancyGrid, Path, markers; built only for subscribers."),
    "broadcast_tf": Declared(True, "Broadcast odom -> grid_frame where tf2_ros is installed and the pose is known."),
    "diagnostics_period_s": Declared(1.0, "Time between diagnostics.", 0.05, 60.0, fixed=True),
    "autostart": Declared(False, "Configure and activate without a lifecycle manager.", fixed=True),
}


@dataclass(frozen=True)
class NodeParameters:
    """All parameters, checked. Times are in the unit of their name; empty choices are resolved.

    None leaves `lidars` to the model and `footprint_radius_m` to the rig.
    """

    rig: Path
    model: Path
    tasks: tuple[str, ...]
    backend: str
    device: str
    variant: str | None
    allow_cpu: bool
    threads: int | None
    anchor_camera: str
    lidars: tuple[str, ...] | None
    lidar_max_age_ms: float
    max_age_ms: float
    sync_tolerance_ms: float
    sync_wait_ms: float
    odometry_timeout_ms: float
    stale_after_s: float
    footprint_radius_m: float | None
    safety_distance_m: float
    path_ceiling_m: float
    off_limits: tuple[str, ...]
    grid_frame: str
    publish_confidence: bool
    publish_standard: bool
    broadcast_tf: bool


class ParameterSet:
    """Declares the parameters on a node and hands them out checked.

    A value that ROS refuses at start (out of range, wrong type) does not end the process: it is kept as a fault,
    and `read` reports it with all the others.

    Args:
        node: the node to declare them on.
        locked: tells whether the node is configured; then no parameter may change.
        tasks: the default tasks of this node.
    """

    def __init__(self, node: Node, locked: Callable[[], bool], tasks: Sequence[str] = TASKS) -> None:
        self._node = node
        self._locked = locked
        self._refused: dict[str, str] = {}
        for name, declared in PARAMETERS.items():
            default = list(tasks) if name == "tasks" else declared.default
            try:
                node.declare_parameter(name, default, declared.descriptor())
            except ParameterException:
                given = node._parameter_overrides[name].value
                fault = declared.fault(given) if isinstance(given, type(default)) else None
                self._refused[name] = fault or f"must be of the type of {default!r}, got {given!r}"
                node.declare_parameter(name, default, declared.descriptor(), ignore_override=True)
        node.add_on_set_parameters_callback(self._may_set)

    def _may_set(self, parameters: list[Parameter]) -> SetParametersResult:
        ours = [parameter for parameter in parameters if parameter.name in PARAMETERS]
        if ours and self._locked():
            names = ", ".join(parameter.name for parameter in ours)
            return SetParametersResult(successful=False, reason=f"{names}: clean the node up first, parameters are "
                                                                "read when it is configured")
        faults = {p.name: PARAMETERS[p.name].fault(p.value) for p in ours}
        if reasons := [f"{name}: {fault}" for name, fault in faults.items() if fault]:
            return SetParametersResult(successful=False, reason="; ".join(reasons))
        for name in faults:
            self._refused.pop(name, None)
        return SetParametersResult(successful=True)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def read(self) -> NodeParameters:
        """The checked parameters.

        Raises:
            ConfigurationError: every value that cannot be used.
        """
        values = {name: self[name] for name in PARAMETERS}
        faults = [f"{name}: {fault}" for name, fault in self._refused.items()]
        faults += [f"{name}: {fault}" for name, declared in PARAMETERS.items()
                   if name not in self._refused and (fault := declared.fault(values[name]))]
        paths = {}
        for name, usual in (("rig", "calibration/sidewalk_wheeled.yaml"), ("model", "models/walkocc_lite")):
            try:
                paths[name] = Path(values[name]).expanduser() if values[name] else shipped(usual)
                if not paths[name].exists():
                    faults.append(f"{name}: {paths[name]} does not exist")
            except OccPerceptionError as error:
                faults.append(f"{name}: {error}")
        if not values["grid_frame"]:
            faults.append("grid_frame: must not be empty")
        if faults:
            raise ConfigurationError(faults, where=f"parameters of {self._node.get_fully_qualified_name()}",
                                     fix="Correct them and configure the node again")
        return NodeParameters(
            **paths, tasks=tuple(values["tasks"]), variant=values["variant"] or None,
            threads=values["threads"] or None, footprint_radius_m=values["footprint_radius_m"] or None,
            lidars=None if values["lidars"] == [AUTO] else tuple(name for name in values["lidars"] if name),
            off_limits=tuple(name for name in values["off_limits"] if name),
            **{name: values[name] for name in (
                "backend", "device", "allow_cpu", "anchor_camera", "lidar_max_age_ms", "max_age_ms",
                "sync_tolerance_ms", "sync_wait_ms", "odometry_timeout_ms", "stale_after_s", "safety_distance_m",
                "path_ceiling_m", "grid_frame", "publish_confidence", "publish_standard", "broadcast_tf",
            )},
        )
