"""Messages to the types of this package. Works on the fields alone, so rclpy's and rosbags' messages do equally."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import BadMessage, OccPerceptionError, ShapeError
from occ_perception.geometry import se3
from occ_perception.geometry.grid import VoxelGridSpec
from occ_perception.recordings.clouds import decode_points
from occ_perception.recordings.images import decode_image
from occ_perception.types import (
    FlowField,
    Odometry,
    PathCheck,
    PathStatus,
    TrackedInstance,
    Trajectory,
    VoxelGrid,
)

__all__ = [
    "decode_flow_field", "decode_image", "decode_odometry", "decode_points", "decode_tracked_instances",
    "decode_trajectory", "decode_voxel_grid", "stamp_ns",
]


def stamp_ns(header: Any) -> int:
    """Stamp of a header in nanoseconds."""
    return _time_ns(header.stamp)


def _time_ns(time: Any) -> int:
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def _vector(xyz: Any) -> NDArray[np.float64]:
    return np.array([xyz.x, xyz.y, xyz.z], np.float64)


def _pose(pose: Any, where: str) -> NDArray[np.float64]:
    position, q = _vector(pose.position), pose.orientation
    try:
        T = se3.from_quaternion((q.x, q.y, q.z, q.w), position)
    except OccPerceptionError as error:
        raise BadMessage("bad_pose", error.what, where=where) from error
    if not np.isfinite(T).all():
        raise BadMessage("bad_pose", f"position {position.tolist()}", where=where)
    return T


def decode_odometry(msg: Any) -> Odometry:
    """A nav_msgs Odometry. Raises BadMessage `bad_pose` where the pose or the twist is no number."""
    twist = msg.twist.twist
    linear, angular = _vector(twist.linear), _vector(twist.angular)
    if not (np.isfinite(linear).all() and np.isfinite(angular).all()):
        raise BadMessage("bad_pose", f"twist {linear.tolist()} {angular.tolist()}", where="odometry")
    return Odometry(stamp_ns(msg.header), _pose(msg.pose.pose, "odometry"), linear, angular)


def _spec(msg: Any, where: str) -> VoxelGridSpec:
    minimum, cell, shape = _vector(msg.origin), _vector(msg.cell_size), np.array(msg.shape, float)
    # Rounded to a nanometre, so that origin + shape * cell gives back the corner that was meant.
    maximum = np.round(minimum + cell * shape, 9)
    try:
        return VoxelGridSpec(tuple(minimum.tolist()), tuple(maximum.tolist()), tuple(cell.tolist()))
    except OccPerceptionError as error:
        raise BadMessage("wrong_size", error.what, where=where) from error


def _cells(flat: Any, dtype: Any, spec: VoxelGridSpec, where: str) -> NDArray[Any]:
    array = np.frombuffer(flat, dtype)
    if array.size != spec.size:
        raise BadMessage("wrong_size", f"{array.size} values for a grid of {spec.shape} = {spec.size} cells",
                         where=where)
    return spec.from_message_order(array)


def decode_voxel_grid(msg: Any) -> VoxelGrid:
    """An occ_perception_msgs VoxelGrid. Its arrays are views of the message.

    Raises:
        BadMessage: `wrong_size` where an array does not fit the geometry, `bad_pose`.
    """
    where = "voxel grid"
    spec = _spec(msg, where)
    has_rows = len(msg.instance_rows) > 0
    try:
        return VoxelGrid(
            spec=spec,
            stamp_ns=stamp_ns(msg.header),
            labels=_cells(msg.labels, np.uint8, spec, f"{where}: labels"),
            confidence=_cells(msg.confidence, np.uint8, spec, f"{where}: confidence") if len(msg.confidence) else None,
            instance_rows=_cells(msg.instance_rows, np.uint16, spec, f"{where}: instance_rows") if has_rows else None,
            track_ids=np.frombuffer(msg.track_ids, np.uint64),
            taxonomy=msg.taxonomy,
            model_id=msg.model_id,
            T_odom_grid=_pose(msg.grid_in_odom, where) if msg.has_pose else None,
            sensor_stamps_ns={
                name: _time_ns(time) for name, time in zip(msg.sensor_names, msg.sensor_stamps, strict=True)
            },
            flags=frozenset(msg.flags),
        )
    except ValueError as error:
        raise BadMessage("wrong_size", f"sensor names and stamps differ in number ({error})", where=where) from error


def decode_flow_field(msg: Any) -> FlowField:
    """An occ_perception_msgs FlowField. Raises BadMessage `wrong_size`."""
    where = "flow field"
    spec = _spec(msg, where)
    index = np.frombuffer(msg.cell_index, np.uint32)
    columns = [np.frombuffer(values, np.float32) for values in (msg.vx, msg.vy, msg.vz, msg.confidence)]
    if {column.size for column in columns} != {index.size} or index.max(initial=0) >= spec.size:
        raise BadMessage("wrong_size", f"{index.size} cells, {[c.size for c in columns]} values, "
                         f"greatest index {index.max(initial=0)} of {spec.size}", where=where)
    return FlowField(spec, stamp_ns(msg.header), spec.unflatten(index), np.stack(columns[:3], axis=-1), columns[3])


def decode_trajectory(msg: Any) -> Trajectory:
    """An occ_perception_msgs PlannedTrajectory, with its check if it was checked. Raises BadMessage `wrong_size`."""
    positions = np.array([[pose.position.x, pose.position.y] for pose in msg.poses], np.float32).reshape(-1, 2)
    times = np.array(msg.times_s, np.float32)
    if len(times) != len(positions):
        raise BadMessage("wrong_size", f"{len(positions)} poses but {len(times)} times", where="planned trajectory")
    if msg.status == PathStatus.UNCHECKED:
        return Trajectory(stamp_ns(msg.header), positions, times)
    try:
        check = PathCheck(np.array(msg.clearance_m, np.float32), np.array(msg.ruling_label, np.uint8),
                          np.array(msg.waypoint_flags, np.uint8), msg.taxonomy)
        return Trajectory(stamp_ns(msg.header), positions, times, check)
    except ShapeError as error:
        raise BadMessage("wrong_size", str(error), where="planned trajectory") from error


def decode_tracked_instances(msg: Any) -> list[TrackedInstance]:
    """The things of an occ_perception_msgs TrackedInstanceArray. Raises BadMessage `bad_pose`."""
    return [
        TrackedInstance(
            track_id=int(item.track_id),
            label=int(item.label),
            score=float(item.score),
            T_grid_object=_pose(item.pose.pose, f"instance {item.track_id}"),
            velocity_mps=_vector(item.twist.twist.linear),
            size_m=_vector(item.size),
            age_s=float(item.age_s),
            unseen_s=float(item.unseen_s),
        )
        for item in msg.instances
    ]
