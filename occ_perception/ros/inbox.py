"""Between ROS callbacks and the worker: keeps the newest message of each sensor, and counts what it replaced."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arrival:
    """One message as it came in; `received_ns` is `time.monotonic_ns` in the callback."""

    sensor: str
    message: Any
    received_ns: int


class Inbox:
    """A mailbox in which the newest wins. Callbacks put, one worker takes.

    Args:
        streams: sensors of which a burst is kept instead of the newest alone (odometry).
        burst: how many messages of a stream are kept.
    """

    def __init__(self, streams: frozenset[str] = frozenset(), burst: int = 200) -> None:
        self._streams = {name: deque[Arrival](maxlen=burst) for name in streams}
        self._newest: dict[str, Arrival] = {}
        self._replaced: Counter[str] = Counter()
        self._closed = False
        self._condition = threading.Condition()

    def put(self, sensor: str, message: Any) -> None:
        """Keep a message; called from callbacks, so it does nothing else."""
        arrival = Arrival(sensor, message, time.monotonic_ns())
        with self._condition:
            if sensor in self._streams:
                self._streams[sensor].append(arrival)
            else:
                if self._newest.pop(sensor, None) is not None:
                    self._replaced[sensor] += 1
                self._newest[sensor] = arrival
            self._condition.notify()

    def take(self, timeout_s: float | None = None) -> list[Arrival] | None:
        """Wait for a message and take all there are, streams first; None once closed, empty after `timeout_s`."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._newest or any(self._streams.values()), timeout_s)
            if self._closed:
                return None
            arrivals = [arrival for stream in self._streams.values() for arrival in stream]
            arrivals += sorted(self._newest.values(), key=lambda arrival: arrival.received_ns)
            self._newest.clear()
            for stream in self._streams.values():
                stream.clear()
            return arrivals

    def take_replaced(self) -> Counter[str]:
        """How many messages of each sensor were replaced before anybody took them, since the last call."""
        with self._condition:
            replaced, self._replaced = self._replaced, Counter()
            return replaced

    def close(self) -> None:
        """Wake the worker for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
