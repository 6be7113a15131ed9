"""What the node knows about its own health, and the diagnostics made of it. Counting is thread-safe and cheap."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from occ_perception.types import PathStatus

WINDOW_FRAMES = 1000
"""Latency percentiles cover this many frames: 100 s at 10 Hz."""
TOTAL = "receive_to_publish"
OUTSIDE = "outside_engine"
ENGINE = "engine"

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass
class SensorHealth:
    """Counters of one sensor. `kind` is image, cloud or odometry; times are `time.monotonic`, seconds."""

    kind: str
    since_s: float
    last_s: float | None = None
    received: int = 0
    received_at_report: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)


class Health:
    """Counters of the whole node, filled by callbacks and worker and read by the diagnostics timer.

    Args:
        sensors: kind (image, cloud, odometry) of every sensor by name.
        anchor: the camera whose every image should be answered: what it loses, the frames lose.
        stale_after_s: silence after which a sensor is a warning, and a path is too old to be told of; three times as
            long a silence of a camera is an error.
    """

    def __init__(self, sensors: Mapping[str, str], anchor: str, stale_after_s: float) -> None:
        now_s = time.monotonic()
        self._sensors = {name: SensorHealth(kind, now_s) for name, kind in sensors.items()}
        self._anchor = anchor
        self._stale_after_s = stale_after_s
        self._lock = threading.Lock()
        self._stages_ms: dict[str, deque[float]] = {}
        self._drops: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._answered = 0
        self._at_report = (now_s, 0, 0)  # time, frames answered, frames dropped
        self._oldest_s = 0.0
        self._resets: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._flags_at_report: Counter[str] = Counter()
        self._paths: Counter[PathStatus] = Counter()
        self._last_path = (now_s, PathStatus.UNCHECKED)

    # --- counting ---

    def received(self, sensor: str) -> None:
        """A message of that sensor came in."""
        health = self._sensors[sensor]  # one writer per sensor: no lock needed
        health.received += 1
        health.last_s = time.monotonic()

    def sensor_dropped(self, sensor: str, reason: str, count: int = 1) -> None:
        """Messages of one sensor went unused."""
        with self._lock:
            self._sensors[sensor].drops[reason] += count
            if sensor == self._anchor:
                self._drops[reason] += count

    def frame_dropped(self, reason: str, count: int = 1) -> None:
        """Anchor images that got no answer."""
        with self._lock:
            self._drops[reason] += count

    def unused(self, reason: str, count: int = 1) -> None:
        """Messages of sensors beside the anchor that could not be used; their frames were answered without them."""
        with self._lock:
            self._unused[reason] += count

    def too_old(self, age_s: float) -> None:
        """A frame was dropped for its age."""
        with self._lock:
            self._drops["too_old"] += 1
            self._oldest_s = max(self._oldest_s, age_s)

    def was_reset(self, reason: str) -> None:
        """The pipeline forgot its state."""
        with self._lock:
            self._resets[reason] += 1

    def answered(self, timings_ms: Mapping[str, float], path: PathStatus | None = None,
                 flags: Iterable[str] = ()) -> None:
        """A frame went out: `timings_ms` by stage, `path` what the check of its path found, `flags` of its grid."""
        with self._lock:
            self._answered += 1
            self._flags.update(flags)
            if path is not None:
                self._paths[path] += 1
                self._last_path = (time.monotonic(), path)
            for stage, value in timings_ms.items():
                self._stages_ms.setdefault(stage, deque(maxlen=WINDOW_FRAMES)).append(value)

    def set_fault(self, sensor: str, name: str, text: str | None) -> None:
        """Note what is wrong with a sensor (its calibration, its quality of service), or that it is right again."""
        with self._lock:
            faults = self._sensors[sensor].faults
            if text is None:
                faults.pop(name, None)
            else:
                faults[name] = text

    # --- reporting ---

    def statuses(self, node: str, hardware_id: str) -> list[DiagnosticStatus]:
        """One status for the frames, one per sensor, one for paths if there were any; rates are since the last call."""
        with self._lock:
            now_s = time.monotonic()
            passed_s = max(now_s - self._at_report[0], 1e-9)
            statuses = [self._frames(node, hardware_id, passed_s)]
            statuses += [self._sensor(node, hardware_id, name, now_s, passed_s) for name in self._sensors]
            if self._paths:
                statuses.append(self._path(node, hardware_id, now_s))
            self._at_report = (now_s, self._answered, sum(self._drops.values()))
            return statuses

    def _frames(self, node: str, hardware_id: str, passed_s: float) -> DiagnosticStatus:
        answered = self._answered - self._at_report[1]
        dropped = sum(self._drops.values()) - self._at_report[2]
        level, message = OK, f"{answered / passed_s:.1f} frames/s"
        if self._oldest_s > 0 and not answered:
            level, message = ERROR, (f"every frame is too old (up to {self._oldest_s:.1f} s): clocks differ, or a bag "
                                     "plays without use_sim_time or --restamp")
        else:
            faults = [f"{dropped} dropped"] if dropped else []
            grown = self._flags - self._flags_at_report
            faults += [f"{count} flagged {flag}" for flag, count in sorted(grown.items())]
            if faults:
                level, message = WARN, ", ".join([message, *faults])
        self._oldest_s = 0.0
        self._flags_at_report = self._flags.copy()
        values: dict[str, Any] = {"answered": self._answered, "rate_hz": f"{answered / passed_s:.2f}"}
        for stage, window in self._stages_ms.items():
            for p, value in zip((50, 95, 99), np.percentile(list(window), (50, 95, 99)), strict=True):
                values[f"{stage}_p{p}_ms"] = f"{value:.2f}"
        values |= {f"flag_{flag}": count for flag, count in sorted(self._flags.items())}
        values |= {f"dropped_{reason}": count for reason, count in sorted(self._drops.items())}
        values |= {f"unused_{reason}": count for reason, count in sorted(self._unused.items())}
        values |= {f"reset_{reason}": count for reason, count in sorted(self._resets.items())}
        return status(f"{node}: frames", hardware_id, level, message, values)

    def _path(self, node: str, hardware_id: str, now_s: float) -> DiagnosticStatus:
        """The last path while it is news. A blocked way is no fault of the node, but to have none to tell of is."""
        counts = {found.name.lower(): self._paths[found] for found in PathStatus if found}
        told_s, last = self._last_path
        level, message = OK, last.name.lower()
        if now_s - told_s > self._stale_after_s:
            level, message = WARN, f"no path for {now_s - told_s:.1f} s"
        return status(f"{node}: path", hardware_id, level, message, counts)

    def _sensor(self, node: str, hardware_id: str, name: str, now_s: float, passed_s: float) -> DiagnosticStatus:
        sensor = self._sensors[name]
        noun = sensor.kind
        silent_s = now_s - (sensor.since_s if sensor.last_s is None else sensor.last_s)
        rate_hz = (sensor.received - sensor.received_at_report) / passed_s
        sensor.received_at_report = sensor.received
        level, message = OK, f"{rate_hz:.1f} Hz"
        if silent_s > self._stale_after_s:
            # Without odometry and scans frames are still answered, only without a pose and with less to go by.
            level = ERROR if silent_s > 3 * self._stale_after_s and noun == "image" else WARN
            message = f"no {noun} {'for' if sensor.last_s is not None else 'yet, after'} {silent_s:.1f} s"
        if sensor.faults:
            level = ERROR
            message = "; ".join([*sensor.faults.values(), message])
        values: dict[str, Any] = {"received": sensor.received, "rate_hz": f"{rate_hz:.2f}"}
        values["silent_s"] = f"{silent_s:.2f}"
        values |= {f"dropped_{reason}": count for reason, count in sorted(sensor.drops.items())}
        return status(f"{node}: {name}", hardware_id, level, message, values)


def status(name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """A DiagnosticStatus with its values as text."""
    return DiagnosticStatus(name=name, hardware_id=hardware_id, level=level, message=message,
                            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def as_dict(statuses: Iterable[DiagnosticStatus]) -> dict[str, dict[str, str]]:
    """Statuses by the part of their name behind the node's: level, message and values as text."""
    return {
        item.name.split(": ", 1)[-1]: {
            "level": str(int.from_bytes(item.level, "little")), "message": item.message,
            **{pair.key: pair.value for pair in item.values},
        }
        for item in statuses
    }
