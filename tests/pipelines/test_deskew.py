"""Deskew: a scan taken on the move becomes the scan that would have been taken at rest."""

from __future__ import annotations

import numpy as np
import pytest

from occ_perception.errors import BadMessage
from occ_perception.geometry import se3
from occ_perception.pipelines import OdometryBuffer, deskew
from occ_perception.types import Odometry, PointCloud

START_NS = 50_000_000_000
T_BASE_LIDAR = se3.from_euler(0.02, -0.05, 0.3, (0.1, -0.05, 0.9))


def pose(t_s: float) -> np.ndarray:
    """A fast turn on a slope."""
    return se3.from_euler(0.05, 0.1 * t_s, 1.5 * t_s, (1.4 * t_s, 0.3 * t_s, 0.05 * t_s))


def buffer(until_s: float = 0.2) -> OdometryBuffer:
    odometry = OdometryBuffer()
    for t_s in np.arange(-0.05, until_s + 1e-9, 0.01):
        odometry.push(Odometry(START_NS + round(t_s * 1e9), pose(t_s)))
    return odometry


def moving_scan(seed: int = 0, count: int = 5000) -> tuple[np.ndarray, PointCloud]:
    """World points, and the scan in which each was measured at its own time within 0.1 s."""
    rng = np.random.default_rng(seed)
    world = rng.uniform([-15, -15, -1], [15, 15, 3], (count, 3))
    times_ns = np.sort(rng.integers(0, 100_000_000, count))
    T_lidar_world = np.stack([se3.invert(pose(t * 1e-9) @ T_BASE_LIDAR) for t in times_ns])
    points = np.einsum("nij,nj->ni", T_lidar_world[:, :3, :3], world) + T_lidar_world[:, :3, 3]
    return world, PointCloud("top", START_NS, points.astype(np.float32), None, times_ns)


@pytest.mark.parametrize("at_s", [0.0, 0.05, 0.13])
def test_it_is_exact_on_a_moving_scan(at_s: float) -> None:
    world, scan = moving_scan()
    stamp_ns = START_NS + round(at_s * 1e9)
    still = deskew(scan, buffer(), T_BASE_LIDAR, stamp_ns)
    expected = se3.apply(se3.invert(pose(at_s) @ T_BASE_LIDAR), world)
    np.testing.assert_allclose(still.points_m, expected, atol=1e-3)
    skewed = np.abs(scan.points_m - expected).max()
    assert skewed > 1.0  # without it points would lie more than a metre away
    assert still.stamp_ns + still.time_ns[0] == stamp_ns


def test_deskewing_twice_changes_nothing() -> None:
    _, scan = moving_scan(count=100)
    once = deskew(scan, buffer(), T_BASE_LIDAR, START_NS + 50_000_000)
    twice = deskew(once, buffer(), T_BASE_LIDAR, START_NS + 50_000_000)
    np.testing.assert_allclose(twice.points_m, once.points_m, atol=1e-5)


def test_a_cloud_without_point_times_moves_as_a_whole() -> None:
    points = np.array([[5.0, 1.0, 0.0]], np.float32)
    moved = deskew(PointCloud("top", START_NS, points), buffer(), T_BASE_LIDAR, START_NS + 100_000_000)
    T = se3.invert(pose(0.1) @ T_BASE_LIDAR) @ pose(0.0) @ T_BASE_LIDAR
    np.testing.assert_allclose(moved.points_m, se3.apply(T, points), atol=1e-5)


@pytest.mark.parametrize(("odometry", "later_ns"), [
    (OdometryBuffer(), 0), (buffer(), 10**9), (buffer(-0.03), 130_000_000),  # none, long past, past before its end
])
def test_without_odometry_over_the_whole_scan_it_is_refused(odometry: OdometryBuffer, later_ns: int) -> None:
    _, scan = moving_scan(count=10)
    late = PointCloud("top", START_NS + later_ns, scan.points_m, None, scan.time_ns)
    with pytest.raises(BadMessage, match="no odometry") as caught:
        deskew(late, odometry, T_BASE_LIDAR, START_NS)
    assert caught.value.reason == "no_motion"


def test_a_cloud_of_that_very_instant_needs_no_odometry() -> None:
    _, scan = moving_scan(count=10)
    instant = PointCloud("top", START_NS, scan.points_m, None, np.full(10, 7, np.int64))
    assert deskew(instant, OdometryBuffer(), T_BASE_LIDAR, START_NS + 7) is instant


def test_an_empty_cloud_stays_empty() -> None:
    empty = PointCloud("top", START_NS, np.zeros((0, 3), np.float32), None, np.zeros(0, np.int64))
    assert len(deskew(empty, buffer(), T_BASE_LIDAR, START_NS).points_m) == 0
