"""Moves every point of a LiDAR scan to where it would have been measured at one instant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from occ_perception.geometry import se3
from occ_perception.pipelines.motion import OdometryBuffer
from occ_perception.types import PointCloud

KNOT_NS = 5_000_000
"""Poses are taken at least every 5 ms of a scan and blended linearly between: at 2 rad/s that is off by 1e-5 rad."""


def deskew(cloud: PointCloud, buffer: OdometryBuffer, T_base_lidar: NDArray[np.float64], stamp_ns: int) -> PointCloud:
    """The cloud as the LiDAR would have seen it, all at once, at `stamp_ns`.

    Points stay in the LiDAR's frame. In the result every point's time is `stamp_ns`. Where the odometry does not
    reach over the whole scan and `stamp_ns`, the cloud comes back unchanged.

    Args:
        cloud: `stamp_ns + time_ns` is the time of each point; without `time_ns` all points are of its stamp.
        buffer: poses of the base.
        T_base_lidar: [4, 4].
        stamp_ns: the instant to move to.
    """
    times_ns = cloud.time_ns if cloud.time_ns is not None else np.zeros(len(cloud.points_m), np.int64)
    if not len(times_ns):
        return cloud
    T_odom_stamp = buffer.pose_at(stamp_ns)
    if T_odom_stamp is None:
        return cloud
    T_lidar_odom = se3.invert(T_odom_stamp @ T_base_lidar)
    first_ns, span_ns = int(times_ns.min()), int(np.ptp(times_ns))
    intervals = max(1, -(-span_ns // KNOT_NS))
    step_ns = max(1.0, span_ns / intervals)
    knots = np.empty((intervals + 1, 3, 4))
    for i in range(intervals + 1):
        T_odom_knot = buffer.pose_at(cloud.stamp_ns + first_ns + min(round(i * step_ns), span_ns))
        if T_odom_knot is None:
            return cloud
        knots[i] = (T_lidar_odom @ T_odom_knot @ T_base_lidar)[:3]
    moved = np.empty_like(cloud.points_m)
    _move(cloud.points_m, times_ns, first_ns, step_ns, knots, moved)
    return replace(cloud, points_m=moved, time_ns=np.full(len(moved), stamp_ns - cloud.stamp_ns, np.int64))


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
