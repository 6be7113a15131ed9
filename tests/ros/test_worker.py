"""The worker's thread outlives whatever a frame does to it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.errors import EngineError
from occ_perception.pipelines import OdometryBuffer, SyncedSet, Synchroniser
from occ_perception.ros.diagnostics import Health, as_dict
from occ_perception.ros.inbox import Arrival, Inbox
from occ_perception.ros.worker import Worker

pytestmark = pytest.mark.ros


class Stage:
    """A worker around stand-ins; what `step` and `publish` do is set by the test."""

    def __init__(self, synchroniser: Synchroniser | None = None) -> None:
        kinds = {"front": "image", "left": "image", "top": "cloud", "odometry": "odometry"}
        self.health = Health(kinds, anchor="front", stale_after_s=10.0)
        self.inbox = Inbox(frozenset({"odometry"}))
        self.done, self.logged, self.running = threading.Semaphore(0), [], True
        self.resets: list[str] = []
        self.now_ns = 0
        self.step: Any = lambda frame: SimpleNamespace(
            timings_ms={"engine": 1.0}, trajectory=None, grid=SimpleNamespace(flags={"no_odometry"}))
        self.worker = Worker(
            self.inbox, synchroniser or Synchroniser("front"), OdometryBuffer(),
            SimpleNamespace(assemble=self._assemble, drops=Counter()),
            SimpleNamespace(step=lambda frame: self.step(frame), reset=self.resets.append),
            lambda result: self.done.release(), self.health, now_ns=lambda: self.now_ns, max_age_ms=500.0, wait_s=0.0,
            log_error=self._log, alive=lambda: self.running)

    def _assemble(self, synced: SyncedSet) -> SyncedSet:
        self.answered = synced
        return synced

    def _log(self, text: str) -> None:
        self.logged.append(text)
        self.done.release()

    def image(self, stamp_ns: int) -> None:
        """Hand in one image and wait until it was answered or complained of."""
        self.inbox.put("front", message(stamp_ns))
        assert self.done.acquire(timeout=5.0)

    def frames(self) -> dict[str, str]:
        return as_dict(self.health.statuses("node", "id"))["frames"]


def message(stamp_ns: int) -> Any:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp))


@pytest.fixture
def stage() -> Any:
    stage = Stage()
    stage.worker.start()
    yield stage
    stage.worker.stop()


@pytest.mark.parametrize(("error", "reason"), [
    (EngineError("out of memory"), "not_answered"), (ZeroDivisionError("never expected"), "internal_error"),
])
def test_a_frame_that_breaks_is_counted_and_the_next_one_is_answered(stage: Any, error: Exception, reason: str) -> None:
    def breaks(frame: Any) -> Any:
        raise error

    good, stage.step = stage.step, breaks
    stage.image(1_000_000_000)
    stage.step = good
    stage.image(1_100_000_000)
    stage.worker.stop()
    assert stage.frames()[f"dropped_{reason}"] == "1"
    assert stage.frames()["answered"] == "1"
    assert len(stage.logged) == 1
    assert str(error) in stage.logged[0]


def scanned(**offsets_s: float) -> Stage:
    """A worker that waits for the camera `left` and takes what is at hand of the LiDAR `top`; it is not started."""
    return Stage(Synchroniser("front", ["left", "top"], held_s={"top": 0.3}, offsets_s=offsets_s))


def test_a_scan_that_came_with_the_image_is_taken_although_it_came_after_it() -> None:
    stage = scanned()
    stage.worker._work([Arrival("left", message(10**9), 1), Arrival("front", message(10**9), 2),
                        Arrival("top", message(950_000_000), 3)])
    assert stage.answered.payloads.keys() == {"front", "left", "top"}


@pytest.mark.parametrize("scan_ns", [38 * 10**9, 905_000_000])  # 37 s ahead of the cameras, 95 ms behind them
def test_a_wait_is_measured_by_the_clock_of_the_cameras_alone(scan_ns: int) -> None:
    stage = scanned(front=0.01)
    came_ns = time.monotonic_ns()
    stage.worker._work([Arrival("left", message(900_000_000), came_ns), Arrival("front", message(10**9), came_ns)])
    stage.worker._work([Arrival("top", message(scan_ns), came_ns)])
    assert stage.worker._newest == (1_010_000_000, came_ns)


def test_a_jump_of_the_clock_resets_the_pipeline(stage: Any) -> None:
    stage.image(10_000_000_000)
    stage.image(2_000_000_000)
    stage.worker.stop()
    assert stage.resets == ["clock_jump"]
    assert stage.frames()["reset_clock_jump"] == "1"
    assert stage.frames()["answered"] == "2"


def test_stages_are_summed_into_what_lies_outside_the_engine(stage: Any) -> None:
    stage.image(1_000_000_000)
    stage.worker.stop()
    frames = stage.frames()
    total, outside = (float(frames[f"{name}_p50_ms"]) for name in ("receive_to_publish", "outside_engine"))
    assert np.isclose(total - outside, 1.0, atol=0.011)
    assert frames["flag_no_odometry"] == "1"


def test_after_ros_was_shut_down_an_error_ends_the_thread_quietly(stage: Any) -> None:
    met = threading.Event()

    def breaks(frame: Any) -> Any:
        met.set()
        raise RuntimeError("the context is invalid")

    stage.step, stage.running = breaks, False
    stage.inbox.put("front", message(10**9))
    assert met.wait(5.0)
    stage.worker.stop()
    assert stage.logged == []


def test_a_stamp_far_ahead_of_the_clock_is_dropped_and_counted(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, count = [], stage.health.frame_dropped

    def counting(reason: str, number: int = 1) -> None:
        count(reason, number)
        counted.append(reason)
        stage.done.release()

    monkeypatch.setattr(stage.health, "frame_dropped", counting)
    stage.now_ns = 1_000_000_000
    stage.image(1_600_000_000)
    assert counted == ["from_the_future"]
    stage.now_ns = 1_700_000_000
    stage.image(1_700_000_000)
    assert stage.frames()["answered"] == "1"
