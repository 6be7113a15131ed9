"""Player and recorder as real processes: what is played is what is recorded, byte by byte."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)

from occ_perception.errors import RecordingError
from occ_perception.recordings.bag import BagReader, BagWriter
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.recordings.messages import make, typestore
from occ_perception.ros.player import Timeline, _of_living_nodes, restamped
from occ_perception.types import CameraImage, Odometry

pytestmark = pytest.mark.ros

START_NS = 1_700_000_000_000_000_000
LATER_NS = START_NS + 10**17
FRAMES = 12
TOPICS = ["/camera/front/image", "/odometry"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.55 s of a camera and its odometry at 20 Hz."""
    path = tmp_path_factory.mktemp("bags") / "drive.mcap"
    encoder = MessageEncoder(make)
    with BagWriter(path) as writer:
        for i in range(FRAMES):
            stamp_ns = START_NS + 50_000_000 * i
            pixels = np.full((48, 64, 3), i, np.uint8)
            writer.write(TOPICS[0], stamp_ns, encoder.image(CameraImage("front", stamp_ns, pixels)))
            writer.write(TOPICS[1], stamp_ns, encoder.odometry(Odometry(stamp_ns, np.eye(4))))
    return path


def contents(path: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with BagReader(path) as reader:
        for topic, _, _, data in reader.raw_messages():
            found.setdefault(topic, []).append(bytes(data))
    return found


def play_and_record(operator: Any, bag: Path, output: Path, *options: str, ending: signal.Signals) -> str:
    """Play a bag once into a recorder that is ended by a signal; what the player wrote."""
    recorder = operator.start("recorder", "occ_perception.ros.recorder", ["-o", str(output), *TOPICS])
    player = operator.start("player", "occ_perception.ros.player", [str(bag), "--wait-for", *TOPICS, *options])
    operator.forget(player)
    assert player.wait(30.0) == 0, player.output()
    operator.forget(recorder)
    recorder.send(ending)
    if ending == signal.SIGINT:
        recorder.send(ending)  # as launch does on top of the terminal
    assert recorder.wait(10.0) == 0, recorder.output()
    return str(player.output())


def test_what_is_played_is_recorded_byte_by_byte(operator: Any, bag: Path, tmp_path: Path) -> None:
    play_and_record(operator, bag, tmp_path / "copy.mcap", ending=signal.SIGINT)
    assert contents(tmp_path / "copy.mcap") == contents(bag)
    assert [path.name for path in tmp_path.iterdir()] == ["copy.mcap"]


def test_restamped_messages_live_now_and_keep_their_distances(operator: Any, bag: Path, tmp_path: Path) -> None:
    play_and_record(operator, bag, tmp_path / "now.mcap", "--restamp", "--rate", "2.0", ending=signal.SIGTERM)
    with BagReader(tmp_path / "now.mcap") as reader:
        images = [(time_ns, message) for topic, time_ns, message in reader.messages([TOPICS[0]])]
    stamps = np.array([m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in images])
    np.testing.assert_array_equal(np.diff(stamps), 25_000_000)
    delays_ms = (np.array([time_ns for time_ns, _ in images]) - stamps) / 1e6
    assert (delays_ms > -1.0).all()
    assert np.median(delays_ms) < 100.0
    assert [int(m.data[0]) for _, m in images] == list(range(FRAMES))


def test_a_truncated_bag_ends_the_player_with_one_clear_message(operator: Any, bag: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(bag.read_bytes()[:-200])
    player = operator.start("cut_player", "occ_perception.ros.player", [str(cut)])
    operator.forget(player)
    assert player.wait(20.0) == 1
    assert "is cut off" in player.output()
    assert "Traceback" not in player.output()


def test_a_player_without_listeners_says_so(operator: Any, bag: Path) -> None:
    player = operator.start("lonely", "occ_perception.ros.player", [str(bag), "--wait-for", "--timeout", "0.1"])
    operator.forget(player)
    assert player.wait(20.0) == 1
    assert "nobody subscribed to any topic" in player.output()


def test_a_recorder_that_may_not_overwrite_leaves_the_bag_alone(operator: Any, bag: Path) -> None:
    before = bag.read_bytes()
    recorder = operator.start("refused", "occ_perception.ros.recorder", ["-o", str(bag), "/odometry"])
    operator.forget(recorder)
    assert recorder.wait(20.0) == 1
    assert "exists already" in recorder.output()
    assert bag.read_bytes() == before


def test_restamping_changes_the_stamp_and_nothing_else() -> None:
    message = MessageEncoder(make).odometry(Odometry(START_NS + 250, np.eye(4)))
    data = bytes(typestore().serialize_cdr(message, message.__msgtype__))
    moved = restamped(data, Timeline(START_NS, LATER_NS, 1.0))
    back = typestore().deserialize_cdr(moved, message.__msgtype__)
    assert back.header.stamp.sec * 10**9 + back.header.stamp.nanosec == LATER_NS + 250
    assert moved[:4] == data[:4]
    assert moved[12:] == data[12:]


def test_a_stamp_of_zero_stays_and_one_that_ros_cannot_hold_is_refused() -> None:
    def stamped(stamp_ns: int) -> bytes:
        message = MessageEncoder(make).odometry(Odometry(stamp_ns, np.eye(4)))
        return bytes(typestore().serialize_cdr(message, message.__msgtype__))

    assert restamped(stamped(0), Timeline(START_NS, LATER_NS, 1.0)) == stamped(0)
    with pytest.raises(RecordingError, match="too far"):
        restamped(stamped(5), Timeline(START_NS, LATER_NS, 0.1))


@pytest.mark.parametrize(("topic", "played"), [
    ("/clock", False), ("/diagnostics", False), ("/perception_node/output/voxels", False), ("/odometry", True),
    ("/truth/occupancy", True),
])
def test_what_living_nodes_say_is_not_played_unasked(topic: str, played: bool) -> None:
    assert _of_living_nodes(topic) is not played


def test_a_timeline_at_double_rate_halves_distances() -> None:
    timeline = Timeline(start_ns=1000, wall_ns=5000, rate=2.0)
    assert timeline.wall(1400) == 5200
    assert timeline.bag(5200) == 1400


def test_a_rate_that_is_no_speed_is_refused(bag: Path) -> None:
    from occ_perception.ros.player import Player

    with BagReader(bag) as reader, pytest.raises(RecordingError, match="rate must be positive"):
        Player(None, reader, rate=0.0)  # type: ignore[arg-type]
