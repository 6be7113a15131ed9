"""The pose of the base over the last seconds, from odometry: interpolated between samples, briefly extrapolated."""

from __future__ import annotations

import bisect
import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from occ_perception.geometry import se3
from occ_perception.types import Odometry

Matrix = NDArray[np.float64]


class OdometryBuffer:
    """Odometry samples in order of stamp. Pushed by one thread and read by another.

    Args:
        keep_s: how far back it remembers.
        extrapolate_s: how far a pose may lie beyond the newest or before the oldest sample (at constant twist).
        gap_s: between samples further apart than this there is no pose.
        jump_back_s: a stamp further back than this is a jump of the clock: the buffer starts anew.
        jump_mps: a pose that moved faster than this (plus 0.5 m) was re-localised: the buffer starts anew,
            since nothing may be interpolated across it.
    """

    def __init__(self, *, keep_s: float = 10.0, extrapolate_s: float = 0.2, gap_s: float = 0.5,
                 jump_back_s: float = 1.0, jump_mps: float = 30.0) -> None:
        self.drops: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()
        self._keep_ns = round(keep_s * 1e9)
        self._extrapolate_ns = round(extrapolate_s * 1e9)
        self._gap_ns = round(gap_s * 1e9)
        self._jump_ns = round(jump_back_s * 1e9)
        self._jump_mps = jump_mps
        self._stamps: list[int] = []
        self._samples: list[Odometry] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._stamps)

    def push(self, odometry: Odometry) -> None:
        """Take one sample. A bad one (not finite, no rotation, stamp not newer) is dropped and counted in `drops`."""
        if not se3.is_rigid(odometry.T_odom_base) or not np.isfinite(_twist(odometry)).all():
            self.drops["bad_odometry"] += 1
            return
        with self._lock:
            if self._stamps:
                step_ns = odometry.stamp_ns - self._stamps[-1]
                moved_m = np.linalg.norm(odometry.T_odom_base[:3, 3] - self._samples[-1].T_odom_base[:3, 3])
                if step_ns <= -self._jump_ns:
                    self._restart("clock_jump")
                elif step_ns <= 0:
                    self.drops["duplicate" if step_ns == 0 else "stamp_went_back"] += 1
                    return
                elif moved_m > 0.5 + self._jump_mps * step_ns * 1e-9:
                    self._restart("pose_jump")
            self._stamps.append(odometry.stamp_ns)
            self._samples.append(odometry)
            first = bisect.bisect_left(self._stamps, odometry.stamp_ns - self._keep_ns)
            if first > 64:  # in batches: cutting a list at its front moves all of it
                del self._stamps[:first], self._samples[:first]

    def pose_at(self, stamp_ns: int) -> Matrix | None:
        """T_odom_base [4, 4] at `stamp_ns`, or None where the samples do not reach."""
        with self._lock:
            after = bisect.bisect_left(self._stamps, stamp_ns)
            newer = self._samples[after] if after < len(self._samples) else None
            older = self._samples[after - 1] if after > 0 else None
        if newer is not None and newer.stamp_ns == stamp_ns:
            return newer.T_odom_base
        if older is not None and newer is not None:
            gap_ns = newer.stamp_ns - older.stamp_ns
            if gap_ns > self._gap_ns:
                return None
            return se3.interpolate(older.T_odom_base, newer.T_odom_base, (stamp_ns - older.stamp_ns) / gap_ns)
        nearest = older or newer
        if nearest is None or abs(stamp_ns - nearest.stamp_ns) > self._extrapolate_ns:
            return None
        return _extrapolate(nearest, (stamp_ns - nearest.stamp_ns) * 1e-9)

    def motion(self, from_ns: int, to_ns: int) -> Matrix | None:
        """[4, 4] that maps points of the base at `from_ns` into the base at `to_ns`, or None without a pose."""
        T_odom_from, T_odom_to = self.pose_at(from_ns), self.pose_at(to_ns)
        if T_odom_from is None or T_odom_to is None:
            return None
        return se3.invert(T_odom_to) @ T_odom_from

    def clear(self) -> None:
        """Forget all samples."""
        with self._lock:
            self._restart("asked")

    def _restart(self, reason: str) -> None:
        self.resets[reason] += 1
        self._stamps.clear()
        self._samples.clear()


def _twist(odometry: Odometry) -> Matrix:
    return np.concatenate([odometry.linear_mps, odometry.angular_radps])


def _extrapolate(odometry: Odometry, after_s: float) -> Matrix:
    """The pose after that many seconds (negative: before) at constant twist; the arc is taken as its chord."""
    turn = odometry.angular_radps * after_s
    halfway = Rotation.from_rotvec(0.5 * turn).as_matrix()
    step = se3.make(Rotation.from_rotvec(turn).as_matrix(), halfway @ odometry.linear_mps * after_s)
    return odometry.T_odom_base @ step
