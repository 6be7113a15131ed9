"""The node's publishers. Our own messages always go out; the standard ones are built only for subscribers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid, Path
from occ_perception_msgs.msg import PlannedTrajectory
from occ_perception_msgs.msg import VoxelGrid as VoxelGridMsg
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from occ_perception.pipelines import OccupancyResult
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.ros import qos
from occ_perception.taxonomy import get_taxonomy

try:
    from tf2_ros import TransformBroadcaster
except ImportError:  # not in the wheels; whoever needs the frame reads the pose in the grid's message
    TransformBroadcaster = None


class Outputs:
    """All publishers of one configured node.

    Args:
        node: the lifecycle node; its publishers speak only while it is active.
        encoder: builds rclpy messages.
        tasks: what to publish, of occupancy and trajectory.
        taxonomy: name of the label set of the grids.
        confidence: whether voxel grids carry it.
        standard: whether to offer the standard messages.
        broadcast_tf: whether to broadcast the grid's frame where tf2_ros is installed.
        incompatible: told topic and policy when a subscriber asks for what we do not offer.
    """

    def __init__(self, node: LifecycleNode, encoder: MessageEncoder, tasks: Sequence[str], taxonomy: str, *,
                 confidence: bool, standard: bool, broadcast_tf: bool,
                 incompatible: Callable[[str, str], None]) -> None:
        self._node, self._encoder, self._confidence = node, encoder, confidence
        self._publishers: dict[str, Any] = {}
        self._labels: Any = None

        def offer(name: str, kind: type) -> None:
            events = qos.PublisherEventCallbacks(
                incompatible_qos=lambda event: incompatible(f"~/output/{name}", qos.policy_name(event)))
            self._publishers[name] = node.create_lifecycle_publisher(
                kind, f"~/output/{name}", qos.OUTPUT, event_callbacks=events)

        if "occupancy" in tasks:
            offer("voxels", VoxelGridMsg)
            if standard:
                offer("points", PointCloud2)
                offer("traversability", OccupancyGrid)
                offer("markers", MarkerArray)
            self._labels = node.create_publisher(String, "~/output/label_names", qos.LATCHED)
            self._labels.publish(encoder.label_names(get_taxonomy(taxonomy)))
        if "trajectory" in tasks:
            offer("trajectory", PlannedTrajectory)
            if standard:
                offer("path", Path)
        self._tf = TransformBroadcaster(node) if broadcast_tf and TransformBroadcaster is not None else None

    def publish(self, result: OccupancyResult) -> None:
        """Publish one result; called from the worker."""
        grid, encoder = result.grid, self._encoder
        if "voxels" in self._publishers:
            slim = grid if self._confidence else replace(grid, confidence=None)
            self._publishers["voxels"].publish(encoder.voxel_grid(slim))
        if "trajectory" in self._publishers and result.trajectory is not None:
            self._publishers["trajectory"].publish(
                encoder.planned_trajectory(result.trajectory, model_id=grid.model_id))
        if self._tf is not None and grid.T_odom_grid is not None:
            self._tf.sendTransform(encoder.transform(grid.stamp_ns, encoder.odom_frame, encoder.grid_frame,
                                                     grid.T_odom_grid))
        for name, build in (("points", encoder.labelled_points), ("traversability", encoder.occupancy_grid),
                            ("markers", encoder.markers)):
            if self._wanted(name):
                self._publishers[name].publish(build(grid))
        # A path with a waypoint that is no number would break who follows it; the trajectory above says `blocked`.
        if (self._wanted("path") and result.trajectory is not None
                and np.isfinite(result.trajectory.positions_m).all()):
            self._publishers["path"].publish(encoder.path(result.trajectory))

    def _wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def destroy(self) -> None:
        """Take all publishers down."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        if self._labels is not None:
            self._node.destroy_publisher(self._labels)
            self._labels = None
