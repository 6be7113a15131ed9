"""Publishes a bag in its own time. Messages stay serialised, so that playing costs next to nothing."""

from __future__ import annotations

import argparse
import math
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from occ_perception.errors import OccPerceptionError, RecordingError
from occ_perception.recordings.bag import BagReader
from occ_perception.ros import qos
from occ_perception.ros.environment import use_transport_profile
from occ_perception.ros.interrupts import end_in_peace
from occ_perception.ros.messages import message_class

_LATCHED_TOPICS = frozenset({"/tf_static"})
_NEVER_UNASKED = ("/clock", "/diagnostics")
"""What living nodes publish themselves; a recorded copy beside it would be a second voice. So are `*/output/*`."""
_SECOND_NS = 1_000_000_000
_SETTLE_S = 0.5
"""A reader learns of us a moment after we learn of it; what a best-effort reader misses until then is lost."""


@dataclass(frozen=True)
class Timeline:
    """Maps times of the bag to times of the wall: `start_ns` of the bag is played at `wall_ns`."""

    start_ns: int
    wall_ns: int
    rate: float

    def wall(self, bag_ns: int) -> int:
        """Wall time at which `bag_ns` is due, nanoseconds."""
        return self.wall_ns + round((bag_ns - self.start_ns) / self.rate)

    def bag(self, wall_ns: int) -> int:
        """Bag time that is due at `wall_ns`, nanoseconds."""
        return self.start_ns + round((wall_ns - self.wall_ns) * self.rate)


def restamped(data: bytes, timeline: Timeline) -> bytes:
    """A serialised message whose first field is a header, with its stamp moved to wall time.

    A stamp of zero says that there is none and stays. Raises RecordingError where the moved stamp is no time of ROS.
    """
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    if not (seconds or nanoseconds):
        return bytes(data)
    stamp_ns = timeline.wall(seconds * _SECOND_NS + nanoseconds)
    if not 0 <= stamp_ns < 2**31 * _SECOND_NS:
        raise RecordingError(f"a stamp of {seconds} s is too far from the bag's own time to be moved", where="player",
                             fix="Play without --restamp")
    patched = bytearray(data)
    struct.pack_into(f"{order}iI", patched, 4, *divmod(stamp_ns, _SECOND_NS))
    return bytes(patched)


def _of_living_nodes(topic: str) -> bool:
    return topic in _NEVER_UNASKED or "/output/" in topic


def _begins_with_header(cls: Any) -> bool:
    return next(iter(cls.get_fields_and_field_types().values()), "") == "std_msgs/Header"


class Player:
    """Plays one bag through the publishers of `node`.

    Topic names lose their leading slash, so that a namespace given to the node moves the whole robot.

    Args:
        node: whose publishers are used; nobody needs to spin it.
        reader: an open bag.
        topics: which topics to play; None plays all whose message package is installed, but neither /clock nor
            /diagnostics nor what a node put out (`*/output/*`).
        rate: 2.0 plays twice as fast.
        restamp: move header stamps to wall time, as if the sensors were alive now.
        clock_hz: publish /clock with the bag's time at this rate; 0 does not.
    """

    def __init__(self, node: Node, reader: BagReader, *, topics: Sequence[str] | None = None, rate: float = 1.0,
                 restamp: bool = False, clock_hz: float = 0.0) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise RecordingError(f"rate must be positive, got {rate}", where="player")
        if restamp and clock_hz > 0:
            raise RecordingError("restamped messages live in wall time, a /clock in the bag's", where="player",
                                 fix="Ask for one of the two")
        self.published = 0
        self.loops = 0
        self._reader, self._rate, self._clock_hz = reader, rate, clock_hz
        self._stop = threading.Event()
        reader.require(topics or ())
        self._publishers: dict[str, Any] = {}
        self._restamped: set[str] = set()
        for topic, type_name in sorted(reader.topics.items()):
            if topic not in topics if topics is not None else _of_living_nodes(topic):
                continue
            try:
                cls = message_class(type_name)
            except (ImportError, AttributeError):
                node.get_logger().warning(f"{topic} is not played: {type_name} is not installed here")
                continue
            profile = qos.LATCHED if topic in _LATCHED_TOPICS else qos.PLAYBACK
            self._publishers[topic] = node.create_publisher(cls, topic.lstrip("/"), profile)
            if restamp and _begins_with_header(cls):
                self._restamped.add(topic)
        if not self._publishers:
            raise RecordingError("nothing in it can be played", where=str(reader.path))
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock_hz > 0 else None
        self._next_tick_ns = 0

    def stop(self) -> None:
        """Make `play` return soon; may be called from any thread."""
        self._stop.set()

    def wait_for_subscribers(self, topics: Sequence[str], timeout_s: float) -> None:
        """Return when every one of `topics` has a subscriber; without topics, when any played one has.

        Raises:
            RecordingError: it did not happen within `timeout_s`.
        """
        if unplayed := sorted(set(topics) - self._publishers.keys()):
            raise RecordingError(f"{', '.join(unplayed)} is not played", where="player",
                                 fix="Wait only for topics that are played")
        deadline = time.monotonic() + timeout_s
        while not self._stop.is_set():
            heard = {topic for topic, publisher in self._publishers.items() if publisher.get_subscription_count()}
            if heard >= set(topics) and heard:
                self._stop.wait(_SETTLE_S)
                return
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(set(topics) - heard)) or "any topic"
                raise RecordingError(f"nobody subscribed to {missing} within {timeout_s:g} s", where="player",
                                     fix="Start the readers first, or check their topic names")
            self._stop.wait(0.02)

    def play(self, loop: bool = False) -> None:
        """Publish everything once, or again and again; returns at the end or after `stop`."""
        while not self._stop.is_set():
            self._play_once()
            self.loops += 1
            if not loop:
                break
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1.0))

    def _play_once(self) -> None:
        timeline = Timeline(self._reader.start_ns, time.time_ns(), self._rate)
        for topic, due_ns, data in self._due(timeline):
            if not self._wait_until(timeline.wall(due_ns), timeline):
                return
            self._publishers[topic].publish(restamped(data, timeline) if topic in self._restamped else bytes(data))
            self.published += 1
        # A loop begins again after the usual pause between two messages of the slowest kind.
        self._wait_until(timeline.wall(self._reader.start_ns + self._reader.duration_ns) + _SECOND_NS // 10, timeline)

    def _due(self, timeline: Timeline) -> Iterator[tuple[str, int, bytes]]:
        for topic, time_ns, _, data in self._reader.raw_messages(list(self._publishers)):
            yield topic, time_ns, data

    def _wait_until(self, wall_ns: int, timeline: Timeline) -> bool:
        """Wait for a wall time, publishing the clock meanwhile; False when playing was stopped."""
        while (now_ns := self._tick(timeline)) < wall_ns:
            until_ns = wall_ns if self._clock is None else min(wall_ns, self._next_tick_ns)
            if self._stop.wait((until_ns - now_ns) / _SECOND_NS):
                return False
        return not self._stop.is_set()

    def _tick(self, timeline: Timeline) -> int:
        """Publish the clock if it is due; the wall time."""
        now_ns = time.time_ns()
        if self._clock is None or now_ns < self._next_tick_ns:
            return now_ns
        self._next_tick_ns = now_ns + round(_SECOND_NS / self._clock_hz)
        seconds, nanoseconds = divmod(timeline.bag(now_ns), _SECOND_NS)
        message = Clock()
        message.clock.sec, message.clock.nanosec = seconds, nanoseconds
        self._clock.publish(message)
        return now_ns


def parser() -> argparse.ArgumentParser:
    """Command line of the player."""
    result = argparse.ArgumentParser(prog="bag_player", description="Publish a bag in its own time.")
    result.add_argument("bag", help="rosbag2 folder, .mcap or .db3 file")
    result.add_argument("--topics", nargs="+", metavar="TOPIC",
                        help="play only these (default: all but /clock, /diagnostics and */output/*)")
    result.add_argument("--rate", type=float, default=1.0, help="2.0 plays twice as fast (default 1.0)")
    result.add_argument("--loop", action="store_true", help="begin again at the end")
    result.add_argument("--restamp", action="store_true", help="move header stamps to now, as living sensors would")
    result.add_argument("--clock", type=float, default=0.0, metavar="HZ", help="publish /clock with the bag's time")
    result.add_argument("--wait-for", nargs="*", metavar="TOPIC",
                        help="begin when each of these topics has a subscriber; without names, when any topic has")
    result.add_argument("--timeout", type=float, default=30.0, help="longest wait for subscribers, seconds")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `bag_player`; exit status 0 when the bag was played or playing was interrupted."""
    argv = list(sys.argv if arguments is None else ["bag_player", *arguments])
    options = parser().parse_args(remove_ros_args(argv)[1:])
    use_transport_profile()
    rclpy.init(args=argv)
    node = Node("bag_player")
    try:
        with BagReader(options.bag) as reader:
            player = Player(node, reader, topics=options.topics, rate=options.rate, restamp=options.restamp,
                            clock_hz=options.clock)
            node.context.on_shutdown(player.stop)
            if options.wait_for is not None:
                player.wait_for_subscribers(options.wait_for, options.timeout)
            player.play(options.loop)
            node.get_logger().info(f"played {player.published} messages of {options.bag}")
        return 0
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except OccPerceptionError as error:
        node.get_logger().fatal(str(error))
        return 1
    finally:
        end_in_peace()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
