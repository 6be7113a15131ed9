"""rclpy messages made for the encoder: large fields must take the fast way, and say the same as rosbags messages."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest
import rclpy  # noqa: F401  (the module is skipped where ROS 2 is absent)
from rclpy.serialization import deserialize_message, serialize_message

from occ_perception.geometry import VoxelGridSpec
from occ_perception.recordings import messages as bag_messages
from occ_perception.recordings.decode import decode_voxel_grid
from occ_perception.recordings.encode import MessageEncoder
from occ_perception.ros.camera_check import differences
from occ_perception.ros.messages import make, message_class, packed
from occ_perception.types import VoxelGrid

pytestmark = pytest.mark.ros


def grid() -> VoxelGrid:
    spec = VoxelGridSpec((0.0, -1.0, 0.0), (2.0, 1.0, 1.0), 0.5)
    rng = np.random.default_rng(3)
    return VoxelGrid(
        spec=spec, stamp_ns=1_700_000_000_123_456_789, labels=rng.integers(0, 14, spec.shape, dtype=np.uint8),
        confidence=rng.integers(0, 255, spec.shape, dtype=np.uint8),
        instance_rows=rng.integers(0, 3, spec.shape).astype(np.uint16), track_ids=np.array([7, 2**60], np.uint64),
        model_id="x", T_odom_grid=np.eye(4), sensor_stamps_ns={"front": 5}, flags=frozenset({"no_odometry"}))


def test_a_grid_survives_the_way_through_rclpy_and_cdr() -> None:
    sent = grid()
    message = MessageEncoder(make).voxel_grid(sent)
    received = decode_voxel_grid(deserialize_message(serialize_message(message), type(message)))
    np.testing.assert_array_equal(received.labels, sent.labels)
    np.testing.assert_array_equal(received.confidence, sent.confidence)
    np.testing.assert_array_equal(received.instance_rows, sent.instance_rows)
    np.testing.assert_array_equal(received.track_ids, sent.track_ids)
    assert (received.stamp_ns, received.flags, received.sensor_stamps_ns) == (sent.stamp_ns, sent.flags, {"front": 5})


def test_bags_and_nodes_write_the_same_message() -> None:
    store = bag_messages.typestore()
    theirs = MessageEncoder(bag_messages.make).voxel_grid(grid())
    ours = store.deserialize_cdr(serialize_message(MessageEncoder(make).voxel_grid(grid())), theirs.__msgtype__)
    again, expected = (bytes(store.serialize_cdr(message, theirs.__msgtype__)) for message in (ours, theirs))
    assert again == expected  # serialised by one library, whose padding is the same


def test_large_fields_are_filled_without_touching_every_element() -> None:
    labels = np.zeros(500_000, np.uint8)
    make("occ_perception_msgs/msg/VoxelGrid", labels=labels)  # imports
    fastest_s = min(_seconds(lambda: make("occ_perception_msgs/msg/VoxelGrid", labels=labels)) for _ in range(20))
    slow_s = _seconds(lambda: list(labels))
    assert fastest_s < 0.25 * slow_s


def _seconds(work: object) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - began


@pytest.mark.parametrize(("values", "typecode"), [
    (np.arange(6, dtype=np.float64).reshape(2, 3), "f"), ([1, 2, 3], "H"), (b"\x01\x02", "B"),
    (array.array("i", [4]), "i"),
])
def test_packed_holds_the_same_numbers_in_the_type_of_the_field(values: object, typecode: str) -> None:
    result = packed(values, typecode)
    assert result.typecode == typecode
    np.testing.assert_array_equal(np.asarray(result), np.ravel(np.asarray(list(values)  # type: ignore[call-overload]
                                                                          if isinstance(values, bytes) else values)))


def test_an_unknown_package_is_named() -> None:
    with pytest.raises(ImportError, match="no_such_msgs"):
        message_class("no_such_msgs/msg/Thing")


def test_camera_info_from_the_rig_differs_in_nothing(rig) -> None:  # type: ignore[no-untyped-def]
    encoder = MessageEncoder(make)
    expected, given = (encoder.camera_info(rig.camera("front")) for _ in range(2))
    assert differences(expected, given) is None
    given.width, given.distortion_model = 65, "equidistant"
    text = differences(expected, given)
    assert text is not None
    assert "size 65 x 48 (rig: 64 x 48)" in text
    assert "'equidistant' (rig: 'plumb_bob')" in text
