"""Moves every point of a LiDAR scan to where it would have been measured at one instant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from occ_perception.errors import BadMessage
from occ_perception.geometry import se3
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.types import Odometry, PointCloud

KNOT_NS = 5_000_000
"""Poses are taken at least every 5 ms of a scan and blended linearly between: at 2 rad/s that is off by 1e-5 rad."""


def deskew(cloud: PointCloud, buffer: OdometryBuffer, T_base_lidar: NDArray[np.float64], stamp_ns: int) -> PointCloud:
    """The cloud as the LiDAR would have seen it, all at once, at `stamp_ns`.

    Points stay in the LiDAR's frame. In the result every point's time is `stamp_ns`. A cloud that is all of that
    instant already comes back unchanged, whatever the odometry.

    Args:
        cloud: `stamp_ns + time_ns` is the time of each point; without `time_ns` all points are of its stamp.
        buffer: poses of the base.
        T_base_lidar: [4, 4].
        stamp_ns: the instant to move to.

    Raises:
        BadMessage: `no_motion`, where the odometry does not reach over the whole scan and `stamp_ns`. Nothing is taken
            as standing still: at 1.5 m/s a sweep is off by 0.15 m, at 2 rad/s by 1 m at a range of 5 m.
    """
    times_ns = cloud.time_ns if cloud.time_ns is not None else np.zeros(len(cloud.points_m), np.int64)
    if (times_ns == stamp_ns - cloud.stamp_ns).all():
        return cloud
    T_odom_stamp = _pose(buffer, stamp_ns, cloud)
    T_lidar_odom = se3.invert(T_odom_stamp @ T_base_lidar)
    first_ns, span_ns = int(times_ns.min()), int(np.ptp(times_ns))
    intervals = max(1, -(-span_ns // KNOT_NS))
    step_ns = max(1.0, span_ns / intervals)
    knots = np.empty((intervals + 1, 3, 4))
    for i in range(intervals + 1):
        T_odom_knot = _pose(buffer, cloud.stamp_ns + first_ns + min(round(i * step_ns), span_ns), cloud)
        knots[i] = (T_lidar_odom @ T_odom_knot @ T_base_lidar)[:3]
    moved = np.empty_like(cloud.points_m)
    _move(cloud.points_m, times_ns, first_ns, step_ns, knots, moved)
    return replace(cloud, points_m=moved, time_ns=np.full(len(moved), stamp_ns - cloud.stamp_ns, np.int64))


def warm_up() -> None:
    """Compile what moves points, so that the first scan does not wait for it."""
    buffer = OdometryBuffer()
    buffer.push(Odometry(1, np.eye(4)))
    deskew(PointCloud("none", 1, np.ones((1, 3), np.float32)), buffer, np.eye(4), 2)


def _pose(buffer: OdometryBuffer, stamp_ns: int, cloud: PointCloud) -> NDArray[np.float64]:
    T_odom_base = buffer.pose_at(stamp_ns)
    if T_odom_base is None:
        after_ms = 1e-6 * (stamp_ns - cloud.stamp_ns)
        raise BadMessage("no_motion", f"there is no odometry {after_ms:.0f} ms after its stamp",
                         where=f"cloud of {cloud.lidar}", fix="Without odometry over the whole scan it is not used.")
    return T_odom_base


@numba.njit(cache=True, nogil=True)
def _move(points: Any, times_ns: Any, first_ns: int, step_ns: float, knots: Any, moved: Any) -> None:
    for i in range(len(points)):
        at = (times_ns[i] - first_ns) / step_ns
        k = min(int(at), len(knots) - 2)
        blend = at - k
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for row in range(3):
            a, b = knots[k, row], knots[k + 1, row]
            before = a[0] * x + a[1] * y + a[2] * z + a[3]
            after = b[0] * x + b[1] * y + b[2] * z + b[3]
            moved[i, row] = before + blend * (after - before)
