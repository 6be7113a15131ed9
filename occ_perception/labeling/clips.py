"""Which parts of a drive become scenes, which do not and why, and which messages make a scene's keyframes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, uniform_filter1d

from occ_perception.errors import ConfigurationError
from occ_perception.labeling.ego import ImuSamples, Stamps
from occ_perception.types import Odometry

Mask = NDArray[np.bool_]

REASONS = {
    "tipped": "the robot had fallen over",
    "no_odometry": "there are no wheel poses",
    "standing": "the robot stood for long",
    "too_short": "what was left between the others is too short for a scene",
}
"""Why a part of a drive is no scene; of several reasons the first one counts."""

_TICK_S = 0.1


@dataclass(frozen=True)
class ClipSettings:
    """What makes a scene (WalkOCC F.1, F.3: 30 s, 60 frames at 2 Hz; the thresholds are ours).

    Attributes:
        scene_s: length of a scene; what is left of a stretch is a scene too if it lasts `shortest_s`.
        keyframe_hz: frames per second.
        still_s: stops that last longer are left out; shorter ones belong to driving.
        still_mps, still_radps: slower than both is standing.
        tipped_deg: tilt against gravity from which a robot counts as fallen.
        gap_s: without wheel poses for longer there is no odometry.
        tolerance_s: how far images of other cameras may be from the anchor's.
        lidar_age_s: how far the middle of a scan may be from it.
    """

    scene_s: float = 30.0
    shortest_s: float = 5.0
    keyframe_hz: float = 2.0
    still_s: float = 5.0
    still_mps: float = 0.05
    still_radps: float = 0.05
    tipped_deg: float = 60.0
    gap_s: float = 0.5
    tolerance_s: float = 0.05
    lidar_age_s: float = 0.2

    def __post_init__(self) -> None:
        faults = [f"{field.name} must be positive, got {getattr(self, field.name)}" for field in fields(self)
                  if not getattr(self, field.name) > 0]
        if self.shortest_s > self.scene_s:
            faults.append(f"shortest_s must not exceed scene_s, got {self.shortest_s} and {self.scene_s}")
        if faults:
            raise ConfigurationError(faults, where="ClipSettings")


@dataclass(frozen=True, order=True)
class Span:
    """A stretch of time, `end_ns` not included."""

    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) * 1e-9


@dataclass(frozen=True)
class Selection:
    """Scenes of a drive in order of time, and by reason (`REASONS`) the parts that are none."""

    scenes: tuple[Span, ...]
    dropped: Mapping[str, tuple[Span, ...]]

    def dropped_s(self) -> dict[str, float]:
        """Seconds by reason."""
        return {reason: round(sum(span.duration_s for span in spans), 3) for reason, spans in self.dropped.items()}


def select(span: Span, wheels: Sequence[Odometry], imu: ImuSamples, settings: ClipSettings | None = None) -> Selection:
    """Filter a drive and cut what is left into scenes.

    Args:
        span: the whole drive.
        wheels: wheel poses with rising stamps.
        imu: in the axes of the base; without samples the tilt is taken from the wheel poses.
    """
    settings = settings or ClipSettings()
    ticks = span.start_ns + np.arange(math.ceil(span.duration_s / _TICK_S - 1e-6)) * round(_TICK_S * 1e9)
    faults = {
        "tipped": tipped(ticks, wheels, imu, settings),
        "no_odometry": ~_covered(ticks, wheels, settings.gap_s),
        "standing": standing(ticks, wheels, settings),
    }
    free = np.ones(len(ticks), np.bool_)
    dropped: dict[str, tuple[Span, ...]] = {}
    for reason, mask in faults.items():
        dropped[reason] = tuple(_spans(ticks, mask & free, span.end_ns))
        free &= ~mask
    scenes: list[Span] = []
    short: list[Span] = []
    for stretch in _spans(ticks, free, span.end_ns):
        for start_ns in range(stretch.start_ns, stretch.end_ns, round(settings.scene_s * 1e9)):
            piece = Span(start_ns, min(start_ns + round(settings.scene_s * 1e9), stretch.end_ns))
            (scenes if piece.duration_s >= settings.shortest_s - 1e-6 else short).append(piece)
    dropped["too_short"] = tuple(short)
    return Selection(tuple(scenes), {reason: spans for reason, spans in dropped.items() if spans})


def standing(ticks: Stamps, wheels: Sequence[Odometry], settings: ClipSettings) -> Mask:
    """At which ticks the robot stands, in stops of at least `still_s`."""
    if len(wheels) < 2:
        return np.zeros(len(ticks), np.bool_)
    stamps = np.array([sample.stamp_ns for sample in wheels])
    poses = np.stack([sample.T_odom_base for sample in wheels])
    yaw = np.unwrap(np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
    columns = [*poses[:, :3, 3].T, yaw]
    half_ns = 500_000_000  # over one second, so that a pose that trembles does not drive
    moved = np.stack([np.interp(ticks + half_ns, stamps, c) - np.interp(ticks - half_ns, stamps, c) for c in columns])
    still = (np.linalg.norm(moved[:3], axis=0) < settings.still_mps) & (np.abs(moved[3]) < settings.still_radps)
    return _lasting(still, settings.still_s)


def tipped(ticks: Stamps, wheels: Sequence[Odometry], imu: ImuSamples, settings: ClipSettings) -> Mask:
    """At which ticks the robot lies, and one second before and after: it does not fall in an instant."""
    if len(imu.stamps_ns) >= 2:
        stamps = imu.stamps_ns
        each_s = max(float(np.median(np.diff(stamps))) * 1e-9, 1e-4)
        # a second of force has gravity as its mean, however the robot shakes
        force = uniform_filter1d(imu.force_mps2, max(1, round(1.0 / each_s)), axis=0, mode="nearest")
        upright = force[:, 2] / np.maximum(np.linalg.norm(force, axis=1), 1e-9)
    elif wheels:
        stamps = np.array([sample.stamp_ns for sample in wheels])
        upright = np.array([sample.T_odom_base[2, 2] for sample in wheels])
    else:
        return np.zeros(len(ticks), np.bool_)
    lying = np.interp(ticks, stamps, upright) < math.cos(math.radians(settings.tipped_deg))
    return np.asarray(binary_dilation(lying, iterations=round(1.0 / _TICK_S))) if lying.any() else lying


def keyframe_rows(anchors_ns: Stamps, span: Span, keyframe_hz: float) -> NDArray[np.int64]:
    """Rows of the first anchor in every 1 / keyframe_hz seconds of a span."""
    inside = np.flatnonzero((anchors_ns >= span.start_ns) & (anchors_ns < span.end_ns))
    # a hair forwards, so that a stamp rounded down to the nanosecond is not one beat early
    beat = np.floor((anchors_ns[inside] - span.start_ns + 1000) * 1e-9 * keyframe_hz).astype(np.int64)
    return inside[np.unique(beat, return_index=True)[1]]


def nearest_rows(stamps_ns: Stamps, wanted_ns: Stamps, tolerance_s: float) -> NDArray[np.int64]:
    """Row of the stamp nearest to each wanted one, -1 where none is within the tolerance. Stamps must rise."""
    if not len(stamps_ns):
        return np.full(len(wanted_ns), -1)
    after = np.clip(np.searchsorted(stamps_ns, wanted_ns), 1, max(len(stamps_ns) - 1, 1))
    pair = np.stack([after - 1, np.minimum(after, len(stamps_ns) - 1)])
    apart = np.abs(stamps_ns[pair] - wanted_ns)
    nearest = np.where(apart[0] <= apart[1], pair[0], pair[1])
    return np.where(apart.min(axis=0) <= tolerance_s * 1e9, nearest, -1)


def _covered(ticks: Stamps, wheels: Sequence[Odometry], gap_s: float) -> Mask:
    if len(wheels) < 2:
        return np.zeros(len(ticks), np.bool_)
    stamps = np.array([sample.stamp_ns for sample in wheels])
    after = np.clip(np.searchsorted(stamps, ticks), 1, len(stamps) - 1)
    inside = (ticks >= stamps[0] - gap_s * 1e9) & (ticks <= stamps[-1] + gap_s * 1e9)
    return np.asarray(inside & (np.diff(stamps)[after - 1] <= gap_s * 1e9))


def _lasting(mask: Mask, seconds: float) -> Mask:
    """Those runs of a mask that last at least so long."""
    kept = np.zeros_like(mask)
    for first, last in _runs(mask):
        kept[first:last] = (last - first) * _TICK_S >= seconds
    return kept


def _runs(mask: Mask) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _spans(ticks: Stamps, mask: Mask, end_ns: int) -> list[Span]:
    """Runs of a mask as spans; each tick stands for the time up to the next."""
    borders = np.append(ticks, end_ns)
    return [Span(int(borders[first]), int(borders[last])) for first, last in _runs(mask)]
