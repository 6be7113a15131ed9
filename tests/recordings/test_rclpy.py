"""Messages of rclpy and of rosbags are the same to encoder and decoder, and the same on the wire."""

import numpy as np
import occ_perception_msgs.msg  # noqa: F401  (tells that the workspace is built)
import pytest
from rclpy import serialization

from occ_perception.calibration import RigCamera
from occ_perception.errors import BadMessage
from occ_perception.geometry import VoxelGridSpec, se3
from occ_perception.recordings import MessageEncoder, decode, messages, typestore
from occ_perception.ros import messages as ros_messages
from occ_perception.taxonomy import SIDEWALK
from occ_perception.types import (
    CameraImage,
    FlowField,
    Odometry,
    PointCloud,
    TrackedInstance,
    Trajectory,
    VoxelGrid,
)

pytestmark = pytest.mark.ros

STAMP_NS = 1_700_000_000_987_654_321
RNG = np.random.default_rng(0)
SPEC = VoxelGridSpec((0.0, -1.0, -0.5), (2.0, 1.0, 1.0), (0.5, 0.5, 0.25))
GRID = VoxelGrid(
    SPEC, STAMP_NS, RNG.choice(np.array([0, 3, 11, 255], np.uint8), SPEC.shape),
    confidence=RNG.integers(0, 256, SPEC.shape, np.uint8),
    instance_rows=RNG.integers(0, 3, SPEC.shape, np.uint16), track_ids=np.array([7, 2**63], np.uint64), model_id="m",
    T_odom_grid=se3.from_euler(0, 0, 1.0, (1, 2, 3)), sensor_stamps_ns={"front": STAMP_NS},
    flags=frozenset({"no_cloud"}),
)
IMAGE = CameraImage("front", STAMP_NS, RNG.integers(0, 256, (6, 8, 3), np.uint8))
POINTS = RNG.normal(size=(30, 3)).astype(np.float32)
CLOUD = PointCloud("top", STAMP_NS, POINTS, POINTS[:, 0].copy(), np.linspace(0, 10**8, 30).astype(np.int64))
FLOW = FlowField(SPEC, STAMP_NS, np.array([[1, 2, 3]]), np.ones((1, 3), np.float32), np.ones(1, np.float32))
TRAJECTORY = Trajectory(STAMP_NS, np.array([[1, 0], [2, 1]], np.float32), np.array([0.5, 1], np.float32))
INSTANCE = TrackedInstance(2**63, 11, 0.5, se3.from_euler(0, 0, 1), np.ones(3), np.ones(3))
CAMERA = RigCamera(name="front", frame="f", width=8, height=6, model="equidistant", parameters=(5, 5, 4, 3),
                   T_base_camera=np.eye(4))

ENCODINGS = {
    "image": lambda e: e.image(IMAGE),
    "compressed_image": lambda e: e.compressed_image(IMAGE),
    "camera_info": lambda e: e.camera_info(CAMERA),
    "point_cloud": lambda e: e.point_cloud(CLOUD),
    "odometry": lambda e: e.odometry(Odometry(STAMP_NS, se3.from_euler(0.1, 0.2, 0.3, (1, 2, 3)))),
    "imu": lambda e: e.imu(STAMP_NS, (1, 2, 3), (4, 5, 6)),
    "voxel_grid": lambda e: e.voxel_grid(GRID),
    "flow_field": lambda e: e.flow_field(FLOW),
    "planned_trajectory": lambda e: e.planned_trajectory(TRAJECTORY, model_id="m"),
    "tracked_instances": lambda e: e.tracked_instances(STAMP_NS, [INSTANCE], taxonomy="sidewalk14", model_id="m"),
    "path": lambda e: e.path(TRAJECTORY),
    "labelled_points": lambda e: e.labelled_points(GRID),
    "occupancy_grid": lambda e: e.occupancy_grid(GRID),
    "markers": lambda e: e.markers(GRID, max_cubes=5),
    "label_names": lambda e: e.label_names(SIDEWALK),
}
DECODERS = {
    "image": decode.decode_image, "compressed_image": decode.decode_image, "odometry": decode.decode_odometry,
    "point_cloud": lambda message: decode.decode_points(message, "top"), "voxel_grid": decode.decode_voxel_grid,
    "flow_field": decode.decode_flow_field, "planned_trajectory": decode.decode_trajectory,
    "tracked_instances": decode.decode_tracked_instances,
}
BY_ROS, BY_ROSBAGS = MessageEncoder(ros_messages.make), MessageEncoder(messages.make)


def type_of(encode):
    return encode(BY_ROSBAGS).__msgtype__


@pytest.mark.parametrize("kind", ENCODINGS)
def test_what_rclpy_sends_is_what_rosbags_reads(kind):
    """`markers` leave a field at its default, which rosbags and rclpy fill alike."""
    encode = ENCODINGS[kind]
    wire = serialization.serialize_message(encode(BY_ROS))
    store, type_name = typestore(), type_of(encode)
    ours = store.deserialize_cdr(store.serialize_cdr(encode(BY_ROSBAGS), type_name), type_name)
    assert repr(store.deserialize_cdr(wire, type_name)) == repr(ours)


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    return a == b


@pytest.mark.parametrize("kind", DECODERS)
def test_what_rosbags_wrote_is_decoded_from_rclpys_message(kind):
    encode, decoder = ENCODINGS[kind], DECODERS[kind]
    message = encode(BY_ROSBAGS)
    wire = bytes(typestore().serialize_cdr(message, message.__msgtype__))
    received = serialization.deserialize_message(wire, ros_messages.message_class(message.__msgtype__))
    assert same(decoder(received), decoder(message))


def test_bad_rclpy_messages_are_refused_alike():
    message = BY_ROS.image(IMAGE)
    message.encoding = "32FC3"
    with pytest.raises(BadMessage) as caught:
        decode.decode_image(message)
    assert caught.value.reason == "unknown_encoding"
    message = BY_ROS.voxel_grid(GRID)
    message.shape[0] = 5
    with pytest.raises(BadMessage):
        decode.decode_voxel_grid(message)
