"""A recording as one stream of sensor events, with default or named topics."""

import numpy as np
import pytest

from occ_perception.calibration import Rig, RigCamera, RigLidar
from occ_perception.errors import RecordingError
from occ_perception.recordings import BagReader, BagWriter, MessageEncoder, make, sensor_events
from occ_perception.types import CameraImage, Odometry, PointCloud

ENCODER = MessageEncoder(make)
LENS = {"width": 8, "height": 6, "model": "pinhole", "parameters": (5, 5, 4, 3), "T_base_camera": np.eye(4)}
RIG = Rig(name="two_eyes",
          cameras=(RigCamera(name="left", frame="l", **LENS), RigCamera(name="right", frame="r", **LENS)),
          lidars=(RigLidar(name="top", frame="t", T_base_lidar=np.eye(4)),))


def image(camera, stamp_ns):
    return CameraImage(camera, stamp_ns, np.full((6, 8, 3), 50, np.uint8))


@pytest.fixture
def bag(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        for i, stamp in enumerate((1000, 2000)):
            late = stamp + 500  # the log clock runs behind the stamps
            writer.write("/odometry", late, ENCODER.odometry(Odometry(stamp, np.eye(4))))
            writer.write("/camera/left/image", late + 1, ENCODER.image(image("left", stamp)))
            writer.write("/camera/left/image/compressed", late + 2, ENCODER.compressed_image(image("left", stamp)))
            writer.write("/camera/right/image", late + 3, ENCODER.image(image("right", stamp)))
            cloud = PointCloud("top", stamp, np.full((3, 3), i + 1.0, np.float32))
            writer.write("/lidar/top/points", late + 4, ENCODER.point_cloud(cloud))
            writer.write("/elsewhere/points", late + 5, ENCODER.point_cloud(cloud))
    with BagReader(tmp_path / "bag") as reader:
        yield reader


def test_events_follow_the_log_clock_and_carry_the_header_stamps(bag):
    events = list(sensor_events(bag, RIG))
    assert [(e.sensor, e.kind, e.stamp_ns) for e in events] == [
        (sensor, kind, stamp) for stamp in (1000, 2000)
        for sensor, kind in (("odometry", "odometry"), ("left", "image"), ("right", "image"), ("top", "cloud"))
    ]


def test_compressed_images_are_preferred_to_raw_ones(bag):
    kinds = {event.sensor: event.message.__msgtype__ for event in sensor_events(bag, RIG)}
    assert kinds["left"] == "sensor_msgs/msg/CompressedImage"
    assert kinds["right"] == "sensor_msgs/msg/Image"


def test_topics_can_be_named(bag):
    named = {"left": "/camera/left/image", "top": "/elsewhere/points"}
    kinds = {event.sensor: event.message.__msgtype__ for event in sensor_events(bag, RIG, named)}
    assert kinds["left"] == "sensor_msgs/msg/Image"
    assert kinds["top"] == "sensor_msgs/msg/PointCloud2"


def test_a_missing_named_topic_is_answered_with_those_there_are(bag):
    with pytest.raises(RecordingError, match=r"no topic /nowhere(.|\n)*/lidar/top/points"):
        sensor_events(bag, RIG, {"top": "/nowhere"})


def test_a_camera_without_images_is_answered_with_the_topics_there_are(bag):
    third = RigCamera(name="rear", frame="x", **LENS)
    rig = RIG.model_copy(update={"cameras": (*RIG.cameras, third)})
    with pytest.raises(RecordingError, match=r"no topic /camera/rear/image/compressed(.|\n)*/camera/left/image"):
        sensor_events(bag, rig)


def test_a_lidar_and_odometry_that_were_not_recorded_are_simply_absent(tmp_path):
    with BagWriter(tmp_path / "bag") as writer:
        for name in ("left", "right"):
            writer.write(f"/camera/{name}/image", 1, ENCODER.image(image(name, 1)))
    with BagReader(tmp_path / "bag") as reader:
        assert [event.sensor for event in sensor_events(reader, RIG)] == ["left", "right"]


def test_a_topic_for_a_sensor_that_the_rig_lacks_is_refused(bag):
    with pytest.raises(RecordingError, match=r"rear.*left, right, top, odometry"):
        sensor_events(bag, RIG, {"rear": "/camera/left/image"})
