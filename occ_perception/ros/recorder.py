"""Records topics into an MCAP bag: messages stay serialised, the queue is bounded, the bag is whole or absent."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from occ_perception.errors import OccPerceptionError
from occ_perception.recordings.bag import BagWriter
from occ_perception.recordings.messages import typestore
from occ_perception.ros.environment import use_transport_profile
from occ_perception.ros.interrupts import end_in_peace, spin_until_interrupted
from occ_perception.ros.messages import message_class

_LOOK_EVERY_S = 0.1
_END = None


class Recorder(Node):
    """Subscribes to each wanted topic when it appears, and writes what comes in a thread of its own.

    Args:
        writer: an open bag; the caller closes it after `finish`.
        topics: topic names, resolved in the node's namespace; empty records every topic of a known type.
        queue_size: messages that may wait for the disk; more are dropped and counted.
    """

    def __init__(self, writer: BagWriter, topics: Sequence[str] = (), *, queue_size: int = 256) -> None:
        super().__init__("bag_recorder")
        self.recorded: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.failure: OccPerceptionError | None = None
        self._writer = writer
        self._wanted = {self.resolve_topic_name(topic) for topic in topics}
        self._ignored: set[str] = set()
        self._queue: queue.Queue[tuple[str, int, str, bytes] | None] = queue.Queue(queue_size)
        self._taken: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._write, name="bag writer", daemon=True)
        self._thread.start()
        self._look_around()
        self.create_timer(_LOOK_EVERY_S, self._look_around)

    @property
    def missing(self) -> set[str]:
        """Wanted topics that nobody has published yet."""
        return self._wanted - self._taken.keys()

    def _look_around(self) -> None:
        """Subscribe to wanted topics that have appeared, with the quality of service that they are offered with."""
        for topic, types in self.get_topic_names_and_types():
            if topic in self._taken or topic in self._ignored or (self._wanted and topic not in self._wanted):
                continue
            offers = self.get_publishers_info_by_topic(topic)
            if not offers:
                continue
            try:
                if types[0] not in typestore().fielddefs:
                    raise ImportError(f"{types[0]} is unknown to the bag writer")
                cls = message_class(types[0])
            except (ImportError, AttributeError) as error:
                self._ignored.add(topic)
                self.get_logger().warning(f"{topic} is not recorded: {error}")
                continue
            reliable = all(o.qos_profile.reliability == ReliabilityPolicy.RELIABLE for o in offers)
            latched = all(o.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
            profile = QoSProfile(
                history=HistoryPolicy.KEEP_LAST, depth=50,
                reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            )
            self._taken[topic] = self.create_subscription(
                cls, topic, lambda data, topic=topic, kind=types[0]: self._keep(topic, kind, data), profile, raw=True
            )
            self.get_logger().info(f"recording {topic} [{types[0]}]")

    def _keep(self, topic: str, type_name: str, data: bytes) -> None:
        try:
            self._queue.put_nowait((topic, self.get_clock().now().nanoseconds, type_name, data))
        except queue.Full:
            self.dropped[topic] += 1

    def _write(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self.failure is not None:
                self.dropped[item[0]] += 1
                continue
            try:
                self._writer.write_raw(*item)
                self.recorded[item[0]] += 1
            except Exception as error:  # such as a full disk; whatever it was, the queue must not run full
                self.failure = (error if isinstance(error, OccPerceptionError)
                                else OccPerceptionError(f"{type(error).__name__}: {error}", where=item[0]))
                self.get_logger().error(f"nothing is recorded any more: {self.failure}")

    def finish(self) -> None:
        """Write what still waits; afterwards nothing is taken any more."""
        for subscription in self._taken.values():
            self.destroy_subscription(subscription)
        self._queue.put(_END)
        self._thread.join()


def parser() -> argparse.ArgumentParser:
    """Command line of the recorder."""
    result = argparse.ArgumentParser(prog="bag_recorder", description="Record topics into an MCAP bag.")
    result.add_argument("topics", nargs="*", help="topics to record (default: all of known types)")
    result.add_argument("-o", "--output", type=Path, required=True, help="bag to write; a name in .mcap gives one file")
    result.add_argument("--overwrite", action="store_true", help="replace an existing bag")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `bag_recorder`: records until SIGINT or SIGTERM, then finishes the bag; 0 when it is whole."""
    argv = list(sys.argv if arguments is None else ["bag_recorder", *arguments])
    options = parser().parse_args(remove_ros_args(argv)[1:])
    use_transport_profile()
    rclpy.init(args=argv)
    try:
        with BagWriter(options.output, overwrite=options.overwrite) as writer:
            recorder = Recorder(writer, options.topics)
            started = time.monotonic()
            spin_until_interrupted(recorder)
            end_in_peace()
            recorder.finish()
            if recorder.failure is not None:
                raise recorder.failure
            _report(recorder, options.output, time.monotonic() - started)
        return 0
    except OccPerceptionError as error:
        print(f"bag_recorder: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        rclpy.try_shutdown()


def _report(recorder: Recorder, output: Path, seconds: float) -> None:
    lost = sum(recorder.dropped.values())
    print(f"recorded {sum(recorder.recorded.values())} messages of {len(recorder.recorded)} topics in {seconds:.1f} s "
          f"to {output}" + (f"; {lost} were dropped because the disk was too slow" if lost else ""), flush=True)
    if recorder.missing:
        print(f"nobody published {', '.join(sorted(recorder.missing))}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
