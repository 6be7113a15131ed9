"""What the diagnostics say of frames and paths, at times that the test sets."""

from __future__ import annotations

from typing import Any

import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.ros import diagnostics
from occ_perception.ros.diagnostics import Health, as_dict
from occ_perception.types import PathStatus

pytestmark = pytest.mark.ros

OK, WARN = "0", "1"


class Clock:
    """Health that lives at `now_s`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(diagnostics.time, "monotonic", lambda: self.now_s)
        self.health = Health({"front": "image"}, anchor="front", stale_after_s=1.0)

    def report(self, part: str) -> tuple[str, str]:
        """Level and message a second later."""
        self.now_s += 1.0
        self.values = as_dict(self.health.statuses("node", "id"))[part]
        return self.values["level"], self.values["message"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return Clock(monkeypatch)


def test_flags_are_counted_and_warn_while_they_come(clock: Any) -> None:
    clock.health.answered({})
    assert clock.report("frames") == (OK, "1.0 frames/s")
    for flags in ({"no_lidar"}, {"no_lidar", "camera_missing:left"}, ()):
        clock.health.answered({}, flags=flags)
    clock.health.frame_dropped("replaced")
    assert clock.report("frames") == (
        WARN, "3.0 frames/s, 1 dropped, 1 flagged camera_missing:left, 2 flagged no_lidar")
    assert (clock.values["flag_no_lidar"], clock.values["flag_camera_missing:left"]) == ("2", "1")
    clock.health.answered({})
    assert clock.report("frames") == (OK, "1.0 frames/s")
    assert clock.values["flag_no_lidar"] == "2"


def test_an_old_path_is_not_told_for_ever(clock: Any) -> None:
    clock.health.answered({}, PathStatus.BLOCKED)
    assert clock.report("path") == (OK, "blocked")
    assert clock.report("path") == (WARN, "no path for 2.0 s")
    clock.health.answered({}, PathStatus.CLEAR)
    assert clock.report("path") == (OK, "clear")
    assert (clock.values["blocked"], clock.values["clear"], clock.values["caution"]) == ("1", "1", "0")
