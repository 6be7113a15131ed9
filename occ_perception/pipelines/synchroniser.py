"""Brings the messages of several sensors together around an anchor camera. Bounded, and every drop has a reason.

It looks only at stamps and never into a payload, so that messages are decoded once a set is complete.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from occ_perception.errors import ConfigurationError

REASONS = {
    "no_stamp": "the stamp is zero or negative",
    "duplicate": "the sensor gave this stamp before",
    "stamp_went_back": "the stamp is older than the sensor's last one",
    "too_old": "it arrived after the set that it belongs to had gone out",
    "no_match": "it waited, and no anchor came near it",
    "overflow": "more waited than the queue holds",
    "clock_jump": "it waited when the clock jumped back",
}
"""Why an item was dropped, by the key of `Synchroniser.drops`."""


@dataclass(frozen=True)
class SyncedSet:
    """What the sensors gave around one anchor stamp.

    Attributes:
        stamp_ns: corrected stamp of the anchor.
        payloads: by sensor, as pushed; always holds the anchor.
        stamps_ns: by sensor, corrected by the sensor's offset.
        missing: sensors that gave nothing near the anchor.
        after_jump: the first set after the clock jumped back; whoever holds a state must reset it.
    """

    stamp_ns: int
    payloads: Mapping[str, Any]
    stamps_ns: Mapping[str, int]
    missing: frozenset[str] = frozenset()
    after_jump: bool = False


@dataclass
class _Queue:
    """Items of one sensor. `older_ns`: how much older than the anchor one may be; `used_ns`: the held one's stamp."""

    offset_ns: int
    older_ns: int
    held: bool
    last_ns: int | None = None
    used_ns: int | None = None
    items: deque[tuple[int, Any]] = field(default_factory=deque)


class Synchroniser:
    """Matches every anchor item with the nearest item at hand of every other sensor.

    A set goes out as soon as every other sensor has an item within the tolerance. It waits for the absent ones at
    most `wait_s` of stamp time; a sensor that has been silent for `silent_s` is not waited for until it returns.
    A held sensor is never waited for: each set takes what is at hand of it, again and again until something newer is
    there. That suits scans, which arrive when their sweep is complete, long after the stamp of their first point. It
    steers nothing: its stamps neither end a wait nor say what time it is, and a jump of its clock costs only its own.
    Every pushed item is used in one set (a held one in several), pending, or counted in `drops`.

    Args:
        anchor: the sensor whose stamps the results carry.
        sensors: all other sensors.
        tolerance_s: largest difference of corrected stamps within a set.
        wait_s: how long an anchor waits for the others.
        silent_s: silence after which a sensor counts as dead.
        offsets_s: by sensor, added to its stamps (`time_offset_s` of the rig).
        held_s: by held sensor, how much older than the anchor its item may be, instead of the tolerance.
        capacity: items that wait per sensor.
        jump_back_s: a stamp further back than this is a jump of the clock, which drops everything that waits (of a
            held sensor: what is at hand of it).
    """

    def __init__(
        self,
        anchor: str,
        sensors: Sequence[str] = (),
        *,
        tolerance_s: float = 0.05,
        wait_s: float = 0.05,
        silent_s: float = 0.5,
        offsets_s: Mapping[str, float] | None = None,
        held_s: Mapping[str, float] | None = None,
        capacity: int = 8,
        jump_back_s: float = 1.0,
    ) -> None:
        offsets, held = dict(offsets_s or {}), dict(held_s or {})
        faults = [f"{name} must be positive, got {value}" for name, value in
                  (("capacity", capacity), ("jump_back_s", jump_back_s)) if not value > 0]
        faults += [f"{name} must not be negative, got {value}" for name, value in
                   (("tolerance_s", tolerance_s), ("wait_s", wait_s), ("silent_s", silent_s)) if not value >= 0]
        names = [anchor, *sensors]
        faults += [f"sensor {name!r} is named twice" for name, count in Counter(names).items() if count > 1]
        faults += [f"offset of unknown sensor {name!r}" for name in offsets if name not in names]
        faults += [f"held sensor {name!r} is none of the others" for name in held if name not in sensors]
        faults += [f"held_s of {name!r} must not be negative, got {age_s}" for name, age_s in held.items()
                   if not age_s >= 0]
        if faults:
            raise ConfigurationError(faults, where="synchroniser")
        self.anchor = anchor
        self.held = frozenset(held)
        self.drops: Counter[str] = Counter()
        self.drops_by_sensor: Counter[tuple[str, str]] = Counter()
        self.jumps = 0
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._wait_ns = round(wait_s * 1e9)
        self._silent_ns = round(silent_s * 1e9)
        self._jump_ns = round(jump_back_s * 1e9)
        self._capacity = capacity
        self._queues = {
            name: _Queue(round(offsets.get(name, 0.0) * 1e9), round(held.get(name, tolerance_s) * 1e9), name in held)
            for name in names
        }
        self._first_ns: int | None = None
        self._now_ns = 0
        self._emitted_ns: int | None = None
        self._after_jump = False

    @property
    def pending(self) -> int:
        """Number of items that wait; those of held sensors lie ready instead."""
        return sum(len(queue.items) for queue in self._queues.values() if not queue.held)

    @property
    def now_ns(self) -> int:
        """Newest corrected stamp of the sensors that are not held; 0 before the first one and after a jump."""
        return self._now_ns

    def push(self, sensor: str, stamp_ns: int, payload: Any) -> list[SyncedSet]:
        """Take one item and return the sets that are now complete, oldest first.

        Raises:
            ConfigurationError: a sensor that was not announced.
        """
        queue = self._queues.get(sensor)
        if queue is None:
            raise ConfigurationError([f"sensor {sensor!r} is unknown"], where="synchroniser",
                                     fix=f"Announced: {', '.join(self._queues)}")
        if stamp_ns <= 0:
            self._drop(sensor, "no_stamp")
            return []
        stamp_ns += queue.offset_ns
        if queue.last_ns is not None and stamp_ns <= queue.last_ns:
            if queue.last_ns - stamp_ns < self._jump_ns:
                self._drop(sensor, "duplicate" if stamp_ns == queue.last_ns else "stamp_went_back")
                return []
            if queue.held:
                self._forget(sensor)
            else:
                self.reset()
        queue.last_ns = stamp_ns
        if not queue.held:
            self._first_ns = stamp_ns if self._first_ns is None else self._first_ns
            self._now_ns = max(self._now_ns, stamp_ns)
        if sensor != self.anchor and self._emitted_ns is not None and stamp_ns < self._emitted_ns - queue.older_ns:
            self._drop(sensor, "too_old")
            return []
        queue.items.append((stamp_ns, payload))
        complete = self._collect(self._now_ns)
        if len(queue.items) > self._capacity:
            self._drop_first(sensor, "overflow")
        return complete

    def expire(self, now_ns: int) -> list[SyncedSet]:
        """Sets whose waiting is over at `now_ns` (clock of the stamps): for a timer, when all sensors are still."""
        return self._collect(now_ns)

    def flush(self) -> list[SyncedSet]:
        """All sets that still wait, with what is at hand: for the end of a recording."""
        return self._collect(None)

    def reset(self) -> None:
        """Drop everything that waits and forget all stamps; the next set says `after_jump`."""
        for name in self._queues:
            self._forget(name)
        self.jumps += 1
        self._after_jump = True
        self._first_ns = self._emitted_ns = None
        self._now_ns = 0

    def _forget(self, sensor: str) -> None:
        queue = self._queues[sensor]
        while queue.items:
            self._drop_first(sensor, "clock_jump")
        queue.last_ns = queue.used_ns = None

    def _drop(self, sensor: str, reason: str) -> None:
        self.drops[reason] += 1
        self.drops_by_sensor[sensor, reason] += 1

    def _drop_first(self, sensor: str, reason: str) -> None:
        """Let go of the sensor's oldest item; one that was held and used is no loss."""
        queue = self._queues[sensor]
        if queue.items.popleft()[0] != queue.used_ns:
            self._drop(sensor, reason)

    def _collect(self, now_ns: int | None) -> list[SyncedSet]:
        """Sets that are complete, or whose waiting is over at `now_ns` (None: all)."""
        complete = []
        anchors = self._queues[self.anchor].items
        while anchors:
            stamp_ns = anchors[0][0]
            matches = {name: self._nearest(name, stamp_ns) for name in self._queues if name != self.anchor}
            if now_ns is not None and now_ns - stamp_ns < self._wait_ns and any(
                match is None and self._may_come(name, stamp_ns) for name, match in matches.items()
            ):
                break
            complete.append(self._emit(matches))
        return complete

    def _nearest(self, sensor: str, stamp_ns: int) -> int | None:
        """Position in the sensor's queue of the item nearest to `stamp_ns`, or None where none is near enough."""
        queue = self._queues[sensor]
        late_ns = {i: item_ns - stamp_ns for i, (item_ns, _) in enumerate(queue.items)}
        near = [i for i, late in late_ns.items() if -queue.older_ns <= late <= self._tolerance_ns]
        return min(near, key=lambda i: abs(late_ns[i]), default=None)

    def _may_come(self, sensor: str, stamp_ns: int) -> bool:
        """Whether an item near `stamp_ns` can still be hoped for."""
        if self._queues[sensor].held:
            return False
        last_ns = self._queues[sensor].last_ns
        if last_ns is None:  # never heard: hoped for only while the stream is young
            return self._first_ns is not None and stamp_ns - self._first_ns <= self._silent_ns
        return last_ns < stamp_ns + self._tolerance_ns and stamp_ns - last_ns <= self._silent_ns

    def _emit(self, matches: Mapping[str, int | None]) -> SyncedSet:
        stamp_ns, payload = self._queues[self.anchor].items.popleft()
        payloads, stamps = {self.anchor: payload}, {self.anchor: stamp_ns}
        for name, match in matches.items():
            queue = self._queues[name]
            oldest_ns = stamp_ns - queue.older_ns
            older = match if match is not None else sum(1 for item in queue.items if item[0] < oldest_ns)
            for _ in range(older):  # later anchors are newer still: these have no chance any more
                self._drop_first(name, "no_match")
            if match is not None:
                stamps[name], payloads[name] = queue.items[0]
                if queue.held:
                    queue.used_ns = stamps[name]
                else:
                    queue.items.popleft()
        self._emitted_ns = stamp_ns
        after_jump, self._after_jump = self._after_jump, False
        missing = frozenset(name for name, match in matches.items() if match is None)
        return SyncedSet(stamp_ns, payloads, stamps, missing, after_jump)
