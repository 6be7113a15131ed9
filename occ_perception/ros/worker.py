"""The one thread that infers: newest messages -> synchroniser -> frame -> pipeline -> publish, timed and counted."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from occ_perception.errors import BadMessage, OccPerceptionError
from occ_perception.pipelines import (
    FrameAssembler,
    OccupancyPipeline,
    OccupancyResult,
    OdometryBuffer,
    SyncedSet,
    Synchroniser,
)
from occ_perception.recordings.decode import decode_odometry, stamp_ns
from occ_perception.recordings.frames import ODOMETRY
from occ_perception.ros.diagnostics import ENGINE, OUTSIDE, TOTAL, Health
from occ_perception.ros.inbox import Arrival, Inbox

_MS_NS = 1e6


class Worker:
    """Answers frames until it is stopped. Nothing that a message holds can end it.

    Args:
        inbox: where callbacks leave their messages; the worker closes it.
        synchroniser: brings sensors together around the anchor camera.
        odometry: buffer of poses that the assembler reads.
        assembler: decodes a synchronised set.
        pipeline: infers.
        publish: hands a result out.
        health: is told everything.
        now_ns: the node's clock, for the age of frames; 0 while it is not known.
        max_age_ms: older frames are dropped undecoded; 0 never drops.
        wait_s: how long an anchor may wait for other sensors.
        log_error: is given one line per new kind of failure.
        alive: whether ROS still runs.
    """

    def __init__(self, inbox: Inbox, synchroniser: Synchroniser, odometry: OdometryBuffer, assembler: FrameAssembler,
                 pipeline: OccupancyPipeline, publish: Callable[[OccupancyResult], None], health: Health, *,
                 now_ns: Callable[[], int], max_age_ms: float, wait_s: float,
                 log_error: Callable[[str], None], alive: Callable[[], bool]) -> None:
        self._inbox, self._synchroniser, self._odometry = inbox, synchroniser, odometry
        self._assembler, self._pipeline, self._publish, self._health = assembler, pipeline, publish, health
        self._now_ns, self._max_age_ms, self._wait_s = now_ns, max_age_ms, wait_s
        self._log_error, self._alive = log_error, alive
        self._counted: Counter[tuple[str, str]] = Counter()
        self._unused: Counter[str] = Counter()
        self._logged: set[str] = set()
        self._newest = (0, 0)  # newest stamp that the synchroniser goes by, and time.monotonic_ns when it came
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the frame at hand and return when the thread has ended."""
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        patience_s = max(self._wait_s, 0.01)
        while (arrivals := self._inbox.take(patience_s if self._synchroniser.pending else None)) is not None:
            try:
                self._work(arrivals)
                self._count_drops()
            except Exception as error:  # whatever it was, the next frame may be good
                if not self._alive():
                    return  # ROS was shut down under us: nobody hears what we publish
                self._health.frame_dropped("internal_error")
                self._log_once(f"{type(error).__name__}: {error}", traceback.format_exc())

    def _work(self, arrivals: list[Arrival]) -> None:
        complete: list[SyncedSet] = []
        # Held sensors first: a set goes out with its last camera, and takes only what is at hand by then.
        for arrival in sorted(arrivals, key=lambda arrival: arrival.sensor not in self._synchroniser.held):
            if arrival.sensor == ODOMETRY:
                self._take_odometry(arrival)
                continue
            complete += self._synchroniser.push(arrival.sensor, stamp_ns(arrival.message.header), arrival)
            if self._synchroniser.now_ns != self._newest[0]:
                self._newest = (self._synchroniser.now_ns, arrival.received_ns)
        if not complete and self._synchroniser.pending:
            stamp, received_ns = self._newest
            complete = self._synchroniser.expire(stamp + time.monotonic_ns() - received_ns)
        if complete:
            if len(complete) > 1:
                self._health.frame_dropped("replaced", len(complete) - 1)
            self._answer(complete[-1], jumped=any(item.after_jump for item in complete))

    def _take_odometry(self, arrival: Arrival) -> None:
        try:
            self._odometry.push(decode_odometry(arrival.message))
        except BadMessage as error:
            self._health.sensor_dropped(ODOMETRY, error.reason)
            self._log_once(f"{ODOMETRY}: {error.reason}", str(error))

    def _answer(self, synced: SyncedSet, jumped: bool) -> None:
        began_ns = time.monotonic_ns()
        if jumped:
            self._pipeline.reset("clock_jump")
            self._health.was_reset("clock_jump")
        now_ns = self._now_ns()
        age_ms = (now_ns - synced.stamp_ns) / _MS_NS if now_ns > 0 else 0.0
        if 0 < self._max_age_ms < age_ms:
            self._health.too_old(age_ms / 1e3)
            return
        if 0 < self._max_age_ms < -age_ms:
            self._health.frame_dropped("from_the_future")
            return
        anchor: Arrival = synced.payloads[self._synchroniser.anchor]
        try:
            frame = self._assembler.assemble(_messages(synced))
            assembled_ns = time.monotonic_ns()
            result = self._pipeline.step(frame)
        except BadMessage as error:
            self._health.frame_dropped(error.reason)
            self._log_once(f"frame: {error.reason}", str(error))
            return
        except OccPerceptionError as error:
            self._health.frame_dropped("not_answered")
            self._log_once(f"frame: {type(error).__name__}", str(error))
            return
        answered_ns = time.monotonic_ns()
        self._publish(result)
        published_ns = time.monotonic_ns()
        total_ms = (published_ns - anchor.received_ns) / _MS_NS
        self._health.answered({
            "wait": (began_ns - anchor.received_ns) / _MS_NS, "assemble": (assembled_ns - began_ns) / _MS_NS,
            **result.timings_ms, "step": (answered_ns - assembled_ns) / _MS_NS,
            "publish": (published_ns - answered_ns) / _MS_NS, TOTAL: total_ms,
            OUTSIDE: total_ms - result.timings_ms.get(ENGINE, 0.0),
        }, None if result.trajectory is None else result.trajectory.status, result.grid.flags)

    def _count_drops(self) -> None:
        """Hand on what inbox, synchroniser and buffer dropped since the last time."""
        for sensor, count in self._inbox.take_replaced().items():
            self._health.sensor_dropped(sensor, "replaced", count)
        current = Counter(self._synchroniser.drops_by_sensor)
        current.update({(ODOMETRY, reason): count for reason, count in self._odometry.drops.items()})
        for (sensor, reason), count in (current - self._counted).items():
            self._health.sensor_dropped(sensor, reason, count)
        self._counted = current
        for reason, count in (self._assembler.drops - self._unused).items():
            self._health.unused(reason, count)
        self._unused = Counter(self._assembler.drops)

    def _log_once(self, kind: str, text: str) -> None:
        """Say each kind of failure once; after that the counters tell."""
        if kind not in self._logged:
            self._logged.add(kind)
            self._log_error(f"{kind}: {text}; further ones are only counted in the diagnostics")


def _messages(synced: SyncedSet) -> SyncedSet:
    """The set with the messages themselves as payloads."""
    return replace(synced, payloads={name: arrival.message for name, arrival in synced.payloads.items()})
