"""The newest wins between callbacks and the worker, and what it replaced is counted."""

from __future__ import annotations

import threading

from occ_perception.ros.inbox import Inbox


def test_the_newest_of_each_sensor_is_taken_in_order_of_arrival() -> None:
    inbox = Inbox()
    for sensor, message in (("front", 1), ("left", 2), ("front", 3)):
        inbox.put(sensor, message)
    taken = inbox.take()
    assert taken is not None
    assert [(arrival.sensor, arrival.message) for arrival in taken] == [("left", 2), ("front", 3)]
    assert inbox.take_replaced() == {"front": 1}
    assert inbox.take_replaced() == {}


def test_a_stream_keeps_its_burst_and_comes_first() -> None:
    inbox = Inbox(streams=frozenset({"odometry"}), burst=3)
    for number in range(5):
        inbox.put("odometry", number)
    assert [arrival.message for arrival in inbox.take() or []] == [2, 3, 4]
    for number in range(2):
        inbox.put("odometry", number)
    inbox.put("front", "image")
    assert [arrival.message for arrival in inbox.take() or []] == [0, 1, "image"]


def test_closing_wakes_the_one_who_waits() -> None:
    inbox = Inbox()
    result: list[object] = []
    waiter = threading.Thread(target=lambda: result.append(inbox.take()))
    waiter.start()
    inbox.close()
    waiter.join(5.0)
    assert result == [None]


def test_waiting_ends_after_the_timeout_with_nothing() -> None:
    assert Inbox().take(timeout_s=0.01) == []
