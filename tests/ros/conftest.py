"""A tiny rig, a tiny model without training, and a DDS domain of our own for real node processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from occ_perception.calibration import Rig, load_rig
from occ_perception.geometry import se3
from occ_perception.types import CameraImage, Odometry, PointCloud

SIZE, FEATURE_SIZE = (48, 64), (12, 16)
GRID = {"minimum_m": (0.0, -5.0, -2.0), "maximum_m": (10.0, 5.0, 3.0), "cell_m": 0.5}
LIFT = {"minimum_m": (0.0, -5.0, -1.0), "maximum_m": (10.0, 5.0, 1.0), "cell_m": 1.0}
TIMES_S = tuple(0.5 * (i + 1) for i in range(10))


@pytest.fixture(scope="session", autouse=True)
def dds_domain() -> Iterator[None]:
    """Every process of this run meets in one domain that no other program uses."""
    profile = str(Path(__file__).parent / "shared_memory.xml")
    ours = {"ROS_DOMAIN_ID": str(100 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTRTPS_DEFAULT_PROFILES_FILE": profile, "FASTDDS_DEFAULT_PROFILES_FILE": profile}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def rig_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rig with two small cameras that look ahead and one LiDAR."""
    T = se3.make(se3.OPTICAL_IN_BODY, (0.2, 0.0, 0.8))
    mount = {"translation": T[:3, 3].tolist(), "quaternion_xyzw": se3.to_quaternion(T).tolist()}
    cameras = [
        {"name": name, "frame": f"{name}_optical", "width": SIZE[1], "height": SIZE[0], "model": "pinhole",
         "parameters": [40.0, 40.0, 31.5, 23.5, 0.0, 0.0, 0.0, 0.0, 0.0], "T_base_camera": mount}
        for name in ("front", "left")
    ]
    lidar = {"name": "top", "frame": "lidar", "T_base_lidar": {"translation": [0.0, 0.0, 1.0]}}
    path = tmp_path_factory.mktemp("rig") / "tiny.yaml"
    path.write_text(yaml.safe_dump({"name": "tiny", "cameras": cameras, "lidars": [lidar]}))
    return path


@pytest.fixture(scope="session")
def rig(rig_file: Path) -> Rig:
    return load_rig(rig_file)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that labels every cell by the brightness of the images: dark 1 (road), bright 2 (sidewalk)."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def ranging_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that labels every cell by the LiDAR: 1 (road) without any return, 2 (sidewalk) where there is one."""
    return write_model(tmp_path_factory.mktemp("ranging_model"), ranges=True)


def write_model(folder: Path, ranges: bool = False) -> Path:
    """A tiny model in `folder`, which is returned; with `ranges` it reads range images instead of the brightness."""
    onnx = pytest.importorskip("onnx", reason="the tiny model is made with onnx, of the train requirements")
    from occ_perception.engines import Manifest, TensorSpec, TrainingRecord, Variant, save_manifest, sha256_of
    from occ_perception.engines.manifest import GridSpec, RangeBinsSpec
    from occ_perception.geometry import VoxelGridSpec

    helper, kinds = onnx.helper, onnx.TensorProto
    grid, lift = VoxelGridSpec(**GRID), VoxelGridSpec(**LIFT)
    shape = list(grid.shape[::-1])
    constants = {
        "shape": np.array(shape, np.int64), "limit": np.float32(0.0 if ranges else 100.0),
        "one": np.uint8(1), "two": np.uint8(2),
        "confidence_value": np.full(shape, 200, np.uint8),
        "waypoint_values": np.stack([np.arange(1, 11), np.zeros(10)], axis=1).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["ranges" if ranges else "images"], ["as_float"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["brightness"], keepdims=0),
        helper.make_node("Greater", ["brightness", "limit"], ["bright"]),
        helper.make_node("Where", ["bright", "two", "one"], ["label"]),
        helper.make_node("Expand", ["label", "shape"], ["labels"]),
        helper.make_node("Identity", ["confidence_value"], ["confidence"]),
        helper.make_node("Identity", ["waypoint_values"], ["waypoints"]),
    ]
    specs = {
        "images": ("uint8", ("cameras", *SIZE, 3)), "rows": ("int32", ("hits", lift.size)),
        "bins": ("int32", ("hits", lift.size)), "weights": ("float32", ("hits", lift.size)),
        **({"ranges": ("float32", ("cameras", *FEATURE_SIZE))} if ranges else {}),
        "labels": ("uint8", tuple(shape)), "confidence": ("uint8", tuple(shape)), "waypoints": ("float32", (10, 2)),
    }
    onnx_type = {"uint8": kinds.UINT8, "int32": kinds.INT32, "float32": kinds.FLOAT}
    tensors = {name: helper.make_tensor_value_info(name, onnx_type[kind], list(size))
               for name, (kind, size) in specs.items()}
    inputs, outputs = list(specs)[:-3], list(specs)[-3:]
    graph = helper.make_graph(nodes, "tiny", [tensors[n] for n in inputs], [tensors[n] for n in outputs],
                              [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "tiny.onnx")
    described = {name: TensorSpec(name=name, shape=size, dtype=kind, meaning=name)
                 for name, (kind, size) in specs.items()}
    save_manifest(Manifest(
        name="tiny", version="1", tasks=("occupancy", "trajectory"), taxonomy="sidewalk14",
        output_grid=GridSpec.of(grid), lift_grid=GridSpec.of(lift),
        range_bins=RangeBinsSpec(minimum_m=0.5, maximum_m=10.5, step_m=1.0), image_size=SIZE,
        feature_size=FEATURE_SIZE, maximum_hits=2, waypoint_times_s=TIMES_S,
        inputs=tuple(described[n] for n in inputs), outputs=tuple(described[n] for n in outputs), licence="Apache-2.0",
        variants={"fp32": Variant(file="tiny.onnx", sha256=sha256_of(folder / "tiny.onnx"), precision="fp32",
                                  devices=("cpu",))},
        training=TrainingRecord(data="none", data_version="0", data_hash="0", commit="0", seed=0, steps=0),
    ), folder)
    return folder


class Robot:
    """The sensors of a tiny robot, and ears for everything the node says."""

    def __init__(self, operator: Any, rig: Rig, node: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from occ_perception_msgs.msg import PlannedTrajectory, VoxelGrid

        from occ_perception.recordings.encode import MessageEncoder
        from occ_perception.ros.messages import make

        self.operator, self.rig, self.node = operator, rig, node
        self.encoder = MessageEncoder(make)
        self.heard: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self._last_ns = 0
        self.listen(VoxelGrid, f"{node}/output/voxels")
        self.listen(PlannedTrajectory, f"{node}/output/trajectory")
        self.listen(DiagnosticArray, "/diagnostics")

    def listen(self, kind: type, topic: str, profile: Any = 10) -> list[Any]:
        """Everything said on a topic from now on."""
        heard: list[Any] = []
        self.heard[topic.removeprefix(f"{self.node}/output/")] = heard
        self.operator.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def say(self, topic: str, message: Any) -> None:
        """Publish on `<node>/input/<topic>` once the node hears it."""
        if topic not in self._publishers:
            publisher = self.operator.node.create_publisher(type(message), f"{self.node}/input/{topic}", 10)
            self._publishers[topic] = publisher
        publisher = self._publishers[topic]
        self.operator.until(lambda: publisher.get_subscription_count() > 0, f"a reader of {topic}", 10.0)
        publisher.publish(message)

    def now(self) -> int:
        """A stamp that is now, and newer than the last one."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def image(self, camera: str, stamp_ns: int, brightness: int = 0, size: tuple[int, int] = SIZE) -> Any:
        return self.encoder.image(CameraImage(camera, stamp_ns, np.full((*size, 3), brightness, np.uint8)))

    def frame(self, brightness: int = 0) -> int:
        """Publish both images and return their stamp."""
        stamp_ns = self.now()
        for camera in ("left", "front"):
            self.say(f"{camera}/image", self.image(camera, stamp_ns, brightness))
        return stamp_ns

    def answer(self, stamp_ns: int, timeout_s: float = 10.0) -> Any:
        """The voxel grid of that stamp."""
        def found() -> Any:
            return next((grid for grid in self.heard["voxels"] if stamp_of(grid) == stamp_ns), None)
        self.operator.until(lambda: found() is not None, f"the grid of {stamp_ns}", timeout_s)
        return found()

    def diagnostics(self) -> dict[str, dict[str, str]]:
        """The newest diagnostics by part: engine, frames, and every sensor."""
        from occ_perception.ros.diagnostics import as_dict

        ours = f"{self.node[1:]}: "
        reports = (report.status for report in reversed(self.heard["/diagnostics"]))
        return as_dict(next((report for report in reports if report[0].name.startswith(ours)), []))

    def until_diagnosed(self, part: str, key: str, fits: Callable[[str], bool], timeout_s: float = 10.0,
                        again: Callable[[], object] = lambda: None) -> str:
        """Wait until that value of the diagnostics fits, and return it; call `again` at every unfitting report."""
        seen = 0

        def fitting() -> bool:
            nonlocal seen
            if fits(self.diagnostics().get(part, {}).get(key, "")):
                return True
            if len(self.heard["/diagnostics"]) > seen:
                seen = len(self.heard["/diagnostics"])
                again()
            return False

        self.operator.until(fitting, f"{part} {key}", timeout_s)
        return self.diagnostics()[part][key]

    def meet(self) -> None:
        """Speak until the node has heard every input and we its output: what is said while readers match is lost."""
        def greet(topic: str, message: Callable[[int], Any]) -> Callable[[], None]:
            return lambda: self.say(topic, message(self.now()))

        greetings = {
            "front": greet("front/image", lambda t: self.image("front", t)),
            "left": greet("left/image", lambda t: self.image("left", t)),
            "top": greet("top/points", lambda t: self.encoder.point_cloud(
                PointCloud("top", t, np.ones((4, 3), np.float32)))),
            "odometry": greet("odometry", lambda t: self.encoder.odometry(Odometry(t, np.eye(4)))),
        }
        self.until_diagnosed("engine", "state", lambda state: state == "active")
        for sensor, greeting in greetings.items():
            if sensor in self.diagnostics():
                self.until_diagnosed(sensor, "received", lambda n: int(n or 0) > 0, again=greeting)
        self.until_diagnosed("engine", "state", lambda _: bool(self.heard["voxels"]), again=self.frame)


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from occ_perception.ros.processes import Operator

    with Operator("test_operator", tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def start_node(operator: Any, rig_file: Path) -> Callable[..., Any]:
    """Starts perception_node with parameters (name=value); several in one test module have different names."""
    def start(name: str, model: Path | str, module: str = "perception_node", **parameters: Any) -> Any:
        values = {"rig": rig_file, "model": model, "diagnostics_period_s": 0.1, "stale_after_s": 0.4,
                  "max_age_ms": 3000.0} | parameters
        arguments = ["--ros-args", "-r", f"__node:={name}"]
        for key, value in values.items():
            arguments += ["-p", f"{key}:={value}"]
        return operator.start(name, f"occ_perception.ros.{module}", arguments)
    return start


@pytest.fixture(scope="module")
def make_robot(operator: Any, rig: Rig) -> Callable[[str], Robot]:
    """A robot that feeds and hears the node of that name."""
    return lambda node: Robot(operator, rig, node)


@pytest.fixture
def make_node(rig_file: Path, model_folder: Path) -> Iterator[Callable[..., Any]]:
    """Makes a PerceptionNode in this process, for what needs no second one; parameters as name=value."""
    import rclpy
    from rclpy.context import Context
    from rclpy.parameter import Parameter

    from occ_perception.ros.perception_node import PerceptionNode

    context = Context()
    rclpy.init(context=context)
    nodes = []

    def make(name: str = "node", **parameters: Any) -> Any:
        values = {"rig": str(rig_file), "model": str(model_folder)} | parameters
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        nodes.append(PerceptionNode(name, context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()
