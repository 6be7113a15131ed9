"""Where sensors are found in a bag, and a recording as one stream of sensor events in the order of its clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from occ_perception.calibration import Rig
from occ_perception.errors import RecordingError
from occ_perception.recordings.bag import BagReader
from occ_perception.recordings.decode import stamp_ns

ODOMETRY = "odometry"
"""Name of the odometry among sensors; rigs name their cameras and LiDARs."""
ODOMETRY_TOPIC = "/odometry"
IMU_TOPIC = "/imu"
STATIC_TRANSFORMS_TOPIC = "/tf_static"
TRUTH_OCCUPANCY_TOPIC = "/truth/occupancy"
TRUTH_FLOW_TOPIC = "/truth/flow"
TRUTH_INSTANCES_TOPIC = "/truth/instances"
TRUTH_TRAJECTORY_TOPIC = "/truth/trajectory"

Kind = Literal["image", "cloud", "odometry"]


def image_topic(camera: str) -> str:
    """Default topic of a camera's raw images."""
    return f"/camera/{camera}/image"


def compressed_image_topic(camera: str) -> str:
    """Default topic of a camera's compressed images."""
    return f"/camera/{camera}/image/compressed"


def camera_info_topic(camera: str) -> str:
    """Default topic of a camera's calibration."""
    return f"/camera/{camera}/camera_info"


def points_topic(lidar: str) -> str:
    """Default topic of a LiDAR's scans."""
    return f"/lidar/{lidar}/points"


@dataclass(frozen=True)
class SensorEvent:
    """One message of one sensor. `stamp_ns` is the header's stamp; the message is not decoded yet."""

    sensor: str
    kind: Kind
    stamp_ns: int
    message: Any


def sensor_topics(reader: BagReader, rig: Rig, topics: Mapping[str, str] | None = None) -> dict[str, tuple[str, Kind]]:
    """Which topic of the bag belongs to which sensor: topic -> (sensor, kind).

    Every camera must be there, compressed (preferred) or raw. LiDARs and odometry at their default topics are
    taken where they are; a topic that is named in `topics` must be there.

    Args:
        topics: topic by sensor name (a camera or LiDAR of the rig, or `odometry`), instead of the default.

    Raises:
        RecordingError: a topic is missing (the message lists those there are), or `topics` names no sensor of the rig.
    """
    named = dict(topics or {})
    kinds: dict[str, Kind] = {camera.name: "image" for camera in rig.cameras}
    kinds |= {lidar.name: "cloud" for lidar in rig.lidars}
    kinds[ODOMETRY] = "odometry"
    if foreign := sorted(named.keys() - kinds.keys()):
        raise RecordingError(f"topics are named for {', '.join(foreign)}", where=f"rig {rig.name}",
                             fix=f"Its sensors: {', '.join(kinds)}.")
    reader.require(named.values())
    found: dict[str, tuple[str, Kind]] = {}
    for sensor, kind in kinds.items():
        if kind == "image":
            candidates = [compressed_image_topic(sensor), image_topic(sensor)]
        else:
            candidates = [points_topic(sensor) if kind == "cloud" else ODOMETRY_TOPIC]
        topic = named.get(sensor) or next((name for name in candidates if name in reader.topics), None)
        if topic is None and kind == "image":
            reader.require(candidates[:1])
        if topic is not None:
            found[topic] = (sensor, kind)
    return found


def sensor_events(reader: BagReader, rig: Rig, topics: Mapping[str, str] | None = None, *,
                  start_ns: int | None = None, end_ns: int | None = None) -> Iterator[SensorEvent]:
    """The rig's sensors as recorded, in order of log time. Arguments and errors as `sensor_topics`.

    Args:
        start_ns, end_ns: as of `BagReader.raw_messages`.
    """
    found = sensor_topics(reader, rig, topics)
    return (
        SensorEvent(*found[topic], stamp_ns(message.header), message)
        for topic, _, message in reader.messages(found, start_ns=start_ns, end_ns=end_ns)
    )
