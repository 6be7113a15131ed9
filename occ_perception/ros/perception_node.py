"""`PerceptionNode`: a lifecycle node around the occupancy pipeline. Callbacks keep the newest; one worker infers."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry as OdometryMsg
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from occ_perception.calibration import Rig, load_rig
from occ_perception.engines import EngineDescription, load_engine, load_manifest
from occ_perception.errors import ConfigurationError, OccPerceptionError
from occ_perception.pipelines import FrameAssembler, OccupancyPipeline, OdometryBuffer, PathCheckSettings
from occ_perception.pipelines.frames import synchroniser_for
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.frames import ODOMETRY
from occ_perception.ros import qos
from occ_perception.ros.camera_check import differences
from occ_perception.ros.diagnostics import ERROR, OK, WARN, Health, status
from occ_perception.ros.environment import use_transport_profile
from occ_perception.ros.inbox import Inbox
from occ_perception.ros.interrupts import end_in_peace
from occ_perception.ros.messages import make
from occ_perception.ros.outputs import Outputs
from occ_perception.ros.parameters import TASKS, NodeParameters, ParameterSet
from occ_perception.ros.worker import Worker
from occ_perception.taxonomy import get_taxonomy

_SWITCH_INTERVAL_S = 0.0005
"""How long one Python thread may keep the others waiting; Python's own 5 ms are half of what a frame costs outside
the engine."""
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@dataclass(frozen=True)
class _Configured:
    """What `configure` makes and `cleanup` frees."""

    parameters: NodeParameters
    rig: Rig
    anchor: str
    lidars: tuple[str, ...]
    engine: EngineDescription
    pipeline: OccupancyPipeline
    encoder: MessageEncoder
    outputs: Outputs

    def __str__(self) -> str:
        engine = self.engine
        return f"{engine.model_id} {engine.variant} ({engine.precision}) on {engine.provider}"


class PerceptionNode(LifecycleNode):
    """Images and odometry in, labelled voxel grids and trajectories out.

    What `configure` makes, `cleanup` frees; what `activate` begins, `deactivate` ends. Bad configuration fails
    `configure` with every fault listed; bad input is dropped, counted by reason and shown in /diagnostics.

    Args:
        name: node name; topics live under it.
        tasks: what the node publishes unless the parameter `tasks` says otherwise.
    """

    def __init__(self, name: str = "perception_node", tasks: Sequence[str] = TASKS, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._failure, self._loading = "", False
        self._made: _Configured | None = None
        self._worker: Worker | None = None
        self._health: Health | None = None
        self._inputs: list[Any] = []
        self._unheard: dict[str, str] = {}
        self.parameters = ParameterSet(self, locked=lambda: self._made is not None, tasks=tasks)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On a clock that always runs: diagnostics must speak while /clock stands still.
        self.create_timer(self.parameters["diagnostics_period_s"], self.publish_diagnostics,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    # --- lifecycle ---

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load rig and engine, warm everything up, offer the outputs."""
        try:
            began_s = time.monotonic()
            self._failure, self._loading = "", True
            self.publish_diagnostics()  # the timer waits while the engine loads, which may take minutes on a GPU
            self._made = self._configured(self.parameters.read())
            gc.collect()
            gc.freeze()  # the libraries' half a million objects live on: looking through them would delay a frame
            self.get_logger().info(f"configured in {time.monotonic() - began_s:.1f} s: {self._made}")
        except OccPerceptionError as error:
            return self._fail(str(error))
        except Exception as error:  # a fault of ours or of a library must not take the process down
            return self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._loading = False
        return super().on_configure(state)

    def _fail(self, why: str) -> TransitionCallbackReturn:
        self._free()
        self._failure, self._loading = f"cannot be configured: {why}", False
        self.get_logger().error(self._failure)
        self.publish_diagnostics()
        return _FAILURE

    def _configured(self, parameters: NodeParameters) -> _Configured:
        rig, manifest = load_rig(parameters.rig), load_manifest(parameters.model)
        cameras, lidars = [camera.name for camera in rig.cameras], [lidar.name for lidar in rig.lidars]
        anchor = parameters.anchor_camera or cameras[0]
        faults = [f"anchor_camera: {name!r} is not in the rig, which has {cameras}"
                  for name in [anchor] if name not in cameras]
        faults += [f"lidars: {name!r} is not in the rig, which has {lidars}"
                   for name in parameters.lidars or () if name not in lidars]
        if parameters.lidars and not manifest.takes_ranges:
            faults.append(f"lidars: {manifest.model_id} reads no LiDAR ranges; say ['auto'] or ['']")
        faults += [f"tasks: {task!r} is not answered by {manifest.model_id}, which answers {', '.join(manifest.tasks)}"
                   for task in parameters.tasks if task not in manifest.tasks]
        path_check = PathCheckSettings(
            parameters.footprint_radius_m or rig.footprint_radius_m, parameters.safety_distance_m,
            parameters.path_ceiling_m, parameters.off_limits)
        if "trajectory" in parameters.tasks:
            misfits = path_check.misfits(manifest.output_grid.spec(), get_taxonomy(manifest.taxonomy))
            faults += [f"path_{fault}" if fault.startswith("ceiling_m") else fault for fault in misfits]  # our name
        if faults:
            raise ConfigurationError(faults, where=self.get_fully_qualified_name())
        engine = load_engine(
            manifest, backend=parameters.backend, device=parameters.device, variant=parameters.variant,
            allow_cpu=parameters.allow_cpu, threads=parameters.threads)
        pipeline = OccupancyPipeline(
            engine, manifest, rig, path_check, tasks=parameters.tasks, lidars=parameters.lidars)
        pipeline.warm_up()
        encoder = MessageEncoder(make, base_frame=rig.base_frame, odom_frame=rig.odom_frame,
                                 grid_frame=parameters.grid_frame)
        outputs = Outputs(
            self, encoder, parameters.tasks, manifest.taxonomy, confidence=parameters.publish_confidence,
            standard=parameters.publish_standard, broadcast_tf=parameters.broadcast_tf,
            incompatible=self._note_incompatible_reader)
        return _Configured(parameters, rig, anchor, pipeline.lidars, engine.describe(), pipeline, encoder, outputs)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and begin to answer."""
        try:
            return self._begin(state)
        except Exception as error:  # rclpy would turn it into an error state without a word
            self._still()
            super().on_deactivate(state)
            self._failure = f"cannot be activated: {type(error).__name__}: {error}"
            self.get_logger().error(self._failure)
            self.publish_diagnostics()
            return _FAILURE

    def _begin(self, state: LifecycleState) -> TransitionCallbackReturn:
        made = self._made
        assert made is not None  # by the life cycle
        parameters, rig = made.parameters, made.rig
        kinds = {camera.name: "image" for camera in rig.cameras} | dict.fromkeys(made.lidars, "cloud")
        health = Health(kinds | {ODOMETRY: "odometry"}, made.anchor, parameters.stale_after_s)
        odometry = OdometryBuffer(extrapolate_s=parameters.odometry_timeout_ms / 1e3)
        wait_s = parameters.sync_wait_ms / 1e3
        synchroniser = synchroniser_for(
            rig, anchor=made.anchor, lidars=made.lidars, lidar_max_age_s=parameters.lidar_max_age_ms / 1e3,
            wait_s=wait_s, tolerance_s=parameters.sync_tolerance_ms / 1e3)
        inbox = Inbox(streams=frozenset({ODOMETRY}))
        made.pipeline.reset("activated")
        self._worker = Worker(
            inbox, synchroniser, odometry, FrameAssembler(rig, odometry), made.pipeline, made.outputs.publish, health,
            now_ns=lambda: self.get_clock().now().nanoseconds, max_age_ms=parameters.max_age_ms, wait_s=wait_s,
            log_error=self.get_logger().warning, alive=self.context.ok)
        result = super().on_activate(state)  # publishers first, so that the first frame goes out
        self._health = health
        self._worker.start()
        self._subscribe(made, inbox, health)
        self._failure = ""
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and finish the frame at hand."""
        self._still()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free engine, tables and publishers."""
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: stop and free."""
        self._still()
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition broke: back to a clean, unconfigured node."""
        self._still()
        self._free()
        return _SUCCESS

    def _still(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs.clear()
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        self._health = None

    def _free(self) -> None:
        if self._made is not None:
            self._made.outputs.destroy()
        self._made = None
        self._failure = ""
        self._unheard.clear()
        gc.unfreeze()  # what was frozen after configuring may be garbage now

    def destroy_node(self) -> None:
        """Stop the worker before the handles go."""
        self._still()
        super().destroy_node()

    # --- inputs ---

    def _subscribe(self, made: _Configured, inbox: Inbox, health: Health) -> None:
        def listen(kind: type, topic: str, sensor: str, callback: Any, profile: Any = qos.SENSOR_INPUT) -> Any:
            def lost(event: Any) -> None:
                if kind is not CameraInfo:
                    health.sensor_dropped(sensor, "lost_on_the_way", event.total_count_change)

            events = qos.SubscriptionEventCallbacks(
                incompatible_qos=lambda event: health.set_fault(
                    sensor, topic, f"{topic}: a publisher offers an incompatible {qos.policy_name(event)}"),
                message_lost=lost)
            subscription = self.create_subscription(kind, topic, callback, profile, event_callbacks=events)
            self._inputs.append(subscription)
            return subscription

        def keep(sensor: str, message: Any) -> None:
            health.received(sensor)
            inbox.put(sensor, message)

        def keep_image(camera: str, transports: dict[type, Any], message: Any) -> None:
            # Drivers offer each image raw and compressed: the first that speaks is kept, the other is let go.
            if type(message) not in transports:
                return
            for other in transports.keys() - {type(message)}:
                subscription = transports.pop(other)
                self._inputs.remove(subscription)
                self.destroy_subscription(subscription)
            keep(camera, message)

        for camera in made.rig.cameras:
            topic, name = f"~/input/{camera.name}", camera.name
            transports: dict[type, Any] = {}
            for kind, suffix in ((Image, "image"), (CompressedImage, "image/compressed")):
                transports[kind] = listen(kind, f"{topic}/{suffix}", name, partial(keep_image, name, transports))
            expected = made.encoder.camera_info(camera)
            listen(CameraInfo, f"{topic}/camera_info", name, partial(self._check_camera, health, name, expected))
        for name in made.lidars:
            listen(PointCloud2, f"~/input/{name}/points", name, partial(keep, name))
        listen(OdometryMsg, "~/input/odometry", ODOMETRY, partial(keep, ODOMETRY), qos.ODOMETRY_INPUT)

    def _check_camera(self, health: Health, camera: str, expected: Any, message: Any) -> None:
        health.set_fault(camera, "camera_info", differences(expected, message))

    def _note_incompatible_reader(self, topic: str, policy: str) -> None:
        self._unheard[topic] = policy

    # --- diagnostics ---

    def _own_status(self) -> DiagnosticStatus:
        """Status of the node itself: lifecycle state, engine, provider, readers that cannot hear it."""
        values = {"state": self._state_machine.current_state[1]}
        level, text = OK, "loading the model" if self._loading else "unconfigured"
        if self._made is not None:
            engine, asked = self._made.engine, self._made.parameters.device
            values |= {field: str(value) for field, value in asdict(engine).items()} | {"rig": self._made.rig.name}
            level, text = OK, str(self._made)
            if asked in ("cuda", "tensorrt") and engine.device != asked:
                level, text = WARN, f"{text}, although {asked} was asked for"
        if self._failure:
            level, text = ERROR, self._failure
        if self._unheard:
            level = max(level, WARN)
            text += "; readers that cannot hear: " + ", ".join(f"{t} ({p})" for t, p in sorted(self._unheard.items()))
        return status(f"{self.get_name()}: engine", self.get_fully_qualified_name(), level, text, values)

    def publish_diagnostics(self) -> None:
        """Say how the node is; called by a timer, so it speaks even when every input is silent."""
        message = DiagnosticArray(status=[self._own_status()])
        if self._health is not None:
            message.status.extend(self._health.statuses(self.get_name(), self.get_fully_qualified_name()))
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def run(name: str, tasks: Sequence[str], arguments: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM; with the parameter `autostart` it configures and activates itself."""
    use_transport_profile()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    rclpy.init(args=None if arguments is None else [name, *arguments])
    executor = SingleThreadedExecutor()
    node = PerceptionNode(name, tasks)
    executor.add_node(node)
    try:
        if node.parameters["autostart"] and node.trigger_configure() == _SUCCESS:
            node.trigger_activate()
        while rclpy.ok():
            try:
                executor.spin()
            except rclpy_implementation.RCLError as error:  # such as a transition that the state does not allow
                if rclpy.ok():  # otherwise a signal took the context away while the executor waited
                    node.get_logger().error(str(error))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        end_in_peace()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `perception_node`: all tasks in one process."""
    return run("perception_node", TASKS, arguments)


if __name__ == "__main__":
    sys.exit(main())
